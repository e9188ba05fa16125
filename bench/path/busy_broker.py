"""`trioq serve` with a Python thread in the process that never rests.

It stands for whatever an application does beside an embedded broker: each time the broker's
thread lets go of the interpreter lock, this one takes it for up to a switch interval.
"""

from __future__ import annotations

import threading

from trioq.cli import main


def count_for_ever() -> None:
    """Plain Python work that never waits."""
    number = 0
    while True:
        number = (number * 31 + 7) % 1_000_003


if __name__ == "__main__":
    threading.Thread(target=count_for_ever, daemon=True, name="busy").start()
    main()
