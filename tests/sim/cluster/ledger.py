"""What must hold in every history, looked at after every step.

- A record acknowledged with acks=all survives, at its offset, in whoever is elected.
- What is committed (below any leader's high watermark) never changes, on any replica that the
  metastore's ISR names and that kept what it held; so replicas are the same below it.
- A leader epoch has one leader; one that is deposed acknowledges nothing.
- What readers are told of one leader epoch's high watermark never goes back; the end of the
  partition never does.

Power cuts take what is unsynced; with flush.policy=os no record from two brokers, as acks=all then
promises two replicas, not two disks. Nor is the disk lost of two brokers that had the same record.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tests.sim.cluster.model_log import Batch
from trioq.errors import KafkaError

if TYPE_CHECKING:
    from tests.sim.cluster.process import Process
    from tests.sim.cluster.world import World
    from trioq.metastore.layout import PartitionState


class Violation(AssertionError):
    """An invariant does not hold; the message says which, when and where."""


class Ledger:
    def __init__(self, world: World) -> None:
        self._world = world
        self.committed: list[Batch] = []
        self.acknowledged: dict[int, int] = {}
        """By value: the offset where its batch ends."""
        self.elections = 0
        self._leaders: dict[int, tuple[int, int]] = {}
        """By leader epoch: the broker and its broker epoch."""
        self._lost_on: dict[int, int] = {}
        """By value: the broker that lost it in a power cut."""
        self._kept_from: dict[int, float] = {}
        """By broker: the first broker epoch whose holdings are intact."""
        self._dead: dict[int, object] = {}
        """By broker: the process that ended uncleanly last."""
        self._seen: dict[int, tuple[object, int, int, int]] = {}
        self._watermarks: dict[int, int] = {}
        """By leader epoch: the greatest high watermark that a reader was told."""
        self._told_end = (-1, 0)
        """(leader epoch, offset) of the greatest end that a reader was told."""

    @property
    def committed_end(self) -> int:
        return self.committed[-1].next_offset if self.committed else 0

    def fail(self, what: str) -> None:
        raise Violation(f"at {self._world.now_ms:.1f} ms: {what}")

    # ---- after every step ---------------------------------------------------------------

    def observe(self) -> None:
        """Look at what has moved."""
        for broker in self._world.brokers.values():
            process = broker.process
            if process is None:
                continue
            log, partition = process.log, process.partition
            seen = process, log.high_watermark, log.truncations, partition.term
            before = self._seen.get(broker.broker_id)
            if seen == before:
                continue
            self._seen[broker.broker_id] = seen
            self._check_leader(process)
            self._check_high_watermark(process)
            if before is not None and before[2] != log.truncations:
                self._check_members(self._world.metastore.state)

    def _check_leader(self, process: Process) -> None:
        partition = process.partition
        if partition.is_leader:
            me = process.broker_id, process.broker_epoch
            known = self._leaders.setdefault(partition.leader_epoch, me)
            if known != me:
                self.fail(f"epoch {partition.leader_epoch} is led by {known} and by {me}")

    def _check_high_watermark(self, process: Process) -> None:
        log = process.log
        known = self.committed
        ours = log.below(log.high_watermark)
        if process.partition.is_leader and len(ours) > len(known):
            self._check_same(process, ours[: len(known)], known)
            known.extend(ours[len(known) :])
            self._world.note(f"committed below {self.committed_end}")
            self._check_members(self._world.metastore.state)
        else:
            self._check_same(process, ours, known[: len(ours)])

    def _check_same(self, process: Process, ours: list[Batch], known: list[Batch]) -> None:
        if ours != known:
            different = [pair for pair in zip(ours, known, strict=False) if pair[0] != pair[1]]
            where = different[0] if different else (len(ours), len(known))
            self.fail(
                f"broker {process.broker_id} has, below its high watermark "
                f"{process.log.high_watermark}, other than what was committed: {where}"
            )

    # ---- who must hold what was committed -------------------------------------------------

    def state_written(self, state: PartitionState) -> None:
        """The metastore has a new state."""
        if state.leader != -1 and self._is_new(state):
            self.elections += 1
        self._check_members(state)

    def _is_new(self, state: PartitionState) -> bool:
        before = getattr(self, "_led", None)
        self._led = state.leader, state.leader_epoch
        return before != self._led

    def _check_members(self, state: PartitionState) -> None:
        for broker, epoch in zip(state.isr, state.broker_epochs, strict=True):
            if epoch >= self._kept_from.get(broker, 0):
                self._check_holder(broker, f"is in the ISR in its epoch {epoch}")

    def _check_holder(self, broker: int, why: str) -> None:
        batches = self._world.brokers[broker].disk.batches
        count = len(self.committed)
        if batches[:count] == self.committed:
            return
        held = {batch.value for batch in batches}
        missing = [batch for batch in self.committed if batch.value not in held]
        self.fail(
            f"broker {broker} {why}, without what was committed: "
            f"{missing or 'it has other batches'}"
        )

    def harmed(self, broker: int, process: Process | None) -> None:
        """A broker was killed, or its disk is gone: what it held in its epochs so far may be."""
        self._kept_from[broker] = math.inf
        if process is not None:
            self._dead[broker] = process

    def registered(self, process: Process, broker_epoch: int) -> None:
        """The metastore has a registration of this process."""
        broker = process.broker_id
        if self._kept_from.get(broker) == math.inf and self._dead.get(broker) is not process:
            self._kept_from[broker] = broker_epoch

    def may_lose(self, broker: int, batch: Batch, *, synced: bool = False) -> bool:
        """Whether a power cut may take it, or even the loss of a disk that has it `synced`."""
        if self._world.settings.flush_policy == "commit" and not synced:
            return True
        return self._lost_on.get(batch.value, broker) == broker

    def lose(self, broker: int, batches: list[Batch]) -> None:
        """A power cut took them."""
        self._lost_on.update((batch.value, broker) for batch in batches)

    # ---- what clients are told ------------------------------------------------------------

    def acknowledged_by(self, process: Process, value: int, end_offset: int, epoch: int) -> None:
        """A producer is told that its batch is safe."""
        partition = process.partition
        if not partition.is_leader or partition.leader_epoch != epoch:
            role = f"leads in {partition.leader_epoch}" if partition.is_leader else "is deposed"
            self.fail(f"broker {process.broker_id} {role}, and acknowledges what is of {epoch}")
        self._check_high_watermark(process)
        if not any(
            batch.value == value and batch.next_offset == end_offset
            for batch in reversed(self.committed)
        ):
            self.fail(f"broker {process.broker_id} acknowledges {value}, which is not committed")
        self.acknowledged[value] = end_offset

    def read_by_consumer(self, process: Process) -> None:
        """A consumer asks a leader where the partition ends."""
        partition = process.partition
        if not partition.is_leader:
            return
        epoch, offset = partition.leader_epoch, process.log.high_watermark
        if offset < self._watermarks.get(epoch, 0):
            self.fail(f"the high watermark of epoch {epoch} went back to {offset}")
        self._watermarks[epoch] = offset
        try:
            end = partition.latest_offset(read_committed=False)
        except KafkaError:
            return
        told_epoch, told_end = self._told_end
        if epoch >= told_epoch:
            if end < told_end:
                self.fail(f"the end of the partition went from {told_end} back to {end}")
            self._told_end = epoch, end

    # ---- at the end -----------------------------------------------------------------------

    def is_whole(self) -> bool:
        """All replicas lead or follow, are in sync and the same, and all is committed."""
        state = self._world.metastore.state
        if state.leader == -1 or set(state.isr) != set(state.replicas) or state.adding:
            return False
        logs: list[Any] = []
        for replica in state.replicas:
            process = self._world.brokers[replica].process
            if process is None or process.partition.leader_epoch != state.leader_epoch:
                return False
            logs.append(process.log)
        leader = self._world.brokers[state.leader].process
        if leader is None or not leader.partition.is_leader:
            return False
        return all(
            log.batches == self.committed and log.high_watermark == log.log_end_offset
            for log in logs
        )

    def check_end(self) -> None:
        """Every acknowledged record is there, once, where it was acknowledged."""
        ends = {batch.value: batch.next_offset for batch in self.committed}
        if len(ends) != len(self.committed):
            self.fail("a record was committed twice")
        for value, end_offset in self.acknowledged.items():
            if ends.get(value) != end_offset:
                self.fail(f"{value} was acknowledged at {end_offset} and is at {ends.get(value)}")
