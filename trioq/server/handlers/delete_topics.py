"""DeleteTopics (key 20), versions 1-6.

Behaviour:
- each topic is deleted or refused by itself; its files are renamed at once and removed
  after file.delete.delay.ms
- TOPIC_DELETION_DISABLED while delete.topic.enable is false
- a topic twice in one request: INVALID_REQUEST for it

Version notes: 5 error messages; 6 topics by name or by id (KIP-516); one with both, or
with neither, gets INVALID_REQUEST.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trioq.errors import InvalidRequest
from trioq.server.handlers.admin_timeout import timeout_s
from trioq.types import ZERO_TOPIC_ID, TopicId
from trioq.wire.messages.delete_topics import (
    DeleteTopicsRequest,
    DeleteTopicsResponse,
    DeleteTopicsResponseTopic,
)

if TYPE_CHECKING:
    from trioq.server.context import Context, Request

FIRST_VERSION_WITH_TOPIC_IDS = 6


async def handle_delete_topics(ctx: Context, request: Request) -> DeleteTopicsResponse:
    """Delete the topics. Cancelled: each is deleted or not."""
    message = request.decode(DeleteTopicsRequest)
    answers: list[DeleteTopicsResponseTopic] = []
    asked: list[str | TopicId] = []
    for name, topic_id in _named(message, request.api_version):
        if (name is None) == (topic_id == ZERO_TOPIC_ID):
            answers.append(
                DeleteTopicsResponseTopic(
                    name=name,
                    topic_id=topic_id,
                    error_code=InvalidRequest.code,
                    error_message="A topic is named by its name or by its id, not by both.",
                )
            )
        else:
            asked.append(topic_id if name is None else name)
    for deleted in await ctx.topic_admin.delete_topics(
        asked, timeout_s=timeout_s(message.timeout_ms)
    ):
        answer = DeleteTopicsResponseTopic(name=deleted.name, topic_id=deleted.topic_id)
        if deleted.error is not None:
            answer.error_code = deleted.error.code
            answer.error_message = str(deleted.error)
        answers.append(answer)
    return DeleteTopicsResponse(responses=answers)


def _named(message: DeleteTopicsRequest, version: int) -> Iterator[tuple[str | None, TopicId]]:
    """Name and id of each topic, as far as the request gives them."""
    if version >= FIRST_VERSION_WITH_TOPIC_IDS:
        for topic in message.topics:
            yield topic.name, topic.topic_id
    else:
        for name in message.topic_names:
            yield name, ZERO_TOPIC_ID
