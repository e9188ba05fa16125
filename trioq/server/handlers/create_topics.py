"""CreateTopics (key 19), versions 2-7.

Behaviour:
- each topic is created or refused by itself; the answer comes when this broker serves it
- -1 partitions or replicas are the broker's defaults (KIP-464; from version 4 on in Kafka,
  in all versions here)
- validate_only checks all and creates nothing
- a name twice in one request: INVALID_REQUEST for it
- clients of different names for one topic that differ in "." and "_" only collide:
  INVALID_TOPIC_EXCEPTION

Version notes: 5 the topic's shape and configuration in the answer (KIP-525); 7 its id
(KIP-516).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trioq.config.describe import describe_topic
from trioq.controller.topic_rules import NewTopic
from trioq.errors import InvalidReplicaAssignment, InvalidRequest, KafkaError
from trioq.server.handlers.admin_timeout import timeout_s
from trioq.wire.messages.create_topics import (
    CreateTopicsRequest,
    CreateTopicsRequestTopic,
    CreateTopicsResponse,
    CreateTopicsResponseConfig,
    CreateTopicsResponseTopic,
)

if TYPE_CHECKING:
    from trioq.controller.topics import CreatedTopic
    from trioq.server.context import Context, Request


async def handle_create_topics(ctx: Context, request: Request) -> CreateTopicsResponse:
    """Create the topics. Cancelled: each is created or not."""
    message = request.decode(CreateTopicsRequest)
    answers: list[CreateTopicsResponseTopic] = []
    new_topics: list[NewTopic] = []
    for topic in message.topics:
        try:
            new_topics.append(_new_topic(topic))
        except KafkaError as error:
            answers.append(_refusal(topic.name, error))
    created = await ctx.topic_admin.create_topics(
        new_topics, validate_only=message.validate_only, timeout_s=timeout_s(message.timeout_ms)
    )
    answers += [
        _success(ctx, one) if one.error is None else _refusal(one.name, one.error)
        for one in created
    ]
    return CreateTopicsResponse(topics=answers)


def _new_topic(topic: CreateTopicsRequestTopic) -> NewTopic:
    """What is asked for, without what a mapping would hide.

    Raises InvalidRequest, InvalidReplicaAssignment.
    """
    configs = {config.name: config.value for config in topic.configs}
    if len(configs) != len(topic.configs):
        raise InvalidRequest("A configuration key is named more than once.")
    assignments = {one.partition_index: one.broker_ids for one in topic.assignments}
    if len(assignments) != len(topic.assignments):
        raise InvalidReplicaAssignment("A partition is assigned more than once.")
    return NewTopic(
        topic.name, topic.num_partitions, topic.replication_factor, assignments, configs
    )


def _refusal(name: str, error: KafkaError) -> CreateTopicsResponseTopic:
    return CreateTopicsResponseTopic(
        name=name, error_code=error.code, error_message=str(error), configs=None
    )


def _success(ctx: Context, created: CreatedTopic) -> CreateTopicsResponseTopic:
    return CreateTopicsResponseTopic(
        name=created.name,
        topic_id=created.topic_id,
        num_partitions=created.partitions,
        replication_factor=created.replication_factor,
        configs=[
            CreateTopicsResponseConfig(
                name=row.name,
                value=row.value,
                read_only=row.read_only,
                config_source=row.source,
                is_sensitive=row.sensitive,
            )
            for row in describe_topic(ctx.config, created.config)
        ],
    )
