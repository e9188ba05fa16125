"""Binding, accepting, limits of connections."""

from __future__ import annotations

import errno
import socket

import pytest
import trio

from tests.unit.server_harness import ECHO, serving
from trioq._native import socket_io
from trioq.config import BrokerConfig, Listener
from trioq.errors import StartupError
from trioq.server.limits import Limits, most_log_files
from trioq.server.listener import BoundListener, bind


def _listener(host: str, port: int = 0) -> Listener:
    return Listener("PLAINTEXT", host, port, host, port)


def test_port_0_takes_a_free_port() -> None:
    (bound,) = bind(_listener("127.0.0.1"))
    assert bound.port > 0
    bound.close()


def test_a_port_in_use_is_explained() -> None:
    (bound,) = bind(_listener("127.0.0.1"))
    with pytest.raises(StartupError, match=rf"127\.0\.0\.1:{bound.port}.*another process"):
        bind(_listener("127.0.0.1", bound.port))
    bound.close()


def test_an_address_of_another_host_is_explained() -> None:
    with pytest.raises(StartupError, match="does not have that address"):
        bind(_listener("192.0.2.1", 9092))


def test_a_name_that_does_not_resolve_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_arguments: object, **_options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(StartupError, match="no.such.host:9092: Name or service not known"):
        bind(_listener("no.such.host", 9092))


@pytest.mark.trio
@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
async def test_ipv6_is_served() -> None:
    try:
        probe = bind(_listener("::1"))
    except StartupError:
        pytest.skip("no IPv6 here")
    probe[0].close()
    async with serving(host="::1") as harness, await harness.connect() as client:
        assert await client.call(ECHO, b"six") == b"six"
        assert next(iter(harness.reactor.connections)).peer.startswith("[::1]:")


@pytest.mark.trio
@pytest.mark.parametrize(
    "limits", [Limits(max_connections=3), Limits(max_connections_per_ip=3)], ids=["all", "per ip"]
)
async def test_connections_over_the_limit_are_closed_and_the_others_served(limits: Limits) -> None:
    async with serving(limits=limits) as harness:
        clients = [await harness.connect() for _ in range(3)]
        await harness.until(lambda: harness.reactor.connection_count == 3)
        assert await (await harness.connect()).is_closed()
        assert await clients[0].call(ECHO, b"kept") == b"kept"
        await clients[1].stream.aclose()
        await harness.until(lambda: harness.reactor.connection_count == 2)
        assert await (await harness.connect()).call(ECHO, b"again") == b"again"
        assert harness.reactor.counters.connections_refused == 1


@pytest.mark.trio
@pytest.mark.parametrize(
    ("code", "pauses"),
    [(errno.EMFILE, 1), (errno.ENFILE, 1), (errno.ECONNABORTED, 0), (errno.EPROTO, 0)],
)
async def test_accept_survives_its_errors(
    code: int, pauses: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bound,) = bind(_listener("127.0.0.1"))
    errors, accept = [code], socket_io.accept

    def failing_first(fd: int) -> tuple[int, str, int] | None:
        if errors:
            raise OSError(errors.pop(), "scripted")
        return accept(fd)

    monkeypatch.setattr(socket_io, "accept", failing_first)
    accepted = trio.Event()
    paused: list[None] = []

    def admit(sock: socket.socket, *_about: object) -> None:
        sock.close()
        accepted.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(bound.run, admit, lambda: paused.append(None))
        stream = await trio.open_tcp_stream("127.0.0.1", bound.port)
        with trio.fail_after(60):
            await accepted.wait()
        await stream.aclose()
        bound.stop()
    assert len(paused) == pauses
    assert isinstance(bound, BoundListener)


def test_limits_follow_configuration_and_descriptors() -> None:
    config = BrokerConfig.from_mapping(
        {"connections.max.idle.ms": "5000", "max.connections.per.ip": "7"}
    )
    limits = Limits.of(config, max_open_files=1024)
    assert limits.idle_s == 5.0
    assert limits.max_connections_per_ip == 7
    assert 100 < limits.max_connections < 1024 - 128
    assert Limits.of(config, max_open_files=64).max_connections >= 16
    many = BrokerConfig.from_mapping({"max.connections": "50"})
    assert Limits.of(many, max_open_files=100_000).max_connections == 50


def test_open_log_files_follow_configuration_and_descriptors() -> None:
    derived = BrokerConfig.from_mapping({})
    for descriptors in (1024, 20_000, 1_000_000):
        files = most_log_files(derived, max_open_files=descriptors)
        connections = Limits.of(derived, max_open_files=descriptors).max_connections
        assert files + connections < descriptors - 64
        assert files > descriptors // 5
    assert most_log_files(derived, max_open_files=-1) > 1000  # no limit
    assert most_log_files(derived, max_open_files=64) >= 16
    asked = BrokerConfig.from_mapping({"log.max.open.files": "50"})
    assert most_log_files(asked, max_open_files=100_000) == 50
