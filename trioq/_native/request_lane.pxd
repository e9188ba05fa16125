"""The way of ordinary requests, for the other native modules; see request_lane.pyi."""

from libc.stdint cimport int32_t, int64_t, uint8_t

from trioq._native.fetch_lane cimport FetchLane
from trioq._native.kept_answers cimport KeptAnswers
from trioq._native.partition_head cimport PartitionTable
from trioq._native.produce_lane cimport ProduceLane
from trioq._native.response_ring cimport ResponseRing


cdef class RequestLane:
    cdef object clock
    cdef Py_ssize_t max_frame_bytes
    cdef Py_ssize_t max_parked_requests
    cdef Py_ssize_t max_parked_bytes
    cdef public Py_ssize_t requests
    cdef ProduceLane produce
    cdef FetchLane fetch
    cdef PartitionTable offsets
    cdef KeptAnswers metadata
    cdef object image_source
    cdef KeptAnswers versions
    cdef object groups_of
    cdef int64_t now_ms

    # Take the whole frames from data[start:end] that are ordinary, at most `max_frames`; where the
    # rest starts. `data` is what `view` shows.
    cdef Py_ssize_t run(
        self, ResponseRing connection, object view, const uint8_t* data, Py_ssize_t start,
        Py_ssize_t end, int max_frames,
    ) except -1
    cdef bint take_one(
        self, ResponseRing connection, object view, const uint8_t* data, Py_ssize_t start,
        Py_ssize_t end,
    ) except -1
    cdef bint take_heartbeat(
        self, ResponseRing connection, const uint8_t* p, const uint8_t* end, int version,
        int32_t correlation_id,
    ) except -1
    cdef bint take_list_offsets(
        self, ResponseRing connection, const uint8_t* p, const uint8_t* end, int version,
        int32_t correlation_id,
    ) except -1
