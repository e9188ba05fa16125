# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True, cdivision=True
"""Binary search in Kafka's .index and .timeindex; the contract is in index_search.pyi."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int32_t, int64_t, uint8_t

from trioq._native.bigendian cimport load_i32, load_i64


cdef enum:
    OFFSET_ENTRY_BYTES_C = 8
    TIME_ENTRY_BYTES_C = 12

OFFSET_ENTRY_BYTES = OFFSET_ENTRY_BYTES_C
TIME_ENTRY_BYTES = TIME_ENTRY_BYTES_C


cdef int _check(Py_buffer* view, Py_ssize_t entries, Py_ssize_t entry_bytes) except -1:
    if entries < 0 or entries > view.len // entry_bytes:
        raise ValueError(f"{entries} entries of {entry_bytes} bytes in {view.len} bytes")
    return 0


def find_offset(buf, Py_ssize_t entries, int64_t relative_offset):
    cdef Py_buffer view
    cdef const uint8_t* p
    cdef Py_ssize_t low = 0
    cdef Py_ssize_t high, middle
    PyObject_GetBuffer(buf, &view, PyBUF_SIMPLE)
    try:
        _check(&view, entries, OFFSET_ENTRY_BYTES_C)
        p = <const uint8_t*>view.buf
        high = entries
        while low < high:  # entries before `low` are <= target, from `high` on they are greater
            middle = low + (high - low) // 2
            if load_i32(p + middle * OFFSET_ENTRY_BYTES_C) <= relative_offset:
                low = middle + 1
            else:
                high = middle
        if low == 0:
            return -1, -1
        p += (low - 1) * OFFSET_ENTRY_BYTES_C
        return load_i32(p), load_i32(p + 4)
    finally:
        PyBuffer_Release(&view)


def find_time(buf, Py_ssize_t entries, int64_t timestamp):
    cdef Py_buffer view
    cdef const uint8_t* p
    cdef Py_ssize_t low = 0
    cdef Py_ssize_t high, middle
    PyObject_GetBuffer(buf, &view, PyBUF_SIMPLE)
    try:
        _check(&view, entries, TIME_ENTRY_BYTES_C)
        p = <const uint8_t*>view.buf
        high = entries
        while low < high:  # as above
            middle = low + (high - low) // 2
            if load_i64(p + middle * TIME_ENTRY_BYTES_C) <= timestamp:
                low = middle + 1
            else:
                high = middle
        if low == 0:
            return -1, -1
        p += (low - 1) * TIME_ENTRY_BYTES_C
        return load_i64(p), load_i32(p + 8)
    finally:
        PyBuffer_Release(&view)
