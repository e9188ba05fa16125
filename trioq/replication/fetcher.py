"""Copies partitions from one leader: one task, one connection, many partitions per request.

    plan (fetcher_state) → call → each partition's answer to its log → wait until settled → plan

Answers are received into one buffer that the connection keeps, and logs write from there, so the
bytes are copied twice: into that buffer, and into the page cache. Logs are owned by the loop, and
so is this: between two partitions' answers other tasks may run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

import trio

from trioq import logs
from trioq.errors import (
    CorruptMessage,
    KafkaError,
    KafkaStorageError,
    OffsetOutOfRange,
    PeerUnreachable,
)
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
from trioq.replication.fetched_replicas import FetchedReplicas
from trioq.replication.fetcher_state import (
    NO_ERROR,
    SESSION_ERRORS,
    FetchPlan,
    Verdict,
    judge,
)
from trioq.wire.messages.fetch import FetchResponse, FetchResponsePartition

if TYPE_CHECKING:
    from trioq.replication.partition import Partition
    from trioq.wire.messages.list_offsets import ListOffsetsResponse
    from trioq.wire.messages.offset_for_leader_epoch import OffsetForLeaderEpochResponse
    from trioq.wire.schema import Message

PASS_BYTES: Final = 2 << 20
PASS_REQUESTS: Final = 4
"""So many bytes are appended, and so many answers taken, between two checkpoints at most."""

SETTLE_S: Final = 0.1
"""How long the next request waits for logs that have to write or sync; those that take longer
are left out of it."""

LONG_S: Final = 3600.0

log = logs.get_logger(__name__)


class ReplicaFetcher(FetchedReplicas):
    """Copies what it is told to follow from the leader `leader_id`, while `run` runs."""

    # ---- the task -----------------------------------------------------------------------

    async def run(self) -> None:
        """Fetch until cancelled; then what was appended is written, or about to be."""
        requests = 0
        self._state.unanswered()  # whatever an earlier run, which failed, had asked
        try:
            while True:
                # A leader on another core may have answered before this looks: then no call waits.
                requests += 1
                if requests % PASS_REQUESTS:
                    await trio.lowlevel.checkpoint_if_cancelled()
                else:
                    await trio.lowlevel.checkpoint()
                self._wake = trio.Event()
                self._follow_registration()
                plan = self._plan(trio.current_time())
                if plan is not None:
                    await self._fetch(plan)
                is_looked_up = bool(self._look_up)
                if is_looked_up:
                    await self._look_ends_up()
                if plan is not None:
                    await self._settle()
                elif not is_looked_up:
                    await self._wait_until(self._state.next_retry_s())
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
        if any(log_dir.is_backed_up for log_dir in self._log_dirs):
            self._spare_stalled_disks(now_s)
        plan = self._state.plan(now_s, self._position_of)
        for key, until_s in self._paused.items():
            self._state.pause(key, until_s)
        self._paused.clear()
        for key in self._offline:
            self.unfollow(key)
        self._offline.clear()
        return plan

    def _spare_stalled_disks(self, now_s: float) -> None:
        """Ask for nothing that would have to be kept in memory: the queue for its disk is full.

        Partitions that stand still leave the session too, as the leader would send what comes.
        """
        for key, partition in self._partitions.items():
            if partition.log.log_dir.is_backed_up and not self._state.rests(key, now_s):
                self._state.pause(key, now_s + self._backoff_s)

    def _position_of(self, key: PartitionKey) -> Position | None:
        partition = self._partitions[key]
        now_s = trio.current_time()
        free_at_s = self._throttle().free_at_s(now_s) if self._is_throttled(partition) else now_s
        if free_at_s > now_s:
            self._paused[key] = free_at_s
            return None
        self._terms[key] = partition.term
        if partition.log.failed:  # with its directory, for what another log met there
            self._offline.append(key)
            return None
        harmed_from = self._damaged.get(key, -1)
        if harmed_from >= 0:
            return partition.harmed_position(harmed_from)
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
        timeout_s = plan.wait_s + self._request_timeout_s
        try:
            answer = await self._call_interruptibly(request, timeout_s)
        except PeerUnreachable as error:
            await self._unanswered(error)
            return
        if answer is None:
            self._state.unanswered()
            return
        response = cast("FetchResponse", answer)
        self._is_reachable = True
        if self._state.answered(response.error_code, response.session_id):
            await self._take(response)
        elif response.error_code not in SESSION_ERRORS:
            self.counters.failed_requests += 1
            await trio.sleep(self._backoff_s)

    async def _call_interruptibly(self, request: Message, timeout_s: float) -> Message | None:
        """The leader's answer; None if the request was broken off. Raises PeerUnreachable."""
        with trio.CancelScope() as poll:
            self._poll = poll
            try:
                return await self._channel.call(
                    request, api_version=FETCH_VERSION, timeout_s=timeout_s
                )
            finally:
                self._poll = None
        return None

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
        if stated.is_harmed and answer.error_code in {NO_ERROR, OffsetOutOfRange.code}:
            self._begin_again(key, partition)
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

    def _is_throttled(self, partition: Partition) -> bool:
        """Whether this replica is being added: such copying is bounded."""
        state = partition.state
        return (
            state is not None
            and partition.local_id in state.adding
            and partition.local_id not in state.isr
        )

    async def _look_ends_up(self) -> None:
        """Ask where the leader's logs begin and end, and come back into their range."""
        keys = [key for key in dict.fromkeys(self._look_up) if key in self._partitions]
        self._look_up.clear()
        if not keys:
            return
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
        term = self._terms.get(key, -1)  # -1: given up and followed again meanwhile
        try:
            if start is None or end is None:
                pass
            elif key in self._damaged:
                self._damaged[key] = start
                self._state.moved(key)
                return
            else:
                is_moved = partition.come_into_range(term=term, leader_start=start, leader_end=end)
        except KafkaStorageError as error:
            self._failed(key, error)
            return
        except KafkaError as error:
            self._delay(key, error.code)
            return
        if is_moved:
            self.counters.restarts += 1
        self._moved_elsewhere(key, partition, moved=is_moved)

    def _begin_again(self, key: PartitionKey, partition: Partition) -> None:
        """The leader has been told that this replica is damaged, and does not count on it."""
        start = self._damaged.get(key, -1)
        try:
            is_begun = start >= 0 and partition.begin_again(
                term=self._terms[key], leader_start=start
            )
        except KafkaError as error:
            self._failed(key, error)
            return
        if is_begun:
            self.counters.restarts += 1
            del self._damaged[key]
        self._moved_elsewhere(key, partition, moved=is_begun)
