"""The benchmark of groups measures what it says."""

from __future__ import annotations

from bench.micro.group_cases import GroupRebalance


def test_a_measured_rebalance_is_a_whole_one():
    bench = GroupRebalance(5, 20, is_stored=True)
    before = bench.state.snapshot()
    after = bench.run().snapshot()
    assert (before.state, after.state) == ("Stable", "Stable")
    assert after.generation == before.generation + 1
    assert after.protocol == "cooperative-sticky"
    assert len({member.assignment for member in after.members}) == 5
    assert bench.state.subscribed_topics() == {"orders"}
    assert bench._store is not None
    assert bench._store.is_stored
    bench.heartbeats()
    assert bench.state.snapshot() == after
