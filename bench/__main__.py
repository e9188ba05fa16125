"""python -m bench: how fast this broker is on this machine, beside floors and other brokers."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from bench.errors import BenchError

COMMANDS = {
    "path": ("bench.path.command", "one broker under the load that is asked for (the default)"),
    "figures": ("bench.figures.command", "the whole table: targets, floors and peers side by side"),
    "client": ("bench.client.command", "what clients cost: trioq's, confluent-kafka, aiokafka"),
    "cluster": ("bench.cluster.command", "three brokers: replication, failover, 2,000 partitions"),
    "growth": ("bench.growth", "what partitions and connections cost, from 1 to 5,000"),
    "micro": ("bench.micro.command", "CRC, batches, wire messages and groups alone (pyperf)"),
    "compare": ("bench.compare", "what has changed between two reports"),
    "plot": ("bench.plot_command", "draw the plots of a report"),
}


def main(given: Sequence[str] | None = None) -> int:
    """Run a command; 0, or 1 when it could not be done."""
    arguments = list(sys.argv[1:] if given is None else given)
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in {"-h", "--help"}):
        arguments.insert(0, "path")
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        if name == arguments[0]:
            importlib.import_module(module).add_arguments(command)
    chosen = parser.parse_args(arguments)
    try:
        importlib.import_module(COMMANDS[chosen.command][0]).run(chosen)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
