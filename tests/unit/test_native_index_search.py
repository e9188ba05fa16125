"""Search in index files against looking at every entry."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference import index_search as reference
from trioq._native import index_search

SMALL = st.integers(-3, 30)
INT32 = st.integers(-(2**31), 2**31 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(SMALL | INT32, INT32)), SMALL | INT32 | INT64, st.binary(max_size=9))
def test_find_offset(entries, target, rest):
    entries.sort()
    buf = b"".join(struct.pack(">ii", *entry) for entry in entries) + rest
    found = index_search.find_offset(buf, len(entries), target)
    assert found == reference.find_offset(buf, len(entries), target)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(SMALL | INT64, INT32)), SMALL | INT64, st.binary(max_size=13))
def test_find_time(entries, target, rest):
    entries.sort()
    buf = b"".join(struct.pack(">qi", *entry) for entry in entries) + rest
    found = index_search.find_time(buf, len(entries), target)
    assert found == reference.find_time(buf, len(entries), target)


@settings(deadline=None)
@given(st.binary(max_size=200), INT64)
def test_bytes_that_are_no_index_are_searched_without_harm(buf, target):
    index_search.find_offset(buf, len(buf) // 8, target)
    index_search.find_time(buf, len(buf) // 12, target)


@pytest.mark.parametrize("entries", [-1, 2, 2**62])
def test_more_entries_than_bytes_are_refused(entries):
    with pytest.raises(ValueError):
        index_search.find_offset(bytes(15), entries, 0)
    with pytest.raises(ValueError):
        index_search.find_time(bytes(23), entries, 0)
