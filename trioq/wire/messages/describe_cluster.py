"""DescribeCluster (key 60): brokers, controller and cluster id.

1: which endpoints are asked for (1 brokers, 2 controllers).
"""

from __future__ import annotations

from trioq.wire.kinds import BOOL, INT8, INT16, INT32, STRING, UNKNOWN_OPERATIONS
from trioq.wire.schema import Message, Struct, array, wire


class DescribeClusterRequest(Message, versions=(0, 1), flexible=0):
    include_cluster_authorized_operations: bool = wire(BOOL, default=False)
    endpoint_type: int = wire(INT8, default=1, since=1)


class DescribeClusterResponseBroker(Struct):
    broker_id: int = wire(INT32, default=0)
    host: str = wire(STRING, default="")
    port: int = wire(INT32, default=0)
    rack: str | None = wire(STRING, default=None, nullable=0)


class DescribeClusterResponse(Message, versions=(0, 1), flexible=0):
    throttle_time_ms: int = wire(INT32, default=0)
    error_code: int = wire(INT16, default=0)
    error_message: str | None = wire(STRING, default=None, nullable=0)
    endpoint_type: int = wire(INT8, default=1, since=1)
    cluster_id: str = wire(STRING, default="")
    controller_id: int = wire(INT32, default=-1)
    brokers: list[DescribeClusterResponseBroker] = wire(
        array(DescribeClusterResponseBroker), factory=list
    )
    cluster_authorized_operations: int = wire(INT32, default=UNKNOWN_OPERATIONS)
