"""What a coordinator is asked about committed offsets and groups as a whole: values only.

Topics are named by id: handlers look names up in the cluster image, which also tells them what
does not exist.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from trioq.metastore.group_layout import CommittedOffset
from trioq.types import TopicId

FetchedOffsets = Mapping[TopicId, Mapping[int, CommittedOffset]]
"""Committed offsets by topic id and partition; what has none is not in it."""

PartitionsByTopic = Mapping[TopicId, Sequence[int]]


class NewOffset(NamedTuple):
    """A partition's offset to commit; `leader_epoch` is -1 where the client knows none."""

    topic_id: TopicId
    partition: int
    offset: int
    leader_epoch: int = -1
    metadata: str = ""


class CommitRequest(NamedTuple):
    """An OffsetCommit request whose partitions exist and whose metadata is not too long.

    `generation` is the member epoch in a group of the consumer protocol, and negative, with an
    empty member id, where the client is no member. `retention_ms` is what the client stated
    (versions 2 to 4), else None. The offsets are taken as they are at the call, and not changed.
    """

    group_id: str
    generation: int
    member_id: str
    instance_id: str | None
    offsets: Sequence[NewOffset]
    retention_ms: int | None = None


class GroupOverview(NamedTuple):
    """A group in ListGroups: `state` as shown to tools, `group_type` "classic" or "consumer"."""

    group_id: str
    protocol_type: str
    state: str
    group_type: str
