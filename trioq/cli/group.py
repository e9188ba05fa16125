"""`trioq group`: list, describe, reset and delete consumer groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from trioq.cli.app import CONTEXT_SETTINGS
from trioq.cli.output import json_option, print_json, print_table
from trioq.cli.start_position import parse_start
from trioq.cli.target import broker_options, target

if TYPE_CHECKING:
    from trioq.cli.group_offsets import GroupView, OffsetReset, PartitionView


@click.group(context_settings=CONTEXT_SETTINGS)
@broker_options
def group() -> None:
    """List, describe, reset and delete consumer groups."""


@group.command("list")
@click.option("--state", "states", metavar="STATE", multiple=True, help="Only those, e.g. Stable.")
@json_option
@broker_options
@click.pass_context
def list_groups(ctx: click.Context, states: tuple[str, ...], as_json: bool) -> None:
    """List groups: name, type, state, and what its members speak."""
    from trioq.cli.running import ask  # noqa: PLC0415  help needs no client

    found = ask(target(ctx), lambda client: client.admin.list_groups(states=states))
    if as_json:
        print_json(
            [
                {
                    "group": one.group_id,
                    "type": one.group_type,
                    "state": one.state,
                    "protocol": one.protocol_type,
                }
                for one in found
            ]
        )
        return
    print_table(
        f"groups: {len(found)}",
        ["group", "type", "state", "protocol"],
        [(one.group_id, one.group_type, one.state, one.protocol_type) for one in found],
    )


@group.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@json_option
@broker_options
@click.pass_context
def describe(ctx: click.Context, names: tuple[str, ...], as_json: bool) -> None:
    """Describe groups: for each partition what is committed, the end, the lag, and who reads it.

    The lag is the number of records from the committed offset to the end. Where nothing is
    committed, or the topic is gone, it is unknown: "-", null with --json.
    """
    from trioq.cli.group_offsets import views  # noqa: PLC0415  help needs no client
    from trioq.cli.running import ask  # noqa: PLC0415

    found = ask(target(ctx), lambda client: views(client.admin, names))
    if as_json:
        print_json([_as_dict(one) for one in found])
        return
    for one in found:
        description = one.description
        print_table(
            f"{description.group_id}  {description.group_type} group  {description.state}  "
            f"members: {len(description.members)}  lag: {one.lag}  {description.assignor}".rstrip(),
            ["group", "topic", "partition", "committed", "end", "lag", "member", "client", "host"],
            [(description.group_id, *_row(partition)) for partition in one.partitions],
        )


@group.command("reset-offsets")
@click.argument("name")
@click.option(
    "--to",
    "where",
    metavar="WHERE",
    required=True,
    help="beginning, end, an OFFSET, -N for the last N, or a time (2026-01-31T12:00, or @ and "
    "milliseconds), in each partition.",
)
@click.option(
    "--topic",
    "topics",
    metavar="TOPIC",
    multiple=True,
    help="Of this topic; may be repeated.  [default: those that the group has committed]",
)
@click.option(
    "--partition",
    "partitions",
    metavar="N",
    type=click.IntRange(min=0),
    multiple=True,
    help="Only this one of each topic; may be repeated.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be set, and set nothing.")
@json_option
@broker_options
@click.pass_context
def reset_offsets(
    ctx: click.Context,
    name: str,
    where: str,
    topics: tuple[str, ...],
    partitions: tuple[int, ...],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Set where the group NAME goes on. It must have no members: stop its consumers first.

    The offset is the nearest that there is: no less than the first record's, no more than the end.
    """
    position = parse_start(where, flag="--to")
    from trioq.cli.group_offsets import reset  # noqa: PLC0415  help needs no client
    from trioq.cli.running import ask  # noqa: PLC0415

    done = ask(
        target(ctx),
        lambda client: reset(
            client.admin, name, position, topics=topics, partitions=partitions, dry_run=dry_run
        ),
    )
    if as_json:
        print_json([_reset_dict(one) for one in done])
        return
    print_table(
        f"{name}: would be set" if dry_run else f"{name}: set",
        ["topic", "partition", "before", "now"],
        [(*one.partition, one.before, one.after) for one in done],
    )


@group.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--if-exists", is_flag=True, help="Succeed if there is no such group.")
@broker_options
@click.pass_context
def delete(ctx: click.Context, names: tuple[str, ...], if_exists: bool) -> None:
    """Delete groups, with their offsets. They must have no members."""
    from trioq.cli.group_offsets import delete_all  # noqa: PLC0415  help needs no client
    from trioq.cli.running import ask  # noqa: PLC0415

    ask(target(ctx), lambda client: delete_all(client.admin, names, if_exists=if_exists))


def _row(one: PartitionView) -> tuple[object, ...]:
    member = one.member
    who: tuple[str | None, str | None, str | None] = (None, None, None)
    if member is not None:
        who = (member.instance_id or member.member_id, member.client_id, member.client_host)
    return (*one.partition, one.committed, one.end, one.lag, *who)


def _as_dict(view: GroupView) -> dict[str, Any]:
    description = view.description
    return {
        "group": description.group_id,
        "type": description.group_type,
        "state": description.state,
        "protocol": description.protocol_type,
        "assignor": description.assignor,
        "lag": view.lag,
        "members": [
            {
                "member_id": member.member_id,
                "instance_id": member.instance_id,
                "client_id": member.client_id,
                "host": member.client_host,
                "topics": sorted(member.topics),
                "assignment": [
                    {"topic": topic, "partition": number}
                    for topic, number in sorted(member.assignment)
                ],
            }
            for member in description.members
        ],
        "partitions": [
            {
                "topic": one.partition.topic,
                "partition": one.partition.partition,
                "committed": one.committed,
                "end_offset": one.end,
                "lag": one.lag,
                "member_id": None if one.member is None else one.member.member_id,
            }
            for one in view.partitions
        ],
    }


def _reset_dict(one: OffsetReset) -> dict[str, object]:
    topic, number = one.partition
    return {"topic": topic, "partition": number, "before": one.before, "now": one.after}
