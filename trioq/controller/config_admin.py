"""Dynamic configuration of topics and brokers, as the administrator's requests change it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from trioq.config import BrokerConfig, Scope
from trioq.controller import topic_plan
from trioq.controller.admin_writes import AdminWrites, Planner
from trioq.controller.config_changes import ConfigChange, ConfigResource, changed, replaced
from trioq.controller.topic_plan import Plan
from trioq.errors import InvalidRequest, KafkaError, UnknownTopicOrPartition
from trioq.metastore import layout
from trioq.metastore.image import ClusterImage
from trioq.metastore.store import Create, Set


class ConfigResult(NamedTuple):
    """What became of one resource's change."""

    resource: ConfigResource
    error: KafkaError | None = None


class ConfigAdmin:
    """The config half of TopicAdmin, which hands it the writes and the broker's config."""

    def __init__(self, writes: AdminWrites, config: BrokerConfig) -> None:
        self._writes = writes
        self._config = config

    def use_config(self, config: BrokerConfig) -> None:
        """Take changed broker defaults."""
        self._config = config

    async def replace(
        self,
        resources: Sequence[tuple[ConfigResource, Mapping[str, str | None]]],
        *,
        validate_only: bool,
        timeout_s: float,
    ) -> list[ConfigResult]:
        """Replace all of each resource's own values.

        Errors of an item: UnknownTopicOrPartition, InvalidConfig, InvalidRequest (an
        unknown kind of resource or broker, a resource twice), RequestTimedOut, and the
        metastore's.
        """
        return await self._alter(
            [resource for resource, _ in resources],
            lambda number, _: replaced(*resources[number], self._config),
            validate_only=validate_only,
            timeout_s=timeout_s,
        )

    async def change(
        self,
        resources: Sequence[tuple[ConfigResource, Sequence[ConfigChange]]],
        *,
        validate_only: bool,
        timeout_s: float,
    ) -> list[ConfigResult]:
        """Set, unset, or extend single values; errors as of `replace`."""
        return await self._alter(
            [resource for resource, _ in resources],
            lambda number, current: changed(
                resources[number][0], current, resources[number][1], self._config
            ),
            validate_only=validate_only,
            timeout_s=timeout_s,
        )

    async def _alter(
        self,
        resources: Sequence[ConfigResource],
        overrides_of: Callable[[int, Mapping[str, str]], dict[str, str]],
        *,
        validate_only: bool,
        timeout_s: float,
    ) -> list[ConfigResult]:
        counts = Counter(resources)

        def plan_with(image: ClusterImage) -> Planner:
            def plan(number: int) -> Plan:
                resource = resources[number]
                if counts[resource] > 1:
                    raise InvalidRequest("The resource is named more than once in the request.")
                if resource.type == Scope.TOPIC:
                    topic = image.topics.get(resource.name)
                    if topic is None:
                        raise UnknownTopicOrPartition
                    overrides = overrides_of(number, topic.config)
                    return topic_plan.reconfiguration(topic, overrides)
                _check_broker(image, resource)
                current = image.broker_configs.get(resource.name, layout.NO_CONFIG)
                return _broker_plan(image, resource.name, overrides_of(number, current))

            return plan

        errors = await self._writes.carry_out(
            range(len(resources)), plan_with, timeout_s=timeout_s, validate_only=validate_only
        )
        return [
            ConfigResult(resource, errors.get(number)) for number, resource in enumerate(resources)
        ]


def _check_broker(image: ClusterImage, resource: ConfigResource) -> None:
    if resource.type != Scope.BROKER:
        raise InvalidRequest(f"Resources of type {resource.type} have no configuration here.")
    if resource.name and resource.name not in map(str, image.brokers):
        raise InvalidRequest(f"There is no broker {resource.name!r}.")


def _broker_plan(image: ClusterImage, name: str, overrides: dict[str, str]) -> Plan:
    path, value = layout.BrokerConfig.path(name), layout.BrokerConfig(overrides).encode()
    version = image.broker_config_version(name)
    if version is None:
        return Plan([[Create(path, value)]], None)
    return Plan([[Set(path, value, version)]], None)
