# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
"""Reads what nearly every request looks like in one call; the contract is in hot_request.pyi.

Every length is compared with the bytes left once, explicitly, before anything is touched.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.object cimport PyObject, PyTypeObject
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

from trioq._native.bigendian cimport load_i16, load_i32, store_i16, store_i32, store_i64


cdef extern from *:
    """
    static inline PyObject *trioq_bare_instance(PyObject *cls, PyObject *no_arguments) {
        return ((PyTypeObject *)cls)->tp_new((PyTypeObject *)cls, no_arguments, NULL);
    }
    static inline PyObject *trioq_text_or_null(const char *data, Py_ssize_t length) {
        PyObject *text = PyUnicode_DecodeUTF8(data, length, NULL);
        if (text == NULL) PyErr_Clear();
        return text;
    }
    """
    object trioq_bare_instance(object cls, object no_arguments)
    PyObject* trioq_text_or_null(const char* data, Py_ssize_t length)


cdef extern from "Python.h":
    void Py_DECREF(PyObject* o)


cdef enum:
    FIXED_BYTES = 10        # of a request header: key, version, correlation id, client id's length
    FIRST_BATCH_VERSION = 3
    FIRST_START_OFFSET_VERSION = 5
    FIRST_RECORD_ERRORS_VERSION = 8
    FIRST_FLEXIBLE_VERSION = 9
    LAST_VERSION = 11


cdef object text_or_none(const uint8_t* p, Py_ssize_t length):
    # None for what is not UTF-8.
    cdef PyObject* text = trioq_text_or_null(<const char*>p, length)
    if text == NULL:
        return None
    made = <object>text
    Py_DECREF(text)
    return made


# ---- the header of any request ----


cdef class RequestHead:

    def __init__(self):
        raise TypeError("a RequestHead comes from read_head")

    def move(self, body, Py_ssize_t by, Py_ssize_t end):
        self.body = body
        self.position += by
        self.end = end


def read_head(type cls not None, buf, Py_ssize_t start, Py_ssize_t end, dict flexible_from not None):
    cdef Py_buffer view
    cdef const uint8_t* p
    cdef RequestHead head
    cdef int16_t length
    cdef Py_ssize_t position
    cdef object client_id = None
    cdef object api_key
    PyObject_GetBuffer(buf, &view, PyBUF_SIMPLE)
    try:
        if start < 0 or end < start or end > view.len:
            raise ValueError(f"[{start}, {end}) is outside the buffer of {view.len} bytes")
        if end - start < FIXED_BYTES:
            return None
        p = <const uint8_t*>view.buf + start
        length = load_i16(p + 8)
        position = start + FIXED_BYTES
        if length >= 0:
            if length > end - position:
                return None
            client_id = text_or_none(p + FIXED_BYTES, length)
            if client_id is None:
                return None
            position += length
        api_key = load_i16(p)
        flexible = flexible_from.get(api_key)
        if flexible is None:
            return None
        if load_i16(p + 2) >= <int>flexible:
            if position >= end or (<const uint8_t*>view.buf)[position] != 0:
                return None
            position += 1
        head = trioq_bare_instance(cls, ())
        head.api_key = api_key
        head.api_version = load_i16(p + 2)
        head.correlation_id = load_i32(p + 4)
        head.client_id = client_id
        head.body = buf
        head.position = position
        head.end = end
        return head
    finally:
        PyBuffer_Release(&view)


# ---- Produce of one batch ----


cdef bint read_produce(
    const uint8_t* p, const uint8_t* end, int version, SingleProduce* asked
) noexcept:
    cdef bint flexible = version >= FIRST_FLEXIBLE_VERSION
    cdef Cursor c
    cdef int64_t length
    if version < FIRST_BATCH_VERSION or version > LAST_VERSION:
        return False
    c.p = p
    c.end = end
    if read_length(&c, flexible, 2) != NULL_LENGTH or c.end - c.p < 6:  # transactional id
        return False
    asked.acks = load_i16(c.p)
    asked.timeout_ms = load_i32(c.p + 2)
    c.p += 6
    if read_length(&c, flexible, 4) != 1:
        return False
    length = read_length(&c, flexible, 2)
    if length < 0 or length > 0x7FFF or length > c.end - c.p:
        return False
    asked.name = c.p
    asked.name_bytes = length
    c.p += length
    if read_length(&c, flexible, 4) != 1 or c.end - c.p < 4:
        return False
    asked.partition = load_i32(c.p)
    c.p += 4
    length = read_length(&c, flexible, 4)
    if length < 0 or length > c.end - c.p:
        return False
    asked.records = c.p
    asked.records_bytes = length
    c.p += length
    if not (no_tags(&c, flexible) and no_tags(&c, flexible) and no_tags(&c, flexible)):
        return False
    return c.p == c.end


cdef bytes produce_answer(
    int version, int32_t correlation_id, const uint8_t* name, Py_ssize_t name_bytes,
    int32_t partition, int64_t base_offset, int64_t append_time_ms, int64_t log_start_offset,
):
    cdef bytes frame
    cdef uint8_t* first
    cdef uint8_t* p
    cdef uint8_t[LONGEST_ANSWER] head
    cdef uint8_t[LONGEST_ANSWER] tail
    cdef Py_ssize_t head_bytes, tail_bytes
    cdef bint flexible = version >= FIRST_FLEXIBLE_VERSION
    p = head + 4
    store_i32(p, correlation_id)
    p += 4
    if flexible:
        p[0] = 0                                    # tagged fields of the header
        p[1] = 2                                    # one topic
        p = put_uvarint(p + 2, name_bytes + 1)
    else:
        store_i32(p, 1)
        store_i16(p + 4, <int16_t>name_bytes)
        p += 6
    head_bytes = p - head
    p = tail
    if flexible:
        p[0] = 2                                    # one partition
        p += 1
    else:
        store_i32(p, 1)
        p += 4
    store_i32(p, partition)
    store_i16(p + 4, 0)                             # error code
    store_i64(p + 6, base_offset)
    store_i64(p + 14, append_time_ms)
    p += 22
    if version >= FIRST_START_OFFSET_VERSION:
        store_i64(p, log_start_offset)
        p += 8
    if flexible:
        p[0] = 1                                    # no record errors
        p[1] = 0                                    # no message
        p[2] = p[3] = 0                             # tagged fields of partition and topic
        p += 4
    elif version >= FIRST_RECORD_ERRORS_VERSION:
        store_i32(p, 0)
        store_i16(p + 4, -1)
        p += 6
    store_i32(p, 0)                                 # throttle time
    p += 4
    if flexible:
        p[0] = 0
        p += 1
    tail_bytes = p - tail
    store_i32(head, <int32_t>(head_bytes + name_bytes + tail_bytes - 4))
    frame = PyBytes_FromStringAndSize(NULL, head_bytes + name_bytes + tail_bytes)
    first = <uint8_t*>PyBytes_AS_STRING(frame)
    memcpy(first, head, head_bytes)
    memcpy(first + head_bytes, name, name_bytes)
    memcpy(first + head_bytes + name_bytes, tail, tail_bytes)
    return frame


@cython.final
@cython.freelist(64)
cdef class SingleBatch:

    def __init__(self):
        raise TypeError("a SingleBatch comes from read_single_batch")

    def answer(
        self,
        int32_t correlation_id,
        int64_t base_offset,
        int64_t append_time_ms,
        int64_t log_start_offset,
    ):
        return produce_answer(
            self._version, correlation_id, <const uint8_t*>PyBytes_AS_STRING(self._name),
            len(self._name), self.partition, base_offset, append_time_ms, log_start_offset,
        )


def read_single_batch(buf, Py_ssize_t position, Py_ssize_t end, int version):
    cdef Py_buffer view
    cdef SingleProduce asked
    cdef const uint8_t* data
    cdef Py_ssize_t records_at
    cdef SingleBatch single
    PyObject_GetBuffer(buf, &view, PyBUF_SIMPLE)
    try:
        if position < 0 or end < position or end > view.len:
            raise ValueError(f"[{position}, {end}) is outside the buffer of {view.len} bytes")
        data = <const uint8_t*>view.buf
        if not read_produce(data + position, data + end, version, &asked):
            return None
        records_at = asked.records - data
        topic = text_or_none(asked.name, asked.name_bytes)
        if topic is None:
            return None
        single = SingleBatch.__new__(SingleBatch)
        single.acks = asked.acks
        single.timeout_ms = asked.timeout_ms
        single.topic = topic
        single.partition = asked.partition
        single.records = buf[records_at : records_at + asked.records_bytes]
        single._name = PyBytes_FromStringAndSize(<const char*>asked.name, asked.name_bytes)
        single._version = version
        return single
    finally:
        PyBuffer_Release(&view)
