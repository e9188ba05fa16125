"""Tables for people, tab-separated lines for pipes, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import click

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
"""For a command that prints a table."""


def print_json(value: object) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(value, indent=2))


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    optional: Sequence[str] = (),
) -> None:
    """A table on a terminal; elsewhere a line of tab-separated values for each row.

    On a terminal the `optional` columns are left out where no row has anything in them.
    """
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(_shown(cell) for cell in row))
        return
    from rich.console import Console  # noqa: PLC0415  slow to import, needed on terminals only
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(title=escape(title), title_justify="left", box=None, header_style="bold")
    shown = [
        position
        for position, column in enumerate(columns)
        if column not in optional or any(row[position] is not None for row in rows)
    ]
    for position in shown:
        column = columns[position]
        numeric = all(isinstance(row[position], int) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(_shown(row[position])) for position in shown))
    Console().print(table)


def _shown(cell: object) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, tuple):
        return ",".join(str(element) for element in cell)
    return str(cell)
