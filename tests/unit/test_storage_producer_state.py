"""Producer state: the rules by example with real headers, and the snapshot file byte by byte."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioq._native.batch import BatchHeader, build, peek
from trioq.errors import (
    DuplicateSequenceNumber,
    InvalidProducerEpoch,
    InvalidRecord,
    InvalidTxnState,
    OutOfOrderSequenceNumber,
)
from trioq.storage.producer_snapshot import SnapshotEntry, decode_snapshot, encode_snapshot
from trioq.storage.producer_state import (
    CompletedTransaction,
    CorruptSnapshot,
    Duplicate,
    EndMarker,
    ProducerState,
)

TRANSACTIONAL = 0x10
CONTROL = 0x20
LAST_SEQUENCE = 2**31 - 1


def batch(
    sequence: int,
    records: int = 1,
    *,
    producer_id: int = 7,
    epoch: int = 0,
    attributes: int = 0,
) -> BatchHeader:
    return peek(
        build(
            [(1_000, None, b"v", ())] * records,
            producer_id=producer_id,
            producer_epoch=epoch,
            base_sequence=sequence,
            attributes=attributes,
        )
    )


def filled(batches: int, records: int = 1) -> ProducerState:
    state = ProducerState()
    for i in range(batches):
        header = batch(i * records, records)
        assert state.check(header) is None
        state.stage(header, i * records, 1_000 + i)
    return state


def test_the_last_five_batches_are_answered_with_their_original_offsets() -> None:
    state = filled(8, records=3)
    for i in range(3, 8):
        assert state.check(batch(i * 3, 3)) == Duplicate(i * 3, i * 3 + 2, 1_000 + i)
    for i in range(3):
        with pytest.raises(DuplicateSequenceNumber):
            state.check(batch(i * 3, 3))


def test_a_gap_is_out_of_order_and_part_of_a_batch_is_known() -> None:
    state = filled(8, records=3)
    with pytest.raises(OutOfOrderSequenceNumber):
        state.check(batch(25))
    with pytest.raises(OutOfOrderSequenceNumber):
        state.check(batch(23, 2))  # its second record is new
    with pytest.raises(DuplicateSequenceNumber):
        state.check(batch(22, 1))


def test_sequences_wrap_to_zero() -> None:
    state = ProducerState()
    state.stage(batch(LAST_SEQUENCE - 1, 2), 0, 0)
    assert state.check(batch(0)) is None
    state.stage(batch(0), 2, 0)
    assert state.check(batch(LAST_SEQUENCE - 1, 2)) == Duplicate(0, 1, 0)
    state.stage(batch(1), 3, 0)
    with pytest.raises(OutOfOrderSequenceNumber):
        state.check(batch(3))


def test_a_batch_across_the_wrap() -> None:
    state = ProducerState()
    state.stage(batch(LAST_SEQUENCE - 1, 4), 0, 0)
    assert state.check(batch(LAST_SEQUENCE - 1, 4)) == Duplicate(0, 3, 0)
    assert state.check(batch(2)) is None


def test_an_unknown_producer_may_start_anywhere_but_what_came_before_is_no_duplicate() -> None:
    state = ProducerState()
    assert state.check(batch(500)) is None
    state.stage(batch(500), 0, 0)
    with pytest.raises(OutOfOrderSequenceNumber):
        state.check(batch(499))  # refused before by an older state: calling it known loses it


def test_a_new_epoch_starts_at_zero_and_fences_the_old_one() -> None:
    state = filled(2)
    with pytest.raises(OutOfOrderSequenceNumber):
        state.check(batch(2, epoch=1))
    assert state.check(batch(0, epoch=1)) is None
    state.stage(batch(0, epoch=1), 2, 0)
    with pytest.raises(InvalidProducerEpoch):
        state.check(batch(2))
    state.rollback(2)
    assert state.check(batch(2)) is None


def test_batches_without_a_producer_leave_no_trace() -> None:
    state = ProducerState()
    header = peek(build([(0, None, b"v", ())]))
    assert state.check(header) is None
    state.stage(header, 0, 0)
    state.apply(header, 0, 0)
    assert len(state) == 0


@pytest.mark.parametrize(("sequence", "epoch"), [(-1, 0), (0, -1)])
def test_a_producer_id_needs_epoch_and_sequence(sequence: int, epoch: int) -> None:
    with pytest.raises(InvalidRecord):
        ProducerState().check(batch(sequence, epoch=epoch))


def test_a_failed_write_is_forgotten_exactly() -> None:
    state = filled(6)
    state.commit(6)
    before = state.snapshot(6)
    for i in range(6, 9):
        state.stage(batch(i), i, 2_000)
    state.commit(7)
    state.rollback(7)
    assert state.check(batch(7)) is None
    assert state.check(batch(3)) == Duplicate(3, 3, 1_003)
    with pytest.raises(AssertionError, match="below a committed batch"):
        state.snapshot(6)
    state.clear()
    state.load(before)
    assert state.check(batch(6)) is None


def test_a_first_batch_rolled_back_leaves_an_unknown_producer() -> None:
    state = ProducerState()
    state.stage(batch(0), 0, 0)
    state.rollback(0)
    assert len(state) == 0
    assert state.check(batch(44)) is None


def test_transactions_hold_the_stable_offset_until_the_marker_is_replicated() -> None:
    state = ProducerState()
    state.stage(batch(0, producer_id=1, attributes=TRANSACTIONAL), 10, 0)
    state.stage(batch(0, producer_id=2, attributes=TRANSACTIONAL), 11, 0)
    assert state.first_unstable_offset() == 10
    with pytest.raises(InvalidTxnState):
        state.check(batch(1, producer_id=1))
    marker = batch(-1, producer_id=1, attributes=TRANSACTIONAL | CONTROL)
    assert state.stage(marker, 12, 0, EndMarker(3, is_abort=True)) == CompletedTransaction(
        1, 10, 12, is_abort=True, last_stable_offset=11
    )
    assert state.first_unstable_offset() == 10
    state.commit(13)
    state.on_high_watermark(12)
    assert state.first_unstable_offset() == 10
    state.on_high_watermark(13)
    assert state.first_unstable_offset() == 11
    assert [p.current_txn_first_offset for p in state.active_producers()] == [-1, 11]
    assert state.max_producer_id() == 2


def test_a_producer_at_work_with_old_timestamps_keeps_its_window() -> None:
    state = filled(1)
    state.commit(1)
    assert state.remove_expired(10**9, 1_000) == 0  # found idle
    state.apply(batch(1), 1, 1_000)
    assert state.remove_expired(10**9, 1_000) == 0  # was at work
    assert state.remove_expired(10**9, 1_000) == 1
    assert state.check(batch(77)) is None


GOLDEN = bytes.fromhex(
    "0001"  # version
    "e698a52e"  # CRC-32C of what follows, by a bitwise reference
    "00000001"  # one producer
    "0000000000000fa1"  # id 4001
    "0002"  # epoch
    "00000009"  # last sequence
    "00000000000003f1"  # last offset 1009
    "00000004"  # its batch held five records
    "0000018bcfe56800"  # 1700000000000 ms
    "ffffffff"  # no coordinator yet
    "ffffffffffffffff"  # no open transaction
)


def test_snapshot_bytes() -> None:
    state = ProducerState()
    state.apply(batch(5, 5, producer_id=4001, epoch=2), 1005, 1_700_000_000_000)
    assert state.snapshot(1010) == GOLDEN
    loaded = ProducerState()
    loaded.load(GOLDEN)
    assert loaded.active_producers() == state.active_producers()
    duplicate = loaded.check(batch(5, 5, producer_id=4001, epoch=2))
    assert duplicate == Duplicate(1005, 1009, 1_700_000_000_000)
    assert loaded.check(batch(10, producer_id=4001, epoch=2)) is None


def test_an_empty_snapshot() -> None:
    encoded = ProducerState().snapshot(0)
    assert encoded[:2] == b"\x00\x01"
    assert encoded[6:] == b"\x00\x00\x00\x00"
    state = filled(1)
    state.load(encoded)
    assert len(state) == 0


@given(data=st.data())
def test_a_damaged_snapshot_is_refused_and_changes_nothing(data: st.DataObject) -> None:
    state = filled(1)
    shown = state.active_producers()
    position = data.draw(st.integers(0, len(GOLDEN) - 1))
    flip = data.draw(st.integers(1, 255))
    damaged = bytearray(GOLDEN)
    damaged[position] ^= flip
    for content in (bytes(damaged), GOLDEN[:position], GOLDEN + b"\0"):
        with pytest.raises(CorruptSnapshot):
            state.load(content)
    assert state.active_producers() == shown


@pytest.mark.parametrize(
    "entry",
    [
        SnapshotEntry(-1, 0, 0, 0, 0, 0, -1, -1),
        SnapshotEntry(1, -1, 0, 0, 0, 0, -1, -1),
        SnapshotEntry(1, 0, -1, 0, 0, 0, -1, -1),
        SnapshotEntry(1, 0, 0, -1, 0, 0, -1, -1),
        SnapshotEntry(1, 0, 0, 3, 4, 0, -1, -1),
        SnapshotEntry(1, 0, 0, 3, -1, 0, -1, -1),
        SnapshotEntry(1, 0, 0, 3, 0, 0, -1, -2),
    ],
)
def test_impossible_entries_are_refused(entry: SnapshotEntry) -> None:
    with pytest.raises(CorruptSnapshot):
        decode_snapshot(encode_snapshot([entry]))


def test_a_producer_twice_is_refused() -> None:
    entry = SnapshotEntry(1, 0, 0, 3, 0, 0, -1, -1)
    with pytest.raises(CorruptSnapshot):
        decode_snapshot(encode_snapshot([entry, entry]))
