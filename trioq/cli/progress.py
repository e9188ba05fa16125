"""A progress bar on stderr, for input that takes a while."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from typing import Final

import anyio

_SHOWN_AFTER_S: Final = 1.0
_REFRESH_S: Final = 0.25


class Progress:
    """How much of an input was read, and how many records are written, with their rate.

    `records` counts the records. Shown on a terminal only, and not for input that comes from one.
    """

    def __init__(self, descriptor: int, records: Callable[[], int]) -> None:
        self.read_bytes = 0
        self._records = records
        status = os.fstat(descriptor)
        self._total_bytes = status.st_size if stat.S_ISREG(status.st_mode) else None
        self.is_shown = sys.stderr.isatty() and not os.isatty(descriptor)

    async def run(self) -> None:
        """Show it until cancelled, from the time on when it seems to take longer."""
        await anyio.sleep(_SHOWN_AFTER_S)
        from rich.console import Console  # noqa: PLC0415  short input needs no rich
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            DownloadColumn,
            TextColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bar  # noqa: PLC0415

        bar = Bar(
            TextColumn("{task.fields[records]:,} records"),
            BarColumn(),
            DownloadColumn(),
            TextColumn("{task.fields[rate]:,.0f} records/s"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            auto_refresh=False,
            transient=True,
        )
        begun_s = anyio.current_time() - _SHOWN_AFTER_S
        with bar:
            task = bar.add_task("", total=self._total_bytes, records=0, rate=0.0)
            while True:
                records = self._records()
                rate = records / (anyio.current_time() - begun_s)
                bar.update(task, completed=self.read_bytes, records=records, rate=rate)
                bar.refresh()
                await anyio.sleep(_REFRESH_S)
