# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
"""Batches as a leader's log holds them, on their way into a follower's; contract in the .pyi.

The bytes are only borrowed, so each walk compares sizes with what is left before it reads.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t

from trioq._native.batch_header cimport (
    ATTRIBUTES_AT,
    BASE_OFFSET_AT,
    BASE_SEQUENCE_AT,
    BATCH_LENGTH_AT,
    CONTROL_BIT,
    CRC_AT,
    HEADER_BYTES_C,
    LAST_OFFSET_DELTA_AT,
    LEADER_EPOCH_AT,
    LOG_OVERHEAD_C,
    MAGIC_AT,
    MAGIC_V2,
    MAX_TIMESTAMP_AT,
    PRODUCER_EPOCH_AT,
    PRODUCER_ID_AT,
    RECORD_COUNT_AT,
    TRANSACTIONAL_BIT,
    BatchHeader,
    batch_crc,
    parse_header,
)
from trioq._native.bigendian cimport (
    load_i16,
    load_i32,
    load_i64,
    load_u32,
    store_i32,
    store_i64,
)
from trioq._native.gil cimport RELEASE_ABOVE_BYTES
from trioq._native.log_tail cimport LogTail, SegmentTail
from trioq._native.producer_window cimport ProducerEntry, ProducerWindows, next_entry

from trioq.errors import CorruptMessage


cdef enum:
    HIGHEST_OFFSET_SHIFT = 62   # no log gets there; sums with a delta cannot overflow
    OFFSET_ENTRY_BYTES = 8
    TIME_ENTRY_BYTES = 12


cdef enum Fault:
    SOUND
    BAD_SIZE
    BAD_MAGIC
    BAD_COUNT
    BAD_CRC
    BAD_OFFSET
    OLD_EPOCH
    NEW_EPOCH


cdef struct Walk:
    Py_ssize_t valid_bytes      # whole, sound batches
    Py_ssize_t batches
    int64_t end_offset          # behind the last of them
    int32_t latest_epoch
    int64_t first_gap           # base offset behind the first gap, -1 for none
    int epoch_changes
    bint has_producers
    Fault fault


cdef void _check(
    const uint8_t* start, Py_ssize_t length, int32_t leader_epoch, int64_t gaps_below, Walk* walk
) noexcept nogil:
    cdef const uint8_t* p = start
    cdef const uint8_t* end = start + length
    cdef int64_t size_bytes, base_offset, last_offset_delta, record_count
    cdef int32_t epoch
    while end - p >= HEADER_BYTES_C:
        size_bytes = <int64_t>load_i32(p + BATCH_LENGTH_AT) + LOG_OVERHEAD_C
        record_count = load_i32(p + RECORD_COUNT_AT)
        last_offset_delta = load_i32(p + LAST_OFFSET_DELTA_AT)
        base_offset = load_i64(p + BASE_OFFSET_AT)
        epoch = load_i32(p + LEADER_EPOCH_AT)
        if size_bytes < HEADER_BYTES_C:
            walk.fault = BAD_SIZE
            return
        if p[MAGIC_AT] != MAGIC_V2:
            walk.fault = BAD_MAGIC
            return
        # Compaction leaves fewer records than offsets, down to none.
        if last_offset_delta < 0 or record_count < 0 or record_count > last_offset_delta + 1:
            walk.fault = BAD_COUNT
            return
        if size_bytes > end - p:
            return
        if base_offset != walk.end_offset:
            if base_offset < walk.end_offset or base_offset >= gaps_below:
                walk.fault = BAD_OFFSET
                return
            if walk.first_gap < 0:
                walk.first_gap = base_offset
        if base_offset >> HIGHEST_OFFSET_SHIFT:
            walk.fault = BAD_OFFSET
            return
        if epoch != walk.latest_epoch:
            if epoch < walk.latest_epoch or epoch < 0:
                walk.fault = OLD_EPOCH
                return
            walk.epoch_changes += 1
        if epoch > leader_epoch:
            walk.fault = NEW_EPOCH
            return
        if batch_crc(p, size_bytes) != load_u32(p + CRC_AT):
            walk.fault = BAD_CRC
            return
        if load_i64(p + PRODUCER_ID_AT) >= 0:
            walk.has_producers = True
        walk.latest_epoch = epoch
        walk.end_offset = base_offset + last_offset_delta + 1
        walk.batches += 1
        p += size_bytes
        walk.valid_bytes = p - start


@cython.final
cdef class ReplicaRun:

    cdef Py_buffer _view
    cdef bint _holds_view
    cdef const uint8_t* _data
    cdef readonly Py_ssize_t size_bytes
    cdef readonly Py_ssize_t batches
    cdef readonly int64_t end_offset
    cdef readonly bint has_producers
    cdef readonly int64_t first_gap
    cdef readonly list epochs
    cdef readonly object fault

    def __init__(self):
        raise TypeError("a ReplicaRun comes from check_run")

    def __dealloc__(self):
        self._release()

    cdef void _release(self) noexcept:
        if self._holds_view:
            self._holds_view = False
            PyBuffer_Release(&self._view)
            self.size_bytes = 0

    def release(self):
        self._release()

    cdef Py_ssize_t _size_at(self, Py_ssize_t position, Py_ssize_t end) except -1:
        # Of the batch at `position`, which ends at `end` or before.
        cdef int64_t size_bytes
        if position < 0 or end > self.size_bytes or end - position < HEADER_BYTES_C:
            raise ValueError(f"no batch at {position} of {end} of {self.size_bytes} bytes")
        size_bytes = <int64_t>load_i32(self._data + position + BATCH_LENGTH_AT) + LOG_OVERHEAD_C
        if size_bytes < HEADER_BYTES_C or size_bytes > end - position:
            raise CorruptMessage("the bytes changed after they were checked")
        return <Py_ssize_t>size_bytes

    cdef int64_t _last_offset_at(self, Py_ssize_t position) noexcept:
        cdef const uint8_t* p = self._data + position
        return load_i64(p + BASE_OFFSET_AT) + load_i32(p + LAST_OFFSET_DELTA_AT)

    def header(self, Py_ssize_t position):
        self._size_at(position, self.size_bytes)
        return parse_header(self._data + position, position)

    def part_end(self, Py_ssize_t position, int64_t room_bytes, int64_t highest_offset):
        cdef Py_ssize_t at = position
        cdef Py_ssize_t size_bytes
        while at < self.size_bytes:
            size_bytes = self._size_at(at, self.size_bytes)
            if at > position and (
                at + size_bytes - position > room_bytes
                or self._last_offset_at(at) > highest_offset
            ):
                break
            at += size_bytes
        return at

    def account(
        self, SegmentTail segment not None, Py_ssize_t position, Py_ssize_t end,
        int64_t interval_bytes, int64_t latest_time,
    ):
        cdef bytearray offsets = bytearray()
        cdef bytearray times = bytearray()
        cdef uint8_t[TIME_ENTRY_BYTES] entry
        cdef Py_ssize_t size_bytes
        cdef int64_t last_offset = -1
        cdef int64_t max_timestamp
        while position < end:
            size_bytes = self._size_at(position, end)
            last_offset = self._last_offset_at(position)
            max_timestamp = load_i64(self._data + position + MAX_TIMESTAMP_AT)
            if segment.size == 0:
                segment.first_timestamp = max_timestamp
            if max_timestamp > segment.max_timestamp:
                segment.max_timestamp = max_timestamp
                segment.max_timestamp_offset = last_offset
            if segment.bytes_since_index > interval_bytes:
                store_i32(entry, <int32_t>(last_offset - segment.base_offset))
                store_i32(entry + 4, <int32_t>segment.size)
                offsets += entry[:OFFSET_ENTRY_BYTES]
                if segment.max_timestamp > latest_time:
                    latest_time = segment.max_timestamp
                    store_i64(entry, latest_time)
                    store_i32(
                        entry + 8,
                        <int32_t>(segment.max_timestamp_offset - segment.base_offset),
                    )
                    times += entry[:TIME_ENTRY_BYTES]
                segment.bytes_since_index = 0
            segment.bytes_since_index += size_bytes
            segment.size += size_bytes
            position += size_bytes
        return last_offset + 1, offsets, times

    def apply_producers(
        self, ProducerWindows windows not None, Py_ssize_t position, Py_ssize_t end, control
    ):
        cdef Py_ssize_t size_bytes
        cdef const uint8_t* p
        cdef int64_t base_offset, last_offset_delta
        cdef int32_t base_sequence, last_sequence
        cdef int16_t attributes
        cdef object producer_id
        cdef ProducerEntry entry
        if windows._staged:
            raise AssertionError("a run is applied while batches are staged")
        while position < end:
            size_bytes = self._size_at(position, end)
            p = self._data + position
            if load_i64(p + PRODUCER_ID_AT) >= 0:
                attributes = load_i16(p + ATTRIBUTES_AT)
                if attributes & CONTROL_BIT:
                    control(
                        parse_header(p, position),
                        <bytes>(<const char*>p)[:size_bytes],
                    )
                else:
                    producer_id = load_i64(p + PRODUCER_ID_AT)
                    base_offset = load_i64(p + BASE_OFFSET_AT)
                    last_offset_delta = load_i32(p + LAST_OFFSET_DELTA_AT)
                    base_sequence = load_i32(p + BASE_SEQUENCE_AT)
                    last_sequence = base_sequence
                    if base_sequence >= 0:
                        last_sequence = <int32_t>(
                            (<int64_t>base_sequence + last_offset_delta) & 0x7FFFFFFF
                        )
                    entry = next_entry(
                        windows._entries.get(producer_id), load_i16(p + PRODUCER_EPOCH_AT),
                        base_sequence, last_sequence, base_offset,
                        base_offset + last_offset_delta, load_i64(p + MAX_TIMESTAMP_AT),
                        (attributes & TRANSACTIONAL_BIT) != 0,
                    )
                    windows._entries[producer_id] = entry
                    if entry.txn_first_offset == base_offset:
                        windows._ongoing[base_offset] = producer_id
            position += size_bytes

    def stage(self, LogTail log not None, holder not None):
        cdef Py_ssize_t position = 0
        cdef Py_ssize_t size_bytes
        cdef const uint8_t* p
        if len(holder) > self.size_bytes:
            raise ValueError("the copy is longer than the run")
        cdef Py_ssize_t from_start = self.size_bytes - len(holder)
        while from_start + position < self.size_bytes:
            size_bytes = self._size_at(from_start + position, self.size_bytes)
            p = self._data + from_start + position
            log.stage_copy(
                holder, position, size_bytes, load_i64(p + BASE_OFFSET_AT),
                self._last_offset_at(from_start + position), load_i64(p + MAX_TIMESTAMP_AT),
                load_i32(p + LEADER_EPOCH_AT),
            )
            position += size_bytes


cdef str _describe(const uint8_t* p, Walk* walk, int32_t leader_epoch):
    cdef Fault fault = walk.fault
    if fault == BAD_SIZE:
        return "its length is impossible"
    if fault == BAD_MAGIC:
        return f"its magic is {p[MAGIC_AT]}, not 2"
    if fault == BAD_COUNT:
        return "its record count or last offset delta is impossible"
    if fault == BAD_CRC:
        return "its CRC does not match"
    if fault == BAD_OFFSET:
        return f"its base offset is {load_i64(p + BASE_OFFSET_AT)}"
    if fault == OLD_EPOCH:
        return (
            f"its leader epoch is {load_i32(p + LEADER_EPOCH_AT)}, below {walk.latest_epoch} "
            "of the batch before"
        )
    return f"its leader epoch is {load_i32(p + LEADER_EPOCH_AT)}, the leader's is {leader_epoch}"


def check_run(
    records, *, int64_t end_offset, int32_t latest_epoch, int32_t leader_epoch, int64_t gaps_below
):
    cdef ReplicaRun run = ReplicaRun.__new__(ReplicaRun)
    cdef Walk walk
    cdef Py_ssize_t position = 0
    cdef const uint8_t* start
    cdef int32_t epoch = latest_epoch
    PyObject_GetBuffer(records, &run._view, PyBUF_SIMPLE)
    run._holds_view = True
    run._data = start = <const uint8_t*>run._view.buf
    walk.valid_bytes = walk.batches = 0
    walk.end_offset = end_offset
    walk.latest_epoch = latest_epoch
    walk.first_gap = -1
    walk.epoch_changes = 0
    walk.has_producers = False
    walk.fault = SOUND
    if run._view.len > RELEASE_ABOVE_BYTES:
        with nogil:
            _check(start, run._view.len, leader_epoch, gaps_below, &walk)
    else:
        _check(start, run._view.len, leader_epoch, gaps_below, &walk)
    run.size_bytes = walk.valid_bytes
    run.batches = walk.batches
    run.end_offset = walk.end_offset
    run.has_producers = walk.has_producers
    run.first_gap = walk.first_gap
    run.epochs = []
    run.fault = None
    if walk.fault != SOUND:
        run.fault = (
            f"the batch where offset {walk.end_offset} is expected, at byte {walk.valid_bytes} of "
            f"{run._view.len}: {_describe(start + walk.valid_bytes, &walk, leader_epoch)}"
        )
    if walk.epoch_changes:
        while position < run.size_bytes:
            if load_i32(start + position + LEADER_EPOCH_AT) != epoch:
                epoch = load_i32(start + position + LEADER_EPOCH_AT)
                run.epochs.append((epoch, load_i64(start + position + BASE_OFFSET_AT)))
            position += run._size_at(position, run.size_bytes)
    return run
