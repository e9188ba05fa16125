"""The send queue of a connection, against a transport that takes what it likes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trioq._native import posix
from trioq.net.egress import GATHER_FILE_BYTES, SLICE_BYTES, Egress, SendState, read_ahead
from trioq.net.transport import Buffer
from trioq.types import FileRegion

CONTENT = bytes(range(251)) * 20_000  # about 5 MB


class LentFile:
    """A file whose references are counted."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.references = 0

    def fileno(self) -> int:
        assert self.references > 0, "used after its release"
        return self._fd

    def retain(self) -> None:
        self.references += 1

    def release(self) -> None:
        self.references -= 1
        assert self.references >= 0

    def region(self, position: int, length: int) -> FileRegion:
        self.retain()
        return FileRegion(self, position, length)


class Pipe:
    """A transport that takes as many bytes per call as `takes` says; -1 is "would block"."""

    pending_bytes = 0

    def __init__(self, takes: Callable[[], int]) -> None:
        self.taken = bytearray()
        self._takes = takes

    def receive(self, buffer: Buffer, start: int, length: int) -> int:
        raise AssertionError("nothing is received here")

    def send(self, buffers: list[Buffer], first_offset: int, *, more: bool = False) -> int:
        return self._take(b"".join(buffers)[first_offset:])

    def send_file(self, file_fd: int, position: int, length: int) -> int:
        return self._take(os.pread(file_fd, length, position))

    def _take(self, data: bytes) -> int:
        allowed = self._takes()
        if allowed < 0:
            return -1
        self.taken += data[:allowed]
        return min(allowed, len(data))


@pytest.fixture(scope="module")
def content_fd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    path: Path = tmp_path_factory.mktemp("egress") / "log"
    path.write_bytes(CONTENT)
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.fixture(autouse=True)
def _everything_is_hot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posix, "resident", lambda *_range: True)


_buffers = st.integers(0, 3000).map(lambda size: CONTENT[:size])
_regions = st.tuples(
    st.integers(0, 100_000),
    st.sampled_from([0, 1, 500, GATHER_FILE_BYTES, GATHER_FILE_BYTES + 1, 200_000, 1_200_000]),
)
_responses = st.lists(st.lists(st.one_of(_buffers, _regions), min_size=1, max_size=6), max_size=6)


@settings(max_examples=60, deadline=None)
@given(_responses, st.lists(st.sampled_from([-1, 1, 700, 40_000, 10**9]), max_size=40), st.data())
def test_bytes_leave_in_order_and_regions_are_released_once(
    content_fd: int,
    responses: list[list[bytes | tuple[int, int]]],
    takes: list[int],
    data: st.DataObject,
) -> None:
    file = LentFile(content_fd)
    script = iter(takes)
    pipe = Pipe(lambda: next(script, 10**9))
    egress = Egress(pipe)
    expected = bytearray()
    for response in responses:
        parts: list[Buffer | FileRegion] = []
        start = len(expected)
        for part in response:
            if isinstance(part, bytes):
                parts.append(part)
                expected += part
            else:
                parts.append(file.region(*part))
                expected += CONTENT[part[0] : part[0] + part[1]]
        egress.push(parts, len(expected) - start)
    stop_after = data.draw(st.integers(0, 80))
    for _ in range(stop_after):
        state = egress.send(300_000)
        assert egress.queued_bytes == len(expected) - len(pipe.taken)
        if state is SendState.DONE:
            break
    assert expected.startswith(pipe.taken)
    if egress.queued_bytes:
        egress.close()
    else:
        egress.send(1)
    assert file.references == 0


def test_a_send_is_budgeted(content_fd: int) -> None:
    file = LentFile(content_fd)
    pipe = Pipe(lambda: 10**9)
    egress = Egress(pipe)
    egress.push([file.region(0, 4_000_000)], 4_000_000)
    assert egress.send(1_000_000) is SendState.BUDGET_SPENT
    assert len(pipe.taken) <= SLICE_BYTES
    while egress.send(1_000_000) is not SendState.DONE:
        pass
    assert pipe.taken == CONTENT[:4_000_000]
    assert file.references == 0


@pytest.mark.parametrize("length", [GATHER_FILE_BYTES, 3_000_000])
def test_cold_ranges_are_asked_for_before_they_are_sent(
    content_fd: int, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posix, "resident", lambda *_range: False)
    file = LentFile(content_fd)
    pipe = Pipe(lambda: 10**9)
    egress = Egress(pipe)
    egress.push([b"head", file.region(10, length), b"tail"], length + 8)
    reads = 0
    while (state := egress.send(10**9)) is not SendState.DONE:
        assert state is SendState.COLD
        cold = egress.cold_range
        assert cold is not None
        assert len(pipe.taken) == 4 + cold.position - 10
        read_ahead(cold)
        egress.warmed()
        reads += 1
    assert pipe.taken == b"head" + CONTENT[10 : 10 + length] + b"tail"
    assert reads == -(-length // SLICE_BYTES)
    assert file.references == 0


@pytest.mark.parametrize("length", [GATHER_FILE_BYTES, GATHER_FILE_BYTES + 1])
def test_a_file_that_ends_early_is_an_error(content_fd: int, length: int) -> None:
    file = LentFile(content_fd)
    egress = Egress(Pipe(lambda: 10**9))
    egress.push([file.region(len(CONTENT) - 5, length)], length)
    with pytest.raises(OSError, match="file ends within a region"):
        while egress.send(10**9) is not SendState.DONE:
            pass
    egress.close()
    assert file.references == 0
