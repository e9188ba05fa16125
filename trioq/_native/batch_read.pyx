# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
# cython: nonecheck=True
"""Reads the batches of a Fetch response; the contract is in batch_read.pyi.

Every length is compared with the bytes that are there before anything behind it is read.
"""

cimport cython
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint32_t

from trioq._native.batch_header cimport (
    BATCH_LENGTH_AT,
    CODEC_MASK,
    CONTROL_BIT,
    HEADER_BYTES_C,
    HIGHEST_CODEC,
    LOG_OVERHEAD_C,
    MAGIC_AT,
    MAGIC_V2,
    TRANSACTIONAL_BIT,
    BatchHeader,
    batch_crc,
    parse_header,
)
from trioq._native.bigendian cimport load_i16, load_i32
from trioq._native.gil cimport RELEASE_ABOVE_BYTES
from trioq._native.record_parse cimport NONE, RecordView, parse_record
from trioq._native.record_view cimport HeldBytes, Origin, new_view

from trioq.errors import (
    CorruptMessage,
    KafkaError,
    UnsupportedCompressionType,
    UnsupportedForMessageFormat,
)


cdef int64_t MAX_OFFSET = 0x7FFFFFFFFFFFFFFF
cdef Py_ssize_t CONTROL_KEY_BYTES = 4  # version and type
cdef int16_t ABORT_MARKER = 0


cdef bint _is_abort_marker(const uint8_t* data, const uint8_t* end) noexcept nogil:
    # Whether the first record of an uncompressed control batch has the key of one.
    cdef RecordView record
    if data == end or parse_record(data, end, &record) != NONE:
        return False
    if record.key_length < CONTROL_KEY_BYTES:
        return False
    return load_i16(record.key + 2) == ABORT_MARKER


cdef BatchHeader _checked_header(
    const uint8_t* p, Py_ssize_t position, Py_ssize_t size, bint check_crc
):
    # Of the whole batch of `size` bytes at p.
    cdef BatchHeader header
    cdef uint32_t crc
    if p[MAGIC_AT] != MAGIC_V2:
        raise CorruptMessage(f"unknown magic {p[MAGIC_AT]}")
    header = parse_header(p, position)
    if check_crc:
        if size > RELEASE_ABOVE_BYTES:
            with nogil:
                crc = batch_crc(p, size)
        else:
            crc = batch_crc(p, size)
        if crc != header.crc:
            raise CorruptMessage(f"CRC is {header.crc:#010x}, the bytes give {crc:#010x}")
    if (
        header.last_offset_delta < 0
        or header.record_count < 0
        or header.record_count > <int64_t>header.last_offset_delta + 1
    ):
        raise CorruptMessage(
            f"{header.record_count} records with last offset delta {header.last_offset_delta}"
        )
    if header.base_offset < 0 or header.base_offset >= MAX_OFFSET - header.last_offset_delta:
        raise CorruptMessage(f"base offset {header.base_offset} is impossible")
    if (header.attributes & CODEC_MASK) > HIGHEST_CODEC:
        raise UnsupportedCompressionType(f"unknown codec {header.attributes & CODEC_MASK}")
    return header


cdef BatchHeader _next_header(
    HeldBytes held, Py_ssize_t position, bint check_crc, bint* is_truncated
):
    # Of the batch at `position`; None where it does not lie wholly in the bytes.
    cdef const uint8_t* p = <const uint8_t*>held.view.buf + position
    cdef Py_ssize_t available = held.view.len - position
    cdef Py_ssize_t size
    if available > MAGIC_AT and p[MAGIC_AT] < MAGIC_V2:
        raise UnsupportedForMessageFormat(
            f"message format {p[MAGIC_AT]} is not read: the broker must convert it to v2 batches"
        )
    if available >= LOG_OVERHEAD_C:
        size = <Py_ssize_t>load_i32(p + BATCH_LENGTH_AT) + LOG_OVERHEAD_C
        if size < HEADER_BYTES_C:
            raise CorruptMessage(f"a batch of {size} bytes")
        if size <= available:
            return _checked_header(p, position, size, check_crc)
    is_truncated[0] = True
    return None


@cython.final
cdef class _Aborted:
    # Which producers have an aborted transaction open, while batches are read in order.
    cdef list waiting  # (first offset, producer id), the last offset first
    cdef set open_ids

    cdef bint hides(self, BatchHeader header, const uint8_t* data, const uint8_t* end) except -1:
        if not header.attributes & TRANSACTIONAL_BIT:
            return False
        cdef Py_ssize_t count = len(self.waiting)
        while count and self.waiting[count - 1][0] <= header.base_offset + header.last_offset_delta:
            self.open_ids.add(self.waiting.pop()[1])
            count -= 1
        if header.producer_id not in self.open_ids:
            return False
        if header.attributes & CONTROL_BIT:
            if _is_abort_marker(data, end):
                self.open_ids.discard(header.producer_id)
            return False
        return True


def read_batches(
    data, int64_t start_offset, *, str topic not None, int32_t partition, decompress,
    aborted=None, bint check_crc=True, key_deserializer=None, value_deserializer=None,
):
    cdef HeldBytes held = HeldBytes(data)
    cdef Origin origin = Origin.__new__(Origin)
    cdef _Aborted aborts = None
    cdef BatchHeader header
    cdef Py_ssize_t position = 0
    cdef int64_t next_offset = start_offset
    cdef int64_t delta
    cdef bint is_truncated = False
    cdef list batches = []
    cdef const uint8_t* p
    if start_offset < 0:
        raise ValueError(f"no record has offset {start_offset}")
    origin.topic = topic
    origin.partition = partition
    origin.decompress = decompress
    origin.key_deserializer = key_deserializer
    origin.value_deserializer = value_deserializer
    if aborted:
        aborts = _Aborted.__new__(_Aborted)
        aborts.waiting = sorted(((first, pid) for pid, first in aborted), reverse=True)
        aborts.open_ids = set()
    while position < held.view.len:
        try:
            header = _next_header(held, position, check_crc, &is_truncated)
        except KafkaError as error:
            if next_offset > start_offset:  # a fetch from there meets it again
                break
            raise type(error)(
                f"{topic}-{partition}, fetched from offset {start_offset}: {error}"
            ) from error
        if header is None:
            break
        p = <const uint8_t*>held.view.buf + position
        position += header.size_bytes
        delta = start_offset - header.base_offset
        if aborts is not None and aborts.hides(
            header, p + HEADER_BYTES_C, p + header.size_bytes
        ):
            next_offset = max(next_offset, header.base_offset + header.last_offset_delta + 1)
            continue
        if delta > header.last_offset_delta:
            continue
        next_offset = max(next_offset, header.base_offset + header.last_offset_delta + 1)
        if header.attributes & CONTROL_BIT or header.record_count == 0:
            continue
        batches.append(new_view(origin, held, header, p, <int32_t>max(0, delta)))
    return batches, next_offset, is_truncated
