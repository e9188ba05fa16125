"""DescribeConfigs (key 32), versions 1-4.

Behaviour:
- a topic: every topic key with its effective value and the values behind it
- this broker by its id: every broker key; the broker named "": what was set at run time
  for all brokers
- null or empty keys mean all; keys that do not exist are left out
- other resource types, and other brokers, are refused with INVALID_REQUEST

Version notes: 1 config_source and synonyms (KIP-226); 3 type and documentation (KIP-569);
4 flexible.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from trioq.config.describe import ConfigRow, Synonym, describe_broker, describe_topic
from trioq.config.key import Scope, Source
from trioq.config.table import BROKER_KEYS
from trioq.errors import (
    ConfigError,
    InvalidConfig,
    InvalidRequest,
    KafkaError,
    UnknownTopicOrPartition,
)
from trioq.wire.messages.describe_configs import (
    DescribeConfigsRequest,
    DescribeConfigsRequestResource,
    DescribeConfigsResponse,
    DescribeConfigsResponseConfig,
    DescribeConfigsResponseResource,
    DescribeConfigsResponseSynonym,
)

if TYPE_CHECKING:
    from trioq.server.context import Context, Request

ALL_BROKERS = ""


def handle_describe_configs(
    ctx: Context, _request: Request, message: DescribeConfigsRequest
) -> DescribeConfigsResponse:
    """Answer from the image and the broker's configuration."""
    return DescribeConfigsResponse(
        results=[_describe(ctx, message, resource) for resource in message.resources]
    )


def _describe(
    ctx: Context, message: DescribeConfigsRequest, resource: DescribeConfigsRequestResource
) -> DescribeConfigsResponseResource:
    answer = DescribeConfigsResponseResource(
        resource_type=resource.resource_type, resource_name=resource.resource_name
    )
    try:
        rows = list(_rows(ctx, resource))
    except KafkaError as error:
        answer.error_code, answer.error_message = error.code, str(error)
    except ConfigError as error:  # kept by another version of trioq
        answer.error_code, answer.error_message = InvalidConfig.code, str(error)
    else:
        answer.configs = [
            _config(
                row,
                synonyms=message.include_synonyms,
                documentation=message.include_documentation,
            )
            for row in rows
        ]
    return answer


def _rows(ctx: Context, resource: DescribeConfigsRequestResource) -> Iterable[ConfigRow]:
    name, keys = resource.resource_name, resource.configuration_keys or None
    if resource.resource_type == Scope.TOPIC:
        topic = ctx.image.topics.get(name)
        if topic is None:
            raise UnknownTopicOrPartition(f"there is no topic {name}")
        return describe_topic(ctx.config, topic.config, keys)
    if resource.resource_type != Scope.BROKER:
        raise InvalidRequest(
            f"resources of type {resource.resource_type} have no configuration here: there are "
            f"topics ({Scope.TOPIC}) and brokers ({Scope.BROKER})"
        )
    if name == ALL_BROKERS:
        return _all_brokers_rows(ctx, keys)
    if name != str(ctx.config.node_id):
        raise InvalidRequest(
            f"this is broker {ctx.config.node_id}; it describes itself and the default for all "
            f'brokers (""), not broker {name}'
        )
    return describe_broker(ctx.config, keys)


def _all_brokers_rows(ctx: Context, keys: list[str] | None) -> Iterator[ConfigRow]:
    """What was set at run time for all brokers."""
    for name, value in ctx.image.broker_configs.get(ALL_BROKERS, {}).items():
        key = BROKER_KEYS.get(name)
        if key is None or (keys is not None and name not in keys):
            continue
        source = Source.DYNAMIC_DEFAULT_BROKER
        shown = None if key.sensitive else value
        yield ConfigRow(
            name=name,
            value=shown,
            source=source,
            is_default=False,
            read_only=False,
            sensitive=key.sensitive,
            kind=key.kind,
            doc=key.doc,
            synonyms=(Synonym(name, shown, source),),
        )


def _config(
    row: ConfigRow, *, synonyms: bool, documentation: bool
) -> DescribeConfigsResponseConfig:
    return DescribeConfigsResponseConfig(
        name=row.name,
        value=row.value,
        read_only=row.read_only,
        config_source=row.source,
        is_sensitive=row.sensitive,
        synonyms=[
            DescribeConfigsResponseSynonym(
                name=synonym.name, value=synonym.value, source=synonym.source
            )
            for synonym in (row.synonyms if synonyms else ())
        ],
        config_type=row.kind,
        documentation=row.doc if documentation else None,
    )
