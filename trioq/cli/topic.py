"""`trioq topic`: create, list, describe, alter and delete topics of a running broker."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import click

from trioq.cli.app import CONTEXT_SETTINGS
from trioq.cli.output import json_option, print_json, print_table
from trioq.cli.serve import settings_from
from trioq.cli.target import broker_options, target
from trioq.errors import TopicAlreadyExists, UnknownTopicOrPartition

if TYPE_CHECKING:
    from trioq.cli.topic_views import TopicView
    from trioq.client.admin import Admin


@click.group(context_settings=CONTEXT_SETTINGS)
@broker_options
def topic() -> None:
    """Create, list, describe, alter and delete topics."""


@topic.command()
@click.argument("name")
@click.option("--partitions", metavar="N", type=click.IntRange(min=1), help="How many.")
@click.option(
    "--replication-factor", metavar="N", type=click.IntRange(min=1), help="Replicas of each."
)
@click.option("--config", "pairs", metavar="KEY=VALUE", multiple=True, help="Set a topic key.")
@click.option("--if-not-exists", is_flag=True, help="Succeed if the topic exists.")
@broker_options
@click.pass_context
def create(
    ctx: click.Context,
    name: str,
    partitions: int | None,
    replication_factor: int | None,
    pairs: tuple[str, ...],
    if_not_exists: bool,
) -> None:
    """Create the topic NAME; what is not given is the broker's default."""
    configs = settings_from(pairs, "--config")
    from trioq.cli.running import ask  # noqa: PLC0415  help needs no client

    accepted = (TopicAlreadyExists,) if if_not_exists else ()
    with contextlib.suppress(*accepted):
        ask(
            target(ctx),
            lambda client: client.admin.create_topic(
                name,
                partitions=partitions or -1,
                replication_factor=replication_factor or -1,
                configs=configs,
            ),
        )


@topic.command("list")
@json_option
@broker_options
@click.pass_context
def list_topics(ctx: click.Context, as_json: bool) -> None:
    """List topics: name, partitions, replication factor."""
    from trioq.cli.running import ask  # noqa: PLC0415  help needs no client
    from trioq.cli.topic_views import listed  # noqa: PLC0415

    found = ask(target(ctx), listed)
    if as_json:
        print_json([one._asdict() for one in found])
        return
    print_table(
        f"topics: {len(found)}",
        ["topic", "partitions", "replicas"],
        [(one.name, one.partitions, one.replication_factor) for one in found],
    )


@topic.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@json_option
@broker_options
@click.pass_context
def describe(ctx: click.Context, names: tuple[str, ...], as_json: bool) -> None:
    """Describe topics: their own configuration, their partitions and offsets."""
    from trioq.cli.running import ask  # noqa: PLC0415  help needs no client
    from trioq.cli.topic_views import described  # noqa: PLC0415

    found = ask(target(ctx), lambda client: described(client.admin, names))
    if as_json:
        print_json([_as_dict(one) for one in found])
        return
    for one in found:
        configs = " ".join(f"{key}={value}" for key, value in one.configs.items())
        print_table(
            f"{one.info.name}  id {one.info.topic_id}  {configs}".rstrip(),
            ["topic", "partition", "leader", "replicas", "in sync", "start offset", "end offset"],
            [(one.info.name, *partition) for partition in one.partitions],
        )


@topic.command()
@click.argument("name")
@click.option("--config", "pairs", metavar="KEY=VALUE", multiple=True, help="Set a topic key.")
@click.option(
    "--delete-config", "removed", metavar="KEY", multiple=True, help="Fall back to the broker's."
)
@click.option("--partitions", metavar="N", type=click.IntRange(min=1), help="Raise to N in all.")
@broker_options
@click.pass_context
def alter(
    ctx: click.Context,
    name: str,
    pairs: tuple[str, ...],
    removed: tuple[str, ...],
    partitions: int | None,
) -> None:
    """Change the topic NAME: its keys, its number of partitions, or both."""
    changed = settings_from(pairs, "--config")
    if not changed and not removed and partitions is None:
        raise click.UsageError("nothing to change: give --config, --delete-config or --partitions")
    from trioq.cli.running import ask  # noqa: PLC0415  help needs no client

    async def change(admin: Admin) -> None:
        if changed or removed:
            await admin.alter_topic_configs(name, set_to=changed, delete=removed)
        if partitions is not None:
            await admin.create_partitions(name, partitions)

    ask(target(ctx), lambda client: change(client.admin))


@topic.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--if-exists", is_flag=True, help="Succeed if there is no such topic.")
@broker_options
@click.pass_context
def delete(ctx: click.Context, names: tuple[str, ...], if_exists: bool) -> None:
    """Delete topics and their data."""
    from trioq.cli.running import ask  # noqa: PLC0415  help needs no client

    accepted = (UnknownTopicOrPartition,) if if_exists else ()

    async def delete_all(admin: Admin) -> None:
        for name in names:
            with contextlib.suppress(*accepted):
                await admin.delete_topic(name)

    ask(target(ctx), lambda client: delete_all(client.admin))


def _as_dict(one: TopicView) -> dict[str, object]:
    return {
        **one.info._asdict(),
        "config": dict(one.configs),
        "partitions": [partition._asdict() for partition in one.partitions],
    }
