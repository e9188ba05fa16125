"""The `trioq` command."""

from __future__ import annotations


def main() -> None:
    """Run the command line: ends the process with 0 (done), 1 (failed) or 2 (wrong usage)."""
    from trioq.cli.app import trioq  # noqa: PLC0415  importing this package costs nothing

    trioq()
