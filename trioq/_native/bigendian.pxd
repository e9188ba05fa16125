"""Big-endian loads and stores at any alignment; compilers turn each into one instruction or two.

Nothing is checked here: the caller has compared lengths before.
"""

from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef inline int16_t load_i16(const uint8_t* p) noexcept nogil:
    return <int16_t>((<uint16_t>p[0] << 8) | <uint16_t>p[1])


cdef inline uint32_t load_u32(const uint8_t* p) noexcept nogil:
    return (
        (<uint32_t>p[0] << 24) | (<uint32_t>p[1] << 16) | (<uint32_t>p[2] << 8) | <uint32_t>p[3]
    )


cdef inline int32_t load_i32(const uint8_t* p) noexcept nogil:
    return <int32_t>load_u32(p)


cdef inline int64_t load_i64(const uint8_t* p) noexcept nogil:
    return <int64_t>((<uint64_t>load_u32(p) << 32) | <uint64_t>load_u32(p + 4))


cdef inline void store_i16(uint8_t* p, int16_t value) noexcept nogil:
    p[0] = <uint8_t>(<uint16_t>value >> 8)
    p[1] = <uint8_t>(<uint16_t>value)


cdef inline void store_u32(uint8_t* p, uint32_t value) noexcept nogil:
    p[0] = <uint8_t>(value >> 24)
    p[1] = <uint8_t>(value >> 16)
    p[2] = <uint8_t>(value >> 8)
    p[3] = <uint8_t>value


cdef inline void store_i32(uint8_t* p, int32_t value) noexcept nogil:
    store_u32(p, <uint32_t>value)


cdef inline void store_i64(uint8_t* p, int64_t value) noexcept nogil:
    store_u32(p, <uint32_t>(<uint64_t>value >> 32))
    store_u32(p + 4, <uint32_t>(<uint64_t>value))
