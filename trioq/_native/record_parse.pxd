"""The fields of one uncompressed record, for cimport.

Every read is bounded by the end of its record, which is bounded by the end of the data before
anything inside is looked at.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

from trioq._native.varint cimport read_varint, read_varlong


cdef enum Fault:
    NONE
    LENGTH
    BEYOND_END
    ATTRIBUTES
    TIMESTAMP_DELTA
    OFFSET_DELTA
    KEY
    VALUE
    HEADER_COUNT
    HEADER_KEY
    HEADER_VALUE
    RECORD_END
    NOT_CONTIGUOUS
    TOO_FEW
    TRAILING
    NOT_INCREASING


cdef struct RecordView:
    # Pointers into the borrowed data; lengths are -1 for null.
    const uint8_t* end
    const uint8_t* key
    const uint8_t* value
    const uint8_t* headers
    int64_t timestamp_delta
    int32_t offset_delta
    int32_t key_length
    int32_t value_length
    int32_t header_count


cdef inline const uint8_t* skip_field(
    const uint8_t* p, const uint8_t* end, int32_t least, const uint8_t** start, int32_t* length
) noexcept nogil:
    # A length (at least `least`; -1 is null) and as many bytes.
    p = read_varint(p, end, length)
    if p == NULL or length[0] < least or length[0] > end - p:
        return NULL
    start[0] = p
    return p + length[0] if length[0] > 0 else p


cdef inline int parse_record(
    const uint8_t* p, const uint8_t* end, RecordView* record
) noexcept nogil:
    # The record at p, headers included; 0 or the fault.
    cdef int32_t length, i
    cdef const uint8_t* skipped
    p = read_varint(p, end, &length)
    if p == NULL:
        return LENGTH
    if length < 0 or length > end - p:
        return BEYOND_END
    end = p + length
    record.end = end
    if p == end:
        return ATTRIBUTES
    p = read_varlong(p + 1, end, &record.timestamp_delta)
    if p == NULL:
        return TIMESTAMP_DELTA
    p = read_varint(p, end, &record.offset_delta)
    if p == NULL:
        return OFFSET_DELTA
    p = skip_field(p, end, -1, &record.key, &record.key_length)
    if p == NULL:
        return KEY
    p = skip_field(p, end, -1, &record.value, &record.value_length)
    if p == NULL:
        return VALUE
    p = read_varint(p, end, &record.header_count)
    if p == NULL or record.header_count < 0:
        return HEADER_COUNT
    record.headers = p
    for i in range(record.header_count):
        p = skip_field(p, end, 0, &skipped, &length)
        if p == NULL:
            return HEADER_KEY
        p = skip_field(p, end, -1, &skipped, &length)
        if p == NULL:
            return HEADER_VALUE
    return NONE if p == end else RECORD_END


cdef inline object bytes_or_none(const uint8_t* start, int32_t length):
    if length < 0:
        return None
    return PyBytes_FromStringAndSize(<const char*>start, length)


cdef inline int64_t wrapped_sum(int64_t base, int64_t delta) noexcept nogil:
    # Wraps as Java's long does.
    return <int64_t>(<uint64_t>base + <uint64_t>delta)
