"""`trioq produce`: send lines of a file or of the standard input as records."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import click

from trioq.cli.target import broker_options, target
from trioq.errors import ConfigError

if TYPE_CHECKING:
    from trioq.client.producer_settings import Acks, Compression


@click.command(
    epilog="Exit status: 0 all records are acknowledged, 1 some may not be, 2 wrong usage, 130 "
    "Ctrl-C (what was read is sent; again to give up)."
)
@click.argument("topic")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True), default="-")
@click.option(
    "--key-separator", metavar="TEXT", help="A line is a key, TEXT, a value.  [default: no keys]"
)
@click.option("--null", metavar="TEXT", help="A key or value of just TEXT is null.")
@click.option(
    "--header", "headers", metavar="NAME=VALUE", multiple=True, help="Give each record a header."
)
@click.option(
    "--partition",
    metavar="N",
    type=click.IntRange(min=0),
    help="Send all to this one.  [default: by key, or in turn]",
)
@click.option(
    "--acks",
    type=click.Choice(["all", "1", "0"]),
    default="all",
    show_default=True,
    help="Whose acknowledgement to wait for: all replicas in sync, the leader, nobody.",
)
@click.option(
    "--compression",
    type=click.Choice(["none", "gzip", "snappy", "lz4", "zstd"]),
    default="none",
    show_default=True,
)
@click.option("--json", "is_json", is_flag=True, help="A line is a JSON object, see below.")
@broker_options
@click.pass_context
def produce(
    ctx: click.Context,
    topic: str,
    file: str,
    key_separator: str | None,
    null: str | None,
    headers: tuple[str, ...],
    partition: int | None,
    acks: str,
    compression: Compression,
    is_json: bool,
) -> None:
    """Send each line of FILE, or of the standard input, to TOPIC.

    With --json a line is an object like {"key": "42", "value": "hello", "headers": {"a": "1"},
    "partition": 0, "timestamp_ms": 1769860800000}, of which all fields may be left out: what
    `trioq consume --json` prints. A key or value that is no string is sent as its JSON;
    key_base64 and value_base64 are for bytes that are no text.
    """
    if is_json and (key_separator is not None or null is not None):
        raise click.UsageError("--key-separator and --null are for text: leave --json out")
    if key_separator == "":
        raise click.UsageError("--key-separator is empty: leave it out for records without keys")
    brokers = target(ctx)

    from trioq.cli.producing import ProduceJob, Producing  # noqa: PLC0415  help needs no client
    from trioq.cli.record_input import JsonLines, TextLines, parse_headers  # noqa: PLC0415
    from trioq.cli.running import run  # noqa: PLC0415

    try:
        parsed_headers = parse_headers(headers)
    except ValueError as error:
        raise ConfigError(f"--header {error}") from error
    descriptor = _open(file)
    job = ProduceJob(
        topic=topic,
        descriptor=descriptor,
        lines=JsonLines()
        if is_json
        else TextLines(
            key_separator=None if key_separator is None else key_separator.encode(),
            null=None if null is None else null.encode(),
        ),
        headers=parsed_headers,
        partition=partition,
        acks=_acks(acks),
        compression=compression,
    )
    try:
        run(Producing(job, brokers).run)
    finally:
        if file != "-":
            os.close(descriptor)


def _open(file: str) -> int:
    if file == "-":
        return 0
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from error
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ConfigError(f"{file} is a directory: give a file")
    return descriptor


def _acks(text: str) -> Acks:
    if text == "all":
        return "all"
    return 1 if text == "1" else 0
