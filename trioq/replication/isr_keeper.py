"""Changes of the in-sync replicas, from the leader to the metastore and back.

The leader compares and sets its own partitions' nodes at the version that it knows, so whatever
else was written meanwhile wins, and tells of it in the feed. Before a change is sent it is
proposed to the partition, which from then on counts old and new members (rule 8 of SAFETY), until
it is known what the node holds: from the write's result, by reading it back, or from the feed.

A broker also says, in the same way, which of its own replicas have failed with their log
directories, led or not (KIP-112, KIP-858): the node then names it with its broker epoch among
`failed`, which lasts until it registers again. The controller elects others and takes it out of
the ISR; where there is no controller to do so the leader does.

A write of unknown outcome may still be carried out after the node was read back unchanged. So
such a partition stays undecided and its node is written again, if need be with the members that
it has: once this succeeds the earlier write cannot any more.

A leader that has stood still has heard nobody meanwhile, and may not be the leader any more. So it
changes nothing until the gate of after the gap is open (SAFETY rule 12), and from then on
followers have all of `replica.lag.time.max.ms` to be heard.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, cast

import trio

from trioq import logs
from trioq.errors import KafkaStorageError, MetastoreError
from trioq.metastore import feed, layout, store
from trioq.metrics import Counters
from trioq.replication.isr_state import changed_isr, with_failed_log
from trioq.replication.unhosted import UnhostedReplica

if TYPE_CHECKING:
    from trioq.clock import Clock
    from trioq.config import BrokerConfig
    from trioq.metastore.image import ClusterImage
    from trioq.metastore.layout import PartitionState
    from trioq.replication.partition import Partition
    from trioq.replication.partitions import Partitions
    from trioq.replication.replica import Replica

LAG_CHECK_S: Final = 0.5
"""How often members that lag are looked for; shrinking is batched over this time."""
GATHER_JOINS_S: Final = 0.02
"""How long followers that may join are gathered before they are written."""
MOST_PARTITIONS: Final = 100
MOST_IN_FLIGHT: Final = 8
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0
LATE_SHARE: Final = 1 / 2
"""Of replica.lag.time.max.ms: who wakes later than planned by so much has heard nobody."""

log = logs.get_logger(__name__)


class IsrCounters(Counters):
    """Changes of in-sync replicas that this broker wrote, and how often it said that a replica of
    its own has failed.
    """

    __slots__ = ("expands", "failed_logs", "failed_writes", "shrinks")

    expands: int
    failed_logs: int
    failed_writes: int
    shrinks: int


class Gate(Protocol):
    """Shut while this broker does not know what happened while it stood still."""

    @property
    def gaps(self) -> int:
        """How often it was shut."""

    def is_shut(self, now_s: float) -> bool:
        """Whether it is, `now_s` on the broker's monotonic clock."""

    async def opened(self) -> None:
        """Wait until it is open."""


class _Change(NamedTuple):
    """What is to be written for a partition: `after` at the version of `before`.

    `is_failed_log`: it says of this broker's replica that it has failed, and nothing else.
    """

    partition: Partition | UnhostedReplica
    before: PartitionState
    after: PartitionState
    is_failed_log: bool = False

    @property
    def path(self) -> str:
        partition = self.partition
        return layout.partition_path(partition.topic_id, partition.topic_partition.partition)


