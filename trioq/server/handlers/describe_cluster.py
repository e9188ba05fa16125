"""DescribeCluster (key 60), versions 0-1 (KIP-700).

Behaviour: the live brokers with the addresses of the client's own listener, a broker to
send administrative requests to as the controller, the cluster id. A broker of a cluster that does
not reach the metastore shows who was there last, and -1 as the controller: it knows of none that
can act.

Version notes: 1 endpoint_type (KIP-919): 1 brokers; 2 controllers, which have no listener
of their own here and are refused with MISMATCHED_ENDPOINT_TYPE.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trioq.errors import KafkaError, MismatchedEndpointType, UnsupportedEndpointType
from trioq.metastore.session import SessionState
from trioq.server.handlers.cluster_view import (
    cluster_operations,
    endpoints,
    reachable_controller,
)
from trioq.wire.messages.describe_cluster import (
    DescribeClusterRequest,
    DescribeClusterResponse,
    DescribeClusterResponseBroker,
)

if TYPE_CHECKING:
    from trioq.server.context import Context, Request

BROKERS = 1
CONTROLLERS = 2
NO_CONTROLLER = -1


def handle_describe_cluster(
    ctx: Context, request: Request, message: DescribeClusterRequest
) -> DescribeClusterResponse:
    """Answer from the image."""
    if message.endpoint_type != BROKERS:
        error: KafkaError = UnsupportedEndpointType(f"endpoint type {message.endpoint_type}")
        if message.endpoint_type == CONTROLLERS:
            error = MismatchedEndpointType("this is a broker; ask it for endpoint type 1 (brokers)")
        return DescribeClusterResponse(
            error_code=error.code, error_message=str(error), endpoint_type=message.endpoint_type
        )
    image, listener_name = ctx.image, request.connection.listener_name
    is_cut_off = ctx.gate is not None and (
        ctx.metastore.session.state is not SessionState.CONNECTED
    )
    return DescribeClusterResponse(
        cluster_id=image.cluster_id,
        controller_id=NO_CONTROLLER if is_cut_off else reachable_controller(image, listener_name),
        brokers=[
            DescribeClusterResponseBroker(
                broker_id=endpoint.broker_id,
                host=endpoint.host,
                port=endpoint.port,
                rack=endpoint.rack,
            )
            for endpoint in endpoints(image, listener_name)
        ],
        cluster_authorized_operations=cluster_operations(
            message.include_cluster_authorized_operations
        ),
    )
