"""TopicConfig: the configuration of one topic, its own values over the broker's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trioq.config.broker import BrokerConfig
from trioq.config.key import Key, Scope, Value, unknown_key
from trioq.config.table import BROKER_KEYS, TOPIC_KEYS, scaled
from trioq.errors import ConfigError


@dataclass(frozen=True, slots=True)
class TopicConfig:
    """Every topic key as an attribute: dots are underscores, units are the table's."""

    cleanup_policy: tuple[str, ...]
    compression_gzip_level: int
    compression_lz4_level: int
    compression_type: str
    compression_zstd_level: int
    delete_retention_ms: int
    file_delete_delay_ms: int
    flush_messages: int
    flush_ms: int
    flush_policy: str
    index_interval_bytes: int
    max_compaction_lag_ms: int
    max_message_bytes: int
    message_timestamp_after_max_ms: int
    message_timestamp_before_max_ms: int
    message_timestamp_type: str
    min_cleanable_dirty_ratio: float
    min_compaction_lag_ms: int
    min_insync_replicas: int
    preallocate: bool
    produce_batch_validation: str
    retention_bytes: int
    retention_ms: int
    segment_bytes: int
    segment_index_bytes: int
    segment_jitter_ms: int
    segment_ms: int
    unclean_leader_election_enable: bool
    overrides: Mapping[str, str] = field(repr=False)
    """What the topic sets itself, as it is kept in the metastore."""

    @classmethod
    def of(cls, broker_config: BrokerConfig, overrides: Mapping[str, str]) -> TopicConfig:
        """The topic's `overrides` over the broker's values; raises ConfigError."""
        values: dict[str, Any] = {
            key.attribute: topic_default(broker_config, key) for key in TOPIC_KEYS.values()
        }
        for name, text in overrides.items():
            key = topic_key(name)
            values[key.attribute] = key.parse(text)
        return cls(overrides=dict(overrides), **values)

    def value_of(self, name: str) -> str | None:
        """The effective value of a key as text."""
        key = topic_key(name)
        value: Value = getattr(self, key.attribute)
        return key.write(value)


def topic_default(broker_config: BrokerConfig, key: Key) -> Value:
    """The value of a topic key that the topic does not set."""
    for fallback in key.fallbacks:
        value: Value = getattr(broker_config, BROKER_KEYS[fallback.broker_key].attribute)
        if value is not None:
            return scaled(value, fallback.factor)
    return key.default


def topic_key(name: str) -> Key:
    """The row of a topic key; raises ConfigError with the nearest known one."""
    key = TOPIC_KEYS.get(name)
    if key is None:
        raise unknown_key(name, Scope.TOPIC, TOPIC_KEYS)
    return key


def check_topic_value(name: str, text: str | None) -> str:
    """`text` as the metastore keeps it for a topic key; raises ConfigError."""
    key = topic_key(name)
    written = None if text is None else key.write(key.parse(text))
    if written is None:
        raise ConfigError(f"{name} needs a value: allowed is {key.allowed}")
    return written


def validate_topic_overrides(overrides: Mapping[str, str | None]) -> dict[str, str]:
    """All of a topic's own values as the metastore keeps them; raises ConfigError."""
    return {name: check_topic_value(name, text) for name, text in overrides.items()}
