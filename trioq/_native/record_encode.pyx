# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
"""Writes the records of a v2 batch, uncompressed; reached through `trioq._native.batch.build`
and `trioq._native.batch_builder`.

The size of each record is computed before it is written, and room made for it.
"""

from cpython.bytearray cimport (
    PyByteArray_AS_STRING,
    PyByteArray_GET_SIZE,
    PyByteArray_Resize,
)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

from trioq._native.varint cimport size_of_varlong, write_varlong

from trioq.errors import MessageTooLarge


cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL


cdef inline Py_ssize_t _field_bytes(object field) except -1:
    # Length varint included; `field` is bytes or None.
    if field is None:
        return 1
    return size_of_varlong(PyBytes_GET_SIZE(field)) + PyBytes_GET_SIZE(field)


cdef inline uint8_t* _write_field(uint8_t* p, object field):
    cdef Py_ssize_t size
    if field is None:
        p[0] = 1  # zigzag of -1
        return p + 1
    size = PyBytes_GET_SIZE(field)
    p = write_varlong(p, size)
    memcpy(p, PyBytes_AS_STRING(field), size)
    return p + size


cdef inline object _as_bytes(object field):
    # Borrowed as it is when bytes; other buffers are copied; anything else is a TypeError.
    if field is None or PyBytes_CheckExact(field):
        return field
    return bytes(memoryview(field))


cdef Py_ssize_t _headers_bytes(tuple headers, list values) except -1:
    # Size of all headers without their count; leaves their values, as bytes, in `values`.
    cdef Py_ssize_t total = 0
    cdef Py_ssize_t size
    for header in headers:
        key, value = header
        PyUnicode_AsUTF8AndSize(key, &size)
        total += size_of_varlong(size) + size
        value = _as_bytes(value)
        values.append((key, value))
        total += _field_bytes(value)
    return total


cdef uint8_t* _write_headers(uint8_t* p, list headers) except NULL:
    cdef Py_ssize_t size
    cdef const char* text
    for key, value in headers:
        text = PyUnicode_AsUTF8AndSize(key, &size)
        p = write_varlong(p, size)
        memcpy(p, text, size)
        p = _write_field(p + size, value)
    return p


cdef Py_ssize_t write_record(
    bytearray out, Py_ssize_t position, Py_ssize_t most, Py_ssize_t index,
    int64_t timestamp_delta, object key, object value, object headers,
) except -1:
    # The record number `index` at `position`, growing `out`; returns where it ends. When that is
    # beyond `most` nothing is written, and the result is minus that position.
    cdef Py_ssize_t body, end, capacity
    cdef uint8_t* p
    cdef list header_list = None
    cdef tuple header_tuple = tuple(headers)
    key = _as_bytes(key)
    value = _as_bytes(value)
    body = 1 + size_of_varlong(timestamp_delta) + size_of_varlong(index)
    body += _field_bytes(key) + _field_bytes(value)
    body += size_of_varlong(PyTuple_GET_SIZE(header_tuple))
    if PyTuple_GET_SIZE(header_tuple):
        header_list = []
        body += _headers_bytes(header_tuple, header_list)
    end = position + size_of_varlong(body) + body
    if end > most:
        return -end
    capacity = PyByteArray_GET_SIZE(out)
    if end > capacity:
        PyByteArray_Resize(out, max(end, min(2 * capacity, most)))
    p = <uint8_t*>PyByteArray_AS_STRING(out) + position
    p = write_varlong(p, body)
    p[0] = 0
    p = write_varlong(p + 1, timestamp_delta)
    p = write_varlong(p, index)
    p = _write_field(p, key)
    p = _write_field(p, value)
    p = write_varlong(p, PyTuple_GET_SIZE(header_tuple))
    if header_list is not None:
        _write_headers(p, header_list)
    return end


cdef Py_ssize_t encode(
    bytearray out, Py_ssize_t position, tuple records, int64_t base_timestamp,
    int64_t* max_timestamp,
) except -1:
    # Writes the records from `position` on, growing `out`; returns where they end.
    cdef Py_ssize_t index
    cdef int64_t timestamp
    cdef object record  # a tuple, or a NamedTuple
    for index in range(PyTuple_GET_SIZE(records)):
        record = <object>PyTuple_GET_ITEM(records, index)
        if not isinstance(record, tuple) or PyTuple_GET_SIZE(record) != 4:
            raise TypeError("a record to encode is (timestamp_ms, key, value, headers)")
        timestamp = <object>PyTuple_GET_ITEM(record, 0)
        if index == 0 or timestamp > max_timestamp[0]:
            max_timestamp[0] = timestamp
        position = write_record(
            out, position, MAX_BATCH_BYTES, index,
            <int64_t>(<uint64_t>timestamp - <uint64_t>base_timestamp),
            <object>PyTuple_GET_ITEM(record, 1), <object>PyTuple_GET_ITEM(record, 2),
            <object>PyTuple_GET_ITEM(record, 3),
        )
        if position < 0:
            raise MessageTooLarge(f"record {index}: a batch holds at most 2 GiB")
    return position
