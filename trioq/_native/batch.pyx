# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
"""v2 record batches: checks, stamping, building, decoding; the contract is in batch.pyi.

Every function compares the buffer's length with what it is about to read once, explicitly, and
then reads unchecked.
"""

from cpython.buffer cimport (
    PyBUF_SIMPLE,
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_Resize
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint32_t

from trioq._native.batch_header cimport (
    APPEND_TIME_BIT,
    ATTRIBUTES_AT,
    BASE_OFFSET_AT,
    BATCH_LENGTH_AT,
    CODEC_MASK,
    CRC_AT,
    HEADER_BYTES_C,
    HIGHEST_CODEC,
    LEADER_EPOCH_AT,
    LOG_OVERHEAD_C,
    MAGIC_AT,
    MAGIC_V2,
    MAX_TIMESTAMP_AT,
    UNUSED_ATTRIBUTES,
    BatchHeader as Header,
    batch_crc,
    parse_header,
    store_header,
)
from trioq._native.bigendian cimport load_i32, store_i16, store_i32, store_i64, store_u32
from trioq._native.gil cimport RELEASE_ABOVE_BYTES
from trioq._native.record_encode cimport MAX_BATCH_BYTES, encode
from trioq._native.records cimport Walk, decode, fault_error, walk_unlocked

from trioq._native.batch_header import BatchHeader
from trioq._native.batch_log import last_edge, locate, locate_in_file, scan
from trioq._native.records import find_timestamp, max_timestamp_offset, walk_records
from trioq.errors import (
    CorruptMessage,
    InvalidRecord,
    MessageTooLarge,
    UnsupportedCompressionType,
    UnsupportedForMessageFormat,
)


HEADER_BYTES = HEADER_BYTES_C
LOG_OVERHEAD = LOG_OVERHEAD_C


cdef uint32_t _crc_unlocked(const uint8_t* p, Py_ssize_t size_bytes) noexcept:
    # As batch_crc; without the interpreter lock when it is long.
    cdef uint32_t crc
    if size_bytes > RELEASE_ABOVE_BYTES:
        with nogil:
            crc = batch_crc(p, size_bytes)
    else:
        crc = batch_crc(p, size_bytes)
    return crc


cdef Header _peek(Py_buffer* view, Py_ssize_t position):
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
    return parse_header(p, position)


def peek(buf, Py_ssize_t position=0):
    cdef Py_buffer view
    PyObject_GetBuffer(buf, &view, PyBUF_SIMPLE)
    try:
        return _peek(&view, position)
    finally:
        PyBuffer_Release(&view)


cdef int _check_header(Header header) except -1:
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
    cdef Header header
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
    cdef Header header
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
    store_u32(p + CRC_AT, batch_crc(p, size_bytes))


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
    if len(out) > MAX_BATCH_BYTES:
        raise MessageTooLarge("a batch holds at most 2 GiB")
    store_header(
        <uint8_t*>PyByteArray_AS_STRING(out), len(out), base_offset, leader_epoch, attributes,
        first_timestamp, max_timestamp, producer_id, producer_epoch, base_sequence,
        <int32_t>count,
    )
    return out


def decode_records(data, Header header not None, type record_type=tuple):
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
