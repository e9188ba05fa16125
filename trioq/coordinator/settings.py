"""What the broker's configuration means to groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trioq.config import BrokerConfig
from trioq.coordinator.group_requests import GroupSettings

if TYPE_CHECKING:
    from trioq.coordinator.consumer_requests import ConsumerGroupSettings


def classic_settings(config: BrokerConfig) -> GroupSettings:
    """The bounds of groups of the classic protocol."""
    return GroupSettings(
        min_session_timeout_ms=config.group_min_session_timeout_ms,
        max_session_timeout_ms=config.group_max_session_timeout_ms,
        initial_rebalance_delay_ms=config.group_initial_rebalance_delay_ms,
        max_size=config.group_max_size,
    )


def consumer_settings(config: BrokerConfig) -> ConsumerGroupSettings:
    """The bounds of groups of the consumer protocol."""
    from trioq.coordinator.consumer_requests import (  # noqa: PLC0415  with the first such group
        ConsumerGroupSettings,
        MigrationPolicy,
    )

    return ConsumerGroupSettings(
        session_timeout_ms=config.group_consumer_session_timeout_ms,
        heartbeat_interval_ms=config.group_consumer_heartbeat_interval_ms,
        max_size=config.group_consumer_max_size,
        min_session_timeout_ms=config.group_min_session_timeout_ms,
        max_session_timeout_ms=config.group_max_session_timeout_ms,
        classic_max_size=config.group_max_size,
        assignors=config.group_consumer_assignors,
        migration_policy=MigrationPolicy(config.group_consumer_migration_policy),
    )
