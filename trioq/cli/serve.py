"""`trioq serve`: flags, environment and file become a BrokerConfig, and the broker runs."""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from pathlib import Path

import click

from trioq import logs
from trioq.config.broker import BrokerConfig, broker_key
from trioq.config.loading import Given, load
from trioq.errors import ConfigError


def settings_from(pairs: Sequence[str], flag: str) -> dict[str, str]:
    """Split KEY=VALUE arguments; raises ConfigError for one that is none or comes twice."""
    settings: dict[str, str] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name:
            raise ConfigError(f"{flag} {pair} is not valid: allowed is KEY=VALUE")
        if name in settings:
            raise ConfigError(f"{flag} sets {name} twice")
        settings[name] = value
    return settings


@click.command(epilog="Every key is in docs/configuration.md; `trioq serve` alone needs none.")
@click.option(
    "--data-dir",
    "data_dirs",
    metavar="DIR",
    multiple=True,
    help="Where the data lives; may be repeated.  [log.dirs, default: ./trioq-data]",
)
@click.option(
    "--listen",
    metavar="HOST:PORT",
    multiple=True,
    help="Address to listen on, also as NAME://HOST:PORT; may be repeated; port 0 takes a free "
    "one.  [listeners, default: 127.0.0.1:9092]",
)
@click.option(
    "--advertised",
    metavar="HOST:PORT",
    multiple=True,
    help="Address that clients are told, one for each --listen.  [advertised.listeners]",
)
@click.option("--node-id", metavar="N", help="Id of this broker.  [node.id, default: 1]")
@click.option("--rack", metavar="NAME", help="Rack of this broker.  [broker.rack]")
@click.option(
    "--metastore",
    metavar="WHERE",
    help="embedded for a single broker, zookeeper://HOST:PORT,.../PATH for one of a cluster.  "
    "[metastore, default: embedded]",
)
@click.option("--config", "file", metavar="FILE.toml", help="Read keys from a file.")
@click.option("--set", "pairs", metavar="KEY=VALUE", multiple=True, help="Set any key.")
@click.option(
    "--log-level",
    metavar="LEVEL",
    help="debug, info, warning or error.  [logging.level, default: info]",
)
def serve(
    data_dirs: tuple[str, ...],
    listen: tuple[str, ...],
    advertised: tuple[str, ...],
    node_id: str | None,
    rack: str | None,
    metastore: str | None,
    file: str | None,
    pairs: tuple[str, ...],
    log_level: str | None,
) -> None:
    """Run a broker until SIGTERM or Ctrl-C.

    When it is ready it prints one line on stdout: trioq ready HOST:PORT node=N in M ms. Log
    lines go to stderr.

    A value is taken from a flag, else from the environment (TRIOQ_NODE_ID for node.id), else
    from the file, else it is the default.
    """
    flags = {
        "log.dirs": ("--data-dir", ",".join(data_dirs) or None),
        "listeners": ("--listen", ",".join(listen) or None),
        "advertised.listeners": ("--advertised", ",".join(advertised) or None),
        "node.id": ("--node-id", node_id),
        "broker.rack": ("--rack", rack),
        "metastore": ("--metastore", metastore),
        "logging.level": ("--log-level", log_level),
    }
    given = {name: Given(text, flag) for name, (flag, text) in flags.items() if text is not None}
    for name, text in settings_from(pairs, "--set").items():
        broker_key(name)
        if name in given:
            raise ConfigError(f"{name} is set twice: {given[name].origin} and --set")
        given[name] = Given(text, "--set")
    config = load(given, os.environ, None if file is None else Path(file))
    raise SystemExit(run(config))


def run(config: BrokerConfig) -> int:
    """Run the broker; the exit status of the process."""
    logs.configure(config.logging_level)
    gc.disable()  # as in trioq.cli.main
    from trioq.process import serve as serve_broker  # noqa: PLC0415  wrong flags need no broker

    gc.freeze()
    gc.enable()
    return serve_broker(config)
