"""The `trioq` command."""

from __future__ import annotations

import gc


def main() -> None:
    """Run the command line: ends the process with 0 (done), 1 (failed) or 2 (wrong usage)."""
    # Importing makes hardly any garbage, and looking for it took a tenth of the start.
    gc.disable()
    from trioq.cli.app import trioq  # noqa: PLC0415  importing this package costs nothing

    gc.freeze()
    gc.enable()
    trioq()
