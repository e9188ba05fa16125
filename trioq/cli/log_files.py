"""`trioq log`: look into the files of a broker, without one."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trioq.cli.app import CONTEXT_SETTINGS, FAILED
from trioq.cli.output import print_json

if TYPE_CHECKING:
    from trioq.storage.verify import Progress, VerifyReport


@click.group(context_settings=CONTEXT_SETTINGS)
def log() -> None:
    """Look into the files of a broker."""


@log.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--records", is_flag=True, help="Show the records of each batch too.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object on each line.")
def dump(file: Path, records: bool, as_json: bool) -> None:
    """Print what a .log, .index, .timeindex, .snapshot or checkpoint FILE holds.

    Damage is shown as lines that begin with "problem"; the exit status is 1 if there is any.
    """
    from trioq.storage.dump import dump_file  # noqa: PLC0415  other commands do not need it

    problems = 0
    for line in dump_file(file, records=records):
        problems += line.kind == "problem"
        if as_json:
            click.echo(
                json.dumps({"kind": line.kind, "position": line.position} | dict(line.fields))
            )
        else:
            click.echo(str(line))
    if problems:
        sys.exit(FAILED)


@log.command()
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--allow-gaps", is_flag=True, help="Offsets may be missing: compacted topics.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def verify(directory: Path, allow_gaps: bool, as_json: bool) -> None:
    """Check every batch, index and checkpoint under DIRECTORY, of a stopped broker.

    DIRECTORY is a data directory or one partition's. Each problem is a line: "damage" where
    records are lost or changed, "repairable" where the broker puts it right by itself. The exit
    status is 1 if there is damage.
    """
    from trioq.storage.verify import verify_dir  # noqa: PLC0415  other commands do not need it

    with _progress_bar() as progress:
        report = verify_dir(directory, progress=progress, allow_gaps=allow_gaps)
    if as_json:
        print_json(_as_dict(report))
    else:
        for problem in report.problems:
            click.echo(f"{problem.severity.value}: {problem}")
        click.echo(_summary(report))
    if not report.is_sound:
        sys.exit(FAILED)


def _summary(report: VerifyReport) -> str:
    found = (
        f"{report.partitions} partitions, {report.segments} segments, {report.batches} batches, "
        f"{report.records} records, {report.log_bytes} bytes"
    )
    if not report.damage_count and not report.repairable_count:
        return f"{found}: all sound"
    shown = len(report.problems)
    hidden = report.damage_count + report.repairable_count - shown
    more = f" ({hidden} not shown)" if hidden else ""
    return f"{found}: {report.damage_count} damaged, {report.repairable_count} repairable{more}"


def _as_dict(report: VerifyReport) -> dict[str, object]:
    return {
        "is_sound": report.is_sound,
        "partitions": report.partitions,
        "segments": report.segments,
        "batches": report.batches,
        "records": report.records,
        "log_bytes": report.log_bytes,
        "damage_count": report.damage_count,
        "repairable_count": report.repairable_count,
        "problems": [
            problem._asdict() | {"severity": problem.severity.value} for problem in report.problems
        ],
    }


@contextmanager
def _progress_bar() -> Iterator[Progress | None]:
    """A bar on stderr where it is a terminal; None elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # noqa: PLC0415  slow to import, needed on terminals only
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415
    from rich.progress import Progress as Bar  # noqa: PLC0415

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda file, done, total: bar.update(
            task, description=file, completed=done, total=total
        )
