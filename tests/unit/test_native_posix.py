"""Advice about files: answers on files whose state is known, and errors."""

from __future__ import annotations

import os
import sys
import tempfile

import pytest

from trioq._native import posix
from trioq._native._posix import lib

linux = pytest.mark.skipif(sys.platform != "linux", reason="other systems ignore advice")
PAGE = os.sysconf("SC_PAGESIZE")


@pytest.fixture
def file(tmp_path):
    with tempfile.TemporaryFile(dir=tmp_path) as opened:
        opened.write(bytes(5 * PAGE + 10))
        opened.flush()
        yield opened.fileno()


def test_what_was_just_written_is_resident(file):
    for position, length in ((0, 1), (0, 5 * PAGE + 10), (PAGE - 1, 2), (5 * PAGE, 10), (3, 10**9)):
        assert posix.resident(file, position, length)
        assert lib.trioq_resident_by_mincore(file, position, length) == 1
    assert posix.resident(file, 0, 0)
    assert posix.resident(file, 10**9, 5)  # nothing of it is in the file


@linux
def test_a_hole_that_was_never_read_is_not_resident(file):
    os.ftruncate(file, 1 << 24)
    for position in (6 * PAGE, (1 << 24) - 1, 0):
        assert posix.resident(file, position, 1 << 24) is False
        assert lib.trioq_resident_by_mincore(file, position, 1 << 24) == 0
    assert posix.resident(file, 0, PAGE)
    os.pread(file, PAGE, 100 * PAGE)
    assert posix.resident(file, 100 * PAGE, PAGE)


@linux
def test_what_was_read_ahead_is_resident(file):
    os.ftruncate(file, 1 << 20)
    posix.read_ahead(file, 30 * PAGE + 5, 40 * PAGE)
    assert posix.resident(file, 30 * PAGE, 40 * PAGE)
    posix.read_ahead(file, 0, 1 << 30)  # as far as the file reaches
    assert posix.resident(file, 0, 1 << 20)
    posix.read_ahead(file, 1 << 21, 10)


@linux
def test_preallocation_keeps_the_size(file):
    posix.preallocate(file, 0, 1 << 20)
    status = os.fstat(file)
    assert status.st_size == 5 * PAGE + 10
    posix.preallocate(file, 0, 0)


@linux
def test_errors_are_oserrors(file):
    for call in (
        lambda: posix.resident(-1, 0, 1),
        lambda: posix.preallocate(-1, 0, 1),
        lambda: posix.read_ahead(-1, 0, 1),
        lambda: posix.sync_range(-1, 0, 1),
        lambda: posix.advise(-1, 0, 1, posix.ADVICE_WILL_NEED),
        lambda: posix.advise(file, 0, 1, 9),
    ):
        with pytest.raises(OSError):
            call()


def test_advice_and_write_back_are_taken(file):
    for advice in (
        posix.ADVICE_WILL_NEED,
        posix.ADVICE_WILL_NOT_NEED,
        posix.ADVICE_SEQUENTIAL,
        posix.ADVICE_RANDOM,
    ):
        posix.advise(file, 0, PAGE, advice)
    posix.sync_range(file, 0, PAGE)


def test_freed_memory_is_kept() -> None:
    posix.keep_freed_memory(16 << 20, 4 << 20)  # what it saves is seen in page faults
    assert len(bytearray(1 << 20)) == 1 << 20
