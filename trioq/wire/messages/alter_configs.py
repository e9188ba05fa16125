"""AlterConfigs (key 33): replace all configuration overrides of a resource."""

from __future__ import annotations

from trioq.wire.kinds import BOOL, INT8, INT16, INT32, STRING
from trioq.wire.schema import Message, Struct, array, wire


class AlterConfigsRequestConfig(Struct):
    name: str = wire(STRING, default="")
    value: str | None = wire(STRING, default=None, nullable=0)


class AlterConfigsRequestResource(Struct):
    resource_type: int = wire(INT8, default=0)
    resource_name: str = wire(STRING, default="")
    configs: list[AlterConfigsRequestConfig] = wire(array(AlterConfigsRequestConfig), factory=list)


class AlterConfigsRequest(Message, versions=(0, 2), flexible=2):
    resources: list[AlterConfigsRequestResource] = wire(
        array(AlterConfigsRequestResource), factory=list
    )
    validate_only: bool = wire(BOOL, default=False)


class AlterConfigsResponseResource(Struct):
    error_code: int = wire(INT16, default=0)
    error_message: str | None = wire(STRING, default=None, nullable=0)
    resource_type: int = wire(INT8, default=0)
    resource_name: str = wire(STRING, default="")


class AlterConfigsResponse(Message, versions=(0, 2), flexible=2):
    throttle_time_ms: int = wire(INT32, default=0)
    responses: list[AlterConfigsResponseResource] = wire(
        array(AlterConfigsResponseResource), factory=list
    )
