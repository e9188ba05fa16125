"""Which brokers a command talks to: the options for that, and what they come to."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import click

from trioq.client.address import HostPort, parse_bootstrap

if TYPE_CHECKING:
    from trioq.client.client import Client

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

_BOOTSTRAP: Final = "127.0.0.1:9092"
_VARIABLE: Final = "TRIOQ_BOOTSTRAP_SERVER"
_TIMEOUT_S: Final = 30.0
_GIVEN: Final = "trioq.cli.target"
_UNKNOWN_TOPIC_MS: Final = 2_000
"""A command should not wait long for a topic whose name is mistyped."""


class Target(NamedTuple):
    """The brokers to ask, and how long to wait for an answer."""

    addresses: tuple[HostPort, ...]
    timeout_s: float

    @property
    def timeout_ms(self) -> int:
        return max(int(self.timeout_s * 1000), 1)

    def client(self) -> Client:
        """A client of these brokers, to be entered."""
        from trioq.client.client import connect  # noqa: PLC0415  help needs no client

        return connect(
            [str(address) for address in self.addresses],
            client_id="trioq-cli",
            connect_timeout_ms=min(self.timeout_ms, 10_000),
            request_timeout_ms=self.timeout_ms,
            call_timeout_ms=self.timeout_ms,
            unknown_topic_timeout_ms=min(self.timeout_ms, _UNKNOWN_TOPIC_MS),
        )


def broker_options(command: Decorated) -> Decorated:
    """Add --bootstrap-server and --timeout to a command or a group of commands.

    They are kept in the context, where `target` finds them: what a command is given counts more
    than what its group is given.
    """
    for option in (
        click.option(
            "--timeout",
            metavar="SECONDS",
            type=click.FloatRange(min=0.1),
            expose_value=False,
            callback=_keep,
            help=f"How long to wait for an answer.  [default: {_TIMEOUT_S:g}]",
        ),
        click.option(
            "--bootstrap-server",
            metavar="HOST:PORT[,...]",
            expose_value=False,
            callback=_keep,
            help="Broker to talk to; the first that answers is used.  "
            f"[{_VARIABLE}, default: {_BOOTSTRAP}]",
        ),
    ):
        command = option(command)
    return command


def target(ctx: click.Context) -> Target:
    """What the options of this command and its groups come to; raises ClientUsageError."""
    given = ctx.meta.get(_GIVEN, {})
    bootstrap = given.get("bootstrap_server") or os.environ.get(_VARIABLE) or _BOOTSTRAP
    return Target(parse_bootstrap(bootstrap), given.get("timeout", _TIMEOUT_S))


def _keep(ctx: click.Context, parameter: click.Parameter, value: object) -> None:
    """Keep what was given; `meta` is one dict for a command and its groups, which come first."""
    if value is not None:
        ctx.meta.setdefault(_GIVEN, {})[parameter.name] = value
