"""For how long a ZooKeeper server is waited for that takes a connection."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("kazoo")

from kazoo.handlers.threading import SequentialThreadingHandler

from trioq.metastore.zookeeper_handshake import BoundedHandler, HandshakePatience


def patience_of(
    session_s: float, servers: int, *, first_s: float | None = None
) -> HandshakePatience:
    """With a session that lives."""
    patience = HandshakePatience(session_s, servers, first_s=first_s)
    patience.succeeded()
    return patience


@given(
    session_s=st.floats(1, 600),
    servers=st.integers(1, 7),
    silent=st.integers(0, 7),
)
def test_a_round_of_silent_servers_leaves_two_thirds_of_the_session(session_s, servers, silent):
    patience = patience_of(session_s, servers)
    waited_s = 0.0
    for server in range(min(silent, servers)):
        waited_s += patience.attempt_s(server)
        patience.ran_out(server)
    assert waited_s <= session_s / 3 * 1.001


@given(session_s=st.floats(1, 600), servers=st.integers(1, 7), rounds=st.integers(0, 100))
def test_a_slow_ensemble_gets_more_time_round_by_round(session_s, servers, rounds):
    patience = patience_of(session_s, servers)
    before_s = 0.0
    for _ in range(rounds):
        allowed_s = [patience.attempt_s(server) for server in range(servers)]
        assert min(allowed_s) >= before_s
        assert max(allowed_s) <= session_s / servers
        for server in range(servers):
            patience.ran_out(server)
        before_s = max(allowed_s)
    assert rounds < 5 or before_s == session_s / servers
    patience.succeeded()
    assert patience.attempt_s(0) == pytest.approx(session_s / servers / 3)


def test_for_a_new_session_all_servers_together_get_the_time_of_one():
    patience = HandshakePatience(18.0, 3)
    assert patience.attempt_s("a") == 6.0
    patience.ran_out("a")
    assert patience.attempt_s("b") == 6.0
    patience.succeeded()
    assert patience.attempt_s("b") == 2.0
    patience.session_ended()
    assert patience.attempt_s("b") == 6.0


def test_servers_that_refuse_at_once_change_nothing():
    patience = patience_of(18.0, 3)
    assert [patience.attempt_s("a") for _ in range(9)] == [2.0] * 9


def test_a_name_of_several_addresses_counts_as_so_many_servers():
    patience = patience_of(18.0, 1)
    for address in ("a", "b", "c"):
        patience.ran_out(address)
    assert patience.attempt_s("d") == 2.0


def test_what_one_server_gets_may_be_set():
    patience = patience_of(18.0, 3, first_s=0.5)
    for _ in range(3):
        assert patience.attempt_s("a") == 0.5
        patience.ran_out("a")
    assert patience.attempt_s("a") == 1.0


@pytest.fixture
def silent() -> Iterator[tuple[str, int]]:
    """A listener that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()


class Waits:
    """A clock that goes on by what is waited for; kazoo's waiting is replaced by it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 0.0
        self.answers_after_s: float | None = None
        monkeypatch.setattr(SequentialThreadingHandler, "select", self.select)

    def select(self, rlist: Any, wlist: Any, _xlist: Any, timeout: float | None) -> Any:
        after_s = self.answers_after_s
        if after_s is not None and (timeout is None or after_s <= timeout):
            self.now_s += after_s
            return rlist, wlist, []
        assert timeout is not None
        self.now_s += timeout
        return [], [], []


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Waits:
    return Waits(monkeypatch)


def test_all_of_the_handshake_is_bounded_not_each_step(silent, waits):
    patience = patience_of(18.0, 3)
    for _ in range(2):
        patience.ran_out(silent)
    handler = BoundedHandler(patience, now_s=lambda: waits.now_s)
    with handler.create_connection(address=silent, timeout=18.0) as connection:
        assert connection.gettimeout() == pytest.approx(2.0, abs=0.5)
        waits.answers_after_s = 1.5
        assert handler.select([], [connection], [], 6.0)[1]
        waits.answers_after_s = None
        assert handler.select([connection], [], [], 6.0) == ([], [], [])
        assert waits.now_s == 2.0
        assert patience.attempt_s(silent) == 4.0


def test_after_the_handshake_kazoos_timeouts_hold(silent, waits):
    patience = patience_of(18.0, 3)
    for _ in range(3):
        patience.ran_out(silent)
    handler = BoundedHandler(patience, now_s=lambda: waits.now_s)
    with handler.create_connection(silent) as connection, socket.socket() as queue:
        assert handler.select([connection, queue], [], [], 10.0) == ([], [], [])
        assert waits.now_s == 10.0
        assert handler.select([connection], [], [], 12.0) == ([], [], [])
        assert waits.now_s == 22.0
        assert patience.attempt_s(silent) == 2.0, "what ran out before it succeeded is forgotten"
