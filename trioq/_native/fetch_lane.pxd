"""Fetches of one partition, for the other native modules; see fetch_lane.pyi."""

from libc.stdint cimport int32_t, int64_t, uint8_t

from trioq._native.partition_head cimport PartitionHead, PartitionTable
from trioq._native.response_ring cimport ResponseRing, RingEntry


cdef class FetchLane:
    cdef PartitionTable table
    cdef object ctx
    cdef object general
    cdef dict ticks                 # number of the tick -> {FetchEntry: None}

    # Take the request at [p, end), or return False with nothing done.
    cdef bint take(
        self, ResponseRing connection, const uint8_t* p, const uint8_t* end, int version,
        int32_t correlation_id, Py_ssize_t size_bytes,
    ) except -1


cdef class FetchEntry(RingEntry):
    cdef FetchLane lane
    cdef readonly PartitionHead partition
    cdef readonly bytes topic_bytes
    cdef readonly int32_t number
    cdef readonly int api_version
    cdef readonly int32_t correlation_id
    cdef readonly int32_t current_leader_epoch
    cdef readonly bint read_committed
    cdef readonly int64_t fetch_offset
    cdef readonly int64_t max_bytes
    cdef int64_t needed_bytes
    cdef object tick                # None while it does not wait
    cdef object region              # what `look` found

    # Look what there is: False when it cannot be answered plainly. `region` is then its own.
    cdef bint look(self) except -1
    # Would `look` wait for the disk?
    cdef bint is_cold(self) except -1
    # Take what `look` found as the answer.
    cdef int settle(self) except -1
    cdef int park(self, int32_t max_wait_ms) except -1
    cdef int leave(self) except -1
