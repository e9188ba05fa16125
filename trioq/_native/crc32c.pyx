# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
"""CRC-32C (Castagnoli), as Kafka's v2 batches use it; the contract is in crc32c.pyi."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint32_t

from trioq._native.gil cimport RELEASE_ABOVE_BYTES


cdef extern from "crc32c_impl.h" nogil:
    ctypedef uint32_t (*trioq_crc32c_update)(uint32_t, const uint8_t*, size_t) noexcept nogil
    void trioq_crc32c_init()
    uint32_t trioq_crc32c(uint32_t crc, const uint8_t* data, size_t length)
    const char* trioq_crc32c_name()
    trioq_crc32c_update trioq_crc32c_named(const char* name)


cdef uint32_t crc32c_extend(uint32_t crc, const uint8_t* data, size_t length) noexcept nogil:
    return trioq_crc32c(crc, data, length)


cdef uint32_t _over_buffer(trioq_crc32c_update update, object data, uint32_t value) except? 1:
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if view.len > RELEASE_ABOVE_BYTES:
            with nogil:
                value = update(value, <const uint8_t*>view.buf, view.len)
        else:
            value = update(value, <const uint8_t*>view.buf, view.len)
    finally:
        PyBuffer_Release(&view)
    return value


def crc32c(data, uint32_t value=0):
    return _over_buffer(trioq_crc32c, data, value)


def implementation():
    return trioq_crc32c_name().decode("ascii")


def crc32c_with(str name, data, uint32_t value=0):
    encoded = name.encode()
    cdef trioq_crc32c_update update = trioq_crc32c_named(encoded)
    if update == NULL:
        raise ValueError(f"this machine has no CRC-32C implementation named {name!r}")
    return _over_buffer(update, data, value)


trioq_crc32c_init()
