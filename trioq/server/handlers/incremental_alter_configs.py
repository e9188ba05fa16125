"""IncrementalAlterConfigs (key 44), versions 0-1 (KIP-339).

Behaviour: single values of a resource are set (0), unset (1), or, where they are lists,
appended to (2) or subtracted from (3); what is not named stays. Resources are topics, this
cluster's brokers by id, and "" for all brokers. validate_only changes nothing.

Version notes: 1 flexible.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trioq.controller.config_changes import ConfigChange, ConfigResource
from trioq.wire.messages.incremental_alter_configs import (
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
    IncrementalAlterConfigsResponseResource,
)

if TYPE_CHECKING:
    from trioq.server.context import Context, Request


async def handle_incremental_alter_configs(
    ctx: Context, request: Request
) -> IncrementalAlterConfigsResponse:
    """Change each resource's values. Cancelled: each resource is changed or not."""
    message = request.decode(IncrementalAlterConfigsRequest)
    results = await ctx.topic_admin.incremental_alter_configs(
        [
            (
                ConfigResource(resource.resource_type, resource.resource_name),
                [
                    ConfigChange(config.name, config.config_operation, config.value)
                    for config in resource.configs
                ],
            )
            for resource in message.resources
        ],
        validate_only=message.validate_only,
    )
    answers: list[IncrementalAlterConfigsResponseResource] = []
    for changed in results:
        answer = IncrementalAlterConfigsResponseResource(
            resource_type=changed.resource.type, resource_name=changed.resource.name
        )
        if changed.error is not None:
            answer.error_code, answer.error_message = changed.error.code, str(changed.error)
        answers.append(answer)
    return IncrementalAlterConfigsResponse(responses=answers)
