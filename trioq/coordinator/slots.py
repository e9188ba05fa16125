"""The coordination slots that this broker leads: at which epoch, and whether they are loaded.

A group id hashes to a slot, and the slot's leader is the group's coordinator. Its epoch fences
every write of the slot (SAFETY rule 7); beyond its lease it answers nothing (rule 12).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from trioq import logs
from trioq.clock import Clock
from trioq.errors import CoordinatorLoadInProgress, KafkaError, NotCoordinator
from trioq.metastore import layout, store
from trioq.metastore.layout import CorruptNode, Slots, SlotState
from trioq.metastore.session import SessionState
from trioq.metastore.write_chain import FencedChain

_log = logs.get_logger(__name__)

_LOADING = CoordinatorLoadInProgress("The groups of this slot are being read.")
_NOT_LED = NotCoordinator("This broker does not lead the slot of this group.")


class LedSlot:
    """A slot while it is led here.

    `refusal` is what every request is answered while the slot cannot serve: that it loads, or
    that it is led here no longer. `was_written` tells whether there may be anything in it.
    `on_demotion` is called once, by a plain call, when it is demoted.
    """

    __slots__ = (
        "_scopes",
        "chain",
        "epoch",
        "is_led",
        "number",
        "on_demotion",
        "refusal",
        "was_written",
    )

    def __init__(
        self, metastore: store.Metastore, number: int, epoch: int, *, was_written: bool
    ) -> None:
        self.number = number
        self.epoch = epoch
        self.was_written = was_written
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


class LedSlots:
    """All slots of the cluster, as seen by one broker."""

    def __init__(self, metastore: store.Metastore, clock: Clock) -> None:
        self._session = metastore.session
        self._metastore = metastore
        self._clock = clock
        self._slots: Slots | None = None
        self._led: dict[int, LedSlot] = {}
        self._leaders: list[int] = []

    async def read(self, broker_id: int) -> None:
        """Find out which slots this broker leads, after it claimed them in this session.

        Raises CorruptNode, and what the metastore raises.
        """
        node = await self._metastore.get(layout.SLOTS)
        slots = layout.decode_node(layout.SLOTS, node.value, Slots.of)
        paths = [layout.slot_path(number) for number in range(slots.number)]
        seqs = [layout.slot_seq_path(number) for number in range(slots.number)]
        nodes = await self._metastore.get_many([*paths, *seqs])
        held = zip(nodes[: slots.number], nodes[slots.number :], strict=True)
        for number, (slot_node, seq) in enumerate(held):
            if slot_node is None or seq is None:
                missing = paths[number] if slot_node is None else seqs[number]
                raise CorruptNode(missing, "it is missing")
            state = layout.decode_node(paths[number], slot_node.value, SlotState.of)
            self._leaders.append(state.leader)
            if state.leader == broker_id:
                self._led[number] = LedSlot(
                    self._metastore, number, slot_node.version, was_written=seq.version > 0
                )
        self._slots = slots

    def __iter__(self) -> Iterator[LedSlot]:
        """Those led here."""
        return iter(self._led.values())

    def of(self, group_id: str) -> LedSlot | KafkaError:
        """The slot that coordinates the group, or why it cannot be served here and now."""
        if self._slots is None:
            return _LOADING
        slot = self._led.get(self._slots.slot_of(group_id))
        if slot is None:
            return _NOT_LED
        return slot.refusal or self.lease_refusal() or slot

    def leader_of(self, group_id: str) -> int | None:
        """The id of the broker that coordinates the group; None while nobody does."""
        if self._slots is None:
            return None
        number = self._slots.slot_of(group_id)
        slot = self._led.get(number)
        if slot is not None and not slot.is_led:
            return None
        leader = self._leaders[number]
        return leader if leader >= 0 else None

    def lease_refusal(self) -> KafkaError | None:
        """What to answer instead of anything else once the lease has ended (SAFETY rule 12)."""
        if self._session.holds_lease(self._clock.monotonic_s()):
            return None
        return _NOT_LED

    async def watch_session(self) -> None:
        """Demote every slot when the session is lost; returns then."""
        state = self._session.state
        while state is not SessionState.LOST:
            state = await self._session.changed_from(state)
        for slot in self:
            slot.demote()
        if self._led:
            _log.error(
                "coordination slots are led no longer",
                slots=len(self._led),
                reason="the metastore's session ended",
            )
