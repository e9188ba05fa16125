"""The command and its subcommands, each imported when it is called."""

from __future__ import annotations

import importlib
from typing import Any, Final

import click

from trioq import __version__
from trioq.errors import ClientUsageError, ConfigError, TrioqError

FAILED: Final = 1
"""Exit status of a command that could not do what it was asked."""

WRONG_USAGE: Final = 2
"""Exit status for wrong flags, keys and values; the same as click's."""

INTERRUPTED: Final = 130
"""Exit status after Ctrl-C, as shells have it: 128 and the number of the signal."""

CONTEXT_SETTINGS: Final = {"help_option_names": ["-h", "--help"]}

_COMMANDS: Final = {
    "serve": ("trioq.cli.serve", "serve", "Run a broker."),
    "produce": ("trioq.cli.produce", "produce", "Send lines to a topic."),
    "consume": ("trioq.cli.consume", "consume", "Print the records of topics."),
    "topic": ("trioq.cli.topic", "topic", "Create, list, describe, alter and delete topics."),
    "group": ("trioq.cli.group", "group", "List, describe, reset and delete consumer groups."),
    "dev-cluster": ("trioq.cli.dev_cluster", "dev_cluster", "Run a small cluster to try out."),
    "cluster": ("trioq.cli.cluster", "cluster", "Describe, drain and even out the cluster."),
    "config": ("trioq.cli.config", "config", "Configure topics and brokers."),
    "log": ("trioq.cli.log_files", "log", "Look into the files of a broker."),
    "bench": ("trioq.cli.bench", "bench", "Measure a broker, from a checkout."),
    "completion": ("trioq.cli.completion", "completion", "Print a script for shell completion."),
}


class Commands(click.Group):
    """A group whose subcommands are imported when one is called, not to list them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        module, attribute, _ = _COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, _, summary) in _COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Turn trioq's own errors into one sentence on stderr and an exit status."""
        try:
            return super().invoke(ctx)
        except TrioqError as error:
            click.echo(f"trioq: {error}", err=True)
            is_usage = isinstance(error, (ConfigError, ClientUsageError))
            ctx.exit(WRONG_USAGE if is_usage else FAILED)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)


@click.group(
    cls=Commands,
    context_settings=CONTEXT_SETTINGS,
    epilog="Exit status: 0 done, 1 failed, 2 wrong usage, 130 Ctrl-C. "
    "`trioq COMMAND -h` explains a command.",
)
@click.version_option(__version__, "--version", prog_name="trioq", message="%(prog)s %(version)s")
def trioq() -> None:
    """A message queue that every Kafka client can talk to."""
