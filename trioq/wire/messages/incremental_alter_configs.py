"""IncrementalAlterConfigs (key 44): change single configuration overrides of a resource.

Operations: 0 set, 1 delete, 2 append, 3 subtract (the last two on lists).
"""

from __future__ import annotations

from trioq.wire.kinds import BOOL, INT8, INT16, INT32, STRING
from trioq.wire.schema import Message, Struct, array, wire


class IncrementalAlterConfigsRequestConfig(Struct):
    name: str = wire(STRING, default="")
    config_operation: int = wire(INT8, default=0)
    value: str | None = wire(STRING, default=None, nullable=0)


class IncrementalAlterConfigsRequestResource(Struct):
    resource_type: int = wire(INT8, default=0)
    resource_name: str = wire(STRING, default="")
    configs: list[IncrementalAlterConfigsRequestConfig] = wire(
        array(IncrementalAlterConfigsRequestConfig), factory=list
    )


class IncrementalAlterConfigsRequest(Message, versions=(0, 1), flexible=1):
    resources: list[IncrementalAlterConfigsRequestResource] = wire(
        array(IncrementalAlterConfigsRequestResource), factory=list
    )
    validate_only: bool = wire(BOOL, default=False)


class IncrementalAlterConfigsResponseResource(Struct):
    error_code: int = wire(INT16, default=0)
    error_message: str | None = wire(STRING, default=None, nullable=0)
    resource_type: int = wire(INT8, default=0)
    resource_name: str = wire(STRING, default="")


class IncrementalAlterConfigsResponse(Message, versions=(0, 1), flexible=1):
    throttle_time_ms: int = wire(INT32, default=0)
    responses: list[IncrementalAlterConfigsResponseResource] = wire(
        array(IncrementalAlterConfigsResponseResource), factory=list
    )
