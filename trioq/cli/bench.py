"""`trioq bench`: runs the benchmark suite of the checkout that this package is used from.

The suite compiles C and downloads other brokers, so it is not part of the installed package.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Final

import click

import trioq
from trioq.errors import TrioqError

SUITE: Final = "bench"


class NoSuiteError(TrioqError):
    """The suite is not there; the message says where to get it."""


def suite_root(package: Path) -> Path:
    """The directory that holds `bench/` beside the package; raises NoSuiteError without one."""
    root = package.parent
    if not (root / SUITE / "__main__.py").is_file():
        raise NoSuiteError(
            f"the benchmark suite comes with trioq's source, not with the installed package "
            f"(version {trioq.__version__}): unpack the source distribution of this version "
            "(python -m pip download --no-deps --no-binary trioq trioq) or clone the "
            "repository, and run `make build` and `.venv/bin/trioq bench` there"
        )
    return root


@click.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def bench(arguments: tuple[str, ...]) -> None:
    """Measure how fast a broker is on this machine (`python -m bench` in a checkout)."""
    root = suite_root(Path(trioq.__file__).parent)
    sys.path.insert(0, str(root))
    sys.argv = [SUITE, *arguments]
    runpy.run_module(SUITE, run_name="__main__", alter_sys=True)
