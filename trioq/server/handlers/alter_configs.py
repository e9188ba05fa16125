"""AlterConfigs (key 33), versions 0-2 (KIP-133).

Behaviour: the values given replace all that the resource sets itself, so what is not named
falls back to its default; resources are topics, this cluster's brokers by id, and "" for all
brokers. validate_only changes nothing. IncrementalAlterConfigs is the newer way.

Version notes: 2 flexible.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trioq.controller.config_changes import ConfigResource
from trioq.errors import InvalidRequest
from trioq.wire.messages.alter_configs import (
    AlterConfigsRequest,
    AlterConfigsResponse,
    AlterConfigsResponseResource,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trioq.server.context import Context, Request


async def handle_alter_configs(ctx: Context, request: Request) -> AlterConfigsResponse:
    """Replace each resource's values. Cancelled: each is changed or not."""
    message = request.decode(AlterConfigsRequest)
    answers: list[AlterConfigsResponseResource] = []
    resources: list[tuple[ConfigResource, Mapping[str, str | None]]] = []
    for resource in message.resources:
        configs = {config.name: config.value for config in resource.configs}
        if len(configs) != len(resource.configs):
            answers.append(
                AlterConfigsResponseResource(
                    error_code=InvalidRequest.code,
                    error_message="A configuration key is named more than once.",
                    resource_type=resource.resource_type,
                    resource_name=resource.resource_name,
                )
            )
        else:
            named = ConfigResource(resource.resource_type, resource.resource_name)
            resources.append((named, configs))
    for changed in await ctx.topic_admin.alter_configs(
        resources, validate_only=message.validate_only
    ):
        answer = AlterConfigsResponseResource(
            resource_type=changed.resource.type, resource_name=changed.resource.name
        )
        if changed.error is not None:
            answer.error_code, answer.error_message = changed.error.code, str(changed.error)
        answers.append(answer)
    return AlterConfigsResponse(responses=answers)
