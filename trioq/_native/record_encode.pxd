"""Encoding the records of one batch, for the batch module."""

from libc.stdint cimport int64_t


cdef Py_ssize_t encode(
    bytearray out, Py_ssize_t position, tuple records, int64_t base_timestamp,
    int64_t* max_timestamp,
) except -1
