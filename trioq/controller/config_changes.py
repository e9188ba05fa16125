"""Changes of dynamic configuration: what a request makes of the values set so far. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from trioq.config import (
    BROKER_KEYS,
    TOPIC_KEYS,
    BrokerConfig,
    Key,
    Kind,
    Scope,
    TopicConfig,
    check_broker_value,
)
from trioq.controller.topic_rules import topic_overrides
from trioq.errors import ConfigError, InvalidConfig, InvalidRequest


class ConfigResource(NamedTuple):
    """What is configured: `type` is Kafka's number (Scope), `name` a topic or a broker id.

    The broker name "" stands for all brokers.
    """

    type: int
    name: str


class ConfigOperation(enum.IntEnum):
    """What to do with one key; the numbers are Kafka's."""

    SET = 0
    DELETE = 1
    APPEND = 2
    SUBTRACT = 3


class ConfigChange(NamedTuple):
    """One key's change; `operation` is a ConfigOperation's number as the client sent it."""

    key: str
    operation: int
    value: str | None


def replaced(
    resource: ConfigResource, configs: Mapping[str, str | None], config: BrokerConfig
) -> dict[str, str]:
    """The resource's own values after all were replaced by `configs`.

    Raises InvalidConfig.
    """
    if resource.type == Scope.TOPIC:
        return topic_overrides(configs)
    return _broker_overrides(configs, config)


def changed(
    resource: ConfigResource,
    current: Mapping[str, str],
    changes: Sequence[ConfigChange],
    config: BrokerConfig,
) -> dict[str, str]:
    """The resource's own values after `changes` to `current`.

    APPEND and SUBTRACT work on lists and begin with the effective value where the
    resource has none of its own. Values that are not touched are kept as they are.
    Raises InvalidConfig, InvalidRequest (a key twice, an unknown operation).
    """
    keys = [change.key for change in changes]
    if len(set(keys)) != len(keys):
        raise InvalidRequest("A configuration key is named more than once.")
    after: dict[str, str | None] = {}
    for change in changes:
        after[change.key] = _new_value(resource, current, change, config)
    checked = replaced(
        resource, {key: value for key, value in after.items() if value is not None}, config
    )
    return {key: value for key, value in current.items() if key not in after} | checked


def _new_value(
    resource: ConfigResource,
    current: Mapping[str, str],
    change: ConfigChange,
    config: BrokerConfig,
) -> str | None:
    """The text that the key is to have; None to unset it."""
    table = TOPIC_KEYS if resource.type == Scope.TOPIC else BROKER_KEYS
    key = table.get(change.key)
    if change.operation == ConfigOperation.DELETE and change.key in current:
        return None
    if key is None:
        replaced(resource, {change.key: ""}, config)  # raises, naming the nearest key
        raise InvalidConfig(f"{change.key} is not a configuration key.")
    if change.operation == ConfigOperation.DELETE:
        return None
    if change.value is None:
        raise InvalidConfig(f"{change.key} needs a value: allowed is {key.allowed}")
    if change.operation == ConfigOperation.SET:
        return change.value
    if change.operation not in {ConfigOperation.APPEND, ConfigOperation.SUBTRACT}:
        raise InvalidRequest(f"Unknown operation {change.operation} for {change.key}.")
    if key.kind is not Kind.LIST:
        name = ConfigOperation(change.operation).name
        raise InvalidConfig(f"Cannot {name} to {change.key}: its value is not a list.")
    held = _elements(_effective(resource, key, current, config))
    given = _elements(change.value)
    if change.operation == ConfigOperation.APPEND:
        return ",".join(dict.fromkeys([*held, *given]))
    return ",".join(element for element in held if element not in given)


def _effective(
    resource: ConfigResource, key: Key, current: Mapping[str, str], config: BrokerConfig
) -> str | None:
    if key.name in current:
        return current[key.name]
    if resource.type == Scope.TOPIC:
        return TopicConfig.of(config, {}).value_of(key.name)
    return config.value_of(key.name)


def _elements(text: str | None) -> Iterable[str]:
    return [element.strip() for element in (text or "").split(",") if element.strip()]


def _broker_overrides(configs: Mapping[str, str | None], config: BrokerConfig) -> dict[str, str]:
    """A broker's dynamic values as they are kept. Raises InvalidConfig."""
    checked: dict[str, str] = {}
    try:
        for name, text in configs.items():
            value = check_broker_value(name, text)
            if value is not None:
                checked[name] = value
        config.replace(checked)
    except ConfigError as error:
        raise InvalidConfig(str(error)) from error
    return checked
