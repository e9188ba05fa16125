"""Copies partitions from one leader: one task, one connection, many partitions per request.

    plan (fetcher_state) → call → each partition's answer to its log → wait until settled → plan

Answers are received into one buffer that the connection keeps, and logs write from there, so the
bytes are copied twice: into that buffer, and into the page cache. Logs are owned by the loop, and
so is this: between two partitions' answers other tasks may run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol, cast

import trio

from trioq import logs
from trioq.errors import BY_CODE, CorruptMessage, KafkaError, KafkaStorageError, PeerUnreachable
from trioq.metrics import Counters
from trioq.replication.fetch_requests import (
    EPOCH_VERSION,
    FETCH_VERSION,
    LIST_OFFSETS_VERSION,
    ends_of,
    ends_request,
    fetch_request,
    starts_of,
    starts_request,
)
from trioq.replication.fetch_session_state import PartitionKey, Position
from trioq.replication.fetcher_state import (
    NO_ERROR,
    SESSION_ERRORS,
    FetcherState,
    FetchPlan,
    Verdict,
    judge,
)
from trioq.wire.messages.fetch import FetchResponse, FetchResponsePartition

if TYPE_CHECKING:
    from trioq.config import BrokerConfig
    from trioq.replication.partition import Partition
    from trioq.replication.replica import Replica
    from trioq.replication.throttle_state import ThrottleState
    from trioq.wire.messages.list_offsets import ListOffsetsResponse
    from trioq.wire.messages.offset_for_leader_epoch import OffsetForLeaderEpochResponse
    from trioq.wire.schema import Message

PASS_BYTES: Final = 1 << 20
"""So many bytes are appended between two checkpoints."""

SETTLE_S: Final = 0.1
"""How long the next request waits for logs that have to write or sync; those that take longer
are left out of it."""

LONG_S: Final = 3600.0

log = logs.get_logger(__name__)


class Channel(Protocol):
    """The fetcher's own way to its leader; PeerChannel is one."""

    async def call(self, request: Message, *, api_version: int, timeout_s: float) -> Message:
        """The answer; records in it are valid until the next call. Raises PeerUnreachable."""
        ...

    def close(self) -> None: ...


class FetcherCounters(Counters):
    """What followers on this broker did."""

    __slots__ = (
        "failed_requests",
        "faults",
        "fetched_bytes",
        "requests",
        "restarts",
        "truncations",
    )

    failed_requests: int
    faults: int
    """Answers for a partition that were errors, or held what could not be taken."""
    fetched_bytes: int
    requests: int
    restarts: int
    truncations: int


