"""One history: faults under load, healing, and the end."""

from __future__ import annotations

from functools import partial
from itertools import count
from typing import NamedTuple

from tests.sim.cluster.faults import Faults
from tests.sim.cluster.ledger import Ledger, Violation
from tests.sim.cluster.settings import Settings, settings_of
from tests.sim.cluster.world import World


class Outcome(NamedTuple):
    """How much happened, so that a test can insist that it was something."""

    steps: int
    acknowledged: int
    committed: int
    elections: int


def run_history(seed: int, settings: Settings | None = None, *, trace: bool = False) -> Outcome:
    """Raises Violation, naming the seed."""
    world = World(seed, settings or settings_of(seed), trace=trace)
    world.note(str(world.settings))
    try:
        _run(world)
    except Exception as error:
        error.add_note(f"repeat with: python -m tests.sim.cluster --seeds {seed} --trace")
        raise
    ledger = world.ledger
    return Outcome(
        world.steps,
        len(ledger.acknowledged),
        len(ledger.committed),
        ledger.elections,
    )


def _run(world: World) -> None:
    for number in world.brokers:
        world.start(number)
    load = _Load(world)
    load.go_on()
    faults = Faults(world)
    world.at(150, faults.start)
    world.run(world.settings.active_ms)
    faults.heal()
    ledger = world.ledger
    healed_ms = world.now_ms
    last = load.last_value
    world.run(
        healed_ms + world.settings.healing_ms,
        lambda: load.last_acknowledged() > last and load.stops_and(ledger.is_whole),
    )
    if not ledger.is_whole():
        raise Violation(
            f"not whole {world.settings.healing_ms:.0f} ms after healing: "
            f"{_described(world, ledger)}"
        )
    ledger.check_end()


def _described(world: World, ledger: Ledger) -> str:
    logs = {
        number: (
            broker.process.log.log_end_offset,
            broker.process.log.high_watermark,
            broker.process.broker_epoch,
            broker.process.partition.leader_epoch,
            broker.process.controlling,
        )
        for number, broker in world.brokers.items()
        if broker.process is not None
    }
    return (
        f"{world.metastore.state}, by broker log end, high watermark, broker epoch and leader "
        f"epoch: {logs}, committed {ledger.committed_end}, epochs {world.metastore.broker_epochs}"
    )


class _Load:
    """Producers, who send to whom they take for the leader, and consumers."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._values = count()
        self.last_value = -1
        self._is_stopped = False

    def go_on(self) -> None:
        if self._is_stopped:
            return
        world, random = self._world, self._world.random
        state = world.metastore.state
        target = state.leader
        if target == -1 or random.random() < 0.3:
            target = random.randrange(len(world.brokers))
        self.last_value = next(self._values)
        action = partial(_produce, self.last_value, random.randint(1, 3))
        world.at(world.delay_ms(), partial(world._arrive, -1, target, action))
        world.at(world.delay_ms(), partial(world._arrive, -1, target, _consume))
        world.at(random.expovariate(1 / world.settings.write_each_ms), self.go_on)

    def last_acknowledged(self) -> int:
        acknowledged = self._world.ledger.acknowledged
        return next(reversed(acknowledged)) if acknowledged else -1

    def stops_and(self, condition) -> bool:
        """No more is sent from now on."""
        self._is_stopped = True
        return condition()


def _produce(value, records, process) -> None:
    process.produce(value, records)


def _consume(process) -> None:
    process.world.ledger.read_by_consumer(process)
