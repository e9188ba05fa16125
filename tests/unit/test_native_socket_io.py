"""System calls: what is moved, what would block, what is refused."""

from __future__ import annotations

import errno
import os
import random
import signal
import socket
import sys
import tempfile

import pytest

from trioq._native import socket_io

BIG = 300_000  # over what the interpreter lock is kept for


@pytest.fixture
def pair():
    left, right = socket.socketpair()
    left.setblocking(False)
    right.setblocking(False)
    with left, right:
        yield left, right


@pytest.fixture
def file():
    with tempfile.TemporaryFile() as opened:
        yield opened


def received(sock, count):
    """Exactly `count` bytes that were sent before."""
    out = bytearray(count)
    got = 0
    while got < count:
        some = socket_io.recv_into(sock.fileno(), out, got, count - got)
        assert some > 0
        got += some
    return bytes(out)


@pytest.mark.parametrize("size", [1, 10, BIG])
def test_receive_and_send(pair, size):
    left, right = pair
    data = random.Random(size).randbytes(size)
    sent = got = 0
    out = bytearray(size + 4)
    while got < size:
        if sent < size:
            taken = socket_io.send(left.fileno(), data, sent, size - sent)
            assert taken != 0
            sent += max(0, taken)
        some = socket_io.recv_into(right.fileno(), out, 2 + got, size - got)
        got += max(0, some)
    assert out == b"\0\0" + data + b"\0\0"


def test_would_block_and_end(pair):
    left, right = pair
    buf = bytearray(BIG)
    assert socket_io.recv_into(left.fileno(), buf, 0, 10) == -1
    assert socket_io.recv_into(left.fileno(), buf, 0, BIG) == -1
    while socket_io.send(left.fileno(), buf, 0, BIG) != -1:
        pass
    assert socket_io.send(left.fileno(), buf, 0, 10) == -1
    assert socket_io.sendmsg(left.fileno(), [buf], 0) == -1
    with tempfile.TemporaryFile() as opened:
        opened.write(buf)
        opened.flush()
        assert socket_io.sendfile(left.fileno(), opened.fileno(), 0, 100) == -1
        assert socket_io.sendfile(left.fileno(), opened.fileno(), 0, BIG) == -1
    left.close()
    while (got := socket_io.recv_into(right.fileno(), buf, 0, BIG)) > 0:
        pass
    assert got == 0


def test_errors_are_raised(pair, file):
    left, right = pair
    right.close()
    with pytest.raises(BrokenPipeError):
        socket_io.send(left.fileno(), b"x", 0, 1)
    with pytest.raises(BrokenPipeError):
        socket_io.sendmsg(left.fileno(), [b"x"], 0)
    with pytest.raises(OSError) as caught:
        socket_io.recv_into(file.fileno(), bytearray(1), 0, 1)
    assert caught.value.errno == errno.ENOTSOCK
    for call in (
        lambda: socket_io.recv_into(-1, bytearray(1), 0, 1),
        lambda: socket_io.sendfile(-1, file.fileno(), 0, 1),
        lambda: socket_io.pwritev_all(-1, [b"x"], 0),
        lambda: socket_io.pread_into(-1, bytearray(1), 0, 1),
    ):
        with pytest.raises(OSError) as caught:
            call()
        assert caught.value.errno == errno.EBADF


@pytest.mark.parametrize(
    ("start", "length"), [(-1, 1), (0, -1), (0, 11), (11, 0), (5, 2**62), (2**62, 1)]
)
def test_ranges_outside_the_buffer_are_refused(pair, start, length):
    left, _ = pair
    with pytest.raises(ValueError):
        socket_io.recv_into(left.fileno(), bytearray(10), start, length)
    with pytest.raises(ValueError):
        socket_io.send(left.fileno(), bytes(10), start, length)


def test_receiving_needs_a_writable_buffer(pair, file):
    with pytest.raises(BufferError):
        socket_io.recv_into(pair[0].fileno(), b"read-only", 0, 1)
    with pytest.raises(BufferError):
        socket_io.pread_into(file.fileno(), b"read-only", 0, 1)


def test_gathered_send(pair):
    left, right = pair
    buffers = [b"hello", bytearray(b" "), memoryview(b"world"), b""]
    assert socket_io.sendmsg(left.fileno(), buffers, 0) == 11
    assert socket_io.sendmsg(left.fileno(), buffers, 3) == 8
    assert received(right, 19) == b"hello worldlo world"
    assert socket_io.sendmsg(left.fileno(), [], 0) == 0
    assert socket_io.sendmsg(left.fileno(), [b"abc"], 3) == 0
    for first_offset in (-1, 6):
        with pytest.raises(ValueError):
            socket_io.sendmsg(left.fileno(), buffers, first_offset)
    with pytest.raises(TypeError):
        socket_io.sendmsg(left.fileno(), [b"abc", "text"], 0)


