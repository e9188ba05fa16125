"""Which brokers a command talks to: the options for that, and what they come to."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import click

from trioq.client.address import HostPort, parse_bootstrap
from trioq.errors import ConfigError

if TYPE_CHECKING:
    import ssl

    from trioq.client.client import Client
    from trioq.client.sasl import SaslMechanism

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

_BOOTSTRAP: Final = "127.0.0.1:9092"
_VARIABLE: Final = "TRIOQ_BOOTSTRAP_SERVER"
_PASSWORD: Final = "TRIOQ_PASSWORD"  # noqa: S105  the name of a variable
_TIMEOUT_S: Final = 30.0
_GIVEN: Final = "trioq.cli.target"
_UNKNOWN_TOPIC_MS: Final = 2_000
"""A command should not wait long for a topic whose name is mistyped."""


class Target(NamedTuple):
    """The brokers to ask, how long to wait for an answer, and how to be let in."""

    addresses: tuple[HostPort, ...]
    timeout_s: float
    is_tls: bool = False
    tls_ca: str | None = None
    """A file with the certificates to trust, in place of the system's."""

    mechanism: str | None = None
    username: str = ""
    password: str = ""

    @property
    def timeout_ms(self) -> int:
        return max(int(self.timeout_s * 1000), 1)

    def client(self) -> Client:
        """A client of these brokers, to be entered."""
        from trioq.client.client import connect  # noqa: PLC0415  help needs no client

        return connect(
            [str(address) for address in self.addresses],
            client_id="trioq-cli",
            tls=self._tls(),
            sasl=self._sasl(),
            connect_timeout_ms=min(self.timeout_ms, 10_000),
            request_timeout_ms=self.timeout_ms,
            call_timeout_ms=self.timeout_ms,
            unknown_topic_timeout_ms=min(self.timeout_ms, _UNKNOWN_TOPIC_MS),
        )

    def _tls(self) -> ssl.SSLContext | bool:
        if self.tls_ca is None:
            return self.is_tls
        from ssl import create_default_context  # noqa: PLC0415  few commands need it

        try:
            return create_default_context(cafile=self.tls_ca)
        except OSError as error:
            raise ConfigError(f"--tls-ca {self.tls_ca} cannot be used: {error}") from error

    def _sasl(self) -> SaslMechanism | None:
        if self.mechanism is None:
            return None
        from trioq.client.sasl import SaslPlain, SaslScram  # noqa: PLC0415  few commands need it

        if self.mechanism == "plain":
            return SaslPlain(self.username, self.password)
        if self.mechanism == "scram-sha-256":
            return SaslScram(self.username, self.password, "SCRAM-SHA-256")
        return SaslScram(self.username, self.password)


def broker_options(command: Decorated) -> Decorated:
    """Add the options that say which broker, and how, to a command or a group of commands.

    They are kept in the context, where `target` finds them: what a command is given counts more
    than what its group is given.
    """
    for option in (
        click.option(
            "--user",
            metavar="NAME",
            expose_value=False,
            callback=_keep,
            help=f"Authenticate by SASL; the password is in {_PASSWORD}, or asked for.",
        ),
        click.option(
            "--sasl",
            type=click.Choice(["plain", "scram-sha-256", "scram-sha-512"]),
            expose_value=False,
            callback=_keep,
            help="How, with --user.  [default: scram-sha-512]",
        ),
        click.option(
            "--tls-ca",
            metavar="FILE",
            expose_value=False,
            callback=_keep,
            help="Encrypt, trusting the authorities in this PEM file.",
        ),
        click.option(
            "--tls",
            is_flag=True,
            default=None,
            expose_value=False,
            callback=_keep,
            help="Encrypt, trusting the system's authorities.",
        ),
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
    """What the options of this command and its groups come to; asks for a password if need be.

    Raises ClientUsageError, UsageError.
    """
    given = ctx.meta.get(_GIVEN, {})
    bootstrap = given.get("bootstrap_server") or os.environ.get(_VARIABLE) or _BOOTSTRAP
    username = given.get("user")
    if username is None and "sasl" in given:
        raise click.UsageError("--sasl needs --user NAME")
    return Target(
        parse_bootstrap(bootstrap),
        given.get("timeout", _TIMEOUT_S),
        is_tls=given.get("tls", False),
        tls_ca=given.get("tls_ca"),
        mechanism=None if username is None else given.get("sasl", "scram-sha-512"),
        username=username or "",
        password="" if username is None else _password(username),
    )


def _password(username: str) -> str:
    password = os.environ.get(_PASSWORD)
    if password is not None:
        return password
    if not sys.stdin.isatty():
        raise click.UsageError(f"no password for {username}: put it into {_PASSWORD}")
    entered: str = click.prompt(f"Password of {username}", hide_input=True, err=True)
    return entered


def _keep(ctx: click.Context, parameter: click.Parameter, value: object) -> None:
    """Keep what was given; `meta` is one dict for a command and its groups, which come first."""
    if value is not None:
        ctx.meta.setdefault(_GIVEN, {})[parameter.name] = value
