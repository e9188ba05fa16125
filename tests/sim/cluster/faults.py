"""What goes wrong in a history, and the healing at its end."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.sim.cluster.process import Process
    from tests.sim.cluster.world import World


class Faults:
    def __init__(self, world: World) -> None:
        self._world = world
        self._random = world.random
        self._active = True

    def start(self) -> None:
        self._next()

    def _next(self) -> None:
        if self._active:
            delay_ms = self._random.expovariate(1 / self._world.settings.fault_each_ms)
            self._world.at(delay_ms, self._strike)

    def _strike(self) -> None:
        if not self._active:
            return
        fault = self._random.choice(self._world.settings.faults)
        getattr(self, "_" + fault.replace("-", "_"))()
        self._next()

    def heal(self) -> None:
        """No more faults; what is broken is repaired, what stopped is started."""
        self._active = False
        world = self._world
        world.note("healing")
        world.is_healed = True
        world.metastore.set_config(min_insync_replicas="2")
        for broker in world.brokers.values():
            if broker.process is not None:
                broker.process.fetching.slow_until_ms = 0.0
        world.cut.clear()
        world.cut_off.clear()
        for broker in world.brokers.values():
            if broker.process is not None and broker.process.log.failed:
                world.crash(broker.broker_id, power=False)
            if broker.process is None:
                world.start(broker.broker_id)

    # ---- faults ---------------------------------------------------------------------------

    def _broker(self) -> int:
        """Often the leader: there is most to lose."""
        leader = self._world.metastore.state.leader
        if leader != -1 and self._random.random() < 0.5:
            return leader
        return self._random.randrange(len(self._world.brokers))

    def _until_start(self, number: int) -> None:
        """Back at once, or when the session is over and others lead."""
        session_ms = self._world.settings.session_ms
        delay_ms = self._random.choice([1, session_ms / 2, session_ms * 1.5, session_ms * 3])
        self._world.at(delay_ms * self._random.uniform(0.5, 1.2), partial(self._start, number))

    def _start(self, number: int) -> None:
        self._world.start(number)

    def _kill(self, *, power: bool = False) -> None:
        number = self._broker()
        self._world.crash(number, power=power)
        self._until_start(number)

    def _power(self) -> None:
        self._kill(power=True)

    def _disk(self) -> None:
        """A log directory fails: offline until the broker is started again."""
        number = self._broker()
        process = self._world.brokers[number].process
        if process is not None:
            self._world.note(f"the log directory of {number} fails")
            process.log.fail()
            delay_ms = self._random.choice([50, 600, 2000])
            self._world.at(delay_ms, partial(self._repair, process))

    def _repair(self, process: Process) -> None:
        """An operator notices."""
        number = process.broker_id
        if self._world.brokers[number].process is process:
            self._world.stop(number)
            self._world.crash(number, power=False)  # where it is paused
            self._until_start(number)

    def _wipe(self) -> None:
        """The disk is replaced by an empty one, which has another directory id."""
        number = self._broker()
        self._world.crash(number, power=True)
        self._world.wipe(number)
        self._until_start(number)

    def _damage(self) -> None:
        """A follower's files are found damaged, unless another has lost some of it too."""
        number = self._broker()
        process = self._world.brokers[number].process
        if process is None or not process.partition.is_follower:
            return
        ledger, batches = self._world.ledger, list(process.log.batches)
        if all(ledger.may_lose(number, batch, synced=True) for batch in batches):
            self._world.note(f"the files of {number} are damaged")
            ledger.lose(number, batches)
            process.log.is_damaged = True

    def _slow(self) -> None:
        """A follower falls behind, and catches up."""
        process = self._world.brokers[self._broker()].process
        if process is not None:
            self._world.note(f"{process.broker_id} fetches slowly")
            process.fetching.slow_until_ms = self._world.now_ms + self._random.uniform(100, 1500)

    def _min_insync(self) -> None:
        """The topic's min.insync.replicas is altered while it is written to."""
        least = self._random.choice(["2", "3"])
        self._world.note(f"min.insync.replicas becomes {least}")
        self._world.metastore.set_config(min_insync_replicas=least)

    def _outage(self) -> None:
        """All at once, or nearly."""
        power = self._random.random() < 0.5
        for number in self._world.brokers:
            if self._random.random() < 0.8:
                self._world.crash(number, power=power)
                self._until_start(number)

    def _clean(self) -> None:
        """A controlled shutdown, sometimes refused or unheard."""
        number = self._broker()
        controller = self._controller()
        if controller is not None and self._random.random() < 0.7:
            controller.controlling.hand_over(number)
        self._world.at(self._random.uniform(5, 80), partial(self._stop, number))

    def _stop(self, number: int) -> None:
        self._world.stop(number)
        self._until_start(number)

    def _pause(self) -> None:
        session_ms = self._world.settings.session_ms
        duration_ms = self._random.choice([30, session_ms / 2, session_ms * 2])
        self._world.pause(self._broker(), duration_ms * self._random.uniform(0.5, 1.5))

    def _cut_for(self, pairs: set[tuple[int, int]]) -> None:
        self._world.note(f"cut: {sorted(pairs)}")
        self._world.cut |= pairs
        self._world.at(self._random.uniform(20, 800), partial(self._mend, pairs))

    def _mend(self, pairs: set[tuple[int, int]]) -> None:
        self._world.cut -= pairs

    def _one_way(self) -> None:
        one, other = self._random.sample(sorted(self._world.brokers), 2)
        self._cut_for({(one, other)})

    def _isolate(self) -> None:
        """From the other brokers, and perhaps from the metastore too."""
        one = self._broker()
        others = [number for number in self._world.brokers if number != one]
        self._cut_for({(one, other) for other in others} | {(other, one) for other in others})
        if self._random.random() < 0.5:
            self._metastore(one)

    def _metastore(self, number: int | None = None) -> None:
        number = self._broker() if number is None else number
        self._world.note(f"{number} does not reach the metastore")
        self._world.cut_off.add(number)
        self._world.at(self._random.uniform(50, 1200), partial(self._reach, number))

    def _reach(self, number: int) -> None:
        self._world.cut_off.discard(number)

    # ---- administration -------------------------------------------------------------------

    def _controller(self) -> Process | None:
        for broker in self._world.brokers.values():
            if broker.process is not None and broker.process.controlling.is_active:
                return broker.process
        return None

    def _reassign(self) -> None:
        controller = self._controller()
        if controller is None:
            return
        if self._random.random() < 0.2:
            controller.controlling.cancel_reassignment()
        else:
            target = tuple(self._random.sample(sorted(self._world.brokers), 3))
            controller.controlling.reassign(target)

    def _prefer(self) -> None:
        controller = self._controller()
        if controller is not None:
            controller.controlling.prefer()
