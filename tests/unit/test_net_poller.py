"""The poller names the owners of what is ready."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator

import pytest

from trioq.net.poller import BROKEN, READABLE, WRITABLE, Poller, open_poller


@pytest.fixture
def poller() -> Iterator[Poller[str]]:
    opened: Poller[str] = open_poller()
    yield opened
    opened.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def test_nothing_is_ready(poller: Poller[str], pair: tuple[socket.socket, socket.socket]) -> None:
    assert poller.poll() == []
    poller.change(pair[0].fileno(), "one", 0, READABLE)
    assert poller.poll() == []
    assert poller.poll(0.000_1) == []
    assert poller.poll(0.000_1, keeps_lock=True) == []


@pytest.mark.parametrize("keeps_lock", [False, True])
@pytest.mark.parametrize("wait_s", [0.0, 5.0])
def test_owners_of_what_is_ready(
    poller: Poller[str],
    pair: tuple[socket.socket, socket.socket],
    wait_s: float,
    keeps_lock: bool,
) -> None:
    one, other = pair
    poller.change(one.fileno(), "one", 0, READABLE)
    poller.change(other.fileno(), "other", 0, READABLE | WRITABLE)
    other.send(b"x")
    assert sorted(poller.poll(wait_s, keeps_lock)) == [("one", READABLE), ("other", WRITABLE)]
    poller.change(other.fileno(), "other", READABLE | WRITABLE, READABLE)
    one.recv(1)
    assert poller.poll() == []


def test_a_hang_up_is_told_whatever_was_asked_for(
    poller: Poller[str], pair: tuple[socket.socket, socket.socket]
) -> None:
    one, other = pair
    poller.change(one.fileno(), "one", 0, READABLE)
    other.close()
    ((owner, mask),) = poller.poll(5.0)
    assert owner == "one"
    assert mask & (READABLE | BROKEN)


def test_what_was_taken_out_is_silent(
    poller: Poller[str], pair: tuple[socket.socket, socket.socket]
) -> None:
    one, other = pair
    poller.change(one.fileno(), "one", 0, READABLE)
    other.send(b"x")
    poller.change(one.fileno(), "one", READABLE, 0)
    assert poller.poll() == []


@pytest.mark.skipif(sys.platform != "linux", reason="epoll is Linux's")
def test_errors_of_epoll_are_raised() -> None:
    from trioq._native.ready import ReadyOwners

    with pytest.raises(OSError, match="Bad file descriptor"):
        ReadyOwners[str](-1).poll()
    reading, writing = os.pipe()
    os.close(writing)
    with pytest.raises(OSError, match="Invalid argument"):
        ReadyOwners[str](reading).poll()
    os.close(reading)


@pytest.mark.skipif(sys.platform != "linux", reason="kqueue does not tell")
def test_how_late_the_interpreter_lock_came_back_is_told(poller: Poller[str]) -> None:
    """A thread that runs Python keeps the lock for its switch interval."""
    poller.poll(0.000_1, keeps_lock=True)
    assert poller.lock_wait_s == 0.0
    done = threading.Event()

    def count() -> None:
        number = 0
        while not done.is_set():
            number += 1

    thread = threading.Thread(target=count)
    thread.start()
    try:
        while poller.lock_wait_s < sys.getswitchinterval() / 2:
            poller.poll(0.000_1)
    finally:
        done.set()
        thread.join()
