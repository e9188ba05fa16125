"""Configuration of brokers and topics, from the one table of keys in trioq.config.table."""

from __future__ import annotations

from trioq.config.broker import BrokerConfig, Setting, broker_key, check_broker_value
from trioq.config.describe import ConfigRow, Synonym, describe_broker, describe_topic
from trioq.config.key import Key, Kind, Scope, Source
from trioq.config.listeners import Listener, format_address, parse_address
from trioq.config.table import BROKER_KEYS, TOPIC_KEYS
from trioq.config.topic import (
    TopicConfig,
    check_topic_value,
    topic_key,
    validate_topic_overrides,
)

__all__ = [
    "BROKER_KEYS",
    "TOPIC_KEYS",
    "BrokerConfig",
    "ConfigRow",
    "Key",
    "Kind",
    "Listener",
    "Scope",
    "Setting",
    "Source",
    "Synonym",
    "TopicConfig",
    "broker_key",
    "check_broker_value",
    "check_topic_value",
    "describe_broker",
    "describe_topic",
    "format_address",
    "parse_address",
    "topic_key",
    "validate_topic_overrides",
]
