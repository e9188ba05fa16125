"""Which kind of member a consumer becomes."""

from __future__ import annotations

from typing import Any

from trioq.client.assignors import assignors_named
from trioq.client.classic_member import ClassicMember
from trioq.client.cluster import Cluster
from trioq.client.consumer_membership_state import ConsumerMembership
from trioq.client.consumer_protocol_member import ConsumerProtocolMember
from trioq.client.consumer_settings import ConsumerSettings
from trioq.client.group import Host
from trioq.client.group_calls import GroupCalls
from trioq.client.membership_state import ClassicMembership
from trioq.client.membership_steps import MembershipSettings
from trioq.client.reader import Reader


def group_member(
    cluster: Cluster,
    calls: GroupCalls,
    settings: ConsumerSettings,
    reader: Reader[Any, Any],
    host: Host,
) -> ClassicMember | ConsumerProtocolMember:
    """The member that the settings ask for."""
    membership = MembershipSettings(
        group_id=calls.group_id,
        instance_id=settings.instance_id,
        rack=cluster.settings.rack,
        session_timeout_ms=settings.session_timeout_ms,
        rebalance_timeout_ms=settings.max_poll_interval_ms,
        heartbeat_interval_ms=settings.heartbeat_interval_ms,
        retry_backoff_ms=cluster.settings.retry_backoff_ms,
        retry_backoff_max_ms=cluster.settings.retry_backoff_max_ms,
    )
    if settings.group_protocol == "consumer":
        machine = ConsumerMembership(membership, settings.server_assignor)
        return ConsumerProtocolMember(cluster, calls, settings, machine, reader, host)
    classic = ClassicMembership(membership, assignors_named(settings.assignors))
    return ClassicMember(cluster, calls, settings, classic, reader, host)
