"""OffsetFetch (key 9), versions 1-9.

Behaviour:
- what was committed and is durable, from memory. Commits that the client sent before on the
  same connection are waited for, so that it reads what it wrote
- offset -1, without error, where nothing is committed; null topics are all that have an
  offset
- require_stable concerns open transactions, which are not served: nothing is ever pending

Version notes: 1 the group's error for each partition; 2 on top; 5 leader epochs (KIP-320);
6 flexible; 7 require_stable (KIP-447); 8 many groups, each with its error (KIP-709); 9 the
member and its epoch, which are checked (KIP-848).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trioq.errors import KafkaError
from trioq.server.handlers.group_border import require_group_id
from trioq.wire.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestTopic,
    OffsetFetchResponse,
    OffsetFetchResponseGroup,
    OffsetFetchResponsePartition,
    OffsetFetchResponseTopic,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trioq.coordinator.offset_requests import FetchedOffsets
    from trioq.metastore.group_layout import CommittedOffset
    from trioq.metastore.image import ClusterImage
    from trioq.server.context import Context, Request
    from trioq.types import TopicId

FIRST_VERSION_WITH_GROUP_ERROR = 2
FIRST_VERSION_WITH_MANY_GROUPS = 8

NO_OFFSET: Final = -1
NO_LEADER_EPOCH: Final = -1
NO_MEMBER_EPOCH: Final = -1


def handle_offset_fetch(
    ctx: Context, request: Request, message: OffsetFetchRequest
) -> OffsetFetchResponse:
    """Answer from the coordinator's memory."""
    if request.api_version >= FIRST_VERSION_WITH_MANY_GROUPS:
        return OffsetFetchResponse(groups=_many_groups(ctx, message))
    try:
        topics = _fetch(ctx, message.group_id, message.topics, message.require_stable)
    except KafkaError as error:
        if request.api_version >= FIRST_VERSION_WITH_GROUP_ERROR:
            return OffsetFetchResponse(error_code=error.code)
        return OffsetFetchResponse(topics=_refused(message.topics or (), error))
    return OffsetFetchResponse(topics=topics)


def _many_groups(ctx: Context, message: OffsetFetchRequest) -> list[OffsetFetchResponseGroup]:
    groups = []
    for asked in message.groups:
        answer = OffsetFetchResponseGroup(group_id=asked.group_id)
        groups.append(answer)
        try:
            answer.topics = _fetch(
                ctx,
                asked.group_id,
                asked.topics,
                message.require_stable,
                asked.member_id,
                asked.member_epoch,
            )
        except KafkaError as error:
            answer.error_code = error.code
    return groups


def _fetch(
    ctx: Context,
    group_id: str,
    topics: list[OffsetFetchRequestTopic] | None,
    require_stable: bool,
    member_id: str | None = None,
    member_epoch: int = NO_MEMBER_EPOCH,
) -> list[OffsetFetchResponseTopic]:
    """The committed offsets of what is asked for; raises the group's KafkaError."""
    require_group_id(group_id)
    image = ctx.image
    asked: dict[TopicId, list[int]] | None = None
    if topics is not None:
        asked = {}
        for topic in topics:
            known = image.topics.get(topic.name)
            if known is not None:  # one that is named twice is asked for both
                asked.setdefault(known.topic_id, []).extend(topic.partition_indexes)
    fetched = ctx.groups.fetch_offsets(
        group_id, member_id, member_epoch, asked, require_stable=require_stable
    )
    if isinstance(fetched, KafkaError):
        raise fetched
    return _everything(image, fetched) if topics is None else _asked_for(image, fetched, topics)


def _everything(image: ClusterImage, fetched: FetchedOffsets) -> list[OffsetFetchResponseTopic]:
    """All offsets of topics that there are."""
    topics = []
    for topic_id, offsets in fetched.items():
        topic = image.topics_by_id.get(topic_id)
        if topic is not None:
            topics.append(
                OffsetFetchResponseTopic(
                    name=topic.name,
                    partitions=[_partition(offsets, number) for number in sorted(offsets)],
                )
            )
    return topics


def _asked_for(
    image: ClusterImage, fetched: FetchedOffsets, topics: list[OffsetFetchRequestTopic]
) -> list[OffsetFetchResponseTopic]:
    """What was asked for, in its order."""
    nothing: Mapping[int, CommittedOffset] = {}
    answers = []
    for topic in topics:
        known = image.topics.get(topic.name)
        offsets = nothing if known is None else fetched.get(known.topic_id, nothing)
        answers.append(
            OffsetFetchResponseTopic(
                name=topic.name,
                partitions=[_partition(offsets, number) for number in topic.partition_indexes],
            )
        )
    return answers


def _partition(offsets: Mapping[int, CommittedOffset], number: int) -> OffsetFetchResponsePartition:
    found = offsets.get(number)
    if found is None:
        return OffsetFetchResponsePartition(
            partition_index=number,
            committed_offset=NO_OFFSET,
            committed_leader_epoch=NO_LEADER_EPOCH,
        )
    return OffsetFetchResponsePartition(
        partition_index=number,
        committed_offset=found.offset,
        committed_leader_epoch=found.leader_epoch,
        metadata=found.metadata,
    )


def _refused(
    topics: list[OffsetFetchRequestTopic] | tuple[()], error: KafkaError
) -> list[OffsetFetchResponseTopic]:
    return [
        OffsetFetchResponseTopic(
            name=topic.name,
            partitions=[
                OffsetFetchResponsePartition(
                    partition_index=number, committed_offset=NO_OFFSET, error_code=error.code
                )
                for number in topic.partition_indexes
            ],
        )
        for topic in topics
    ]
