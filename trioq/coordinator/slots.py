"""The coordination slots that this broker leads: at which epoch, and whether they are loaded.

A group id hashes to a slot, and the slot's leader is the group's coordinator. A broker leads a
slot by a state of the image that names it in its present broker epoch (SAFETY rule 6). The slot's
epoch fences every write (rule 7); past the session's lease nothing is led and nothing answered
(rule 12): what was led then is read anew once the lease is back. A slot is also moved while its
leader lives, and then no lease keeps the next leader waiting: so after a gap of the loop nothing is
told from memory before the image is that of now. Writes are fenced, and go on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import trio

from trioq import logs
from trioq.clock import Clock
from trioq.errors import CoordinatorLoadInProgress, KafkaError, NotCoordinator
from trioq.metastore import layout, store
from trioq.metastore.image import ClusterImage, SlotImage
from trioq.metastore.layout import Slots
from trioq.metastore.session import SessionState
from trioq.metastore.write_chain import FencedChain
from trioq.metrics import Counters

_log = logs.get_logger(__name__)

_LOADING = CoordinatorLoadInProgress("The groups of this slot are being read.")
_BEHIND = CoordinatorLoadInProgress("This broker stood still: it looks what it leads by now.")
_NOT_LED = NotCoordinator("This broker does not lead the slot of this group.")

_NOT_REGISTERED: Final = -1
_SHORTEST_WAIT_S: Final = 0.1
"""Between two looks at a lease that has ended although the store answers."""


class LedSlot:
    """A slot while it is led here.

    `refusal` is what every request is answered while the slot cannot serve: that it loads, or
    that it is led here no longer. `on_demotion` is called once, by a plain call, when it is
    demoted. `may_have_writes`: this broker led it in the same slot epoch before, so a write of
    then may still be under way; one empty write of the chain overtakes all of them.
    """

    __slots__ = (
        "_scopes",
        "chain",
        "epoch",
        "is_led",
        "may_have_writes",
        "number",
        "on_demotion",
        "refusal",
    )

    def __init__(
        self, metastore: store.Metastore, number: int, epoch: int, *, may_have_writes: bool = False
    ) -> None:
        self.number = number
        self.epoch = epoch
        self.may_have_writes = may_have_writes
        self.is_led = True
        self.on_demotion: Callable[[LedSlot], None] | None = None
        self._scopes: set[trio.CancelScope] = set()
        self.refusal: KafkaError | None = _LOADING
        self.chain = FencedChain(
            metastore,
            fence=store.Check(layout.slot_path(number), epoch),
            seq_path=layout.slot_seq_path(number),
        )

    @contextmanager
    def term(self) -> Iterator[None]:
        """For a task of this slot: its body is cancelled when the slot is demoted."""
        scope = trio.CancelScope()
        if not self.is_led:
            scope.cancel()
        self._scopes.add(scope)
        try:
            with scope:
                yield
        finally:
            self._scopes.discard(scope)

    def loaded(self) -> None:
        """Everything in it is known: serve."""
        if self.is_led:
            self.refusal = None

    def demote(self, error: KafkaError = _NOT_LED) -> None:
        """Led here no longer: `error` is what is answered from now on; tasks are cut."""
        if self.is_led:
            self.is_led = False
            self.refusal = error
            for scope in self._scopes:
                scope.cancel()
            if self.on_demotion is not None:
                self.on_demotion(self)


class SlotCounters(Counters):
    """Coordination slots: how many are led here, and how many came and went."""

    __slots__ = ("led", "slots_gained", "slots_lost")

    led: int
    slots_gained: int
    slots_lost: int


class LedSlots:
    """All slots of the cluster, as seen by one broker.

    `on_lead` is called, by a plain call, for each slot that is led here from now on, and that
    has to be loaded.
    """

    def __init__(
        self,
        metastore: store.Metastore,
        clock: Clock,
        *,
        broker_id: int,
        image: Callable[[], ClusterImage],
        on_lead: Callable[[LedSlot], None],
    ) -> None:
        self.counters = SlotCounters()
        self._session = metastore.session
        self._metastore = metastore
        self._clock = clock
        self._broker_id = broker_id
        self._image = image
        self._on_lead = on_lead
        self._is_behind: Callable[[float], bool] | None = None
        self._broker_epoch = _NOT_REGISTERED
        self._generation = self._session.generation
        # Whether the session and its lease let this broker lead: watch_session's view of it.
        self._is_acting = False
        self._waiting = trio.CancelScope()  # until there is something to look at
        self._led: dict[int, LedSlot] = {}
        # The slot epochs in which this broker led before the lease ended.
        self._led_before: dict[int, int] = {}

    def use_broker_epoch(self, broker_epoch: int, *, generation: int | None = None) -> None:
        """This broker was registered, in the session of `generation` (None: the present one).

        What it led in an earlier epoch is demoted; what the image gives it in this one is led.
        """
        self._demote_all()
        self._led_before.clear()
        self._broker_epoch = broker_epoch
        self._generation = self._session.generation if generation is None else generation
        self._is_acting = self._holds_lease()
        self._waiting.cancel()
        self._follow_image()

    def use_pulse(self, is_behind: Callable[[float], bool]) -> None:
        """Have `is_behind(now_s)` tell whether the image may be older than a gap of the loop."""
        self._is_behind = is_behind

    def follow(self, before: ClusterImage, after: ClusterImage) -> None:
        """The image was swapped: lead and demote as it says."""
        if before.slots is not after.slots and self._is_acting:
            self._settle(after.slots)

    def __iter__(self) -> Iterator[LedSlot]:
        """Those led here."""
        return iter(list(self._led.values()))

    def of(self, group_id: str) -> LedSlot | KafkaError:
        """The slot that coordinates the group, or why it cannot be served here and now."""
        count = len(self._image().slots)
        if not count:
            return _LOADING
        slot = self._led.get(Slots(count).slot_of(group_id))
        if slot is None:
            return _NOT_LED
        return slot.refusal or self.lease_refusal() or slot

    def leader_of(self, group_id: str) -> int | None:
        """The id of the broker that coordinates the group; None while no live one does."""
        image = self._image()
        if not image.slots:
            return None
        number = Slots(len(image.slots)).slot_of(group_id)
        state = image.slots[number]
        if not _has_live_leader(image, state):
            return None
        if state.leader == self._broker_id:
            slot = self._led.get(number)
            if slot is None or not slot.is_led or self.lease_refusal() is not None:
                return None
        return state.leader

    def are_all_led(self) -> bool:
        """Whether every slot of the cluster has a live leader, here or elsewhere."""
        image = self._image()
        return bool(image.slots) and all(_has_live_leader(image, one) for one in image.slots)

    def lease_refusal(self) -> KafkaError | None:
        """What to answer instead of anything else once the lease has ended (SAFETY rule 12)."""
        return None if self._holds_lease() else _NOT_LED

    def present_refusal(self) -> KafkaError | None:
        """What to answer instead of what is told from memory: `lease_refusal`, or after a gap.

        What is written needs no more than the lease: the slot's epoch fences it.
        """
        refusal = self.lease_refusal()
        if refusal is None and self._is_behind is not None:
            return _BEHIND if self._is_behind(self._clock.monotonic_s()) else None
        return refusal

    async def watch_session(self) -> None:
        """Demote everything when the lease ends, lead again when it is back; until cancelled.

        After a lost session that takes a new registration: `use_broker_epoch`.
        """
        while True:
            self._keep_to_lease()
            session = self._session
            state, may_return = session.state, self._may_return()
            if state is SessionState.CONNECTED and may_return and not self._is_acting:
                await self._ask()
                if self._holds_lease():
                    continue
            wait_s = math.inf
            if self._is_acting or (state is SessionState.CONNECTED and may_return):
                wait_s = max(_SHORTEST_WAIT_S, session.lease_end_s - self._clock.monotonic_s())
            with trio.move_on_after(wait_s) as self._waiting:
                await session.changed_from(state)

    async def _ask(self) -> None:
        """Ask the store anything: its answer extends the lease."""
        try:
            await self._metastore.get_many((layout.SLOTS,))
        except (store.SessionLost, store.MetastoreUnavailable):
            return

    def _may_return(self) -> bool:
        return (
            self._broker_epoch != _NOT_REGISTERED and self._generation == self._session.generation
        )

    def _holds_lease(self) -> bool:
        session = self._session
        return self._generation == session.generation and session.holds_lease(
            self._clock.monotonic_s()
        )

    def _keep_to_lease(self) -> None:
        session = self._session
        has_ended = (
            not self._may_return()
            or session.state is SessionState.LOST
            or self._clock.monotonic_s() >= session.lease_end_s
        )
        if not self._is_acting and not has_ended and self._holds_lease():
            self._is_acting = True
            self._follow_image()
        elif self._is_acting and has_ended:
            self._is_acting = False
            self._led_before = {slot.number: slot.epoch for slot in self._led.values()}
            if self._led:
                _log.warning(
                    "coordination slots are led no longer",
                    slots=len(self._led),
                    reason="the lease that the metastore's session grants has ended",
                )
            self._demote_all()

    def _demote_all(self) -> None:
        led = list(self._led.values())
        self._led.clear()
        self._count(lost=len(led))
        for slot in led:
            slot.demote()

    def _count(self, *, gained: int = 0, lost: int = 0) -> None:
        self.counters.led = len(self._led)
        self.counters.slots_gained += gained
        self.counters.slots_lost += lost

    def _follow_image(self) -> None:
        if self._is_acting:
            self._settle(self._image().slots)

    def _settle(self, states: tuple[SlotImage, ...]) -> None:
        for number, state in enumerate(states):
            is_mine = (
                state.leader == self._broker_id
                and state.broker_epoch == self._broker_epoch != _NOT_REGISTERED
            )
            held = self._led.get(number)
            if held is not None and is_mine and held.epoch == state.epoch:
                continue
            if held is not None:
                del self._led[number]
                self._count(lost=1)
                held.demote()
            if is_mine:
                self._led[number] = slot = LedSlot(
                    self._metastore,
                    number,
                    state.epoch,
                    may_have_writes=self._led_before.get(number) == state.epoch,
                )
                self._count(gained=1)
                self._on_lead(slot)


def _has_live_leader(image: ClusterImage, state: SlotImage) -> bool:
    broker = image.brokers.get(state.leader)
    return broker is not None and broker.broker_epoch == state.broker_epoch
