# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
"""A batch that is filled record by record; the contract is in batch_builder.pyi."""

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE, PyByteArray_Resize
from cpython.object cimport PyObject
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint64_t

from trioq._native.batch_header cimport CODEC_MASK, HEADER_BYTES_C, store_header
from trioq._native.record_encode cimport MAX_BATCH_BYTES, write_record

from trioq.errors import MessageTooLarge


cdef extern from "Python.h":
    object PySequence_Fast(object sequence, const char* message)
    Py_ssize_t PySequence_Fast_GET_SIZE(object sequence)
    PyObject* PySequence_Fast_GET_ITEM(object sequence, Py_ssize_t index)


cdef Py_ssize_t FIRST_BYTES = 1024  # a builder's buffer starts with this much and doubles


cdef class BatchBuilder:
    def __cinit__(
        self, Py_ssize_t batch_bytes, Py_ssize_t max_bytes=MAX_BATCH_BYTES, bytearray buffer=None
    ):
        if max_bytes < HEADER_BYTES_C or max_bytes > MAX_BATCH_BYTES:
            raise ValueError(f"a batch cannot have {max_bytes} bytes at most")
        self.max_bytes = max_bytes
        self.batch_bytes = min(max(batch_bytes, HEADER_BYTES_C), max_bytes)
        if buffer is not None and PyByteArray_GET_SIZE(buffer) >= HEADER_BYTES_C:
            self._out = buffer
        else:
            self._out = bytearray(max(HEADER_BYTES_C, min(self.batch_bytes, FIRST_BYTES)))
        self.size_bytes = HEADER_BYTES_C
        self.base_timestamp = -1
        self.max_timestamp = -1

    cdef int32_t _append(
        self, object key, object value, object headers, int64_t timestamp_ms
    ) except -2:
        cdef bytearray out = self._out
        cdef int32_t index = self.record_count
        cdef int64_t base = self.base_timestamp if index else timestamp_ms
        cdef Py_ssize_t end
        if out is None:
            raise ValueError("the batch is closed")
        if index == 0x7FFFFFFF:
            return -1
        end = write_record(
            out, self.size_bytes, self.batch_bytes if index else self.max_bytes, index,
            <int64_t>(<uint64_t>timestamp_ms - <uint64_t>base), key, value, headers,
        )
        if end < 0:
            if index:
                return -1
            raise MessageTooLarge(
                f"a record that takes a batch of {-end} bytes: at most {self.max_bytes} are allowed"
            )
        if index == 0 or timestamp_ms > self.max_timestamp:
            self.max_timestamp = timestamp_ms
        self.base_timestamp = base
        self.size_bytes = end
        self.record_count = index + 1
        return index

    def allow(self, Py_ssize_t batch_bytes):
        self.batch_bytes = min(max(batch_bytes, HEADER_BYTES_C), self.max_bytes)

    def append(self, key, value, headers, int64_t timestamp_ms, /):
        return self._append(key, value, headers, timestamp_ms)

    def append_many(self, values, int64_t timestamp_ms, *, keys=None, Py_ssize_t start=0):
        cdef object value_items = PySequence_Fast(values, b"values are a sequence")
        cdef object key_items = None
        cdef object key = None
        cdef Py_ssize_t index = start
        if start < 0:
            raise ValueError(f"there is no value {start}")
        if keys is not None:
            key_items = PySequence_Fast(keys, b"keys are a sequence")
            if PySequence_Fast_GET_SIZE(key_items) != PySequence_Fast_GET_SIZE(value_items):
                raise ValueError("there must be as many keys as values")
        # Lists may be changed by code that runs while an odd buffer is read: looked at every time.
        while index < PySequence_Fast_GET_SIZE(value_items):
            if key_items is not None:
                if index >= PySequence_Fast_GET_SIZE(key_items):
                    break
                key = <object>PySequence_Fast_GET_ITEM(key_items, index)
            value = <object>PySequence_Fast_GET_ITEM(value_items, index)
            if self._append(key, value, (), timestamp_ms) < 0:
                break
            index += 1
        return index - start if index > start else 0

    def finish(
        self, *, int16_t attributes=0, int64_t producer_id=-1, int16_t producer_epoch=-1,
        int32_t base_sequence=-1, compress=None,
    ):
        cdef bytearray out = self._out
        if out is None:
            raise ValueError("the batch is closed")
        if self.record_count == 0:
            raise ValueError("a batch has one record at least")
        if (compress is None) != ((attributes & CODEC_MASK) == 0):
            raise ValueError("the codec bits of the attributes and a compress function go together")
        if compress is None:
            PyByteArray_Resize(out, self.size_bytes)
        else:
            with memoryview(out) as whole, whole[HEADER_BYTES_C : self.size_bytes] as payload:
                compressed = compress(payload)
            out = bytearray(HEADER_BYTES_C)
            out += compressed
            if PyByteArray_GET_SIZE(out) > MAX_BATCH_BYTES:
                raise MessageTooLarge("a batch holds at most 2 GiB")
        store_header(
            <uint8_t*>PyByteArray_AS_STRING(out), PyByteArray_GET_SIZE(out), 0, -1, attributes,
            self.base_timestamp, self.max_timestamp, producer_id, producer_epoch, base_sequence,
            self.record_count,
        )
        self._out = None
        return out

    @property
    def is_closed(self):
        return self._out is None

    def __len__(self):
        return self.record_count
