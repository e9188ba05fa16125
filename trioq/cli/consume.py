"""`trioq consume`: print the records of topics."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from trioq.cli.start_position import StartKind, parse_start
from trioq.cli.target import broker_options, target
from trioq.errors import ConfigError

if TYPE_CHECKING:
    from trioq.cli.record_output import Render
    from trioq.client.consumer_settings import Isolation


@click.command(
    epilog="Exit status: 0 read to the end or as many as asked for, 1 failed, 2 wrong usage, "
    "130 Ctrl-C (in a group, what was printed is committed)."
)
@click.argument("topics", metavar="TOPIC...", nargs=-1, required=True)
@click.option("--group", metavar="NAME", help="Read as a member of this group, and commit.")
@click.option(
    "--from",
    "start",
    metavar="WHERE",
    default="beginning",
    show_default=True,
    help="beginning, end, an OFFSET, -N for the last N, or a time (2026-01-31T12:00, or @ and "
    "milliseconds), in each partition; in a group, where it has committed nothing.",
)
@click.option(
    "--partition",
    "partitions",
    metavar="N",
    type=click.IntRange(min=0),
    multiple=True,
    help="Read only this one; may be repeated.",
)
@click.option("--max-messages", metavar="N", type=click.IntRange(min=1), help="End after N.")
@click.option("--follow", is_flag=True, help="Wait for further records instead of ending.")
@click.option(
    "--format",
    "template",
    metavar="TEMPLATE",
    help="Text for each record, with {topic} {partition} {offset} {timestamp} {key} {value} "
    "{headers}, \\n and \\t.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object on each line.")
@click.option("--show-headers", is_flag=True, help="Print name=value,... and a tab before values.")
@click.option(
    "--isolation",
    type=click.Choice(["read_uncommitted", "read_committed"]),
    default="read_uncommitted",
    show_default=True,
    help="read_committed: leave out what transactions have not committed.",
)
@broker_options
@click.pass_context
def consume(
    ctx: click.Context,
    topics: tuple[str, ...],
    group: str | None,
    start: str,
    partitions: tuple[int, ...],
    max_messages: int | None,
    follow: bool,
    template: str | None,
    as_json: bool,
    show_headers: bool,
    isolation: Isolation,
) -> None:
    """Print the values of the records of each TOPIC, one on a line.

    It ends where the topics ended when it began, unless told to --follow. On a terminal control
    characters are shown as escapes; elsewhere bytes are as they are.
    """
    where = parse_start(start, flag="--from")
    if where.kind is StartKind.END and group is None and not follow:
        raise click.UsageError("nothing comes after the end: --follow waits for what is written")
    if group is not None and partitions:
        raise click.UsageError("a group shares partitions out by itself: leave --partition out")
    if sum((template is not None, as_json, show_headers)) > 1:
        raise click.UsageError("give one of --format, --json and --show-headers")
    brokers = target(ctx)

    from trioq.cli.consuming import ConsumeJob, Consuming  # noqa: PLC0415  help needs no client
    from trioq.cli.running import run  # noqa: PLC0415

    job = ConsumeJob(
        topics=tuple(dict.fromkeys(topics)),
        partitions=tuple(dict.fromkeys(partitions)),
        group=group,
        start=where,
        max_messages=max_messages,
        follow=follow,
        isolation=isolation,
        render=_render(template, as_json=as_json, show_headers=show_headers),
        descriptor=sys.stdout.fileno(),
    )
    run(Consuming(job, brokers).run)


def _render(template: str | None, *, as_json: bool, show_headers: bool) -> Render:
    from trioq.cli import record_output  # noqa: PLC0415

    if as_json:
        return record_output.json_lines
    if template is not None:
        try:
            render = record_output.template(template)
        except ValueError as error:
            raise ConfigError(f"--format {template!r} is not valid: {error}") from error
    elif show_headers:
        render = record_output.values_with_headers
    else:
        render = record_output.values
    return record_output.for_terminal(render) if sys.stdout.isatty() else render