def test_gathered_send_takes_at_most_iov_max(pair):
    left, right = pair
    buffers = [b"%d" % (i % 10) for i in range(socket_io.IOV_MAX + 5)]
    assert socket_io.sendmsg(left.fileno(), buffers, 0) == socket_io.IOV_MAX
    assert received(right, socket_io.IOV_MAX) == b"".join(buffers[: socket_io.IOV_MAX])


def test_borrowed_buffers_are_given_back(pair, file):
    buffer = bytearray(b"abc")
    socket_io.sendmsg(pair[0].fileno(), [buffer, buffer], 0)
    socket_io.pwritev_all(file.fileno(), [buffer] * 3, 0)
    with pytest.raises(TypeError):
        socket_io.pwritev_all(file.fileno(), [buffer, None], 0)
    buffer.append(1)  # a borrowed bytearray refuses to grow


def test_file_to_socket(pair, file):
    left, right = pair
    data = random.Random(2).randbytes(BIG)
    file.write(data)
    file.flush()
    position = 100
    out = bytearray()
    while position < BIG:
        moved = socket_io.sendfile(left.fileno(), file.fileno(), position, BIG - position)
        assert moved > 0
        position += moved
        out += received(right, moved)
    assert out == data[100:]
    assert socket_io.sendfile(left.fileno(), file.fileno(), BIG, 10) == 0
    for position, count in ((-1, 1), (0, -1)):
        with pytest.raises(ValueError):
            socket_io.sendfile(left.fileno(), file.fileno(), position, count)


@pytest.mark.parametrize("sizes", [[], [0], [5], [0, 3, 0, 4], [1] * 3000, [100_000, 1, 200_000]])
def test_gathered_write_and_read(file, sizes):
    source = random.Random(len(sizes))
    buffers = [source.randbytes(size) for size in sizes]
    data = b"".join(buffers)
    assert socket_io.pwritev_all(file.fileno(), buffers, 7) >= 0.0
    out = bytearray(len(data) + 20)
    assert socket_io.pread_into(file.fileno(), out, 7, len(data)) == len(data)
    assert out[: len(data)] == data
    assert socket_io.pread_into(file.fileno(), out, 7, len(data) + 20) == len(data)
    assert socket_io.pread_into(file.fileno(), out, 10**9, 5) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere every wait counts")
def test_a_long_write_takes_time_only_if_the_thread_has_slept(tmp_path):
    resource = pytest.importorskip("resource")
    data = bytes(300_000)
    fd = os.open(tmp_path / "synced", os.O_RDWR | os.O_CREAT | os.O_DSYNC)
    try:
        for number in range(10):
            before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
            seconds = socket_io.pwritev_all(fd, [data], number * len(data))
            has_slept = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw != before
            assert has_slept or seconds == 0.0
        assert socket_io.pwritev_all(fd, [b"x"], 0) > 0.0
    finally:
        os.close(fd)


def test_short_writes_are_continued():
    """A limit of file size makes the first write short."""
    resource = pytest.importorskip("resource")
    with tempfile.TemporaryFile() as opened:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try:
            with pytest.raises(OSError) as caught:
                socket_io.pwritev_all(opened.fileno(), [bytes(600), b"x" * 600], 0)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, before)
        assert caught.value.errno == errno.EFBIG
        assert os.fstat(opened.fileno()).st_size == 1000  # the first, short write was continued


def test_an_interrupted_call_runs_signal_handlers_and_goes_on():
    left, right = socket.socketpair()
    with left, right:

        def handler(_number, _frame):
            signal.setitimer(signal.ITIMER_REAL, 0)
            right.send(b"after the signal")

        before = signal.signal(signal.SIGALRM, handler)
        try:
            # Again and again until it is handled: the first may come before the call blocks.
            signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
            assert socket_io.recv_into(left.fileno(), bytearray(BIG), 0, BIG) == 16
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_accept(family):
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    listening = socket.socket(family, socket.SOCK_STREAM)
    with listening:
        listening.setblocking(False)
        try:
            listening.bind((host, 0))
        except OSError:
            pytest.skip("no IPv6 here")
        listening.listen()
        assert socket_io.accept(listening.fileno()) is None
        with socket.create_connection(listening.getsockname()[:2]) as client:
            descriptor, peer, port = socket_io.accept(listening.fileno())
            with socket.socket(family, fileno=descriptor):
                assert (peer, port) == client.getsockname()[:2]
                assert not os.get_blocking(descriptor)
                assert not os.get_inheritable(descriptor)
                assert socket_io.recv_into(descriptor, bytearray(8), 0, 8) == -1
                client.sendall(b"hello")
                into = bytearray(8)
                while (got := socket_io.recv_into(descriptor, into, 0, 8)) == -1:
                    pass
                assert into[:got] == b"hello"
    with pytest.raises(OSError, match="descriptor"):
        socket_io.accept(-1)
