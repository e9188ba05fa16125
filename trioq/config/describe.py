"""The rows of DescribeConfigs, and of every other view of the configuration."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from trioq.config.broker import BrokerConfig
from trioq.config.key import Key, Kind, Source, Value
from trioq.config.table import BROKER_KEYS, TOPIC_KEYS, scaled
from trioq.config.topic import topic_default


class Synonym(NamedTuple):
    """A value that a key has or would have, under the name that sets it."""

    name: str
    value: str | None
    source: Source


class ConfigRow(NamedTuple):
    """One key as DescribeConfigs shows it; `value` is None where unset or sensitive."""

    name: str
    value: str | None
    source: Source
    is_default: bool
    read_only: bool
    sensitive: bool
    kind: Kind
    doc: str
    synonyms: tuple[Synonym, ...]
    """The effective value first, then those that would follow if it were removed."""


def describe_broker(
    config: BrokerConfig, names: Iterable[str] | None = None
) -> Iterator[ConfigRow]:
    """Rows of the broker's keys; those of `names` only, unknown ones left out, if given."""
    for key in _chosen(BROKER_KEYS, names):
        value: Value = getattr(config, key.attribute)
        yield _row(key, value, tuple(_broker_synonyms(config, key)), read_only=not key.dynamic)


def describe_topic(
    config: BrokerConfig,
    overrides: Mapping[str, str],
    names: Iterable[str] | None = None,
) -> Iterator[ConfigRow]:
    """Rows of a topic's keys, given its own values; chosen by `names` like `describe_broker`."""
    for key in _chosen(TOPIC_KEYS, names):
        synonyms: list[Synonym] = []
        if key.name in overrides:
            value = key.parse(overrides[key.name])
            synonyms.append(Synonym(key.name, key.write(value), Source.TOPIC))
        else:
            value = topic_default(config, key)
        for fallback in key.fallbacks:
            synonyms += _broker_synonyms(config, BROKER_KEYS[fallback.broker_key], fallback.factor)
        yield _row(key, value, tuple(synonyms), read_only=False)


def _chosen(keys: Mapping[str, Key], names: Iterable[str] | None) -> Iterator[Key]:
    if names is None:
        yield from keys.values()
        return
    for name in dict.fromkeys(names):
        if name in keys:
            yield keys[name]


def _row(key: Key, value: Value, synonyms: tuple[Synonym, ...], *, read_only: bool) -> ConfigRow:
    source = synonyms[0].source if synonyms else Source.DEFAULT
    if key.sensitive:
        synonyms = tuple(synonym._replace(value=None) for synonym in synonyms)
    return ConfigRow(
        name=key.name,
        value=None if key.sensitive else key.write(value),
        source=source,
        is_default=source is Source.DEFAULT,
        read_only=read_only,
        sensitive=key.sensitive,
        kind=key.kind,
        doc=key.doc,
        synonyms=synonyms,
    )


def _broker_synonyms(config: BrokerConfig, key: Key, factor: int = 1) -> Iterator[Synonym]:
    """Every value of a broker key, the effective one first; in the topic key's unit."""
    for setting in config.settings.get(key.name, ()):
        if setting.value is not None:
            yield Synonym(key.name, key.write(scaled(setting.value, factor)), setting.source)
    if key.default is not None:
        yield Synonym(key.name, key.write(scaled(key.default, factor)), Source.DEFAULT)
