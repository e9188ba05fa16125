# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
"""The records of v2 batches: walk, search by time, decode; the contract is in records.pyi.

Every read is bounded (see record_parse.pxd). Nothing is allocated by a claimed length or count.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE, PyTuple_New, PyTuple_SET_ITEM
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.string cimport memcmp

from trioq._native.gil cimport RELEASE_ABOVE_BYTES
from trioq._native.record_parse cimport (
    NONE,
    NOT_CONTIGUOUS,
    NOT_INCREASING,
    TOO_FEW,
    TRAILING,
    RecordView,
    bytes_or_none,
    parse_record,
    skip_field,
    wrapped_sum,
)

from trioq.errors import InvalidRecord


cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
    object PyUnicode_DecodeUTF8(const char* text, Py_ssize_t size, const char* errors)


cdef extern from "new_tuple.h":
    object trioq_new_tuple(object type, Py_ssize_t size)


MESSAGES = (
    "",
    "its length is not a valid varint",
    "its length is negative or reaches beyond the records",
    "it ends before its attributes",
    "its timestamp delta is not a valid varlong",
    "its offset delta is not a valid varint",
    "its key is cut off or has an invalid length",
    "its value is cut off or has an invalid length",
    "its header count is invalid",
    "a header key is cut off or has an invalid length",
    "a header value is cut off or has an invalid length",
    "its fields do not end where its length says",
    "its offset delta is not its index",
    "the records end before it",
    "bytes follow the last record",
    "its offset delta is out of order or beyond the batch's last",
)


cdef Walk walk(const uint8_t* data, const uint8_t* end, int32_t record_count) noexcept nogil:
    cdef Walk result
    cdef RecordView record
    cdef int32_t index
    result.fault = NONE
    result.index = 0
    for index in range(record_count):
        result.index = index
        if data == end:
            result.fault = TOO_FEW
            return result
        result.fault = parse_record(data, end, &record)
        if result.fault != NONE:
            return result
        if record.offset_delta != index:
            result.fault = NOT_CONTIGUOUS
            return result
        data = record.end
    if data != end:
        result.fault = TRAILING
    return result


cdef Walk walk_unlocked(const uint8_t* data, Py_ssize_t length, int32_t record_count) noexcept:
    # As walk; without the interpreter lock when it is long.
    cdef Walk result
    if length > RELEASE_ABOVE_BYTES:
        with nogil:
            result = walk(data, data + length, record_count)
    else:
        result = walk(data, data + length, record_count)
    return result


cdef object fault_error(Walk result):
    return InvalidRecord(f"record {result.index}: {MESSAGES[result.fault]}")


def walk_records(data, int32_t record_count):
    cdef Py_buffer view
    cdef Walk result
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        result = walk_unlocked(<const uint8_t*>view.buf, view.len, record_count)
    finally:
        PyBuffer_Release(&view)
    if result.fault != NONE:
        raise fault_error(result)


# ---- search by time ----


cdef Walk _search(
    const uint8_t* data, const uint8_t* end, int32_t record_count, int64_t base_timestamp,
    int64_t target_ms, int64_t start_delta, bint greatest, int32_t* offset_delta,
    int64_t* timestamp,
) noexcept nogil:
    # greatest: the first record with the greatest timestamp; else the first at or after target_ms
    # with an offset delta of start_delta or more. offset_delta stays -1 when there is none.
    cdef Walk result
    cdef RecordView record
    cdef int32_t index
    cdef int64_t found
    result.fault = NONE
    result.index = 0
    offset_delta[0] = -1
    for index in range(record_count):
        result.index = index
        if data == end:
            result.fault = TOO_FEW
            return result
        result.fault = parse_record(data, end, &record)
        if result.fault != NONE:
            return result
        if record.offset_delta < 0:
            result.fault = NOT_INCREASING
            return result
        found = wrapped_sum(base_timestamp, record.timestamp_delta)
        if greatest:
            if offset_delta[0] == -1 or found > timestamp[0]:
                offset_delta[0] = record.offset_delta
                timestamp[0] = found
        elif found >= target_ms and record.offset_delta >= start_delta:
            offset_delta[0] = record.offset_delta
            timestamp[0] = found
            return result
        data = record.end
    return result


cdef object _searched(
    object data, int32_t record_count, int64_t base_offset, int64_t base_timestamp,
    int64_t target_ms, int64_t start_delta, bint greatest,
):
    cdef Py_buffer view
    cdef Walk result
    cdef int32_t offset_delta = -1
    cdef int64_t timestamp = 0
    cdef const uint8_t* start
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        start = <const uint8_t*>view.buf
        if view.len > RELEASE_ABOVE_BYTES:
            with nogil:
                result = _search(
                    start, start + view.len, record_count, base_timestamp, target_ms,
                    start_delta, greatest, &offset_delta, &timestamp,
                )
        else:
            result = _search(
                start, start + view.len, record_count, base_timestamp, target_ms, start_delta,
                greatest, &offset_delta, &timestamp,
            )
    finally:
        PyBuffer_Release(&view)
    if result.fault != NONE:
        raise fault_error(result)
    if offset_delta == -1:
        return None
    return wrapped_sum(base_offset, offset_delta), timestamp


def find_timestamp(
    data, int32_t record_count, int64_t base_offset, int64_t base_timestamp, int64_t target_ms,
    *, int64_t start_delta=0,
):
    return _searched(
        data, record_count, base_offset, base_timestamp, target_ms, start_delta, False
    )


def max_timestamp_offset(
    data, int32_t record_count, int64_t base_offset, int64_t base_timestamp
):
    return _searched(data, record_count, base_offset, base_timestamp, 0, 0, True)


# ---- decode ----


cdef inline void _give(object into, Py_ssize_t index, object item):
    # `into` is a tuple, or of a subclass, that nobody else has seen yet.
    Py_INCREF(item)
    PyTuple_SET_ITEM(into, index, item)


cdef inline object _header_key(
    const uint8_t* start, int32_t length, tuple previous, Py_ssize_t index
):
    # The records of a batch mostly have the same header keys: the previous record's is used again.
    cdef Py_ssize_t known_length
    cdef const char* known
    if index < PyTuple_GET_SIZE(previous):
        key = <object>PyTuple_GET_ITEM(<object>PyTuple_GET_ITEM(previous, index), 0)
        known = PyUnicode_AsUTF8AndSize(key, &known_length)
        if known_length == length and memcmp(known, start, length) == 0:
            return key
    return PyUnicode_DecodeUTF8(<const char*>start, length, "replace")


cdef tuple decode_headers(RecordView* record, tuple previous):
    # Parsed before, so two bytes or more stand behind each counted header. Checked again as they
    # are read: making objects may run a collection, and with it code that changes the bytes.
    cdef const uint8_t* p = record.headers
    cdef const uint8_t* start = NULL
    cdef int32_t length = 0
    cdef int32_t i
    cdef tuple headers, header
    if record.header_count == 0:
        return ()
    headers = PyTuple_New(record.header_count)
    for i in range(record.header_count):
        header = PyTuple_New(2)
        p = skip_field(p, record.end, 0, &start, &length)
        if p == NULL:
            raise InvalidRecord("the bytes changed while they were decoded")
        _give(header, 0, _header_key(start, length, previous, i))
        p = skip_field(p, record.end, -1, &start, &length)
        if p == NULL:
            raise InvalidRecord("the bytes changed while they were decoded")
        _give(header, 1, bytes_or_none(start, length))
        _give(headers, i, header)
    return headers


cdef list decode(
    const uint8_t* data, const uint8_t* end, int32_t record_count, int32_t last_offset_delta,
    int64_t base_offset, int64_t base_timestamp, object append_time, type record_type,
):
    cdef list records = []
    cdef Walk result
    cdef RecordView record
    cdef int32_t index
    cdef int32_t previous = -1
    cdef object made
    cdef tuple headers = ()
    result.fault = NONE
    for index in range(record_count):
        result.index = index
        if data == end:
            result.fault = TOO_FEW
            raise fault_error(result)
        result.fault = parse_record(data, end, &record)
        if result.fault != NONE:
            raise fault_error(result)
        if record.offset_delta <= previous or record.offset_delta > last_offset_delta:
            result.fault = NOT_INCREASING
            raise fault_error(result)
        previous = record.offset_delta
        made = trioq_new_tuple(record_type, 5)
        _give(made, 0, wrapped_sum(base_offset, record.offset_delta))
        if append_time is None:
            _give(made, 1, wrapped_sum(base_timestamp, record.timestamp_delta))
        else:
            _give(made, 1, append_time)
        _give(made, 2, bytes_or_none(record.key, record.key_length))
        _give(made, 3, bytes_or_none(record.value, record.value_length))
        headers = decode_headers(&record, headers)
        _give(made, 4, headers)
        records.append(made)
        data = record.end
    if data != end:
        result.index = record_count
        result.fault = TRAILING
        raise fault_error(result)
    return records
