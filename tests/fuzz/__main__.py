"""python -m tests.fuzz run [TARGET...] [--seconds N] | list | show TARGET FILE | sanitize"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="fuzz the targets named, or all in turn")
    run.add_argument("targets", nargs="*", metavar="TARGET")
    run.add_argument("--seconds", type=int, default=60, help="for each target (default: 60)")
    commands.add_parser("list", help="name the targets")
    show = commands.add_parser("show", help="run one input through a target, with its traceback")
    show.add_argument("target")
    show.add_argument("file", type=Path)
    commands.add_parser("sanitize", help="native tests and the corpus under ASan and UBSan")
    options = parser.parse_args()
    if options.command == "sanitize":
        from tests.fuzz.sanitizers import run_sanitized

        return run_sanitized()
    from tests.fuzz.targets import TARGETS

    if options.command == "list":
        for target in TARGETS.values():
            doc = sys.modules[type(target).__module__].__doc__
            assert doc is not None
            print(target.name)
        return 0
    if options.command == "show":
        TARGETS[options.target].check(options.file.read_bytes())
        return 0
    unknown = set(options.targets) - set(TARGETS)
    if unknown:
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    return fuzz(options.targets or list(TARGETS), options.seconds)


def fuzz(names: list[str], seconds: int) -> int:
    """Run the targets in turn and print a line for each; 1 if something was found."""
    from tests.fuzz import runner

    environment = runner.prepare()
    print(f"{'target':<14}{'seconds':>8}{'executions':>13}{'/s':>8}{'features':>10}{'inputs':>8}")
    executions = 0
    findings = 0
    for name in names:
        run = runner.run_target(name, seconds, environment)
        executions += run.executions
        findings += len(run.findings)
        print(
            f"{name:<14}{run.seconds:>8.0f}{run.executions:>13,}{run.per_second:>8,}"
            f"{run.features:>10,}{run.inputs:>8,}",
            flush=True,
        )
        for path in run.findings:
            print(f"  found {path}\n{runner.last_error(name)}", flush=True)
    print(f"{executions:,} executions, {findings} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
