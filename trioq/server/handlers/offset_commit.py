"""OffsetCommit (key 8), versions 2-9.

Behaviour:
- answered when the offsets are durable in the metastore; commits that wait share a write
- a partition that does not exist gets UNKNOWN_TOPIC_OR_PARTITION, metadata beyond
  offset.metadata.max.bytes OFFSET_METADATA_TOO_LARGE; the others are committed all the same
- negative offsets are kept like any other, as in Kafka: kafkajs resets a group by committing
  -2 (earliest) or -1 (latest). Clients that read one go by their own reset policy
- what concerns the group (who commits, its generation) is answered for every partition
- a client that is no member commits with generation -1 and an empty member id, which an
  active group refuses
- while the metastore does not answer: COORDINATOR_NOT_AVAILABLE after
  offset.commit.timeout.ms; such a commit may still come to be

Version notes: 2 to 4 retention_time_ms; 6 leader epochs (KIP-320); 7 group_instance_id
(KIP-345); 8 flexible; 9 groups of the consumer protocol, by member epoch: older versions get
UNSUPPORTED_VERSION where Kafka 9 has STALE_MEMBER_EPOCH (KIP-848).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trioq.coordinator.offset_requests import CommitRequest, NewOffset
from trioq.errors import (
    KafkaError,
    OffsetMetadataTooLarge,
    StaleMemberEpoch,
    UnknownTopicOrPartition,
    UnsupportedVersion,
)
from trioq.server.handlers.group_border import require_group_id
from trioq.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitResponse,
    OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
)

if TYPE_CHECKING:
    from trioq.server.context import Context, Request
    from trioq.server.slot import Slot

FIRST_VERSION_WITH_MEMBER_EPOCHS = 9


def handle_offset_commit(ctx: Context, request: Request, slot: Slot) -> OffsetCommitResponse | None:
    """Hand what can be committed to the coordinator, which answers when it is durable."""
    message = request.decode(OffsetCommitRequest)
    commit = _Commit(ctx, slot)
    offsets = commit.accepted(message)
    try:
        require_group_id(message.group_id)
    except KafkaError as error:
        return commit.answer(error)
    if not offsets:
        return commit.answer(None)
    ctx.groups.commit_offsets(
        CommitRequest(
            group_id=message.group_id,
            generation=message.generation_id_or_member_epoch,
            member_id=message.member_id,
            instance_id=message.group_instance_id,
            retention_ms=message.retention_time_ms if message.retention_time_ms >= 0 else None,
            offsets=offsets,
        ),
        commit.reply,
    )
    return None


class _Commit:
    """One request under way: its answer, and the partitions in it that the coordinator has."""

    __slots__ = ("_accepted", "_ctx", "_slot", "_topics")

    def __init__(self, ctx: Context, slot: Slot) -> None:
        self._ctx = ctx
        self._slot = slot
        self._topics: list[OffsetCommitResponseTopic] = []
        self._accepted: list[OffsetCommitResponsePartition] = []

    def accepted(self, message: OffsetCommitRequest) -> list[NewOffset]:
        """What can be committed; the rest has its error in the answer already."""
        topics = self._ctx.image.topics
        most_bytes = self._ctx.config.offset_metadata_max_bytes
        offsets = []
        for topic in message.topics:
            answers: list[OffsetCommitResponsePartition] = []
            self._topics.append(OffsetCommitResponseTopic(name=topic.name, partitions=answers))
            known = topics.get(topic.name)
            count = 0 if known is None else len(known.partitions)
            for asked in topic.partitions:
                answer = OffsetCommitResponsePartition(partition_index=asked.partition_index)
                answers.append(answer)
                if known is None or not 0 <= asked.partition_index < count:
                    answer.error_code = UnknownTopicOrPartition.code
                elif _is_too_long(asked, most_bytes):
                    answer.error_code = OffsetMetadataTooLarge.code
                else:
                    self._accepted.append(answer)
                    offsets.append(
                        NewOffset(
                            known.topic_id,
                            asked.partition_index,
                            asked.committed_offset,
                            asked.committed_leader_epoch,
                            asked.committed_metadata or "",
                        )
                    )
        return offsets

    def answer(self, error: KafkaError | None) -> OffsetCommitResponse:
        """The answer, with `error` for all that was handed to the coordinator."""
        if error is not None:
            code = error.code
            if code == StaleMemberEpoch.code and (
                self._slot.api_version < FIRST_VERSION_WITH_MEMBER_EPOCHS
            ):
                code = UnsupportedVersion.code
            for answer in self._accepted:
                answer.error_code = code
        return OffsetCommitResponse(topics=self._topics)

    def reply(self, error: KafkaError | None) -> None:
        """Complete the slot, unless its connection has ended."""
        if self._slot.is_open:
            self._slot.complete(self.answer(error))


def _is_too_long(asked: OffsetCommitRequestPartition, most_bytes: int) -> bool:
    metadata = asked.committed_metadata
    return metadata is not None and len(metadata.encode()) > most_bytes
