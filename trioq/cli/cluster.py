"""`trioq cluster`: see how a cluster is, drain brokers, even out replicas and leaders."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

import click

from trioq.cli.app import CONTEXT_SETTINGS, FAILED
from trioq.cli.output import json_option, print_json, print_table
from trioq.cli.target import broker_options, target

if TYPE_CHECKING:
    from trioq.cli.cluster_moves import Move
    from trioq.cli.cluster_view import ClusterView

Command = TypeVar("Command", bound=Callable[..., object])

_UNITS: Final = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_LEAST_RATE: Final = 1024
_NO_CONTROLLER: Final = (
    "trioq: no broker is the controller at present, and what is shown is what one knew last. "
    "Records flow on; leaders, topics and replicas in sync change again once brokers "
    "reach a majority of the ZooKeeper servers: see that these run"
)


def _rate(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> int | None:
    """Bytes in a second, given with or without a unit: 50M, 50MiB, 1048576."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d+)\s*([kmg]?)(?:i?b)?(?:/s)?", value.strip().lower())
    rate = 0 if found is None else int(found[1]) * _UNITS[found[2]]
    if rate < _LEAST_RATE:
        raise click.BadParameter(f"{value!r} is no rate of at least 1 KiB/s: write 50M, 1G, ...")
    return rate


def _move_options(command: Command) -> Command:
    for option in (
        click.option("--dry-run", is_flag=True, help="Print the plan and move nothing."),
        click.option(
            "--throttle",
            metavar="BYTES/S",
            callback=_rate,
            help="Copy at most so much in a second to and from each broker, such as 50M.",
        ),
    ):
        command = option(command)
    return command


@click.group(context_settings=CONTEXT_SETTINGS)
@broker_options
def cluster() -> None:
    """Describe the cluster, drain brokers, even out replicas and leaders."""


@cluster.command()
@click.option("--partitions", "all_partitions", is_flag=True, help="Show every partition.")
@json_option
@broker_options
@click.pass_context
def describe(ctx: click.Context, all_partitions: bool, as_json: bool) -> None:
    """Describe the cluster: its brokers, and partitions with which something is the matter."""
    from trioq.cli.cluster_view import as_json as to_json  # noqa: PLC0415  help needs no client
    from trioq.cli.cluster_view import look_at  # noqa: PLC0415
    from trioq.cli.running import ask  # noqa: PLC0415

    view = ask(target(ctx), look_at)
    if view.controller is None:
        click.echo(_NO_CONTROLLER, err=True)
    if as_json:
        print_json(to_json(view))
        return
    print_table(
        _title(view),
        ["broker", "host", "port", "rack", "controller", "state", "leaders", "replicas", "failed"],
        [
            (
                *(one.broker, one.host, one.port, one.rack),
                *(one.is_controller, one.state, one.leaders, one.replicas, one.failed or None),
            )
            for one in view.brokers
        ],
        optional=["rack", "failed"],
    )
    shown = [one for one in view.partitions if all_partitions or one.problem]
    if shown:
        print_table(
            f"partitions: {len(shown)}",
            ["topic", "partition", "leader", "replicas", "in sync", "adding", "removing", "state"],
            [
                (
                    *one.partition,
                    *(one.leader, one.replicas, one.in_sync),
                    *(one.adding or None, one.removing or None, one.problem or "well"),
                )
                for one in shown
            ],
            optional=["adding", "removing"],
        )


def _title(view: ClusterView) -> str:
    counts = {
        "offline": sum(one.is_offline for one in view.partitions),
        "under min ISR": sum(one.is_under_min_isr for one in view.partitions),
        "under-replicated": sum(one.is_under_replicated for one in view.partitions),
        "with failed logs": sum(bool(one.failed) for one in view.partitions),
        "moving": sum(one.is_moving for one in view.partitions),
    }
    told = "  ".join(f"{name}: {count}" for name, count in counts.items() if count)
    return (
        f"cluster {view.cluster_id}  brokers: {len(view.brokers)}  "
        f"partitions: {len(view.partitions)}  {told or 'all is well'}"
    )


