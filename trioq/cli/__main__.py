"""`python -m trioq.cli` is the `trioq` command."""

from __future__ import annotations

from trioq.cli import main

main()
