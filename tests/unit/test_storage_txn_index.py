from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioq.storage.txn_index import (
    ENTRY_BYTES,
    AbortedTransaction,
    CorruptTransactionIndex,
    aborted_in,
    decode_aborted,
    encode_aborted,
    truncated_bytes,
)

ENTRY = AbortedTransaction(4001, 10, 19, 20)
BYTES = bytes.fromhex("00000000000000000fa1000000000000000a00000000000000130000000000000014")


def test_entry() -> None:
    assert len(BYTES) == ENTRY_BYTES
    assert encode_aborted(ENTRY) == BYTES
    assert list(decode_aborted(BYTES + BYTES[:9])) == [ENTRY]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(0, 30)), max_size=8))
def test_a_read_knows_what_overlaps_it(steps: list[tuple[int, int, int]]) -> None:
    entries, end = [], 0
    for producer_id, forward, back in steps:
        end += forward
        entries.append(AbortedTransaction(producer_id, max(0, end - back), end, end + 1))
    data = b"".join(map(encode_aborted, entries))
    assert list(decode_aborted(data)) == entries
    for start in range(0, end + 2, 3):
        for until in range(start, end + 3, 2):
            found, is_complete = aborted_in(entries, start, until)
            assert (
                found
                == [e for e in entries if e.first_offset < until and e.last_offset >= start][
                    : len(found)
                ]
            )
            missed = entries[len(entries) if not is_complete else _stop(entries, until) + 1 :]
            assert all(e.first_offset >= until or e.last_offset >= until for e in missed)
        kept = data[: truncated_bytes(data, start)]
        assert list(decode_aborted(kept)) == [e for e in entries if e.last_offset < start]


def _stop(entries: list[AbortedTransaction], until: int) -> int:
    return next(i for i, e in enumerate(entries) if e.last_stable_offset >= until)


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x01" + BYTES[2:],
        BYTES + BYTES,
        encode_aborted(AbortedTransaction(-1, 0, 1, 2)),
        encode_aborted(AbortedTransaction(1, 2, 1, 2)),
    ],
)
def test_damage(data: bytes) -> None:
    with pytest.raises(CorruptTransactionIndex):
        list(decode_aborted(data))
