"""Which brokers a command talks to, and how it is let in."""

from __future__ import annotations

import ssl

import click
import pytest
import trustme
from click.testing import CliRunner

from trioq.cli.app import trioq
from trioq.cli.target import Target, broker_options, target
from trioq.client.sasl import SaslPlain, SaslScram


def resolved(*arguments: str, **environment: str) -> Target:
    """What the options before and behind a command come to."""
    found: list[Target] = []

    @click.group()
    @broker_options
    def group() -> None:
        pass

    @group.command()
    @broker_options
    @click.pass_context
    def command(ctx: click.Context) -> None:
        found.append(target(ctx))

    result = CliRunner().invoke(group, arguments, env=environment, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return found[0]


def test_nothing_given():
    found = resolved("command", TRIOQ_BOOTSTRAP_SERVER="")
    assert [str(one) for one in found.addresses] == ["127.0.0.1:9092"]
    settings = found.client().settings
    assert (settings.tls, settings.sasl, settings.call_timeout_ms) == (None, None, 30_000)


def test_what_stands_behind_the_command_counts_more():
    found = resolved("--bootstrap-server", "a:1", "--timeout", "5", "command",
                     "--bootstrap-server", "b:2,[::1]:3")  # fmt: skip
    assert [str(one) for one in found.addresses] == ["b:2", "[::1]:3"]
    assert found.timeout_s == 5


def test_tls(tmp_path):
    assert isinstance(resolved("command", "--tls").client().settings.tls, ssl.SSLContext)
    file = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(file)
    context = resolved("--tls-ca", str(file), "command").client().settings.tls
    assert isinstance(context, ssl.SSLContext)
    assert len(context.get_ca_certs()) == 1


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_authorities_that_cannot_be_used(tmp_path, content):
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    result = CliRunner().invoke(trioq, ["topic", "list", "--tls-ca", str(file)])
    assert result.exit_code == 2
    assert f"--tls-ca {file} cannot be used" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], SaslScram("me", "secret")),
        (["--sasl", "scram-sha-256"], SaslScram("me", "secret", "SCRAM-SHA-256")),
        (["--sasl", "plain"], SaslPlain("me", "secret")),
    ],
)
def test_sasl(arguments, expected):
    found = resolved("command", "--user", "me", *arguments, TRIOQ_PASSWORD="secret")
    assert found.client().settings.sasl == expected


def test_a_password_is_needed():
    with pytest.raises(click.UsageError, match="put it into TRIOQ_PASSWORD"):
        resolved("command", "--user", "me")
    with pytest.raises(click.UsageError, match="--sasl needs --user"):
        resolved("command", "--sasl", "plain", TRIOQ_PASSWORD="secret")
