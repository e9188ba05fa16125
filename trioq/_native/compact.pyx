# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
"""Compaction, record by record; the contract is in compact.pyi.

Every batch's length is compared with the buffer, its CRC checked, and each record bounded by the
batch before anything inside is looked at. Errors of memory come as MemoryError, also from where
there is no interpreter lock.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EINTR, errno
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset

from trioq._native.batch_header cimport (
    APPEND_TIME_BIT,
    ATTRIBUTES_AT,
    BASE_OFFSET_AT,
    BASE_TIMESTAMP_AT,
    BATCH_LENGTH_AT,
    CODEC_MASK,
    CONTROL_BIT,
    CRC_AT,
    DELETE_HORIZON_BIT,
    HEADER_BYTES_C,
    LAST_OFFSET_DELTA_AT,
    LOG_OVERHEAD_C,
    MAGIC_AT,
    MAGIC_V2,
    MAX_TIMESTAMP_AT,
    PRODUCER_ID_AT,
    RECORD_COUNT_AT,
    TRANSACTIONAL_BIT,
    batch_crc,
)
from trioq._native.bigendian cimport (
    load_i16,
    load_i32,
    load_i64,
    load_u32,
    store_i16,
    store_i32,
    store_i64,
    store_u32,
)
from trioq._native.varint cimport read_varint, read_varlong, size_of_varlong, write_varlong

from trioq.errors import InvalidRecord


cdef extern from "key_table.h" nogil:
    ctypedef struct trioq_key_slot:
        uint64_t high
        uint64_t low
        int64_t offset

    ctypedef struct trioq_key_table:
        trioq_key_slot* slots
        uint64_t capacity
        int64_t entries
        uint64_t secret[2]

    void trioq_key_put(trioq_key_table* table, const uint8_t* key, size_t length, int64_t offset)
    int64_t trioq_key_get(const trioq_key_table* table, const uint8_t* key, size_t length)


cdef extern from "<unistd.h>" nogil:
    ssize_t pread(int fd, void* into, size_t length, int64_t position)


cdef enum Stop:
    STOP_NEED_MORE
    STOP_COMPRESSED
    STOP_FULL
    STOP_CORRUPT
    STOP_NO_MEMORY

NEED_MORE = STOP_NEED_MORE
COMPRESSED = STOP_COMPRESSED
FULL = STOP_FULL
CORRUPT = STOP_CORRUPT

ENTRY_BYTES = 32  # slots of 24 bytes, three of four in use

cdef enum:
    PIECE_BYTES = 16384
    RECORD_GROWTH_BYTES = 16  # of a record whose timestamp delta and length are written anew


# ---- records ----


cdef struct Record:
    const uint8_t* end
    const uint8_t* key
    const uint8_t* behind_delta   # the offset delta begins here
    int64_t timestamp_delta
    int32_t offset_delta
    int32_t key_length            # -1: none
    int32_t value_length


cdef inline bint _parse(const uint8_t* p, const uint8_t* end, Record* record) noexcept nogil:
    # The record at p up to the length of its value; False if it is malformed.
    cdef int32_t length
    p = read_varint(p, end, &length)
    if p == NULL or length < 1 or length > end - p:
        return False
    end = p + length
    record.end = end
    p = read_varlong(p + 1, end, &record.timestamp_delta)
    if p == NULL:
        return False
    record.behind_delta = p
    p = read_varint(p, end, &record.offset_delta)
    if p == NULL:
        return False
    p = read_varint(p, end, &record.key_length)
    if p == NULL or record.key_length < -1 or record.key_length > end - p:
        return False
    record.key = p
    if record.key_length > 0:
        p += record.key_length
    p = read_varint(p, end, &record.value_length)
    return p != NULL and record.value_length >= -1 and record.value_length <= end - p


cdef bint _is_sound(
    const uint8_t* p, const uint8_t* end, int32_t record_count, int32_t last_offset_delta
) noexcept nogil:
    # Are these as many records as claimed, with ascending offsets, and nothing else?
    cdef Record record
    cdef int32_t previous = -1
    cdef int32_t i
    for i in range(record_count):
        if p == end or not _parse(p, end, &record):
            return False
        if record.offset_delta <= previous or record.offset_delta > last_offset_delta:
            return False
        previous = record.offset_delta
        p = record.end
    return p == end


cdef inline Stop _batch_at(
    const uint8_t* p, const uint8_t* end, int64_t next_offset, int64_t end_offset,
    int64_t* size_bytes,
) noexcept nogil:
    # STOP_FULL stands for a whole and sound batch in [next_offset, end_offset).
    cdef int64_t base_offset
    cdef int32_t record_count
    cdef int32_t last_offset_delta
    if end - p < HEADER_BYTES_C:
        return STOP_NEED_MORE
    size_bytes[0] = <int64_t>load_i32(p + BATCH_LENGTH_AT) + LOG_OVERHEAD_C
    record_count = load_i32(p + RECORD_COUNT_AT)
    last_offset_delta = load_i32(p + LAST_OFFSET_DELTA_AT)
    if (
        size_bytes[0] < HEADER_BYTES_C
        or p[MAGIC_AT] != MAGIC_V2
        or last_offset_delta < 0
        or record_count < 0
        or record_count - 1 > last_offset_delta
    ):
        return STOP_CORRUPT
    if size_bytes[0] > end - p:
        return STOP_NEED_MORE
    # No CRC covers the base offset.
    base_offset = load_i64(p + BASE_OFFSET_AT)
    if base_offset < next_offset or base_offset > end_offset - 1 - last_offset_delta:
        return STOP_CORRUPT
    if batch_crc(p, size_bytes[0]) != load_u32(p + CRC_AT):
        return STOP_CORRUPT
    return STOP_FULL


cdef inline int64_t _next_of(const uint8_t* p) noexcept nogil:
    # The offset behind the batch at p.
    return load_i64(p + BASE_OFFSET_AT) + load_i32(p + LAST_OFFSET_DELTA_AT) + 1


def check_keys(data, int32_t record_count):
    cdef Py_buffer view
    cdef Record record
    cdef const uint8_t* p
    cdef const uint8_t* end
    cdef int32_t i
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        p = <const uint8_t*>view.buf
        end = p + view.len
        for i in range(record_count):
            if p == end or not _parse(p, end, &record):
                raise InvalidRecord(f"record {i} is malformed")
            if record.key_length < 0:
                raise InvalidRecord(
                    f"Compacted topic cannot accept message without key: record {i} has none"
                )
            p = record.end
    finally:
        PyBuffer_Release(&view)


def count_records(int fd, int64_t position, int64_t end):
    cdef uint8_t piece[PIECE_BYTES]
    cdef int64_t piece_start = position
    cdef int64_t piece_end = position
    cdef int64_t total = 0
    cdef int64_t size_bytes, wanted
    cdef int32_t record_count
    cdef ssize_t got
    cdef int error = 0
    cdef const uint8_t* p
    with nogil:
        while end - position >= HEADER_BYTES_C:
            if position + HEADER_BYTES_C > piece_end:
                wanted = end - position if end - position < PIECE_BYTES else PIECE_BYTES
                got = pread(fd, piece, <size_t>wanted, position)
                if got < 0 and errno == EINTR:
                    continue
                if got < 0:
                    error = errno
                    break
                if got < HEADER_BYTES_C:
                    break
                piece_start = position
                piece_end = position + got
            p = piece + (position - piece_start)
            size_bytes = <int64_t>load_i32(p + BATCH_LENGTH_AT) + LOG_OVERHEAD_C
            record_count = load_i32(p + RECORD_COUNT_AT)
            if size_bytes < HEADER_BYTES_C or p[MAGIC_AT] != MAGIC_V2 or record_count < 0:
                break
            total += record_count
            position += size_bytes
    if error:
        raise OSError(error, "cannot read batch headers")
    return total


# ---- the map ----


cdef class OffsetMap:
    cdef trioq_key_table _table
    cdef int64_t _next_offset
    cdef int64_t _end_offset
    cdef readonly int64_t max_entries

    def __cinit__(
        self, int64_t max_entries, bytes secret not None, int64_t start_offset, int64_t end_offset
    ):
        cdef size_t size
        if max_entries < 0 or PyBytes_GET_SIZE(secret) != 16:
            raise ValueError("a map takes a bound and a secret of 16 bytes")
        self.max_entries = max_entries
        self._next_offset = start_offset
        self._end_offset = end_offset
        self._table.capacity = max_entries + max_entries // 3 + 1
        size = self._table.capacity * sizeof(trioq_key_slot)
        self._table.slots = <trioq_key_slot*>malloc(size)
        if self._table.slots == NULL:
            raise MemoryError
        memset(self._table.slots, 0xFF, size)
        memcpy(self._table.secret, PyBytes_AS_STRING(secret), 16)

    def __dealloc__(self):
        free(self._table.slots)

    def __len__(self):
        return self._table.entries

    def get(self, bytes key not None):
        return trioq_key_get(
            &self._table, <const uint8_t*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key)
        )

    cdef bint _add(
        self, const uint8_t* p, const uint8_t* end, int64_t base_offset, int32_t record_count,
        int32_t last_offset_delta,
    ) noexcept nogil:
        cdef Record record
        if not _is_sound(p, end, record_count, last_offset_delta):
            return False
        while p != end:
            _parse(p, end, &record)
            if record.key_length >= 0:
                trioq_key_put(
                    &self._table, record.key, record.key_length, base_offset + record.offset_delta
                )
            p = record.end
        return True

    cdef Stop _add_batches(
        self, const uint8_t* p, const uint8_t* end, Py_ssize_t* done
    ) noexcept nogil:
        cdef const uint8_t* start = p
        cdef int64_t size_bytes
        cdef int32_t record_count
        cdef int16_t attributes
        cdef Stop stop
        while True:
            done[0] = p - start
            stop = _batch_at(p, end, self._next_offset, self._end_offset, &size_bytes)
            if stop != STOP_FULL:
                return stop
            record_count = load_i32(p + RECORD_COUNT_AT)
            attributes = load_i16(p + ATTRIBUTES_AT)
            if record_count and not attributes & (CONTROL_BIT | TRANSACTIONAL_BIT):
                if self._table.entries + record_count > self.max_entries:
                    return STOP_FULL
                if attributes & CODEC_MASK:
                    return STOP_COMPRESSED
                self._add(
                    p + HEADER_BYTES_C, p + size_bytes, load_i64(p + BASE_OFFSET_AT),
                    record_count, load_i32(p + LAST_OFFSET_DELTA_AT),
                )
            self._next_offset = _next_of(p)
            p += size_bytes

    def add_batches(self, buf, Py_ssize_t position, Py_ssize_t end):
        cdef Py_buffer view
        cdef Py_ssize_t done = 0
        cdef Stop stop
        PyObject_GetBuffer(buf, &view, PyBUF_SIMPLE)
        try:
            _check_range(&view, position, end)
            with nogil:
                stop = self._add_batches(
                    <const uint8_t*>view.buf + position, <const uint8_t*>view.buf + end, &done
                )
        finally:
            PyBuffer_Release(&view)
        return position + done, <int>stop

    def add_batch(self, batch, data):
        cdef Py_buffer view
        cdef Py_buffer records
        cdef const uint8_t* p
        cdef const uint8_t* start
        cdef int64_t size_bytes = 0
        cdef int32_t record_count
        cdef bint added = False
        PyObject_GetBuffer(batch, &view, PyBUF_SIMPLE)
        try:
            p = <const uint8_t*>view.buf
            if _batch_at(
                p, p + view.len, self._next_offset, self._end_offset, &size_bytes
            ) != STOP_FULL:
                raise ValueError("not one sound batch")
            record_count = load_i32(p + RECORD_COUNT_AT)
            if self._table.entries + record_count > self.max_entries:
                raise ValueError(f"{record_count} records are beyond the map's bound")
            if data is not None:
                PyObject_GetBuffer(data, &records, PyBUF_SIMPLE)
                try:
                    start = <const uint8_t*>records.buf
                    with nogil:
                        added = self._add(
                            start, start + records.len, load_i64(p + BASE_OFFSET_AT),
                            record_count, load_i32(p + LAST_OFFSET_DELTA_AT),
                        )
                finally:
                    PyBuffer_Release(&records)
            self._next_offset = _next_of(p)
        finally:
            PyBuffer_Release(&view)
        return added


cdef int _check_range(Py_buffer* view, Py_ssize_t position, Py_ssize_t end) except -1:
    if position < 0 or end < position or end > view.len:
        raise ValueError(f"[{position}, {end}) is outside the buffer of {view.len} bytes")
    return 0


# ---- the filter ----


cdef struct Output:
    uint8_t* data
    size_t length
    size_t capacity


cdef bint _reserve(Output* out, size_t more) noexcept nogil:
    cdef size_t capacity = out.capacity
    cdef void* data
    if out.length + more <= capacity:
        return True
    capacity = 2 * capacity
    if capacity < out.length + more:
        capacity = out.length + more
    data = realloc(out.data, capacity)
    if data == NULL:
        return False
    out.data = <uint8_t*>data
    out.capacity = capacity
    return True


cdef struct Verdict:
    int32_t kept
    int32_t dropped
    bint has_tombstones
    int64_t max_timestamp


cdef class BatchFilter:
    cdef OffsetMap _offsets
    cdef int64_t _map_end
    cdef int64_t _group_end
    cdef int64_t _now_ms
    cdef int64_t _horizon_ms
    cdef int64_t _base_offset
    cdef int64_t _interval_bytes
    cdef int64_t _since_index
    cdef int64_t _last_indexed_timestamp
    cdef OffsetMap _producers        # never of keys: producer ids, as eight bytes, to offsets
    cdef Output _out
    cdef Output _offset_index
    cdef Output _time_index
    cdef Output _fates               # a byte per record of one batch: does it stay?
    cdef Output _records             # of the batch that is open
    cdef uint8_t _header[HEADER_BYTES_C]
    cdef size_t _records_written
    cdef int64_t _next_offset        # behind the last batch
    cdef bint _is_open
    cdef readonly int64_t changed_batches
    cdef readonly int64_t kept_records
    cdef readonly int64_t dropped_records
    cdef readonly int64_t unreadable_batches
    cdef readonly int64_t size
    cdef readonly int64_t first_timestamp
    cdef readonly int64_t max_timestamp
    cdef readonly int64_t max_timestamp_offset

    def __cinit__(
        self, OffsetMap offsets not None, *, int64_t map_end_offset, int64_t group_end_offset,
        dict last_offsets not None, int64_t now_ms, int64_t delete_horizon_ms,
        int64_t base_offset, int64_t index_interval_bytes,
    ):
        cdef int64_t producer_id, last_offset
        self._offsets = offsets
        self._map_end = map_end_offset
        self._group_end = group_end_offset
        self._now_ms = now_ms
        self._horizon_ms = delete_horizon_ms
        self._base_offset = base_offset
        self._interval_bytes = index_interval_bytes
        self._last_indexed_timestamp = -1
        self.first_timestamp = self.max_timestamp = self.max_timestamp_offset = -1
        self._next_offset = base_offset
        self._producers = OffsetMap(
            len(last_offsets), (<const char*>offsets._table.secret)[:16], 0, 0
        )
        for producer_id, last_offset in last_offsets.items():
            if last_offset >= 0:
                trioq_key_put(
                    &self._producers._table, <const uint8_t*>&producer_id, 8, last_offset
                )

    def __dealloc__(self):
        free(self._out.data)
        free(self._offset_index.data)
        free(self._time_index.data)
        free(self._fates.data)
        free(self._records.data)

    def add_batches(self, buf, Py_ssize_t position, Py_ssize_t end):
        cdef Py_buffer view
        cdef Py_ssize_t done = 0
        cdef Stop stop
        PyObject_GetBuffer(buf, &view, PyBUF_SIMPLE)
        try:
            _check_range(&view, position, end)
            with nogil:
                stop = self._add_batches(
                    <const uint8_t*>view.buf + position, <const uint8_t*>view.buf + end, &done
                )
        finally:
            PyBuffer_Release(&view)
        if stop == STOP_NO_MEMORY:
            raise MemoryError
        return position + done, <int>stop

    def open_batch(self, batch, data):
        cdef Py_buffer view
        cdef Py_buffer records
        cdef const uint8_t* p
        cdef int64_t size_bytes = 0
        cdef bint done
        PyObject_GetBuffer(batch, &view, PyBUF_SIMPLE)
        try:
            p = <const uint8_t*>view.buf
            if self._is_open or _batch_at(
                p, p + view.len, self._next_offset, self._group_end, &size_bytes
            ) != STOP_FULL:
                raise ValueError("not one sound batch")
            if data is None:
                self.unreadable_batches += 1
                done = self._copy(p, size_bytes)
            else:
                PyObject_GetBuffer(data, &records, PyBUF_SIMPLE)
                try:
                    with nogil:
                        done = self._filter(
                            p, size_bytes, <const uint8_t*>records.buf, records.len, True
                        )
                finally:
                    PyBuffer_Release(&records)
            if not done:
                raise MemoryError
            self._next_offset = _next_of(p)
        finally:
            PyBuffer_Release(&view)
        if not self._is_open:
            return None
        return PyBytes_FromStringAndSize(<const char*>self._records.data, self._records.length)

    def close_batch(self, bytes data not None):
        cdef size_t length = PyBytes_GET_SIZE(data)
        if not self._is_open or length > 0x7FFFFFFF - HEADER_BYTES_C:
            raise ValueError("no batch is open, or it became too large")
        if not _reserve(&self._out, HEADER_BYTES_C + length):
            raise MemoryError
        memcpy(
            self._out.data + self._out.length + HEADER_BYTES_C, PyBytes_AS_STRING(data), length
        )
        self._is_open = False
        if not self._seal(length):
            raise MemoryError

    def take_output(self):
        taken = PyBytes_FromStringAndSize(<const char*>self._out.data, self._out.length)
        self._out.length = 0
        return taken

    def index_data(self):
        return (
            PyBytes_FromStringAndSize(
                <const char*>self._offset_index.data, self._offset_index.length
            ),
            PyBytes_FromStringAndSize(<const char*>self._time_index.data, self._time_index.length),
        )

    cdef Stop _add_batches(
        self, const uint8_t* p, const uint8_t* end, Py_ssize_t* done
    ) noexcept nogil:
        cdef const uint8_t* start = p
        cdef int64_t size_bytes
        cdef int16_t attributes
        cdef bint added
        cdef Stop stop
        while True:
            done[0] = p - start
            stop = _batch_at(p, end, self._next_offset, self._group_end, &size_bytes)
            if stop != STOP_FULL:
                return stop
            attributes = load_i16(p + ATTRIBUTES_AT)
            if (
                attributes & (CONTROL_BIT | TRANSACTIONAL_BIT)
                or load_i64(p + BASE_OFFSET_AT) >= self._map_end
            ):
                added = self._copy(p, size_bytes)
            elif load_i32(p + RECORD_COUNT_AT) == 0:
                added = self._keep_or_drop_empty(p, size_bytes)
            elif attributes & CODEC_MASK:
                return STOP_COMPRESSED
            else:
                added = self._filter(
                    p, size_bytes, p + HEADER_BYTES_C, size_bytes - HEADER_BYTES_C, False
                )
            if not added:
                return STOP_NO_MEMORY
            self._next_offset = _next_of(p)
            p += size_bytes

    cdef bint _must_stay(self, const uint8_t* p) noexcept nogil:
        # Does the end of the group, or the last sequence of a producer, hang on this batch?
        cdef int64_t last_offset = _next_of(p) - 1
        cdef int64_t producer_id = load_i64(p + PRODUCER_ID_AT)
        if last_offset + 1 == self._group_end:
            return True
        return producer_id >= 0 and trioq_key_get(
            &self._producers._table, <const uint8_t*>&producer_id, 8
        ) == last_offset

    cdef bint _keep_or_drop_empty(self, const uint8_t* p, int64_t size_bytes) noexcept nogil:
        if self._must_stay(p):
            return self._copy(p, size_bytes)
        self.changed_batches += 1
        return True

    cdef bint _filter(
        self, const uint8_t* p, int64_t size_bytes, const uint8_t* data, Py_ssize_t length,
        bint is_compressed,
    ) noexcept nogil:
        # One batch with records; False without memory.
        cdef Verdict verdict
        cdef int16_t attributes = load_i16(p + ATTRIBUTES_AT)
        cdef int32_t record_count = load_i32(p + RECORD_COUNT_AT)
        cdef bint has_horizon = (attributes & DELETE_HORIZON_BIT) != 0
        cdef int64_t base_timestamp = load_i64(p + BASE_TIMESTAMP_AT)
        cdef int64_t shift = 0
        if not _is_sound(
            data, data + length, record_count, load_i32(p + LAST_OFFSET_DELTA_AT)
        ):
            self.unreadable_batches += 1
            return self._copy(p, size_bytes)
        self._fates.length = 0
        if not _reserve(&self._fates, record_count):
            return False
        self._judge(p, data, data + length, &verdict)
        self.dropped_records += verdict.dropped
        if verdict.dropped == 0 and (has_horizon or not verdict.has_tombstones):
            self.kept_records += verdict.kept
            return self._copy(p, size_bytes)
        self.changed_batches += 1
        if verdict.kept == 0:
            return not self._must_stay(p) or self._write_empty(p)
        self.kept_records += verdict.kept
        memcpy(self._header, p, HEADER_BYTES_C)
        if verdict.has_tombstones and not has_horizon:
            shift = <int64_t>(<uint64_t>base_timestamp - <uint64_t>self._horizon_ms)
            store_i16(self._header + ATTRIBUTES_AT, attributes | DELETE_HORIZON_BIT)
            store_i64(self._header + BASE_TIMESTAMP_AT, self._horizon_ms)
        if not attributes & APPEND_TIME_BIT:
            store_i64(self._header + MAX_TIMESTAMP_AT, verdict.max_timestamp)
        store_i32(self._header + RECORD_COUNT_AT, verdict.kept)
        if is_compressed:
            self._records.length = 0
            self._is_open = self._write_records(&self._records, 0, data, data + length, shift)
            return self._is_open
        if not self._write_records(&self._out, HEADER_BYTES_C, data, data + length, shift):
            return False
        return self._seal(self._records_written)

    cdef void _judge(
        self, const uint8_t* p, const uint8_t* data, const uint8_t* end, Verdict* verdict
    ) noexcept nogil:
        # Decides for each of the (sound) records; the answers go to _fates.
        cdef Record record
        cdef int64_t base_offset = load_i64(p + BASE_OFFSET_AT)
        cdef int64_t base_timestamp = load_i64(p + BASE_TIMESTAMP_AT)
        cdef int64_t offset, timestamp
        cdef bint stays
        cdef bint are_tombstones_due = (
            load_i16(p + ATTRIBUTES_AT) & DELETE_HORIZON_BIT and self._now_ms >= base_timestamp
        )
        memset(verdict, 0, sizeof(Verdict))
        while data != end:
            _parse(data, end, &record)
            offset = base_offset + record.offset_delta
            if offset >= self._map_end:
                stays = True
            elif record.key_length < 0 or (record.value_length < 0 and are_tombstones_due):
                stays = False
            else:
                stays = trioq_key_get(
                    &self._offsets._table, record.key, record.key_length
                ) <= offset
            self._fates.data[self._fates.length] = stays
            self._fates.length += 1
            if stays:
                timestamp = <int64_t>(<uint64_t>base_timestamp + <uint64_t>record.timestamp_delta)
                if verdict.kept == 0 or timestamp > verdict.max_timestamp:
                    verdict.max_timestamp = timestamp
                verdict.kept += 1
                if record.value_length < 0:
                    verdict.has_tombstones = True
            else:
                verdict.dropped += 1
            data = record.end

    cdef bint _write_records(
        self, Output* out, size_t skip, const uint8_t* data, const uint8_t* end, int64_t shift
    ) noexcept nogil:
        # The records that stay, `skip` bytes behind the end of `out`; timestamp deltas shifted.
        cdef Record record
        cdef size_t index = 0
        cdef uint8_t* to
        cdef const uint8_t* attributes_at
        cdef int32_t length
        cdef int64_t delta
        if not _reserve(
            out, skip + (end - data) + RECORD_GROWTH_BYTES * self._fates.length
        ):
            return False
        to = out.data + out.length + skip
        while data != end:
            _parse(data, end, &record)
            if self._fates.data[index]:
                if shift == 0:
                    memcpy(to, data, record.end - data)
                    to += record.end - data
                else:
                    attributes_at = read_varint(data, end, &length)
                    delta = <int64_t>(<uint64_t>record.timestamp_delta + <uint64_t>shift)
                    to = write_varlong(
                        to, 1 + size_of_varlong(delta) + (record.end - record.behind_delta)
                    )
                    to[0] = attributes_at[0]
                    to = write_varlong(to + 1, delta)
                    memcpy(to, record.behind_delta, record.end - record.behind_delta)
                    to += record.end - record.behind_delta
            index += 1
            data = record.end
        self._records_written = to - (out.data + out.length + skip)
        if out == &self._records:
            out.length = self._records_written
        return True

    cdef bint _write_empty(self, const uint8_t* p) noexcept nogil:
        cdef int16_t attributes = load_i16(p + ATTRIBUTES_AT)
        memcpy(self._header, p, HEADER_BYTES_C)
        store_i16(
            self._header + ATTRIBUTES_AT, attributes & ~(CODEC_MASK | DELETE_HORIZON_BIT)
        )
        store_i64(self._header + BASE_TIMESTAMP_AT, -1)
        store_i32(self._header + RECORD_COUNT_AT, 0)
        if not _reserve(&self._out, HEADER_BYTES_C):
            return False
        return self._seal(0)

    cdef bint _seal(self, size_t length) noexcept nogil:
        # `length` bytes of records stand in _out behind room for _header: makes them a batch.
        cdef uint8_t* p = self._out.data + self._out.length
        store_i32(
            self._header + BATCH_LENGTH_AT, <int32_t>(length + HEADER_BYTES_C - LOG_OVERHEAD_C)
        )
        memcpy(p, self._header, HEADER_BYTES_C)
        store_u32(p + CRC_AT, batch_crc(p, HEADER_BYTES_C + length))
        self._out.length += HEADER_BYTES_C + length
        return self._note(p, HEADER_BYTES_C + length)

    cdef bint _copy(self, const uint8_t* p, int64_t size_bytes) noexcept nogil:
        if not _reserve(&self._out, size_bytes):
            return False
        memcpy(self._out.data + self._out.length, p, size_bytes)
        self._out.length += size_bytes
        return self._note(p, size_bytes)

    cdef bint _note(self, const uint8_t* p, int64_t size_bytes) noexcept nogil:
        # The indexes, exactly as Segment.add makes them.
        cdef int64_t max_timestamp = load_i64(p + MAX_TIMESTAMP_AT)
        cdef int64_t last_offset = _next_of(p) - 1
        if self.size == 0:
            self.first_timestamp = max_timestamp
        if max_timestamp > self.max_timestamp:
            self.max_timestamp = max_timestamp
            self.max_timestamp_offset = last_offset
        if self._since_index > self._interval_bytes:
            if not _reserve(&self._offset_index, 8):
                return False
            store_i32(
                self._offset_index.data + self._offset_index.length,
                <int32_t>(last_offset - self._base_offset),
            )
            store_i32(
                self._offset_index.data + self._offset_index.length + 4, <int32_t>self.size
            )
            self._offset_index.length += 8
            if self.max_timestamp > self._last_indexed_timestamp:
                if not _reserve(&self._time_index, 12):
                    return False
                store_i64(self._time_index.data + self._time_index.length, self.max_timestamp)
                store_i32(
                    self._time_index.data + self._time_index.length + 8,
                    <int32_t>(self.max_timestamp_offset - self._base_offset),
                )
                self._time_index.length += 12
                self._last_indexed_timestamp = self.max_timestamp
            self._since_index = 0
        self._since_index += size_bytes
        self.size += size_bytes
        return True
