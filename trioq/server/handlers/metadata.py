"""Metadata (key 3), versions 0-13.

Behaviour:
- brokers with the addresses of the listener by which the client came in, a broker that
  takes administrative requests as controller, topics with leaders and replicas
- a topic asked for by name that does not exist is created where the broker
  (auto.create.topics.enable) and the request allow it, with the broker's defaults, and
  answered as it then is; an illegal name gets INVALID_TOPIC_EXCEPTION
- a partition whose leader is not live has LEADER_NOT_AVAILABLE and no leader
- an answer without errors is kept, encoded, until the cluster's image changes

Version notes: 0 no topics means all, from 1 on null means all; 4 allow_auto_topic_creation
(KIP-204); 7 leader_epoch (KIP-320), which never goes back; 8 authorized operations
(KIP-430), the cluster's until 10; 10 topic ids (KIP-516); 12 topics by id with a null name,
refused in 10 and 11; 13 an error for the whole answer (KIP-1102), never set here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trioq.controller.topic_rules import NewTopic, check_name
from trioq.errors import (
    InvalidRequest,
    InvalidTopicException,
    KafkaError,
    LeaderNotAvailable,
    RequestTimedOut,
    TopicAlreadyExists,
    UnknownTopicId,
    UnknownTopicOrPartition,
)
from trioq.server.handlers.cluster_view import (
    cluster_operations,
    endpoints,
    leadership,
    reachable_controller,
    topic_operations,
)
from trioq.types import ZERO_TOPIC_ID
from trioq.wire.messages.metadata import (
    MetadataRequest,
    MetadataRequestTopic,
    MetadataResponse,
    MetadataResponseBroker,
    MetadataResponsePartition,
    MetadataResponseTopic,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trioq.metastore.image import ClusterImage, TopicImage
    from trioq.server.context import Context, Request
    from trioq.server.slot import Slot

FIRST_VERSION_WITH_NULL_FOR_ALL = 1
FIRST_VERSION_WITH_TOPIC_IDS = 10
FIRST_VERSION_BY_TOPIC_ID = 12


def handle_metadata(ctx: Context, request: Request, slot: Slot) -> MetadataResponse | None:
    """Answer from the image, or keep the slot until missing topics are created."""
    image, listener_name = ctx.image, request.connection.listener_name
    asked = bytes(request.body[request.position : request.end])
    kept = ctx.kept_metadata.find(image, listener_name, request.api_version, asked)
    if kept is not None:
        slot.complete_raw([kept.encoded])
        return None
    message = request.decode(MetadataRequest)
    if _asks_for_all(message, request.api_version):
        response = _answer_all(image, listener_name, message)
    else:
        missing = _topics_to_create(ctx, image, message)
        if missing:
            request.connection.start_task(_create_and_answer, ctx, request, slot, message, missing)
            return None
        response = _answer_topics(image, listener_name, request.api_version, message, {})
        if any(topic.error_code for topic in response.topics):
            return response
    encoded = response.encode(request.api_version)
    ctx.kept_metadata.keep(image, listener_name, request.api_version, asked, encoded)
    slot.complete_raw([encoded])
    return None


def _asks_for_all(message: MetadataRequest, version: int) -> bool:
    if version < FIRST_VERSION_WITH_NULL_FOR_ALL:
        return not message.topics
    return message.topics is None


# ---- creation on first use ----


def _topics_to_create(ctx: Context, image: ClusterImage, message: MetadataRequest) -> list[str]:
    """Names that do not exist and may be created for this request."""
    if not (message.allow_auto_topic_creation and ctx.config.auto_create_topics_enable):
        return []
    names = dict.fromkeys(topic.name for topic in message.topics or () if topic.name is not None)
    return [name for name in names if name not in image.topics and _is_legal(name)]


def _is_legal(name: str) -> bool:
    try:
        check_name(name)
    except InvalidTopicException:
        return False
    return True


async def _create_and_answer(
    ctx: Context, request: Request, slot: Slot, message: MetadataRequest, names: list[str]
) -> None:
    """Create topics, then answer. Cancelled with the connection: each is created or not."""
    created = await ctx.topic_admin.create_topics([NewTopic(name) for name in names])
    errors: dict[str, int] = {}
    for topic in created:
        if topic.error is not None and not isinstance(topic.error, TopicAlreadyExists):
            errors[topic.name] = _code_of_failed_creation(topic.error)
    listener_name = request.connection.listener_name
    slot.complete(_answer_topics(ctx.image, listener_name, request.api_version, message, errors))


def _code_of_failed_creation(error: KafkaError) -> int:
    """One that may come true later makes the client ask again."""
    return LeaderNotAvailable.code if isinstance(error, RequestTimedOut) else error.code


# ---- answers ----


def _answer_topics(
    image: ClusterImage,
    listener_name: str,
    version: int,
    message: MetadataRequest,
    errors: Mapping[str, int],
) -> MetadataResponse:
    """The topics asked for; `errors` are the codes of those that could not be created."""
    response = _without_topics(image, listener_name, message)
    operations = topic_operations(message.include_topic_authorized_operations)
    seen: set[object] = set()
    for asked in message.topics or ():
        key = asked.name if asked.topic_id == ZERO_TOPIC_ID else asked.topic_id
        if key is None or key in seen:
            continue
        seen.add(key)
        response.topics.append(_topic(image, version, asked, operations, errors))
    return response


def _answer_all(
    image: ClusterImage, listener_name: str, message: MetadataRequest
) -> MetadataResponse:
    response = _without_topics(image, listener_name, message)
    operations = topic_operations(message.include_topic_authorized_operations)
    response.topics = [_described(image, topic, operations) for topic in image.topics.values()]
    return response


def _topic(
    image: ClusterImage,
    version: int,
    asked: MetadataRequestTopic,
    operations: int,
    errors: Mapping[str, int],
) -> MetadataResponseTopic:
    name = asked.name
    if asked.topic_id != ZERO_TOPIC_ID or name is None:
        if version < FIRST_VERSION_BY_TOPIC_ID:
            return MetadataResponseTopic(
                error_code=InvalidRequest.code, name=name or "", topic_id=asked.topic_id
            )
        found = image.topics_by_id.get(asked.topic_id)
        if found is None:
            return MetadataResponseTopic(
                error_code=UnknownTopicId.code, name=None, topic_id=asked.topic_id
            )
        return _described(image, found, operations)
    found = image.topics.get(name)
    if found is not None:
        return _described(image, found, operations)
    code = errors.get(name)
    if code is None:
        code = UnknownTopicOrPartition.code if _is_legal(name) else InvalidTopicException.code
    return MetadataResponseTopic(error_code=code, name=name)


def _without_topics(
    image: ClusterImage, listener_name: str, message: MetadataRequest
) -> MetadataResponse:
    return MetadataResponse(
        brokers=[
            MetadataResponseBroker(
                node_id=endpoint.broker_id,
                host=endpoint.host,
                port=endpoint.port,
                rack=endpoint.rack,
            )
            for endpoint in endpoints(image, listener_name)
        ],
        cluster_id=image.cluster_id,
        controller_id=reachable_controller(image, listener_name),
        cluster_authorized_operations=cluster_operations(
            message.include_cluster_authorized_operations
        ),
    )


def _described(image: ClusterImage, topic: TopicImage, operations: int) -> MetadataResponseTopic:
    partitions = []
    for number, state in enumerate(topic.partitions):
        error_code, leader_id, offline = leadership(image, state)
        partitions.append(
            MetadataResponsePartition(
                error_code=error_code,
                partition_index=number,
                leader_id=leader_id,
                leader_epoch=state.leader_epoch,
                replica_nodes=list(state.replicas),
                isr_nodes=list(state.isr),
                offline_replicas=offline,
            )
        )
    return MetadataResponseTopic(
        name=topic.name,
        topic_id=topic.topic_id,
        is_internal=topic.internal,
        partitions=partitions,
        topic_authorized_operations=operations,
    )
