# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
"""Many batches in a row, in memory and in files; the contract is in batch_log.pyi.

Every function compares the buffer's length with what it is about to read once, explicitly, and
then reads unchecked.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EINTR, errno
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

from trioq._native.batch_header cimport (
    BASE_OFFSET_AT,
    BATCH_LENGTH_AT,
    CRC_AT,
    HEADER_BYTES_C,
    LAST_OFFSET_DELTA_AT,
    LOG_OVERHEAD_C,
    MAGIC_AT,
    MAGIC_V2,
    RECORD_COUNT_AT,
    BatchHeader,
    batch_crc,
    parse_header,
)
from trioq._native.bigendian cimport load_i32, load_i64, load_u32
from trioq._native.gil cimport RELEASE_ABOVE_BYTES

from trioq.errors import CorruptMessage


cdef extern from "<unistd.h>" nogil:
    ssize_t pread(int fd, void* into, size_t length, int64_t position)


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
        if check_crc and batch_crc(p, size_bytes) != load_u32(p + CRC_AT):
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
            header = parse_header(start + at, position + at)
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
