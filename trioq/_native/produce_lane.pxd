"""Produce requests as nearly all are, for the other native modules; see produce_lane.pyi."""

from libc.stdint cimport int32_t, int64_t, uint8_t

from trioq._native.partition_head cimport PartitionTable
from trioq._native.response_ring cimport ResponseRing


cdef class ProduceLane:
    cdef PartitionTable table
    cdef object refuse

    # Take the request whose body is view[position:end], or return False with nothing done.
    cdef bint take(
        self, ResponseRing connection, object view, const uint8_t* data, Py_ssize_t position,
        Py_ssize_t end, int version, int32_t correlation_id, Py_ssize_t size_bytes, int64_t now_ms,
    ) except -1
