"""The open batch of a producer, for the modules that append to it."""

from libc.stdint cimport int32_t, int64_t


cdef class BatchBuilder:
    cdef bytearray _out  # None once closed
    cdef readonly Py_ssize_t size_bytes
    cdef readonly Py_ssize_t batch_bytes
    cdef readonly Py_ssize_t max_bytes
    cdef readonly int32_t record_count
    cdef readonly int64_t base_timestamp
    cdef readonly int64_t max_timestamp

    # The index of the record, or -1 where it does not fit.
    cdef int32_t _append(
        self, object key, object value, object headers, int64_t timestamp_ms
    ) except -2