class ReplicaFetcher:
    """Copies what it is told to follow from the leader `leader_id`, while `run` runs."""

    def __init__(
        self,
        leader_id: int,
        channel: Channel,
        config: Callable[[], BrokerConfig],
        throttle: Callable[[], ThrottleState],
        counters: FetcherCounters,
        *,
        request_timeout_s: float = 30.0,
    ) -> None:
        """Own `channel`, which leads to the leader's broker.

        `request_timeout_s` is how late an answer may be before the connection is given up.
        """
        self.leader_id = leader_id
        self.counters = counters
        self.lags: dict[PartitionKey, int] = {}
        """How many records each partition lacked when its leader answered last."""
        self._channel = channel
        self._config = config
        self._throttle = throttle
        self._request_timeout_s = request_timeout_s
        current = config()
        self._state = FetcherState(
            backoff_s=current.replica_fetch_backoff_ms / 1000,
            max_wait_s=current.replica_fetch_wait_max_ms / 1000,
        )
        self._partitions: dict[PartitionKey, Partition] = {}
        self._terms: dict[PartitionKey, int] = {}
        """Of each partition, the term in which its position was stated."""
        self._unsettled: set[PartitionKey] = set()
        self._slow: set[PartitionKey] = set()
        """Unsettled for longer than a request waits."""
        self._look_up: list[PartitionKey] = []
        self._throttled: list[PartitionKey] = []
        self._offline: list[PartitionKey] = []
        self._damaged: set[PartitionKey] = set()
        """Own files do not hold what they should: to be copied anew."""
        self._reported: dict[PartitionKey, int] = {}
        self._is_reachable = True
        self._broker_epoch = -1
        """Of the registration in which positions are stated."""
        self._wake = trio.Event()

    # ---- who is followed ----------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._partitions)

    def follow(self, partition: Partition) -> None:
        """Copy the partition, in the term that it is in; a term that is known changes nothing."""
        key = key_of(partition)
        if self._partitions.get(key) is not partition:
            self.unfollow(key)
            self._partitions[key] = partition
            partition.settle_watcher = self
        self._state.follow(key, partition.leader_epoch)
        self._wake.set()

    def unfollow(self, key: PartitionKey) -> None:
        """Copy the partition no longer; nothing happens if it is not followed."""
        partition = self._partitions.pop(key, None)
        if partition is not None and partition.settle_watcher is self:
            partition.settle_watcher = None
        self._state.unfollow(key)
        for known in (self._terms, self._reported, self.lags):
            known.pop(key, None)
        for marked in (self._unsettled, self._slow, self._damaged):
            marked.discard(key)
        self._wake.set()

    def settled(self, partition: Replica) -> None:
        """See trioq.replication.waiters.SettleWatcher."""
        key = (partition.topic_id, partition.topic_partition.partition)
        if key in self._unsettled:
            self._unsettled.discard(key)
            self._slow.discard(key)
            self._state.moved(key)
            self._wake.set()

    # ---- the task -----------------------------------------------------------------------

    async def run(self) -> None:
        """Fetch until cancelled; then what was appended is written, or about to be."""
        self._state.unanswered()  # whatever an earlier run, which failed, had asked
        try:
            while True:
                await trio.lowlevel.checkpoint_if_cancelled()
                self._wake = trio.Event()
                self._follow_registration()
                plan = self._plan(trio.current_time())
                if plan is not None:
                    await self._fetch(plan)
                if self._look_up:
                    await self._look_ends_up()
                if plan is None:
                    await self._wait_until(self._state.next_retry_s())
                else:
                    await self._settle()
        finally:
            self._channel.close()

    def _follow_registration(self) -> None:
        """State every position anew in a new registration of this broker: what was stated in an
        earlier one counts no longer (SAFETY rule 6), also of partitions that stand still.
        """
        epoch = next((one.broker_epoch for one in self._partitions.values()), self._broker_epoch)
        if epoch != self._broker_epoch:
            self._broker_epoch = epoch
            self._state.unanswered()

    async def _wait_until(self, deadline_s: float | None) -> None:
        """Return when something happens, or at the deadline."""
        with trio.move_on_at(trio.current_time() + LONG_S if deadline_s is None else deadline_s):
            await self._wake.wait()

    async def _settle(self) -> None:
        """Return when all that was appended may be stated, or SETTLE_S have passed.

        Logs that took longer are not waited for again: they join when they are settled.
        """
        if self._unsettled <= self._slow:
            return
        with trio.move_on_after(SETTLE_S):
            while self._unsettled - self._slow:
                self._wake = trio.Event()
                await self._wake.wait()
        self._slow |= self._unsettled

    def _plan(self, now_s: float) -> FetchPlan | None:
        plan = self._state.plan(now_s, self._position_of)
        if self._throttled:
            free_at_s = self._throttle().free_at_s(now_s)
            for key in self._throttled:
                self._state.pause(key, free_at_s)
            self._throttled.clear()
        for key in self._offline:
            self.unfollow(key)
        self._offline.clear()
        return plan

    def _position_of(self, key: PartitionKey) -> Position | None:
        partition = self._partitions[key]
        if self._is_throttled(partition):
            now_s = trio.current_time()
            if self._throttle().free_at_s(now_s) > now_s:
                self._throttled.append(key)
                return None
        self._terms[key] = partition.term
        try:
            at = partition.position()
        except KafkaStorageError:
            self._offline.append(key)
            return None
        except CorruptMessage as error:
            self._found_damage(key, error)
            return None
        if at is None:
            self._unsettled.add(key)
        return at

    async def _fetch(self, plan: FetchPlan) -> None:
        self.counters.requests += 1
        request = fetch_request(plan, self._config(), self._broker_epoch)
        try:
            answer = await self._channel.call(
                request,
                api_version=FETCH_VERSION,
                timeout_s=plan.wait_s + self._request_timeout_s,
            )
        except PeerUnreachable as error:
            await self._unanswered(error)
            return
        response = cast("FetchResponse", answer)
        self._is_reachable = True
        if self._state.answered(response.error_code, response.session_id):
            await self._take(response)
        elif response.error_code not in SESSION_ERRORS:
            self.counters.failed_requests += 1
            await trio.sleep(self._backoff_s)

    async def _unanswered(self, error: PeerUnreachable) -> None:
        self._state.unanswered()
        self.counters.failed_requests += 1
        if self._is_reachable:
            self._is_reachable = False
            log.warning(
                "leader_unreachable",
                leader=self.leader_id,
                partitions=len(self._partitions),
                reason=str(error),
                consequence="their replicas here fall behind until it answers, or another leads",
            )
        await trio.sleep(self._backoff_s)

    @property
    def _backoff_s(self) -> float:
        return self._config().replica_fetch_backoff_ms / 1000

    # ---- answers ------------------------------------------------------------------------

    async def _take(self, response: FetchResponse) -> None:
        appended_bytes = 0
        for topic in response.responses:
            for answer in topic.partitions:
                key = (topic.topic_id, answer.partition_index)
                appended_bytes += self._take_one(key, answer)
                if appended_bytes >= PASS_BYTES:
                    appended_bytes = 0
                    await trio.lowlevel.checkpoint()

    def _take_one(self, key: PartitionKey, answer: FetchResponsePartition) -> int:
        """Do what the answer for one partition calls for; bytes taken."""
        partition, stated = self._partitions.get(key), self._state.stated(key)
        if partition is None or stated is None:
            return 0
        if partition.term != self._terms.get(key):
            self._state.moved(key)
            return 0
        diverging = answer.diverging_epoch
        is_diverging = diverging is not None and diverging.end_offset >= 0
        verdict = judge(answer.error_code, is_diverging=is_diverging)
        try:
            if verdict is Verdict.APPEND:
                return self._append(key, partition, stated, answer)
            if verdict is Verdict.TRUNCATE:
                assert diverging is not None
                is_cut = partition.cut_to_leader(
                    term=self._terms[key],
                    leader_epoch=diverging.epoch,
                    end_offset=diverging.end_offset,
                )
                self.counters.truncations += is_cut
                self._moved_elsewhere(key, partition, moved=is_cut)
            elif verdict is Verdict.LOOK_UP:
                self._look_up.append(key)
            else:
                if verdict is Verdict.REPORT:
                    self._report(key, answer.error_code, "the leader answers with this error")
                self._delay(key, answer.error_code)
        except KafkaError as error:
            self._failed(key, error)
        return 0

    def _append(
        self,
        key: PartitionKey,
        partition: Partition,
        stated: Position,
        answer: FetchResponsePartition,
    ) -> int:
        """Append what came, if it belongs where the log ends; its bytes."""
        if partition.log.log_end_offset != stated.fetch_offset:
            self._state.moved(key)
            return 0
        log_ = partition.log
        records = cast("memoryview | None", answer.records) or memoryview(b"")
        length = len(records)
        start_offset = log_.log_start_offset
        fault = partition.append_as_follower(
            records,
            term=self._terms[key],
            high_watermark=answer.high_watermark,
            log_start_offset=answer.log_start_offset,
        )
        self.lags[key] = max(0, answer.high_watermark - log_.log_end_offset)
        self.counters.fetched_bytes += length
        if length and self._is_throttled(partition):
            self._throttle().spend(length, trio.current_time())
        if fault is None and length and log_.log_end_offset == stated.fetch_offset:
            fault = f"{length} bytes that are less than a batch"
        if fault is not None:
            self._report(key, CorruptMessage.code, f"the leader sent {fault}")
            self._delay(key, CorruptMessage.code)
        elif length or start_offset != log_.log_start_offset:
            self._reported.pop(key, None)
            self._moved_elsewhere(key, partition, moved=True)
        return length

    def _moved_elsewhere(self, key: PartitionKey, partition: Partition, *, moved: bool) -> None:
        """The log was changed; if it was not, the answer made no sense and is asked for later."""
        if not moved:
            self._delay(key, NO_ERROR)
            return
        self._state.moved(key)
        if not partition.is_settled:
            self._unsettled.add(key)

    def _is_throttled(self, partition: Partition) -> bool:
        """Whether this replica is being added: such copying is bounded."""
        state = partition.state
        return (
            state is not None
            and partition.local_id in state.adding
            and partition.local_id not in state.isr
        )

    # ---- trouble ------------------------------------------------------------------------

    def _failed(self, key: PartitionKey, error: KafkaError) -> None:
        """What the answer called for could not be done here."""
        if isinstance(error, KafkaStorageError):
            # The directory is offline until a restart: nothing is followed there any more.
            self.unfollow(key)
            self.counters.faults += 1
        elif isinstance(error, CorruptMessage):
            self._found_damage(key, error)
        else:
            self._delay(key, error.code)

    def _found_damage(self, key: PartitionKey, error: CorruptMessage) -> None:
        """A file of this replica does not hold what it should."""
        self._report(key, error.code, f"this replica is damaged and will be copied anew: {error}")
        self._damaged.add(key)
        self._look_up.append(key)

    def _delay(self, key: PartitionKey, error_code: int) -> None:
        self._state.delay(key, trio.current_time(), error_code)

    def _report(self, key: PartitionKey, error_code: int, reason: str) -> None:
        """Count an error; say so when it is not what was said of the partition last."""
        self.counters.faults += 1
        if self._reported.get(key) == error_code:
            return
        self._reported[key] = error_code
        known = BY_CODE.get(error_code)
        log.error(
            "replica_fetch_failed",
            partition=str(self._partitions[key].topic_partition),
            leader=self.leader_id,
            error=known.kafka_name if known is not None else error_code,
            reason=reason,
            consequence="this replica does not get on; it is tried again",
        )

    async def _look_ends_up(self) -> None:
        """Ask where the leader's logs begin and end, and come back into their range."""
        keys = [key for key in dict.fromkeys(self._look_up) if key in self._partitions]
        self._look_up.clear()
        partitions = [self._partitions[key] for key in keys]
        replica_id, timeout_s = self._config().node_id, self._request_timeout_s
        try:
            starts = await self._channel.call(
                starts_request(partitions, replica_id),
                api_version=LIST_OFFSETS_VERSION,
                timeout_s=timeout_s,
            )
            ends = await self._channel.call(
                ends_request(partitions, replica_id), api_version=EPOCH_VERSION, timeout_s=timeout_s
            )
        except PeerUnreachable as error:
            for key in keys:
                self._delay(key, NO_ERROR)
            await self._unanswered(error)
            return
        start_of = starts_of(cast("ListOffsetsResponse", starts))
        end_of = ends_of(cast("OffsetForLeaderEpochResponse", ends))
        for key, partition in zip(keys, partitions, strict=True):
            name = partition.topic_partition
            if self._partitions.get(key) is partition:
                self._come_into_range(key, partition, start_of.get(name), end_of.get(name))
                await trio.lowlevel.checkpoint()

    def _come_into_range(
        self, key: PartitionKey, partition: Partition, start: int | None, end: int | None
    ) -> None:
        is_moved = False
        try:
            if start is None or end is None:
                pass
            elif key in self._damaged:
                is_moved = partition.begin_again(term=self._terms[key], leader_start=start)
            else:
                is_moved = partition.come_into_range(
                    term=self._terms[key], leader_start=start, leader_end=end
                )
        except KafkaStorageError as error:
            self._failed(key, error)
            return
        except KafkaError as error:
            self._delay(key, error.code)
            return
        if is_moved:
            self.counters.restarts += 1
            self._damaged.discard(key)
        self._moved_elsewhere(key, partition, moved=is_moved)


def key_of(partition: Replica) -> PartitionKey:
    """Topic id and number of a partition."""
    return partition.topic_id, partition.topic_partition.partition
