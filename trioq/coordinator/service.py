"""The broker's part that coordinates groups: which slots it leads, loading them, their end.

Slots come and go while it runs, as the image says; each that comes is read, then served.
Everything that groups need is imported with the first request for one, or with the first stored
one: most brokers that start have none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

import trio

from trioq import logs
from trioq.clock import Clock
from trioq.config import BrokerConfig
from trioq.coordinator.slots import LedSlot, LedSlots
from trioq.errors import CoordinatorNotAvailable, MetastoreError
from trioq.metastore import layout, store
from trioq.metastore.image import ClusterImage
from trioq.metastore.write_chain import Deposed
from trioq.types import TopicId

if TYPE_CHECKING:
    from trioq.coordinator.coordinator import GroupCoordinator
    from trioq.coordinator.loading import SlotLoader
    from trioq.coordinator.slot_writer import Deadlines
    from trioq.coordinator.upkeep import Upkeep

LogEnd = Callable[[TopicId, int], int | None]
"""The end of the log of a partition led here; None if there is none."""

_log = logs.get_logger(__name__)

LOAD_PATIENCE_S: Final = 1.0
"""How long a start waits for stored groups; then it goes on, and they are refused until read."""

_LOADED_AT_ONCE: Final = 4
_STOP_PATIENCE_S: Final = 5.0
_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 2.0


class GroupService:
    """Coordinates the groups of the slots led here; `run` is its life.

    `log_end` is given to the one broker of an embedded store after a stop that was not clean:
    committed offsets above the end of their log are then set to that end before anything is
    served (SAFETY rule 4).
    """

    def __init__(
        self,
        metastore: store.Metastore,
        *,
        config: BrokerConfig,
        clock: Clock,
        deadlines: Deadlines,
        image: Callable[[], ClusterImage],
        log_end: LogEnd | None = None,
    ) -> None:
        self.slots = LedSlots(
            metastore, clock, broker_id=config.node_id, image=image, on_lead=self._lead
        )
        self._to_load: list[LedSlot] = []
        self._comes = trio.Event()
        self._loading = trio.CapacityLimiter(_LOADED_AT_ONCE)
        self._metastore = metastore
        self._config = config
        self._clock = clock
        self._deadlines = deadlines
        self._image = image
        self._log_end = log_end
        self._nursery: trio.Nursery | None = None
        self._coordinator: GroupCoordinator | None = None
        self._upkeep: Upkeep | None = None

    @property
    def coordinator(self) -> GroupCoordinator:
        """What handlers call; made, with its imports, when it is first asked for.

        Only while `run` runs.
        """
        if self._coordinator is None:
            from trioq.coordinator.coordinator import GroupCoordinator  # noqa: PLC0415  see module
            from trioq.coordinator.upkeep import Upkeep  # noqa: PLC0415  see module

            assert self._nursery is not None
            self._coordinator = GroupCoordinator(
                config=self._config,
                clock=self._clock,
                deadlines=self._deadlines,
                slots=self.slots,
                nursery=self._nursery,
                image=self._image,
            )
            self._upkeep = Upkeep(
                self._coordinator,
                retention_minutes=self._config.offsets_retention_minutes,
                interval_ms=self._config.offsets_retention_check_interval_ms,
            )
            self._nursery.start_soon(self._upkeep.run)
        return self._coordinator

    def coordinator_at_first_use(self) -> GroupCoordinator:
        """Something that becomes `coordinator` with the first call made on it."""
        return cast("GroupCoordinator", _AtFirstUse(self))

    def use_broker_epoch(self, broker_epoch: int, *, generation: int | None = None) -> None:
        """This broker was registered; nothing is coordinated before. See LedSlots.

        Called again after each new registration.
        """
        self.slots.use_broker_epoch(broker_epoch, generation=generation)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Load what is stored, report started, coordinate until cancelled.

        Started is reported when the groups of all slots that are led by now are there, or after
        a while: loading then goes on, unless offsets have to be clamped first.
        """
        async with trio.open_nursery() as coordinator_nursery:
            self._nursery = coordinator_nursery
            coordinator_nursery.start_soon(self.slots.watch_session)
            loaded = trio.Event()
            coordinator_nursery.start_soon(self._load_what_comes, loaded)
            patience_s = LOAD_PATIENCE_S if self._log_end is None else float("inf")
            with trio.move_on_after(patience_s):
                await loaded.wait()
            task_status.started()
            await trio.sleep_forever()

    def follow(self, before: ClusterImage, after: ClusterImage) -> None:
        """The image was swapped."""
        self.slots.follow(before, after)
        if (
            self._coordinator is not None
            and self._upkeep is not None
            and self._coordinator.topics.follow(before, after)
        ):
            self._upkeep.topics_changed()

    def begin_stop(self) -> None:
        """Answer the members that wait, so that their connections can end."""
        if self._coordinator is not None:
            self._coordinator.begin_stop()

    async def finish_stop(self) -> None:
        """Wait a while until everything that changed is written; then cancel `run`."""
        if self._coordinator is not None:
            with trio.move_on_after(_STOP_PATIENCE_S):
                await self._coordinator.groups.wait_written()

    # ---- loading

    def _lead(self, slot: LedSlot) -> None:
        """The slot is led here from now on."""
        self._to_load.append(slot)
        self._comes.set()

    async def _load_what_comes(self, loaded: trio.Event) -> None:
        """Load every slot that is led here; sets `loaded` when those of the beginning are."""
        async with trio.open_nursery() as load_nursery:
            load_nursery.start_soon(self._load, self._taken(), loaded)
            while True:
                await self._comes.wait()
                self._comes = trio.Event()
                load_nursery.start_soon(self._load, self._taken(), trio.Event())

    def _taken(self) -> list[LedSlot]:
        slots, self._to_load = self._to_load, []
        return slots

    async def _load(self, slots: Sequence[LedSlot], loaded: trio.Event) -> None:
        """Load these, a few at a time, so that one that cannot be read keeps none of the others."""
        stored = await self._with_groups(slots)
        if stored:
            from trioq.coordinator.loading import SlotLoader  # noqa: PLC0415  see module

            loader = SlotLoader(self.coordinator, self._log_end)
            async with trio.open_nursery() as slot_nursery:
                for slot in stored:
                    slot_nursery.start_soon(self._load_slot, loader, slot)
            loader.log_summary()
            if self._upkeep is not None:
                self._upkeep.topics_changed()  # perhaps while nobody looked after these groups
        loaded.set()

    async def _with_groups(self, slots: Sequence[LedSlot]) -> list[LedSlot]:
        """Those in which anything was ever written; the others serve from now on."""
        pause_s = _FIRST_PAUSE_S
        while led := [slot for slot in slots if slot.is_led]:
            try:
                seqs = await self._metastore.get_many(
                    [layout.slot_seq_path(slot.number) for slot in led]
                )
            except store.MetastoreUnavailable as error:
                pause_s = await self._pause(pause_s, error)
            except store.SessionLost:
                return []  # the watch on the session demotes them
            else:
                break
        stored: list[LedSlot] = []
        for slot, seq in zip(led, seqs if led else (), strict=True):
            if seq is None:
                self._refuse(slot, layout.CorruptNode(layout.slot_seq_path(slot.number), "missing"))
            elif seq.version or slot.may_have_writes:
                stored.append(slot)
            else:
                slot.loaded()
        return stored

    async def _load_slot(self, loader: SlotLoader, slot: LedSlot) -> None:
        """Load one slot, as often as it takes, while it is led here."""
        pause_s = _FIRST_PAUSE_S
        with slot.term():
            while True:
                try:
                    async with self._loading:
                        if slot.may_have_writes:
                            await slot.chain.write(())
                        await loader.load(self._metastore, slot)
                except (store.MetastoreUnavailable, store.OutcomeUnknown) as error:
                    pause_s = await self._pause(pause_s, error)
                except (store.SessionLost, Deposed):
                    slot.demote()
                    return
                except store.NodeError as damage:
                    self._refuse(slot, damage)
                    return
                else:
                    return

    async def _pause(self, pause_s: float, error: MetastoreError) -> float:
        """Wait before the next attempt to read; returns how long to wait next time."""
        _log.warning("groups cannot be read; trying again", reason=str(error))
        await trio.sleep(pause_s)
        return min(2 * pause_s, _LONGEST_PAUSE_S)

    def _refuse(self, slot: LedSlot, damage: MetastoreError) -> None:
        _log.error(
            "coordination slot cannot be read: its groups are refused; restore the "
            "metastore from a backup",
            slot=slot.number,
            reason=str(damage),
        )
        slot.demote(CoordinatorNotAvailable("The slot of this group is damaged."))


class _AtFirstUse:
    """Passes on what is asked for, and keeps it."""

    def __init__(self, service: GroupService) -> None:
        self._service = service

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._service.coordinator, name)
        setattr(self, name, found)
        return found
