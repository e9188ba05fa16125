"""DescribeConfigs (key 32).

`configuration_keys` null means all. 1: synonyms and the source of a value. 3: type and
documentation.
"""

from __future__ import annotations

from trioq.wire.kinds import BOOL, INT8, INT16, INT32, STRING
from trioq.wire.schema import Message, Struct, array, wire


class DescribeConfigsRequestResource(Struct):
    resource_type: int = wire(INT8, default=0)
    resource_name: str = wire(STRING, default="")
    configuration_keys: list[str] | None = wire(array(STRING), factory=list, nullable=0)


class DescribeConfigsRequest(Message, versions=(1, 4), flexible=4):
    resources: list[DescribeConfigsRequestResource] = wire(
        array(DescribeConfigsRequestResource), factory=list
    )
    include_synonyms: bool = wire(BOOL, default=False)
    include_documentation: bool = wire(BOOL, default=False, since=3)


class DescribeConfigsResponseSynonym(Struct):
    name: str = wire(STRING, default="")
    value: str | None = wire(STRING, default=None, nullable=0)
    source: int = wire(INT8, default=0)


class DescribeConfigsResponseConfig(Struct):
    name: str = wire(STRING, default="")
    value: str | None = wire(STRING, default=None, nullable=0)
    read_only: bool = wire(BOOL, default=False)
    config_source: int = wire(INT8, default=-1)
    is_sensitive: bool = wire(BOOL, default=False)
    synonyms: list[DescribeConfigsResponseSynonym] = wire(
        array(DescribeConfigsResponseSynonym), factory=list
    )
    config_type: int = wire(INT8, default=0, since=3, ignorable=True)
    documentation: str | None = wire(STRING, default=None, since=3, nullable=0, ignorable=True)


class DescribeConfigsResponseResource(Struct):
    error_code: int = wire(INT16, default=0)
    error_message: str | None = wire(STRING, default=None, nullable=0)
    resource_type: int = wire(INT8, default=0)
    resource_name: str = wire(STRING, default="")
    configs: list[DescribeConfigsResponseConfig] = wire(
        array(DescribeConfigsResponseConfig), factory=list
    )


class DescribeConfigsResponse(Message, versions=(1, 4), flexible=4):
    throttle_time_ms: int = wire(INT32, default=0)
    results: list[DescribeConfigsResponseResource] = wire(
        array(DescribeConfigsResponseResource), factory=list
    )
