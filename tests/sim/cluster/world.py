"""Time, messages and lives: what happens when, in an order that the seed decides."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from functools import partial
from itertools import count
from random import Random
from typing import Any

from tests.sim.cluster.ledger import Ledger
from tests.sim.cluster.metastore import Expired, Metastore, Session, Unknown
from tests.sim.cluster.model_log import ModelDisk
from tests.sim.cluster.process import Process
from tests.sim.cluster.settings import Settings
from trioq.metastore.layout import PartitionState


class Broker:
    """A broker id, its disk, and the process that runs on it, if one does."""

    def __init__(self, broker_id: int) -> None:
        self.broker_id = broker_id
        self.disk = ModelDisk()
        self.process: Process | None = None
        self.paused_until_ms = 0.0
        self.was_clean = True
        self.waiting: list[Callable[[], None]] = []
        """What arrived while it was paused."""


class World:
    """One history. Everything that happens is an event of the heap, at a virtual time."""

    def __init__(self, seed: int, settings: Settings, *, trace: bool = False) -> None:
        self.random = Random(seed)
        self.settings = settings
        self.now_ms = 0.0
        self.trace = trace
        self.is_healed = False
        self.steps = 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self.ledger = Ledger(self)
        self.brokers = {number: Broker(number) for number in range(settings.brokers)}
        replicas = tuple(range(min(3, settings.brokers)))
        state = PartitionState(-1, 0, replicas, (0,) * len(replicas), replicas)
        self.metastore = Metastore(
            state,
            {"min.insync.replicas": "2", "flush.policy": settings.flush_policy},
            self._metastore_changed,
            self.ledger.registered,
        )
        self.cut: set[tuple[int, int]] = set()
        """Pairs (from, to) between which messages do not arrive."""
        self.cut_off: set[int] = set()
        """Brokers that do not reach the metastore."""
        self.sessions: list[Session] = []

    # ---- time ---------------------------------------------------------------------------

    def at(self, delay_ms: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now_ms + delay_ms, next(self._numbers), action))

    def run(self, until_ms: float, done: Callable[[], bool] | None = None) -> None:
        """Let happen what is due before `until_ms`, or until `done` says so."""
        events = self._events
        ledger = self.ledger
        while events and events[0][0] <= until_ms:
            self.now_ms, _, action = heapq.heappop(events)
            action()
            self.steps += 1
            ledger.observe()
            if done is not None and done():
                return
        self.now_ms = until_ms

    def note(self, text: str) -> None:
        if self.trace:
            print(f"{self.now_ms:8.1f}  {text}")

    # ---- the network --------------------------------------------------------------------

    def delay_ms(self) -> float:
        """Mostly quick; sometimes longer than anybody waits, so that messages overtake others."""
        random = self.random
        if not self.is_healed and random.random() < self.settings.slow:
            return random.uniform(20, self.settings.slow_ms)
        return random.uniform(0.5, 4)

    def send(self, source: int, target: int, action: Callable[[Process], None]) -> None:
        """Have the process of `target` do `action` when the message has arrived, if it does."""
        if (source, target) in self.cut or self._is_lost():
            return
        self.at(self.delay_ms(), partial(self._arrive, source, target, action))

    def _arrive(self, source: int, target: int, action: Callable[[Process], None]) -> None:
        process = self.brokers[target].process
        if process is not None and (source, target) not in self.cut:
            self.on(process, partial(action, process))

    def _is_lost(self) -> bool:
        return not self.is_healed and self.random.random() < self.settings.loss

    def on(self, process: Process, action: Callable[[], None]) -> None:
        """Do it now, or when the process goes on after a pause; never once it is dead."""
        broker = process.broker
        if broker.process is not process:
            return
        if self.now_ms < broker.paused_until_ms:
            broker.waiting.append(partial(self.on, process, action))
        else:
            action()

    def later(self, process: Process, delay_ms: float, action: Callable[[], None]) -> None:
        """A timer of a process."""
        self.at(delay_ms, partial(self.on, process, action))

    # ---- the metastore ------------------------------------------------------------------

    def call(
        self, process: Process, operation: Callable[[], Any], answer: Callable[[Any], None]
    ) -> None:
        """Send an operation; `answer` gets its result, Unknown or Expired, or is never called.

        Of one process they arrive in order. One whose answer is lost may arrive too, even after
        later ones; or not at all.
        """
        random, broker = self.random, process.broker.broker_id
        session = process.session
        is_cut = broker in self.cut_off
        lost = is_cut or (not self.is_healed and random.random() < self.settings.unanswered)
        arrives = not lost or (not is_cut and random.random() < self.settings.late)
        at_ms = max(self.now_ms + self.delay_ms(), process.last_arrival_ms + 0.01)
        process.last_arrival_ms = at_ms
        if lost and random.random() < self.settings.late:
            at_ms += random.uniform(0, 2 * self.settings.session_ms)

        def arrive() -> None:
            if session.is_over:
                result: Any = Expired()
            elif arrives:
                session.expires_ms = self.now_ms + self.settings.session_ms
                result = operation()
            else:
                result = Unknown()
            if lost or broker in self.cut_off:
                self.later(process, self.settings.session_ms / 3, partial(answer, Unknown()))
            else:
                self.later(process, self.delay_ms(), partial(answer, result))

        self.at(at_ms - self.now_ms, arrive)

    def open_session(self, broker: int) -> Session:
        session = Session(broker, self.now_ms + self.settings.session_ms)
        self.sessions.append(session)
        self._watch_session(session)
        return session

    def _watch_session(self, session: Session) -> None:
        if session.is_over:
            return
        if session.expires_ms <= self.now_ms:
            self.note(f"the session of {session.broker} expires")
            self.metastore.end_session(session)
            return
        self.at(session.expires_ms - self.now_ms, partial(self._watch_session, session))

    def _metastore_changed(self, what: str) -> None:
        if what == "topics":
            self.note(f"state: {self.metastore.state}")
            self.ledger.state_written(self.metastore.state)
        for broker in self.brokers.values():
            if broker.process is not None:
                broker.process.feed.changed()

    # ---- lives --------------------------------------------------------------------------

    def start(self, number: int) -> None:
        broker = self.brokers[number]
        if broker.process is not None:
            return
        self.note(f"{number} starts, last stop {'clean' if broker.was_clean else 'unclean'}")
        broker.paused_until_ms = 0
        broker.waiting.clear()
        broker.process = Process(self, broker, was_clean=broker.was_clean)
        broker.was_clean = False
        broker.process.start()

    def crash(self, number: int, *, power: bool) -> None:
        """kill -9, or a power cut that takes unsynced bytes too."""
        broker = self.brokers[number]
        process = broker.process
        if process is None:
            return
        self.note(f"{number} {'loses power' if power else 'is killed'}")
        broker.process = None
        if power:
            may_lose = partial(self.ledger.may_lose, number)
            self.ledger.lose(number, process.log.lose_power(self.random, may_lose))
        self.ledger.harmed(number, process)

    def wipe(self, number: int) -> None:
        """A broker that is down gets an empty disk, unless another has lost some of it too."""
        broker = self.brokers[number]
        batches = list(broker.disk.batches)
        if broker.process is None and all(
            self.ledger.may_lose(number, batch, synced=True) for batch in batches
        ):
            self.note(f"{number} has an empty disk")
            self.ledger.lose(number, batches)
            self.ledger.harmed(number, None)
            broker.disk = ModelDisk()
            broker.was_clean = False

    def stop(self, number: int) -> None:
        """A clean stop: all is synced, the session is closed."""
        broker = self.brokers[number]
        process = broker.process
        if process is None or self.now_ms < broker.paused_until_ms:
            return
        self.note(f"{number} stops")
        process.close()
        broker.process = None
        broker.was_clean = process.stops_cleanly
        if not process.session.is_over and number not in self.cut_off:
            self.metastore.end_session(process.session)

    def pause(self, number: int, duration_ms: float) -> None:
        broker = self.brokers[number]
        self.note(f"{number} is paused for {duration_ms:.0f} ms")
        broker.paused_until_ms = self.now_ms + duration_ms
        self.at(duration_ms, partial(self._go_on, broker))

    def _go_on(self, broker: Broker) -> None:
        if self.now_ms < broker.paused_until_ms:
            return
        waiting, broker.waiting = broker.waiting, []
        self.random.shuffle(waiting)  # of buffers and timers anything may be seen first
        for action in waiting:
            action()
            self.ledger.observe()
