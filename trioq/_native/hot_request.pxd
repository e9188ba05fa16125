"""The C side of hot_request.pyx; the contract is in hot_request.pyi."""

from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint64_t

from trioq._native.bigendian cimport load_i16, load_i32


cdef enum:
    NULL_LENGTH = -1
    UNUSUAL = -2
    LONGEST_ANSWER = 96     # of a response about one partition, without the topic's name


cdef struct Cursor:
    const uint8_t* p
    const uint8_t* end


cdef inline int64_t read_length(Cursor* c, bint flexible, int prefix_bytes) noexcept:
    # A length or count; NULL_LENGTH for null, UNUSUAL when it is cut off or malformed.
    cdef uint64_t value = 0
    cdef uint8_t byte
    cdef int shift = 0
    if not flexible:
        if c.end - c.p < prefix_bytes:
            return UNUSUAL
        c.p += prefix_bytes
        if prefix_bytes == 2:
            return max(<int64_t>load_i16(c.p - 2), <int64_t>NULL_LENGTH)
        return max(<int64_t>load_i32(c.p - 4), <int64_t>NULL_LENGTH)
    while c.p < c.end and shift < 28:
        byte = c.p[0]
        c.p += 1
        value |= <uint64_t>(byte & 0x7F) << shift
        if byte < 0x80:
            return <int64_t>value - 1
        shift += 7
    return UNUSUAL


cdef inline bint no_tags(Cursor* c, bint flexible) noexcept:
    # True after passing an empty section of tagged fields.
    if not flexible:
        return True
    if c.p >= c.end or c.p[0] != 0:
        return False
    c.p += 1
    return True


cdef inline uint8_t* put_uvarint(uint8_t* p, uint64_t value) noexcept:
    while value > 0x7F:
        p[0] = <uint8_t>(value & 0x7F | 0x80)
        value >>= 7
        p += 1
    p[0] = <uint8_t>value
    return p + 1


# A Produce request of one batch; pointers into what was read.
cdef struct SingleProduce:
    int16_t acks
    int32_t timeout_ms
    int32_t partition
    const uint8_t* name
    Py_ssize_t name_bytes
    const uint8_t* records
    Py_ssize_t records_bytes


# None for what is not UTF-8.
cdef object text_or_none(const uint8_t* p, Py_ssize_t length)

# True if the body at [p, end) is such a request.
cdef bint read_produce(
    const uint8_t* p, const uint8_t* end, int version, SingleProduce* asked
) noexcept

# The whole response frame that says its batch was appended.
cdef bytes produce_answer(
    int version, int32_t correlation_id, const uint8_t* name, Py_ssize_t name_bytes,
    int32_t partition, int64_t base_offset, int64_t append_time_ms, int64_t log_start_offset,
)


cdef class RequestHead:
    cdef public object api_key
    cdef public object api_version
    cdef public object correlation_id
    cdef public object client_id
    cdef public object body
    cdef public Py_ssize_t position
    cdef public Py_ssize_t end


cdef class SingleBatch:
    cdef readonly int16_t acks
    cdef readonly int32_t timeout_ms
    cdef readonly str topic
    cdef readonly int32_t partition
    cdef readonly object records
    cdef bytes _name
    cdef int _version
