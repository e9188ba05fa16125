"""Encoding the records of one batch, for the modules that build batches."""

from libc.stdint cimport int64_t


cdef enum:
    MAX_BATCH_BYTES = 0x7FFFFFFF


# The record number `index` at `position`, growing `out`; returns where it ends. When that is
# beyond `most` nothing is written, and the result is minus that position.
cdef Py_ssize_t write_record(
    bytearray out, Py_ssize_t position, Py_ssize_t most, Py_ssize_t index,
    int64_t timestamp_delta, object key, object value, object headers,
) except -1

# All `records`, from `position` on; returns where they end.
cdef Py_ssize_t encode(
    bytearray out, Py_ssize_t position, tuple records, int64_t base_timestamp,
    int64_t* max_timestamp,
) except -1
