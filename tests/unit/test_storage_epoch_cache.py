"""The epoch cache against a list that says for each offset which epoch wrote it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioq.storage.checkpoints import CorruptCheckpoint
from trioq.storage.epoch_cache import UNDEFINED, EpochCache

RUNS = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 5)), max_size=8)
"""(epochs forward, records) of each term."""


def written(runs: list[tuple[int, int]]) -> tuple[EpochCache, list[int]]:
    cache, log, epoch = EpochCache(), [], -1
    for forward, records in runs:
        epoch += forward
        cache.assign(epoch, len(log))
        log += [epoch] * records
    return cache, log


def checked(cache: EpochCache, log: list[int | None]) -> None:
    """`log[offset]` is the epoch, None where the log holds nothing any longer."""
    for offset, epoch in enumerate(log):
        if epoch is not None:
            assert cache.epoch_for_offset(offset) == epoch
    known = [epoch for epoch in log if epoch is not None]
    start = len(log) - len(known)
    for asked in range(max(known, default=0) + 1):
        if not known:
            break
        epoch, end = cache.end_offset_for(asked, len(log))
        below = [e for e in known if e <= asked]
        if below:
            assert (epoch, end) == (max(below), start + len(below))
        else:
            assert (epoch, end) == (asked, start)
    if known:
        assert cache.latest_epoch == known[-1]
        assert cache.end_offset_for(known[-1] + 1, len(log)) == UNDEFINED
    assert cache.end_offset_for(-1, len(log)) == UNDEFINED


@given(RUNS)
def test_answers_are_the_logs(runs: list[tuple[int, int]]) -> None:
    cache, log = written(runs)
    checked(cache, [*log])
    assert EpochCache.decode(cache.encode(), "f").entries() == cache.entries()


@given(RUNS, st.integers(0, 40))
def test_truncate_from_end(runs: list[tuple[int, int]], end: int) -> None:
    cache, log = written(runs)
    before = cache.entries()
    assert cache.truncate_from_end(end) == (cache.entries() != before)
    checked(cache, [*log[:end]])


@given(RUNS, st.integers(0, 40))
def test_truncate_from_start(runs: list[tuple[int, int]], start: int) -> None:
    cache, log = written(runs)
    start = min(start, len(log))
    before = cache.entries()
    assert cache.truncate_from_start(start) == (cache.entries() != before)
    checked(cache, [*([None] * start), *log[start:]])
    if log:
        assert cache.latest_epoch == log[-1]  # kept though the log may be empty


@given(RUNS)
def test_assigning_per_batch_is_the_same(runs: list[tuple[int, int]]) -> None:
    cache, log = written(runs)
    again = EpochCache()
    for offset, epoch in enumerate(log):
        assert again.assign(epoch, offset) == (offset == 0 or log[offset - 1] != epoch)
    assert again.entries() == cache.entries()


def test_a_term_without_records_gives_way() -> None:
    cache = EpochCache([(1, 0), (2, 10)])
    assert cache.assign(3, 10)
    assert cache.entries() == [(1, 0), (3, 10)]
    assert not cache.assign(3, 12)
    assert cache.assign(2, 5)
    assert cache.entries() == [(1, 0), (2, 5)]
    cache.clear()
    assert cache.latest_epoch == -1
    assert len(cache) == 0
    assert cache.end_offset_for(0, 0) == UNDEFINED
    assert cache.epoch_for_offset(0) == -1


def test_file() -> None:
    assert EpochCache([(0, 0), (4, 17)]).encode() == b"0\n2\n0 0\n4 17\n"
    assert EpochCache().encode() == b"0\n0\n"


@pytest.mark.parametrize(
    "text",
    [b"0\n1\n1\n", b"0\n2\n1 0\n1 5\n", b"0\n2\n1 5\n2 5\n", b"0\n1\n-1 0\n", b"0\n1\n0 -1\n"],
)
def test_a_damaged_file_names_itself(text: bytes) -> None:
    with pytest.raises(CorruptCheckpoint, match="^the-file: "):
        EpochCache.decode(text, "the-file")
