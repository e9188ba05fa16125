"""Where `--from` starts."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioq.cli.start_position import StartKind, StartPosition, parse_start
from trioq.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("beginning", StartPosition(StartKind.BEGINNING)),
        ("end", StartPosition(StartKind.END)),
        ("42", StartPosition(StartKind.OFFSET, 42)),
        ("-10", StartPosition(StartKind.LAST, 10)),
        ("@1769860800000", StartPosition(StartKind.TIMESTAMP, 1_769_860_800_000)),
        ("2026-01-31T12:00:00Z", StartPosition(StartKind.TIMESTAMP, 1_769_860_800_000)),
        ("2026-01-31T13:00+01:00", StartPosition(StartKind.TIMESTAMP, 1_769_860_800_000)),
    ],
)
def test_what_may_be_given(text, expected):
    assert parse_start(text, flag="--from") == expected


def test_a_time_without_a_zone_is_local():
    local = datetime(2026, 1, 31, 12)  # noqa: DTZ001  that is what is tested
    assert parse_start("2026-01-31T12:00", flag="--from").number == local.timestamp() * 1000


@pytest.mark.parametrize("text", ["", "start", "4 2", "--1", "@", "1960-01-01", "9" * 30, "٤"])
def test_what_may_not(text):
    with pytest.raises(ConfigError, match=r"--from .* is not valid: allowed is beginning, end, "):
        parse_start(text, flag="--from")


@given(
    st.sampled_from(StartKind),
    st.integers(0, 100),
    st.integers(0, 50),
    st.integers(0, 50),
    st.data(),
)
def test_the_offset_is_one_that_there_is(kind, number, beginning, count, data):
    end = beginning + count
    at = data.draw(st.none() | st.integers(beginning, end))
    offset = StartPosition(kind, number).offset(beginning, end, at)
    assert beginning <= offset <= end
    if kind is StartKind.OFFSET and beginning <= number <= end:
        assert offset == number
    if kind is StartKind.LAST:
        assert offset == max(beginning, end - number)
    if kind is StartKind.TIMESTAMP:
        assert offset == (end if at is None else at)
