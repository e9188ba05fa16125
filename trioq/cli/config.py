"""`trioq config`: read and change the configuration of topics and brokers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from trioq.cli.app import CONTEXT_SETTINGS
from trioq.cli.output import json_option, print_json, print_table
from trioq.cli.serve import settings_from
from trioq.cli.target import broker_options, target
from trioq.errors import ClientUsageError

if TYPE_CHECKING:
    from trioq.client.admin import Admin
    from trioq.client.admin_cluster import ConfigEntry


@click.group(context_settings=CONTEXT_SETTINGS)
@broker_options
def config() -> None:
    """Describe and alter the configuration of topics and brokers."""


_kind = click.argument("kind", metavar="topic|broker", type=click.Choice(["topic", "broker"]))
_name = click.argument("name", metavar="NAME", required=False)


@config.command()
@_kind
@_name
@click.option("--all", "is_all", is_flag=True, help="Show keys that nobody set, too.")
@json_option
@broker_options
@click.pass_context
def describe(ctx: click.Context, kind: str, name: str | None, is_all: bool, as_json: bool) -> None:
    """Show the keys of a topic, or of a broker by its id; without NAME, those set for all.

    Keys that nobody set have defaults: --all shows them.
    """
    broker_id = _checked(kind, name)
    from trioq.cli.running import ask  # noqa: PLC0415  help needs no client

    async def read(admin: Admin) -> dict[str, ConfigEntry]:
        if kind == "topic":
            return await admin.topic_configs(name or "")
        await _check_broker(admin, broker_id)
        return await admin.broker_configs(broker_id)

    found = ask(target(ctx), lambda client: read(client.admin))
    shown = [one for one in found.values() if is_all or not one.is_default]
    if as_json:
        print_json(
            [
                {
                    "key": one.name,
                    "value": one.value,
                    "source": one.source,
                    "read_only": one.is_read_only,
                    "sensitive": one.is_sensitive,
                }
                for one in shown
            ]
        )
        return
    print_table(
        f"{kind} {name or '(all)'}",
        ["key", "value", "source", "read-only"],
        [(one.name, one.value, one.source, one.is_read_only) for one in shown],
    )


@config.command()
@_kind
@_name
@click.option("--set", "pairs", metavar="KEY=VALUE", multiple=True, help="Set a key.")
@click.option("--delete", "removed", metavar="KEY", multiple=True, help="Fall back to the default.")
@click.option("--append", "added", metavar="KEY=ELEMENT", multiple=True, help="Add to a list.")
@click.option("--subtract", metavar="KEY=ELEMENT", multiple=True, help="Take out of a list.")
@click.option("--dry-run", is_flag=True, help="Only check whether the broker would accept it.")
@broker_options
@click.pass_context
def alter(
    ctx: click.Context,
    kind: str,
    name: str | None,
    pairs: tuple[str, ...],
    removed: tuple[str, ...],
    added: tuple[str, ...],
    subtract: tuple[str, ...],
    dry_run: bool,
) -> None:
    """Change keys of a topic, or of a broker by its id; without NAME, for all brokers.

    All of the changes are made, or none.
    """
    broker_id = _checked(kind, name)
    set_to, appended = settings_from(pairs, "--set"), settings_from(added, "--append")
    subtracted = settings_from(subtract, "--subtract")
    if not (set_to or removed or appended or subtracted):
        raise click.UsageError("nothing to change: give --set, --delete, --append or --subtract")
    from trioq.cli.running import ask  # noqa: PLC0415  help needs no client

    async def change(admin: Admin) -> None:
        if kind == "topic":
            await admin.alter_topic_configs(
                name or "",
                set_to=set_to,
                delete=removed,
                append=appended,
                subtract=subtracted,
                validate_only=dry_run,
            )
        else:
            await _check_broker(admin, broker_id)
            await admin.alter_broker_configs(
                broker_id,
                set_to=set_to,
                delete=removed,
                append=appended,
                subtract=subtracted,
                validate_only=dry_run,
            )

    ask(target(ctx), lambda client: change(client.admin))


def _checked(kind: str, name: str | None) -> int | None:
    """The broker's id, if it is about one; raises UsageError."""
    if kind == "topic":
        if not name:
            raise click.UsageError("which topic? `trioq topic list` shows them")
        return None
    if name is None:
        return None
    if not name.isascii() or not name.isdecimal():
        raise click.UsageError(f"{name} is no broker id: `trioq cluster describe` shows them")
    return int(name)


async def _check_broker(admin: Admin, broker_id: int | None) -> None:
    """Raise ClientUsageError at once for a broker that is not there; calls would wait for it."""
    known = [node.node_id for node in (await admin.describe_cluster()).brokers]
    if broker_id is not None and broker_id not in known:
        ids = ", ".join(map(str, known))
        raise ClientUsageError(f"there is no broker {broker_id}: the cluster has {ids}")
