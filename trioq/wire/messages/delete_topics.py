"""DeleteTopics (key 20).

5: error messages. 6: topics by name or id, in `topics` instead of `topic_names`.
"""

from __future__ import annotations

from trioq.types import ZERO_TOPIC_ID, TopicId
from trioq.wire.kinds import INT16, INT32, STRING, UUID
from trioq.wire.schema import Message, Struct, array, wire


class DeleteTopicsRequestTopic(Struct):
    name: str | None = wire(STRING, default=None, nullable=0)
    topic_id: TopicId = wire(UUID, default=ZERO_TOPIC_ID)


class DeleteTopicsRequest(Message, versions=(1, 6), flexible=4):
    topics: list[DeleteTopicsRequestTopic] = wire(
        array(DeleteTopicsRequestTopic), factory=list, since=6
    )
    topic_names: list[str] = wire(array(STRING), factory=list, until=5, ignorable=True)
    timeout_ms: int = wire(INT32, default=0)


class DeleteTopicsResponseTopic(Struct):
    name: str | None = wire(STRING, default="", nullable=6)
    topic_id: TopicId = wire(UUID, default=ZERO_TOPIC_ID, since=6, ignorable=True)
    error_code: int = wire(INT16, default=0)
    error_message: str | None = wire(STRING, default=None, since=5, nullable=0, ignorable=True)


class DeleteTopicsResponse(Message, versions=(1, 6), flexible=4):
    throttle_time_ms: int = wire(INT32, default=0)
    responses: list[DeleteTopicsResponseTopic] = wire(
        array(DeleteTopicsResponseTopic), factory=list
    )
