"""`trioq log`: look into the files of a broker, without one."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from trioq.cli.app import CONTEXT_SETTINGS, FAILED


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
def verify(directory: Path) -> None:
    """Check every segment and index under DIRECTORY, which no broker may have open.

    DIRECTORY is a data directory or one partition's. Each problem is a line; the exit status is
    1 if there is one.
    """
    from trioq.storage.verify import verify_dir  # noqa: PLC0415  other commands do not need it

    with _progress_bar() as progress:
        problems = [str(problem) for problem in verify_dir(directory, progress=progress)]
    for problem in problems:
        click.echo(problem)
    if problems:
        click.echo(f"{len(problems)} problems in {directory}", err=True)
        sys.exit(FAILED)
    click.echo(f"{directory} is whole", err=True)


@contextmanager
def _progress_bar() -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr where it is a terminal; called with the bytes done and those in all."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console  # noqa: PLC0415  slow to import, needed on terminals only
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn  # noqa: PLC0415

    columns = (BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("verify", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