@cluster.command()
@click.argument("broker", metavar="N", type=click.IntRange(min=0))
@_move_options
@json_option
@broker_options
@click.pass_context
def drain(
    ctx: click.Context, broker: int, dry_run: bool, throttle: int | None, as_json: bool
) -> None:
    """Move everything that broker N holds to the others, and wait until that is done.

    Racks are kept apart. Ends when no partition has a replica there any more: the broker can
    then be stopped for good. What is under way goes on when the command is interrupted.
    """
    from trioq.cli.cluster_moves import drain as move_off  # noqa: PLC0415  help needs no client
    from trioq.cli.running import ask  # noqa: PLC0415

    done = ask(
        target(ctx),
        lambda client: move_off(client, broker, dry_run=dry_run, throttle_bytes=throttle),
    )
    if dry_run:
        _print_moves(done.moves, as_json=as_json)
    elif as_json:
        print_json({"broker": broker, "moved": done.moved})
    else:
        click.echo(
            f"broker {broker} holds no replicas; {done.moved} partitions were moved", err=True
        )


@cluster.command()
@_move_options
@json_option
@broker_options
@click.pass_context
def rebalance(ctx: click.Context, dry_run: bool, throttle: int | None, as_json: bool) -> None:
    """Even out replicas over racks and brokers, then leaders, moving as little as that takes."""
    from trioq.cli.cluster_moves import rebalance as even_out  # noqa: PLC0415  as above
    from trioq.cli.running import ask  # noqa: PLC0415

    done = ask(
        target(ctx), lambda client: even_out(client, dry_run=dry_run, throttle_bytes=throttle)
    )
    _print_moves(done.moves, as_json=as_json)
    if not dry_run and not as_json:
        click.echo(
            f"{len(done.moves)} partitions were moved, {done.elected} have another leader",
            err=True,
        )


def _print_moves(moves: Sequence[Move], *, as_json: bool) -> None:
    if as_json:
        print_json([one._asdict() for one in moves])
        return
    copied = sum(len(one.copies) for one in moves)
    print_table(
        f"partitions: {len(moves)}  replicas to copy: {copied}",
        ["topic", "partition", "replicas", "planned", "copied to"],
        [
            (*(one.topic, one.partition, one.replicas, one.planned), one.copies or None)
            for one in moves
        ],
    )


@cluster.command("elect-leaders")
@click.option("--topic", "topics", metavar="NAME", multiple=True, help="Only of this topic.")
@click.option(
    "--unclean",
    is_flag=True,
    help="Have any live replica lead where there is no leader: loses what only others held.",
)
@json_option
@broker_options
@click.pass_context
def elect_leaders(
    ctx: click.Context, topics: tuple[str, ...], unclean: bool, as_json: bool
) -> None:
    """Have the preferred replica lead every partition, where it is in sync."""
    if unclean and not topics:
        raise click.UsageError("--unclean may lose records: name the topics with --topic")
    from trioq.cli.cluster_moves import elect  # noqa: PLC0415  help needs no client
    from trioq.cli.running import ask  # noqa: PLC0415

    results = ask(target(ctx), lambda client: elect(client, topics, unclean=unclean))
    if as_json:
        print_json(
            [
                {
                    "topic": partition.topic,
                    "partition": partition.partition,
                    "error": None if error is None else error.kafka_name,
                }
                for partition, error in results
            ]
        )
    else:
        print_table(
            f"partitions: {len(results)}",
            ["topic", "partition", "result"],
            [
                (*partition, "elected" if error is None else f"{error.kafka_name}: {error}")
                for partition, error in results
            ],
        )
    if any(error is not None for _, error in results):
        sys.exit(FAILED)
