"""`trioq dev-cluster`: ZooKeeper and a few brokers on this machine, for trying things out."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Final

import click

from trioq.cli.serve import settings_from
from trioq.errors import StartupError

_MOST: Final = 15
_SESSION_TIMEOUT_MS: Final = 4000
"""A broker that dies is missed after this time."""

_CONNECTION_TIMEOUT_MS: Final = 30_000


@click.command(
    "dev-cluster",
    epilog="The data stays: the next start goes on with it. What ends is started again.",
)
@click.argument("brokers", metavar="[N]", type=click.IntRange(1, _MOST), default=3)
@click.option(
    "--data-dir",
    "directory",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("trioq-dev-cluster"),
    help="Where all data lives.  [default: ./trioq-dev-cluster]",
)
@click.option(
    "--port",
    metavar="PORT",
    type=click.IntRange(0, 65535 - _MOST),
    default=9092,
    help="Of the first broker, the next ones follow; 0 takes free ones.  [default: 9092]",
)
@click.option(
    "--zookeeper",
    metavar="HOST:PORT[/PATH]",
    help="Use the ZooKeeper that runs there, in place of one that is started.",
)
@click.option(
    "--set", "pairs", metavar="KEY=VALUE", multiple=True, help="Set a key of the brokers."
)
@click.option(
    "--restart-after",
    "restart_after_s",
    metavar="S",
    type=click.FloatRange(min=0),
    default=10.0,
    help="Seconds until what has ended is started again.  [default: 10]",
)
@click.option(
    "--log-level",
    metavar="LEVEL",
    default="info",
    help="Of the brokers: debug, info, warning or error.  [default: info]",
)
def dev_cluster(
    brokers: int,
    directory: Path,
    port: int,
    zookeeper: str | None,
    pairs: tuple[str, ...],
    restart_after_s: float,
    log_level: str,
) -> None:
    """Run a cluster of N brokers, 3 if not said, on this machine until Ctrl-C.

    Starts a ZooKeeper server (of $ZOOKEEPER_HOME, of the path, or Debian's) and the brokers, and
    says at which addresses they are and what to try. Ctrl-C stops the brokers one by one, then
    ZooKeeper; a second one ends all at once.
    """
    if importlib.util.find_spec("kazoo") is None:
        raise StartupError("a cluster needs kazoo: pip install 'trioq[zookeeper]'")
    settings = {
        "default.replication.factor": str(min(brokers, 3)),
        "zookeeper.session.timeout.ms": str(_SESSION_TIMEOUT_MS),
        "zookeeper.connection.timeout.ms": str(_CONNECTION_TIMEOUT_MS),
        "logging.level": log_level,
        **settings_from(pairs, "--set"),
    }
    from trioq.cli.dev_run import Plan, run  # noqa: PLC0415  help needs no Trio

    run(Plan(brokers, directory, port, zookeeper, settings, restart_after_s))
