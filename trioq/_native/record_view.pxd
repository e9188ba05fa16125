"""Fetched batches and their records, for the module that reads responses."""

from libc.stdint cimport int32_t, int64_t, uint8_t

from trioq._native.batch_header cimport BatchHeader
from trioq._native.record_parse cimport RecordView


cdef class HeldBytes:
    # A buffer, held until nothing points into it.
    cdef Py_buffer view


cdef class Origin:
    # What the batches of one read have in common.
    cdef str topic
    cdef int32_t partition
    cdef object decompress
    cdef object key_deserializer
    cdef object value_deserializer


cdef class RecordBatchView:
    cdef Origin _origin
    cdef readonly BatchHeader header
    cdef HeldBytes _bytes       # what _data points into: all fetched bytes, or decompressed ones
    cdef const uint8_t* _data   # of the records; decompressed once _is_open
    cdef const uint8_t* _end
    cdef const uint8_t* _start  # of the first record to show, once _is_open
    cdef int32_t _first_delta
    cdef int32_t _count         # of records to show; -1: not known yet
    cdef bint _is_open
    cdef tuple _headers         # of the record decoded last: the next mostly has the same keys

    cpdef open(self)
    cdef object _decompressed(self, HeldBytes held, const uint8_t* data, Py_ssize_t size_bytes)
    cdef str _place(self)
    cdef int _next(self, const uint8_t** p, RecordView* record) except -1
    cdef int64_t _timestamp(self, int64_t delta)
    cdef tuple _decode_headers(self, RecordView* record)


# The records of the checked batch that lies in `held` at p, from first_delta on.
cdef RecordBatchView new_view(
    Origin origin, HeldBytes held, BatchHeader header, const uint8_t* p, int32_t first_delta
)
