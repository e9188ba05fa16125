"""Thousands of histories of three brokers keep every promise; with a rule broken, some do not."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from tests.sim.cluster.history import run_history
from tests.sim.cluster.ledger import Violation
from tests.sim.cluster.mutations import FAVOURED, MUTATIONS
from tests.sim.cluster.settings import FAULTS, settings_of
from tests.sim.cluster.world import World

HISTORIES = 2000
CHUNK = 250
MUTATED_HISTORIES = 1500


@pytest.mark.parametrize("first", range(0, HISTORIES, CHUNK))
def test_nothing_promised_is_lost(first: int) -> None:
    """A failure names its seed, and how to repeat it."""
    total: Counter[str] = Counter()
    for seed in range(first, first + CHUNK):
        total.update(run_history(seed)._asdict())
    # Something was at stake in them.
    assert total["acknowledged"] > 20 * CHUNK
    assert total["elections"] > 2 * CHUNK


def test_a_history_is_repeated_by_its_seed() -> None:
    assert run_history(7) == run_history(7)
    assert run_history(7) != run_history(8)


def test_seeds_cover_all_faults() -> None:
    kinds = Counter(fault for seed in range(CHUNK) for fault in settings_of(seed).faults)
    assert kinds.keys() == set(FAULTS)
    assert min(kinds.values()) > CHUNK / 10


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_broken_rule_is_noticed(mutation: str) -> None:
    with MUTATIONS[mutation](), pytest.raises(Violation):
        for seed in range(MUTATED_HISTORIES):
            run_history(seed, replace(settings_of(seed), **FAVOURED.get(mutation, {})))


@pytest.mark.parametrize("leads", [True, False])
def test_a_replica_whose_disk_failed_neither_leads_nor_counts(leads: bool) -> None:
    """Nobody waits for it, neither for a lag nor for the end of a session."""
    for seed in range(20):
        calm = replace(settings_of(seed), faults=(), loss=0.0, unanswered=0.0, slow=0.0, lag_ms=1e6)
        world = World(seed, calm)
        for number in world.brokers:
            world.start(number)
        world.run(500)
        replicas = set(world.metastore.state.replicas)
        leader = world.metastore.state.leader
        assert set(world.metastore.state.isr) == replicas
        failed = leader if leads else min(replicas - {leader})
        process = world.brokers[failed].process
        assert process is not None
        process.log.fail()
        world.run(world.now_ms + world.settings.session_ms / 2)
        state = world.metastore.state
        assert set(state.isr) == replicas - {failed}
        assert state.leader in state.isr
        # It stays so when all others are gone.
        for number in replicas - {failed}:
            world.crash(number, power=False)
        world.run(world.now_ms + 3 * world.settings.session_ms)
        assert world.metastore.state.leader == -1
