"""Committing offsets: when the mode says so, and when the user does."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import anyio

from trioq import logs
from trioq.client.cluster import Cluster
from trioq.client.consumer_settings import ConsumerSettings
from trioq.client.group_calls import GroupCalls, MemberIdentity, OffsetAndMetadata
from trioq.client.pulse import Pulse
from trioq.client.reader import Position, Reader
from trioq.client.retry import is_retriable, retrying
from trioq.errors import (
    CommitFailed,
    FencedInstanceId,
    FencedMemberEpoch,
    IllegalGeneration,
    KafkaError,
    RebalanceInProgress,
    StaleMemberEpoch,
    TrioqError,
    UnknownMemberId,
)
from trioq.record.fetched import RecordBatchView
from trioq.types import TopicPartition

_log = logs.get_logger(__name__)

_MEMBERSHIP_ERRORS = (
    RebalanceInProgress,
    IllegalGeneration,
    UnknownMemberId,
    FencedInstanceId,
    FencedMemberEpoch,
)


class Commits:
    """Commits for one consumer; at most one commit of its own accord is under way at a time.

    `identity` tells as whom; `on_refused` is told when the coordinator says that the membership
    is not what it was.
    """

    def __init__(
        self,
        cluster: Cluster,
        calls: GroupCalls,
        settings: ConsumerSettings,
        reader: Reader[Any, Any],
        *,
        identity: Callable[[], MemberIdentity],
        on_refused: Callable[[MemberIdentity, KafkaError], None],
    ) -> None:
        self.commits = 0
        self.failed_commits = 0
        self._cluster = cluster
        self._calls = calls
        self._settings = settings
        self._reader = reader
        self._identity = identity
        self._on_refused = on_refused
        self._pulse = Pulse()
        self._lock = anyio.Lock()
        self._done: dict[TopicPartition, int] = {}
        """What was committed of partitions that are read; not committed again."""

    def user_asked(self) -> None:
        """Something more is processed."""
        if self._settings.commit == "after_processing":
            self._pulse.beat()

    def forget(self, partitions: Collection[TopicPartition]) -> None:
        """These are not read any more."""
        for partition in partitions:
            self._done.pop(partition, None)

    async def run(self) -> None:
        """Commit what was processed, in the modes `auto` and `after_processing`."""
        interval_s = self._settings.auto_commit_interval_ms / 1000
        while True:
            if self._settings.commit == "auto":
                await anyio.sleep(interval_s)
            else:
                await self._pulse.wait()
            try:
                await self.commit_processed()
            except TrioqError as error:
                _log.warning(
                    "offsets not committed",
                    group=self._calls.group_id,
                    reason=str(error),
                )

    async def commit_processed(self, partitions: Collection[TopicPartition] | None = None) -> None:
        """Commit what was processed and is not committed yet, of `partitions` or of all."""
        async with self._lock:
            positions = self._reader.processed()
            offsets = {
                partition: _to_commit(position)
                for partition, position in positions.items()
                if (partitions is None or partition in partitions)
                and self._done.get(partition) != position.offset
            }
            if offsets:
                await self.commit(offsets)

    async def commit_batch(self, batch: RecordBatchView[Any, Any]) -> None:
        """Commit that all of `batch` was read, before it is."""
        partition = TopicPartition(batch.topic, batch.partition)
        await self.commit({partition: OffsetAndMetadata(batch.next_offset, batch.leader_epoch)})

    async def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        """Commit these, with retries; raises CommitFailed where the group has moved on."""
        remaining = dict(offsets)

        async def attempt() -> None:
            identity = self._identity()
            refused = await self._calls.commit(remaining, identity)
            for partition in list(remaining):
                if partition not in refused:
                    self._done[partition] = remaining.pop(partition).offset
            for partition, error in refused.items():
                if isinstance(error, _MEMBERSHIP_ERRORS):
                    self._on_refused(identity, error)
                    raise CommitFailed(
                        f"offsets of {partition} were not committed: {error.kafka_name}: the group "
                        f"{self._calls.group_id!r} has rebalanced or this consumer has left it "
                        "(processing longer than max_poll_interval_ms?); what was processed since "
                        "the last commit is read again"
                    ) from error
                if isinstance(error, StaleMemberEpoch):
                    self._on_refused(identity, error)  # a heartbeat tells the new epoch
                raise type(error)(f"committing the offset of {partition}: {error}")

        try:
            await retrying(
                attempt,
                what=f"committing offsets of group {self._calls.group_id!r}",
                timeout_s=self._cluster.settings.call_timeout_s,
                backoff=self._cluster.backoff,
                retriable=lambda error: is_retriable(error) or isinstance(error, StaleMemberEpoch),
            )
        except TrioqError:
            self.failed_commits += 1
            raise
        self.commits += 1


def _to_commit(position: Position) -> OffsetAndMetadata:
    return OffsetAndMetadata(position.offset, position.leader_epoch)