class IsrKeeper:
    """Keeps the ISR of every partition led here true: laggards leave, who caught up joins.

    `run` owns it; a JoinWatcher. Where a log directory has failed, that is written for all replicas
    in it, whoever leads them.
    """

    def __init__(
        self,
        metastore: store.Metastore,
        partitions: Partitions,
        image: Callable[[], ClusterImage],
        clock: Clock,
        config: Callable[[], BrokerConfig],
        gate: Gate | None = None,
    ) -> None:
        self._metastore = metastore
        self._partitions = partitions
        self._image = image
        self._clock = clock
        self._config = config
        self._gate = gate
        self._gaps = 0
        self._heard_since_s = 0.0
        self._joining: dict[Replica, None] = {}
        self._may_join = trio.Event()
        self._pause_s = 0.0
        self.counters = IsrCounters()

    def may_join(self, partition: Replica) -> None:
        """See trioq.replication.waiters.JoinWatcher."""
        self._joining[partition] = None
        self._may_join.set()

    def log_failed(self, partition: Replica) -> None:
        """See trioq.replication.waiters.JoinWatcher."""
        self.may_join(partition)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch and write until cancelled; then some change may be of unknown outcome.

        While the metastore does not answer, changes wait. Raises TooLarge, which is a bug.
        """
        self._partitions.use_join_watcher(self)
        task_status.started()
        try:
            next_check_s = trio.current_time()
            while True:
                wait_s = max(0.0, next_check_s - trio.current_time())
                due_s = self._clock.monotonic_s() + wait_s
                with trio.move_on_at(next_check_s):
                    await self._may_join.wait()
                    await trio.sleep(GATHER_JOINS_S)
                await self._be_awake(due_s)
                is_check = trio.current_time() >= next_check_s
                changes = list(self._changes(is_check=is_check))
                if is_check:
                    next_check_s = trio.current_time() + self._check_interval_s()
                if changes:
                    await self._write_all(changes)
                if self._pause_s:
                    await trio.sleep(self._pause_s * (1 - random.random() / 2))  # noqa: S311
        finally:
            self._partitions.use_join_watcher(None)

    async def _be_awake(self, due_s: float) -> None:
        """Go on only when it is known what happened in a gap, if this comes after one.

        `due_s` is when this was to be called at the latest.
        """
        gate, max_lag_s = self._gate, self._config().replica_lag_time_max_ms / 1000
        is_late = self._clock.monotonic_s() - due_s > LATE_SHARE * max_lag_s
        if gate is not None:
            if gate.is_shut(self._clock.monotonic_s()):
                await gate.opened()
            is_late = is_late or gate.gaps != self._gaps
            self._gaps = gate.gaps
        if is_late:
            self._heard_since_s = self._clock.monotonic_s()

    def _check_interval_s(self) -> float:
        return min(LAG_CHECK_S, self._config().replica_lag_time_max_ms / 2000)

    # ---- what to write --------------------------------------------------------------------

    def _changes(self, *, is_check: bool) -> Iterator[_Change]:
        joining, self._joining = self._joining, {}
        self._may_join = trio.Event()
        image = self._image()
        registered = {one.broker_id: one.broker_epoch for one in image.brokers.values()}
        looked_at = self._partitions if is_check else cast("dict[Partition, None]", joining)
        for partition in list(looked_at):
            if not image.is_readable(partition.topic_id, partition.topic_partition.partition):
                continue  # nobody writes over what cannot be read
            change = self._change(partition, registered, is_check=is_check)
            if change is not None:
                yield change
        if is_check:
            for replica in self._partitions.unhosted:
                change = self._failed_log(replica)
                if change is not None:
                    yield change

    def _change(
        self, partition: Partition, registered: dict[int, int], *, is_check: bool
    ) -> _Change | None:
        isr = partition.isr
        if isr is None:
            return self._failed_log(partition) if partition.log.failed else None
        must_write = isr.is_undecided or isr.keeps_others_electable
        if isr.is_alone and not must_write and len(isr.state.replicas) == 1:
            return None
        config, state, now_s = self._config(), isr.state, self._clock.monotonic_s()
        leaving: set[int] = set()
        if is_check:
            leaving = isr.laggards(
                partition.log.written_end_offset,
                now_s,
                max_lag_s=config.replica_lag_time_max_ms / 1000,
                max_lag_messages=config.replica_lag_max_messages,
                heard_since_s=self._heard_since_s,
            )
            leaving |= isr.failed()
        joining = {
            replica: epoch
            for replica, epoch in isr.joiners(partition.log.high_watermark, now_s).items()
            if registered.get(replica) == epoch
        }
        harmed = isr.harmed()
        if not (leaving or joining or harmed or must_write):
            return None
        after = changed_isr(
            state,
            joining=joining,
            leaving=leaving,
            min_insync=partition.config.min_insync_replicas,
            harmed=harmed,
        )
        return _Change(partition, state, after)

    def _failed_log(self, replica: Partition | UnhostedReplica) -> _Change | None:
        """Say that this replica has failed, unless that is known of this broker epoch."""
        state, me = replica.state, self._partitions.local_id
        broker_epoch = self._partitions.broker_epoch
        if state is None or replica.is_closed or broker_epoch < 0 or me not in state.replicas:
            return None
        if state.failed_logs.get(me) == broker_epoch:
            return None
        after = with_failed_log(state, me, broker_epoch)
        return _Change(replica, state, after, is_failed_log=True)

    # ---- writing --------------------------------------------------------------------------

    async def _write_all(self, changes: Sequence[_Change]) -> None:
        limit = trio.CapacityLimiter(MOST_IN_FLIGHT)
        rest = iter(changes)
        failed_before = self.counters.failed_writes
        async with trio.open_nursery() as nursery:
            while batch := list(islice(rest, MOST_PARTITIONS)):
                nursery.start_soon(self._write_batch, batch, limit)
        if self.counters.failed_writes == failed_before:
            self._pause_s = 0.0
        else:
            self._pause_s = min(LONGEST_PAUSE_S, max(FIRST_PAUSE_S, 2 * self._pause_s))

    async def _write_batch(self, batch: list[_Change], limit: trio.CapacityLimiter) -> None:
        """Write a batch as one multi, without those whose nodes have moved on."""
        async with limit:
            while batch := [one for one in batch if self._propose(one)]:
                operations = [
                    store.Set(one.path, one.after.encode(), one.before.partition_epoch)
                    for one in batch
                ]
                try:
                    results = await self._metastore.multi(feed.with_entry(operations))
                except store.NodeError as error:
                    if error.index >= len(batch):
                        raise  # the feed's own node: the cluster is not there
                    loser = batch.pop(error.index)
                    await self._read_back([loser])
                except store.TooLarge:
                    raise
                except store.MetastoreUnavailable as error:
                    self._failed(batch, error, is_unwritten=True)
                    return
                except MetastoreError as error:
                    self._failed(batch, error, is_unwritten=False)
                    await self._read_back(batch)
                    return
                else:
                    for one, version in zip(batch, results, strict=False):
                        assert isinstance(version, int)
                        self._written(one, version)
                    self._say(batch)
                    return

    def _propose(self, change: _Change) -> bool:
        """Count old and new members from now on; False if the change is out of date."""
        partition, before, after, is_failed_log = change
        if partition.partition_epoch != before.partition_epoch or partition.is_closed:
            return False
        if isinstance(partition, UnhostedReplica) or partition.isr is None:
            return is_failed_log
        isr = partition.isr
        # Not judged earlier: until they are proposed, the high watermark moves without them.
        joiners = isr.joiners(partition.log.high_watermark, self._clock.monotonic_s())
        for replica, epoch in zip(after.isr, after.broker_epochs, strict=True):
            if replica not in isr.committed and joiners.get(replica) != epoch:
                self.may_join(partition)  # looked at anew
                return False
        partition.propose_isr(dict(zip(after.isr, after.broker_epochs, strict=True)))
        return True

    def _failed(
        self, batch: Iterable[_Change], error: MetastoreError, *, is_unwritten: bool
    ) -> None:
        self.counters.failed_writes += 1
        changes = list(batch)
        log.warning(
            "isr_change_failed",
            partitions=len(changes),
            first=str(changes[0].partition.topic_partition),
            reason=str(error),
            consequence="it is tried again; until then old and new members count",
        )
        if is_unwritten:
            for partition, before, _, is_failed_log in changes:
                if is_failed_log or isinstance(partition, UnhostedReplica):
                    continue
                if partition.partition_epoch == before.partition_epoch and partition.is_leader:
                    partition.withdraw_isr()

    async def _read_back(self, changes: Sequence[_Change]) -> None:
        """Learn what the nodes hold now; a topic that is gone is left to the feed."""
        paths = [one.path for one in changes]
        try:
            nodes = await self._metastore.get_many(paths)
        except MetastoreError as error:
            self.counters.failed_writes += 1
            log.warning("isr_not_read_back", partitions=len(paths), reason=str(error))
            return
        for one, path, node in zip(changes, paths, nodes, strict=True):
            if node is None:
                continue
            of = partial(layout.PartitionState.of, version=node.version)
            try:
                state = layout.decode_node(path, node.value, of)
            except layout.CorruptNode as error:
                self.counters.failed_writes += 1
                log.error("partition_state_unreadable", reason=str(error))
            else:
                self._apply(one.partition, state)

    def _written(self, change: _Change, version: int) -> None:
        partition, before, after, is_failed_log = change
        joined = sorted(set(after.isr) - set(before.isr))
        left = sorted(set(before.isr) - set(after.isr))
        self.counters.expands += len(joined)
        self.counters.shrinks += len(left)
        self.counters.failed_logs += is_failed_log
        log.debug(
            "isr_changed",
            partition=str(partition.topic_partition),
            joined=joined,
            left=left,
            isr=list(after.isr),
            elr=list(after.elr),
            failed=list(after.failed),
        )
        self._apply(partition, after._replace(partition_epoch=version))

    @staticmethod
    def _say(batch: Sequence[_Change]) -> None:
        """One line for all of a batch, which may be a hundred."""
        joined = Counter(one for own in batch for one in set(own.after.isr) - set(own.before.isr))
        left = Counter(one for own in batch for one in set(own.before.isr) - set(own.after.isr))
        log.info(
            "in-sync replicas changed",
            partitions=len(batch),
            first=str(batch[0].partition.topic_partition),
            joined=dict(joined),
            left=dict(left),
            failed_here=sum(one.is_failed_log for one in batch),
        )

    def _apply(self, partition: Partition | UnhostedReplica, state: PartitionState) -> None:
        try:
            partition.apply_state(state)
        except KafkaStorageError as error:
            log.error(
                "partition_offline", partition=str(partition.topic_partition), reason=str(error)
            )
