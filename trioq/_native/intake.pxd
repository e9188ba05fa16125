"""The receiving half of a pass, for the other native modules; see intake.pyi."""

from libc.stdint cimport uint8_t

from trioq._native.request_lane cimport RequestLane
from trioq._native.response_ring cimport PassQueue, ResponseRing


cdef class ScratchState:
    cdef public bytearray buffer
    cdef public object view
    cdef public Py_ssize_t position


cdef class Intake:
    cdef public PassQueue _reactor
    cdef public ScratchState _scratch
    cdef public RequestLane _lane
    cdef Py_ssize_t receive_bytes
    cdef Py_ssize_t held_bytes
    cdef Py_ssize_t last_position
    cdef int max_frames
    cdef public list _going_on

    cdef bint keep_partial(
        self, ResponseRing connection, const uint8_t* data, Py_ssize_t start, Py_ssize_t end
    ) except -1
