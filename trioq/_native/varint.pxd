"""Zigzag varints of records, for cimport.

`read_*` return the position after the number, or NULL when it is cut off by `end`, longer than
five (ten) bytes, or outside int32 (int64). `write_*` need room for five (ten) bytes, or as many as
`size_of_*` says.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t


cdef inline uint64_t zigzag(int64_t value) noexcept nogil:
    return (<uint64_t>value << 1) ^ (<uint64_t>0 - (<uint64_t>value >> 63))


cdef inline const uint8_t* read_varlong(
    const uint8_t* p, const uint8_t* end, int64_t* value
) noexcept nogil:
    cdef uint64_t raw = 0
    cdef uint64_t byte
    cdef int shift = 0
    if p < end and p[0] < 0x80:
        value[0] = (p[0] >> 1) ^ -<int64_t>(p[0] & 1)
        return p + 1
    while p < end:
        byte = p[0]
        p += 1
        if shift == 63 and byte > 1:
            return NULL
        raw |= (byte & 0x7F) << shift
        if byte < 0x80:
            value[0] = <int64_t>((raw >> 1) ^ (<uint64_t>0 - (raw & 1)))
            return p
        shift += 7
    return NULL


cdef inline const uint8_t* read_varint(
    const uint8_t* p, const uint8_t* end, int32_t* value
) noexcept nogil:
    cdef uint32_t raw = 0
    cdef uint32_t byte
    cdef int shift = 0
    if p < end and p[0] < 0x80:
        value[0] = (p[0] >> 1) ^ -<int32_t>(p[0] & 1)
        return p + 1
    while p < end:
        byte = p[0]
        p += 1
        if shift == 28 and byte > 0x0F:
            return NULL
        raw |= (byte & 0x7F) << shift
        if byte < 0x80:
            value[0] = <int32_t>((raw >> 1) ^ (<uint32_t>0 - (raw & 1)))
            return p
        shift += 7
    return NULL


cdef inline Py_ssize_t size_of_varlong(int64_t value) noexcept nogil:
    cdef uint64_t raw = zigzag(value)
    cdef Py_ssize_t size = 1
    while raw >= 0x80:
        raw >>= 7
        size += 1
    return size


cdef inline uint8_t* write_varlong(uint8_t* p, int64_t value) noexcept nogil:
    cdef uint64_t raw = zigzag(value)
    while raw >= 0x80:
        p[0] = <uint8_t>(raw | 0x80)
        p += 1
        raw >>= 7
    p[0] = <uint8_t>raw
    return p + 1
