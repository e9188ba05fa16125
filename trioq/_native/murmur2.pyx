# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, embedsignature=True
"""murmur2 with Kafka's seed; the contracts are in murmur2.pyi."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, uint8_t, uint32_t

cdef uint32_t SEED = 0x9747B28C
cdef uint32_t M = 0x5BD1E995


cdef uint32_t murmur2_of(const uint8_t* data, Py_ssize_t length) noexcept nogil:
    cdef uint32_t h = SEED ^ <uint32_t>length
    cdef uint32_t k
    cdef Py_ssize_t at = 0
    while length - at >= 4:
        # Little-endian, whatever the machine.
        k = (
            data[at] | <uint32_t>data[at + 1] << 8
            | <uint32_t>data[at + 2] << 16 | <uint32_t>data[at + 3] << 24
        )
        k *= M
        k ^= k >> 24
        k *= M
        h *= M
        h ^= k
        at += 4
    if length - at == 3:
        h ^= <uint32_t>data[at + 2] << 16
    if length - at >= 2:
        h ^= <uint32_t>data[at + 1] << 8
    if length - at >= 1:
        h ^= data[at]
        h *= M
    h ^= h >> 13
    h *= M
    h ^= h >> 15
    return h


cdef uint32_t _hash(object data) except? 0:
    cdef Py_buffer view
    cdef uint32_t result
    if PyBytes_CheckExact(data):
        return murmur2_of(<const uint8_t*>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    result = murmur2_of(<const uint8_t*>view.buf, view.len)
    PyBuffer_Release(&view)
    return result


cdef int32_t partition_of_key(object key, int32_t partition_count) except -1:
    return <int32_t>((_hash(key) & 0x7FFFFFFF) % <uint32_t>partition_count)


def murmur2(data):
    return _hash(data)


def key_partition(key, int32_t partition_count):
    if partition_count < 1:
        raise ValueError(f"there are no {partition_count} partitions")
    return partition_of_key(key, partition_count)
