"""Produce requests as nearly all are, for the other native modules; see produce_lane.pyi."""

from libc.stdint cimport int32_t, int64_t, uint8_t

from trioq._native.partition_head cimport PartitionHead, PartitionTable
from trioq._native.response_ring cimport ResponseRing


cdef class ProduceLane:
    cdef PartitionTable table
    cdef object refuse
    cdef object ctx
    cdef dict waited_for        # PartitionHead -> None

    # Refuse in time those who wait for acks=all of `partition`.
    cdef int watch(self, PartitionHead partition) except -1
    cdef int look_later(self, double now_s) except -1

    # Take the request whose body is view[position:end], or return False with nothing done.
    cdef bint take(
        self, ResponseRing connection, object view, const uint8_t* data, Py_ssize_t position,
        Py_ssize_t end, int version, int32_t correlation_id, Py_ssize_t size_bytes, int64_t now_ms,
    ) except -1
