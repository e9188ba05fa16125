"""Reads a broker's configuration: flags over environment over file over defaults."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from trioq.config.broker import BrokerConfig, broker_key
from trioq.config.key import Scope, unknown_key
from trioq.config.table import BROKER_KEYS
from trioq.errors import ConfigError

ENVIRONMENT_PREFIX: Final = "TRIOQ_"

FILE_VARIABLE: Final = "TRIOQ_CONFIG"
"""Names the configuration file where no flag does."""

SHORT_NAMES: Final = {
    "TRIOQ_DATA_DIR": "log.dirs",
    "TRIOQ_LISTEN": "listeners",
    "TRIOQ_ADVERTISED": "advertised.listeners",
    "TRIOQ_RACK": "broker.rack",
    "TRIOQ_LOG_LEVEL": "logging.level",
}
"""Variables named after flags rather than keys."""

NOT_KEYS: Final = frozenset(
    {FILE_VARIABLE, "TRIOQ_BOOTSTRAP_SERVER", "TRIOQ_DEBUG_BUILD", "TRIOQ_SANITIZE"}
)
"""Variables that something other than the broker's configuration reads."""


class Given(NamedTuple):
    """A value as it was given and, for people, where."""

    text: str
    origin: str


def load(
    flags: Mapping[str, Given], environment: Mapping[str, str], file: Path | None = None
) -> BrokerConfig:
    """Merge the sources and check the whole.

    `flags` and the result of every source are by key name. `file` is TOML; where it is None
    the environment may name one. Raises ConfigError, which says where the bad value was set.
    """
    if file is None and environment.get(FILE_VARIABLE):
        file = Path(environment[FILE_VARIABLE])
    given: dict[str, Given] = {}
    if file is not None:
        given |= read_file(file)
    given |= read_environment(environment)
    given |= flags
    return BrokerConfig.from_mapping(
        {name: value.text for name, value in given.items()},
        origins={name: value.origin for name, value in given.items()},
    )


def read_environment(environment: Mapping[str, str]) -> dict[str, Given]:
    """The keys that TRIOQ_* variables set; raises ConfigError for one that names no key."""
    by_variable = {key.environment_name: name for name, key in BROKER_KEYS.items()} | SHORT_NAMES
    given: dict[str, Given] = {}
    for variable, text in environment.items():
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable in NOT_KEYS:
            continue
        name = by_variable.get(variable)
        if name is None:
            raise ConfigError(
                f"environment: {unknown_key(variable, Scope.BROKER, [*by_variable, *NOT_KEYS])}"
            )
        if name in given:
            raise ConfigError(f"{name} is set twice: {given[name].origin} and {variable}")
        given[name] = Given(text, f"environment variable {variable}")
    return given


def read_file(path: Path) -> dict[str, Given]:
    """The keys that a TOML file sets, quoted or dotted; raises ConfigError."""
    import tomllib  # noqa: PLC0415  most brokers start without a file

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration file {path} cannot be read: {error}") from error
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"configuration file {path} is not valid TOML: {error}; if a key is the beginning of "
            'another, put both in quotes, like "max.connections" = 100'
        ) from error
    given: dict[str, Given] = {}
    for name, value in _flattened(tables, ""):
        broker_key(name)
        if name in given:
            raise ConfigError(f"configuration file {path} sets {name} twice")
        given[name] = Given(_as_text(name, value), f"file {path}")
    return given


def _flattened(table: Mapping[str, object], prefix: str) -> Iterator[tuple[str, object]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _as_text(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float | str):
        return str(value)
    if isinstance(value, list) and all(isinstance(element, str) for element in value):
        return ",".join(value)
    raise broker_key(name).refuse(str(value))
