# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
"""v2 record batches: headers, checks, stamping, search, building; the contract is in batch.pyi.

Every function compares the buffer's length with what it is about to read once, explicitly, and
then reads unchecked.
"""

cimport cython
from cpython.buffer cimport (
    PyBUF_SIMPLE,
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_Resize
from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from libc.errno cimport EINTR, errno
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

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
from trioq._native.crc32c cimport crc32c_extend
from trioq._native.gil cimport RELEASE_ABOVE_BYTES
from trioq._native.records cimport Walk, decode, encode, fault_error, walk_unlocked

from trioq._native.records import find_timestamp, max_timestamp_offset, walk_records
from trioq.errors import (
    CorruptMessage,
    InvalidRecord,
    UnsupportedCompressionType,
    UnsupportedForMessageFormat,
)


cdef extern from "<unistd.h>" nogil:
    ssize_t pread(int fd, void* into, size_t length, int64_t position)


HEADER_BYTES = HEADER_BYTES_C
LOG_OVERHEAD = LOG_OVERHEAD_C


@cython.final
@cython.freelist(64)
cdef class BatchHeader:

    def __init__(self):
        raise TypeError("a BatchHeader comes from peek, validate or scan")

    @property
    def codec(self):
        return self.attributes & CODEC_MASK

    @property
    def timestamp_type(self):
        return 1 if self.attributes & APPEND_TIME_BIT else 0

    @property
    def is_transactional(self):
        return (self.attributes & TRANSACTIONAL_BIT) != 0

    @property
    def is_control(self):
        return (self.attributes & CONTROL_BIT) != 0

    @property
    def has_delete_horizon(self):
        return (self.attributes & DELETE_HORIZON_BIT) != 0

    @property
    def has_producer_id(self):
        return self.producer_id >= 0

    @property
    def last_offset(self):
        return <object>self.base_offset + self.last_offset_delta

    @property
    def next_offset(self):
        return <object>self.base_offset + self.last_offset_delta + 1

    @property
    def last_sequence(self):
        if self.base_sequence < 0:
            return self.base_sequence
        return (<int64_t>self.base_sequence + self.last_offset_delta) & 0x7FFFFFFF

    def __repr__(self):
        return (
            f"BatchHeader(position={self.position}, size_bytes={self.size_bytes}, "
            f"base_offset={self.base_offset}, last_offset_delta={self.last_offset_delta}, "
            f"record_count={self.record_count}, attributes={self.attributes:#x}, "
            f"leader_epoch={self.leader_epoch}, producer_id={self.producer_id}, "
            f"producer_epoch={self.producer_epoch}, base_sequence={self.base_sequence})"
        )


cdef BatchHeader _parse(const uint8_t* p, Py_ssize_t position):
    # The 61 bytes at p.
    cdef BatchHeader header = BatchHeader.__new__(BatchHeader)
    header.position = position
    header.size_bytes = <Py_ssize_t>load_i32(p + BATCH_LENGTH_AT) + LOG_OVERHEAD_C
    header.base_offset = load_i64(p + BASE_OFFSET_AT)
    header.leader_epoch = load_i32(p + LEADER_EPOCH_AT)
    header.magic = <int8_t>p[MAGIC_AT]
    header.crc = load_u32(p + CRC_AT)
    header.attributes = load_i16(p + ATTRIBUTES_AT)
    header.last_offset_delta = load_i32(p + LAST_OFFSET_DELTA_AT)
    header.base_timestamp = load_i64(p + BASE_TIMESTAMP_AT)
    header.max_timestamp = load_i64(p + MAX_TIMESTAMP_AT)
    header.producer_id = load_i64(p + PRODUCER_ID_AT)
    header.producer_epoch = load_i16(p + PRODUCER_EPOCH_AT)
    header.base_sequence = load_i32(p + BASE_SEQUENCE_AT)
    header.record_count = load_i32(p + RECORD_COUNT_AT)
    return header


cdef inline uint32_t _crc(const uint8_t* p, Py_ssize_t size_bytes) noexcept nogil:
    return crc32c_extend(0, p + ATTRIBUTES_AT, size_bytes - ATTRIBUTES_AT)


cdef uint32_t _crc_unlocked(const uint8_t* p, Py_ssize_t size_bytes) noexcept:
    # As _crc; without the interpreter lock when it is long.
    cdef uint32_t crc
    if size_bytes > RELEASE_ABOVE_BYTES:
        with nogil:
            crc = _crc(p, size_bytes)
    else:
        crc = _crc(p, size_bytes)
    return crc


cdef BatchHeader _peek(Py_buffer* view, Py_ssize_t position):
    cdef Py_ssize_t available
    cdef const uint8_t* p
    cdef Py_ssize_t size_bytes
    if position < 0 or position > view.len:
        raise ValueError(f"position {position} is outside the buffer of {view.len} bytes")
    available = view.len - position
    p = <const uint8_t*>view.buf + position
    if available > MAGIC_AT and p[MAGIC_AT] < MAGIC_V2:
        raise UnsupportedForMessageFormat(
            f"message format {p[MAGIC_AT]} is no longer accepted: records come in v2 batches"
        )
    if available < HEADER_BYTES_C:
        raise CorruptMessage(f"{available} bytes cannot hold a batch header")
    if p[MAGIC_AT] != MAGIC_V2:
        raise CorruptMessage(f"unknown magic {p[MAGIC_AT]}")
    size_bytes = <Py_ssize_t>load_i32(p + BATCH_LENGTH_AT) + LOG_OVERHEAD_C
    if size_bytes < HEADER_BYTES_C or size_bytes > available:
        raise CorruptMessage(f"a batch of {size_bytes} bytes in {available} bytes")
    return _parse(p, position)


def peek(buf, Py_ssize_t position=0):
    cdef Py_buffer view
    PyObject_GetBuffer(buf, &view, PyBUF_SIMPLE)
    try:
        return _peek(&view, position)
    finally:
        PyBuffer_Release(&view)


cdef int _check_header(BatchHeader header) except -1:
    if header.attributes & UNUSED_ATTRIBUTES:
        raise InvalidRecord(f"unused attribute bits are set: {header.attributes & 0xFFFF:#06x}")
    if header.record_count <= 0:
        raise InvalidRecord(f"record count is {header.record_count}")
    if header.last_offset_delta != header.record_count - 1:
        raise InvalidRecord(
            f"last offset delta {header.last_offset_delta} does not fit "
            f"{header.record_count} records"
        )
    if (header.attributes & CODEC_MASK) > HIGHEST_CODEC:
        raise UnsupportedCompressionType(f"unknown codec {header.attributes & CODEC_MASK}")
    return 0


def validate(buf, Py_ssize_t position=0, *, bint walk=True):
    cdef Py_buffer view
    cdef BatchHeader header
    cdef const uint8_t* p
    cdef uint32_t crc
    cdef Walk walked
    PyObject_GetBuffer(buf, &view, PyBUF_SIMPLE)
    try:
        header = _peek(&view, position)
        p = <const uint8_t*>view.buf + position
        crc = _crc_unlocked(p, header.size_bytes)
        if crc != header.crc:
            raise CorruptMessage(f"CRC is {header.crc:#010x}, the bytes give {crc:#010x}")
        _check_header(header)
        if walk and (header.attributes & CODEC_MASK) == 0:
            walked = walk_unlocked(
                p + HEADER_BYTES_C, header.size_bytes - HEADER_BYTES_C, header.record_count
            )
            if walked.fault:
                raise fault_error(walked)
        return header
    finally:
        PyBuffer_Release(&view)


# ---- changing a batch in place ----


def stamp(buf, Py_ssize_t position, int64_t base_offset, int32_t leader_epoch):
    cdef Py_buffer view
    cdef uint8_t* p
    PyObject_GetBuffer(buf, &view, PyBUF_WRITABLE)
    try:
        if position < 0 or view.len - position < HEADER_BYTES_C:
            raise ValueError(f"no batch header at position {position} of {view.len} bytes")
        p = <uint8_t*>view.buf + position
        store_i64(p + BASE_OFFSET_AT, base_offset)
        store_i32(p + LEADER_EPOCH_AT, leader_epoch)
    finally:
        PyBuffer_Release(&view)


def stamp_append_time(buf, Py_ssize_t position, int64_t timestamp_ms):
    cdef Py_buffer view
    cdef BatchHeader header
    cdef uint8_t* p
    PyObject_GetBuffer(buf, &view, PyBUF_WRITABLE)
    try:
        header = _peek(&view, position)
        p = <uint8_t*>view.buf + position
        store_i16(p + ATTRIBUTES_AT, header.attributes | APPEND_TIME_BIT)
        store_i64(p + MAX_TIMESTAMP_AT, timestamp_ms)
        store_u32(p + CRC_AT, _crc_unlocked(p, header.size_bytes))
    finally:
        PyBuffer_Release(&view)


def seal(bytearray batch not None):
    cdef uint8_t* p
    cdef Py_ssize_t size_bytes = len(batch)
    if size_bytes < HEADER_BYTES_C or size_bytes - LOG_OVERHEAD_C > 0x7FFFFFFF:
        raise ValueError(f"a batch cannot have {size_bytes} bytes")
    p = <uint8_t*>PyByteArray_AS_STRING(batch)
    store_i32(p + BATCH_LENGTH_AT, <int32_t>(size_bytes - LOG_OVERHEAD_C))
    store_u32(p + CRC_AT, _crc(p, size_bytes))


# ---- many batches in a row ----


cdef enum Stop:
    CUT_OFF
    BAD_SIZE
    BAD_MAGIC
    BAD_COUNT
    BAD_CRC


STOPS = (
    None,
    "batch length is impossible",
    "magic is not 2",
    "record count or last offset delta is impossible",
    "CRC does not match",
)


cdef Stop _first_invalid(
    const uint8_t* start, const uint8_t* end, bint check_crc, Py_ssize_t* valid_bytes
) noexcept nogil:
    cdef const uint8_t* p = start
    cdef Stop stop = CUT_OFF
    cdef int64_t size_bytes
    cdef int64_t record_count
    cdef int64_t last_offset_delta
    while end - p >= HEADER_BYTES_C:
        size_bytes = <int64_t>load_i32(p + BATCH_LENGTH_AT) + LOG_OVERHEAD_C
        record_count = load_i32(p + RECORD_COUNT_AT)
        last_offset_delta = load_i32(p + LAST_OFFSET_DELTA_AT)
        if size_bytes < HEADER_BYTES_C:
            stop = BAD_SIZE
            break
        if p[MAGIC_AT] != MAGIC_V2:
            stop = BAD_MAGIC
            break
        # Compaction leaves fewer records than offsets, down to none.
        if last_offset_delta < 0 or record_count < 0 or record_count > last_offset_delta + 1:
            stop = BAD_COUNT
            break
        if size_bytes > end - p:
            break
        if check_crc and _crc(p, size_bytes) != load_u32(p + CRC_AT):
            stop = BAD_CRC
            break
        p += size_bytes
    valid_bytes[0] = p - start
    return stop


def scan(buf, Py_ssize_t position, Py_ssize_t end, *, bint check_crc):
    cdef Py_buffer view
    cdef const uint8_t* start
    cdef Py_ssize_t valid_bytes = 0
    cdef Py_ssize_t at = 0
    cdef Stop stop
    cdef BatchHeader header
    cdef list headers = []
    PyObject_GetBuffer(buf, &view, PyBUF_SIMPLE)
    try:
        _check_range(&view, position, end)
        start = <const uint8_t*>view.buf + position
        if end - position > RELEASE_ABOVE_BYTES:
            with nogil:
                stop = _first_invalid(
                    start, start + (end - position), check_crc, &valid_bytes
                )
        else:
            stop = _first_invalid(start, start + (end - position), check_crc, &valid_bytes)
        # Sizes are read again, so they are checked again: the bytes were only borrowed.
        while valid_bytes - at >= HEADER_BYTES_C:
            header = _parse(start + at, position + at)
            if header.size_bytes < HEADER_BYTES_C or header.size_bytes > valid_bytes - at:
                raise CorruptMessage("the bytes changed while they were scanned")
            headers.append(header)
            at += header.size_bytes
    finally:
        PyBuffer_Release(&view)
    return headers, position + valid_bytes, STOPS[stop]


cdef int _check_range(Py_buffer* view, Py_ssize_t position, Py_ssize_t end) except -1:
    if position < 0 or end < position or end > view.len:
        raise ValueError(f"[{position}, {end}) is outside the buffer of {view.len} bytes")
    return 0


cdef inline int64_t _edge_size(const uint8_t* p) noexcept nogil:
    # Size of the batch whose header is at p; -1 if that is no header.
    cdef int64_t size_bytes = <int64_t>load_i32(p + BATCH_LENGTH_AT) + LOG_OVERHEAD_C
    if (
        size_bytes < HEADER_BYTES_C
        or p[MAGIC_AT] != MAGIC_V2
        or load_i32(p + LAST_OFFSET_DELTA_AT) < 0
    ):
        return -1
    return size_bytes


cdef inline bint _reaches(const uint8_t* p, int64_t target_offset) noexcept nogil:
    # Is the last offset of the batch at p >= target? The difference is compared, as a sum could
    # overflow; the last offset delta is not negative (_edge_size).
    cdef int64_t base_offset = load_i64(p + BASE_OFFSET_AT)
    cdef uint64_t last_offset_delta = <uint64_t>load_i32(p + LAST_OFFSET_DELTA_AT)
    return (
        base_offset >= target_offset
        or <uint64_t>target_offset - <uint64_t>base_offset <= last_offset_delta
    )


cdef object _no_batch(object position):
    return CorruptMessage(f"no batch header at position {position}")


def locate(buf, Py_ssize_t position, Py_ssize_t end, int64_t target_offset):
    cdef Py_buffer view
    cdef const uint8_t* p
    cdef int64_t size_bytes
    PyObject_GetBuffer(buf, &view, PyBUF_SIMPLE)
    try:
        _check_range(&view, position, end)
        while end - position >= HEADER_BYTES_C:
            p = <const uint8_t*>view.buf + position
            size_bytes = _edge_size(p)
            if size_bytes < 0:
                raise _no_batch(position)
            if _reaches(p, target_offset):
                return position, size_bytes
            if size_bytes > end - position:
                break
            position += size_bytes
        return -1, -1
    finally:
        PyBuffer_Release(&view)


# ---- batches in a file ----

cdef enum:
    # Headers are read in pieces of this size: one piece holds the headers of many small batches,
    # and is cheap to read for one large batch.
    PIECE_BYTES = 4096


cdef struct FileWalk:
    int64_t position   # where the walk stopped: a batch edge
    int64_t size_bytes # of the batch there, when it was the one looked for
    int error          # errno, -1 for bytes that are no batch header, 0


cdef FileWalk _walk_file(
    int fd, int64_t position, int64_t end, bint to_offset, int64_t target_offset
) noexcept nogil:
    # From edge to edge while whole batches fit before `end`; stops early at the batch that reaches
    # target_offset (to_offset).
    cdef uint8_t piece[PIECE_BYTES]
    cdef FileWalk found
    cdef int64_t piece_start = position
    cdef int64_t piece_end = position
    cdef int64_t wanted
    cdef int64_t size_bytes
    cdef const uint8_t* p
    cdef ssize_t got
    found.position = position
    found.size_bytes = -1
    found.error = 0
    while end - position >= HEADER_BYTES_C:
        if position + HEADER_BYTES_C > piece_end:
            wanted = end - position if end - position < PIECE_BYTES else PIECE_BYTES
            got = pread(fd, piece, <size_t>wanted, position)
            if got < 0:
                found.error = errno
                return found
            piece_start = position
            piece_end = position + got
            if got < HEADER_BYTES_C:
                return found
        p = piece + (position - piece_start)
        size_bytes = _edge_size(p)
        if size_bytes < 0:
            found.error = -1
            return found
        if to_offset and _reaches(p, target_offset):
            found.size_bytes = size_bytes
            return found
        if size_bytes > end - position:
            return found
        position += size_bytes
        found.position = position
    return found


cdef FileWalk _walk_file_checked(
    int fd, int64_t position, int64_t end, bint to_offset, int64_t target_offset
) except *:
    cdef FileWalk found
    while True:
        if end - position > RELEASE_ABOVE_BYTES:
            with nogil:
                found = _walk_file(fd, position, end, to_offset, target_offset)
        else:
            found = _walk_file(fd, position, end, to_offset, target_offset)
        if found.error == EINTR:
            PyErr_CheckSignals()
            position = found.position
            continue
        if found.error > 0:
            raise OSError(found.error, "cannot read batch headers")
        if found.error < 0:
            raise _no_batch(found.position)
        return found


def last_edge(int fd, int64_t position, int64_t limit):
    return _walk_file_checked(fd, position, limit, False, 0).position


def locate_in_file(int fd, int64_t position, int64_t end, int64_t target_offset):
    cdef FileWalk found = _walk_file_checked(fd, position, end, True, target_offset)
    if found.size_bytes < 0:
        return -1, -1
    return found.position, found.size_bytes


# ---- building and decoding ----


def build(
    records,
    *,
    int64_t base_offset=0,
    base_timestamp=None,
    int32_t leader_epoch=-1,
    int16_t attributes=0,
    int64_t producer_id=-1,
    int16_t producer_epoch=-1,
    int32_t base_sequence=-1,
    compress=None,
):
    cdef tuple items = tuple(records)
    cdef Py_ssize_t count = len(items)
    cdef int64_t max_timestamp = 0
    cdef int64_t first_timestamp
    cdef Py_ssize_t end
    cdef uint8_t* p
    cdef bytearray out
    if count == 0 or count > 0x7FFFFFFF:
        raise ValueError(f"a batch cannot have {count} records")
    if (compress is None) != ((attributes & CODEC_MASK) == 0):
        raise ValueError("the codec bits of the attributes and a compress function go together")
    first_timestamp = items[0][0] if base_timestamp is None else base_timestamp
    out = bytearray(HEADER_BYTES_C + 64 * min(count, 1024))
    end = encode(out, HEADER_BYTES_C, items, first_timestamp, &max_timestamp)
    PyByteArray_Resize(out, end)
    if compress is not None:
        with memoryview(out) as whole, whole[HEADER_BYTES_C:] as payload:
            compressed = compress(payload)
        out[HEADER_BYTES_C:] = compressed
    p = <uint8_t*>PyByteArray_AS_STRING(out)
    store_i64(p + BASE_OFFSET_AT, base_offset)
    store_i32(p + LEADER_EPOCH_AT, leader_epoch)
    p[MAGIC_AT] = MAGIC_V2
    store_i16(p + ATTRIBUTES_AT, attributes)
    store_i32(p + LAST_OFFSET_DELTA_AT, <int32_t>(count - 1))
    store_i64(p + BASE_TIMESTAMP_AT, first_timestamp)
    store_i64(p + MAX_TIMESTAMP_AT, max_timestamp)
    store_i64(p + PRODUCER_ID_AT, producer_id)
    store_i16(p + PRODUCER_EPOCH_AT, producer_epoch)
    store_i32(p + BASE_SEQUENCE_AT, base_sequence)
    store_i32(p + RECORD_COUNT_AT, <int32_t>count)
    seal(out)
    return out


def decode_records(data, BatchHeader header not None, type record_type=tuple):
    cdef Py_buffer view
    cdef const uint8_t* start
    cdef object append_time = None
    if not issubclass(record_type, tuple) or record_type.__itemsize__ != tuple.__itemsize__:
        raise TypeError("record_type must be tuple or a NamedTuple of five fields")
    if header.attributes & APPEND_TIME_BIT:
        append_time = header.max_timestamp
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        start = <const uint8_t*>view.buf
        return decode(
            start, start + view.len, header.record_count, header.last_offset_delta,
            header.base_offset, header.base_timestamp, append_time, record_type,
        )
    finally:
        PyBuffer_Release(&view)
