"""ApiVersions (key 18): which APIs and versions the broker serves.

A request of an unknown version is answered in version 0 with UNSUPPORTED_VERSION, and
the response header has version 0 always: a client must be able to read both before it
knows anything. Version 3 added the client's software and features; version 4 changed
only that a feature may be supported from version 0 on.
"""

from __future__ import annotations

from trioq.wire.kinds import BOOL, INT16, INT32, INT64, STRING
from trioq.wire.schema import Message, Struct, array, wire


class ApiVersionsRequest(Message, versions=(0, 4), flexible=3):
    client_software_name: str = wire(STRING, default="", since=3, ignorable=True)
    client_software_version: str = wire(STRING, default="", since=3, ignorable=True)


class ApiVersionsResponseKey(Struct):
    api_key: int = wire(INT16, default=0)
    min_version: int = wire(INT16, default=0)
    max_version: int = wire(INT16, default=0)


class ApiVersionsResponseSupportedFeature(Struct):
    name: str = wire(STRING, default="")
    min_version: int = wire(INT16, default=0)
    max_version: int = wire(INT16, default=0)


class ApiVersionsResponseFinalizedFeature(Struct):
    name: str = wire(STRING, default="")
    max_version_level: int = wire(INT16, default=0)
    min_version_level: int = wire(INT16, default=0)


class ApiVersionsResponse(Message, versions=(0, 4), flexible=3):
    error_code: int = wire(INT16, default=0)
    api_keys: list[ApiVersionsResponseKey] = wire(array(ApiVersionsResponseKey), factory=list)
    throttle_time_ms: int = wire(INT32, default=0, since=1, ignorable=True)
    supported_features: list[ApiVersionsResponseSupportedFeature] = wire(
        array(ApiVersionsResponseSupportedFeature), factory=list, since=3, tag=0, ignorable=True
    )
    finalized_features_epoch: int = wire(INT64, default=-1, since=3, tag=1, ignorable=True)
    finalized_features: list[ApiVersionsResponseFinalizedFeature] = wire(
        array(ApiVersionsResponseFinalizedFeature), factory=list, since=3, tag=2, ignorable=True
    )
    zk_migration_ready: bool = wire(BOOL, default=False, since=3, tag=3, ignorable=True)
