"""`trioq topic`: create, list, describe, alter and delete topics of a running broker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from trioq.cli.admin_connection import AdminError, HostPort
from trioq.cli.app import CONTEXT_SETTINGS
from trioq.cli.output import print_json, print_table
from trioq.cli.serve import settings_from
from trioq.cli.topic_admin import TopicAdmin, TopicDetails
from trioq.config.listeners import parse_address
from trioq.errors import ConfigError, TopicAlreadyExists, UnknownTopicOrPartition
from trioq.storage.identity import format_id

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(context_settings=CONTEXT_SETTINGS)
@click.option(
    "--bootstrap-server",
    metavar="HOST:PORT[,...]",
    envvar="TRIOQ_BOOTSTRAP_SERVER",
    default="127.0.0.1:9092",
    show_default=True,
    help="Broker to talk to; the first that answers is used.",
)
@click.option(
    "--timeout",
    "timeout_s",
    metavar="SECONDS",
    type=click.FloatRange(min=0.1),
    default=30.0,
    show_default=True,
    help="How long to wait for an answer.",
)
@click.pass_context
def topic(ctx: click.Context, bootstrap_server: str, timeout_s: float) -> None:
    """Create, list, describe, alter and delete topics."""
    addresses = [_bootstrap_address(text) for text in bootstrap_server.split(",") if text.strip()]
    ctx.obj = addresses, timeout_s


@topic.command()
@click.argument("name")
@click.option("--partitions", metavar="N", type=click.IntRange(min=1), help="How many.")
@click.option(
    "--replication-factor", metavar="N", type=click.IntRange(min=1), help="Replicas of each."
)
@click.option("--config", "pairs", metavar="KEY=VALUE", multiple=True, help="Set a topic key.")
@click.option("--if-not-exists", is_flag=True, help="Succeed if the topic exists.")
@click.pass_obj
def create(
    target: tuple[list[HostPort], float],
    name: str,
    partitions: int | None,
    replication_factor: int | None,
    pairs: tuple[str, ...],
    if_not_exists: bool,
) -> None:
    """Create the topic NAME; what is not given is the broker's default."""
    config = settings_from(pairs, "--config")
    with _admin(target) as admin, _accepting(TopicAlreadyExists.code if if_not_exists else None):
        admin.create(
            name,
            partitions=partitions or -1,
            replication_factor=replication_factor or -1,
            config=config,
        )


@topic.command("list")
@_as_json
@click.pass_obj
def list_topics(target: tuple[list[HostPort], float], as_json: bool) -> None:
    """List topics: name, partitions, replication factor."""
    with _admin(target) as admin:
        found = admin.topics()
    if as_json:
        print_json([{**topic._asdict(), "topic_id": format_id(topic.topic_id)} for topic in found])
        return
    print_table(
        f"topics: {len(found)}",
        ["topic", "partitions", "replicas"],
        [(topic.name, topic.partitions, topic.replication_factor) for topic in found],
    )


@topic.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@_as_json
@click.pass_obj
def describe(target: tuple[list[HostPort], float], names: tuple[str, ...], as_json: bool) -> None:
    """Describe topics: their own configuration, their partitions and offsets."""
    with _admin(target) as admin:
        found = [admin.describe(name) for name in names]
    if as_json:
        print_json([_as_dict(details) for details in found])
        return
    for details in found:
        config = " ".join(f"{key}={value}" for key, value in details.config.items())
        title = f"{details.info.name}  id {format_id(details.info.topic_id)}  {config}".rstrip()
        print_table(
            title,
            ["topic", "partition", "leader", "replicas", "in sync", "start offset", "end offset"],
            [(details.info.name, *partition) for partition in details.partitions],
        )


@topic.command()
@click.argument("name")
@click.option("--config", "pairs", metavar="KEY=VALUE", multiple=True, help="Set a topic key.")
@click.option(
    "--delete-config", "removed", metavar="KEY", multiple=True, help="Fall back to the broker's."
)
@click.option("--partitions", metavar="N", type=click.IntRange(min=1), help="Raise to N in all.")
@click.pass_obj
def alter(
    target: tuple[list[HostPort], float],
    name: str,
    pairs: tuple[str, ...],
    removed: tuple[str, ...],
    partitions: int | None,
) -> None:
    """Change the topic NAME: its keys, its number of partitions, or both."""
    changed = settings_from(pairs, "--config")
    if not changed and not removed and partitions is None:
        raise click.UsageError("nothing to change: give --config, --delete-config or --partitions")
    with _admin(target) as admin:
        if changed or removed:
            admin.alter_config(name, changed, removed)
        if partitions is not None:
            admin.add_partitions(name, partitions)


@topic.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--if-exists", is_flag=True, help="Succeed if there is no such topic.")
@click.pass_obj
def delete(target: tuple[list[HostPort], float], names: tuple[str, ...], if_exists: bool) -> None:
    """Delete topics and their data."""
    with _admin(target) as admin:
        for name in names:
            with _accepting(UnknownTopicOrPartition.code if if_exists else None):
                admin.delete(name)


def _bootstrap_address(text: str) -> HostPort:
    address = parse_address(text, key="--bootstrap-server")
    if not address.host or not address.port:
        raise ConfigError(f"--bootstrap-server={text} is not valid: allowed is HOST:PORT")
    return HostPort(address.host, address.port)


@contextmanager
def _admin(target: tuple[list[HostPort], float]) -> Iterator[TopicAdmin]:
    addresses, timeout_s = target
    admin = TopicAdmin(addresses, timeout_s=timeout_s)
    try:
        yield admin
    finally:
        admin.close()


@contextmanager
def _accepting(code: int | None) -> Iterator[None]:
    """Take a refusal with this code as success."""
    try:
        yield
    except AdminError as error:
        if code is None or error.code != code:
            raise


def _as_dict(details: TopicDetails) -> dict[str, object]:
    return {
        **details.info._asdict(),
        "topic_id": format_id(details.info.topic_id),
        "config": dict(details.config),
        "partitions": [partition._asdict() for partition in details.partitions],
    }
