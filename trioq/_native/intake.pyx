# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
"""The receiving half of a pass for ordinary requests; the contract is in intake.pyi."""

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from libc.stdint cimport uint8_t

from trioq._native.request_lane cimport RequestLane
from trioq._native.response_ring cimport PassQueue, ResponseRing
from trioq._native.socket_io cimport receive_some


cdef enum:
    CONNECTIONS_PER_CALL = 16       # the clock is read after each call


cdef class ScratchState:
    pass


cdef class Intake:

    def __init__(
        self,
        PassQueue reactor not None,
        ScratchState scratch not None,
        RequestLane lane not None,
        *,
        Py_ssize_t receive_bytes,
        Py_ssize_t last_position,
        int max_frames,
    ):
        self._reactor = reactor
        self._scratch = scratch
        self._lane = lane
        self.receive_bytes = receive_bytes
        self.last_position = last_position
        self.max_frames = max_frames

    def serve_small(self, list ready not None, Py_ssize_t index):
        cdef ScratchState scratch = self._scratch
        cdef PassQueue reactor = self._reactor
        cdef ResponseRing connection
        cdef Py_ssize_t start, end, rest
        cdef ssize_t received
        cdef uint8_t* data
        cdef int served = 0
        if index < 0:
            raise ValueError(f"{index} is no index")
        while index < len(ready) and served < CONNECTIONS_PER_CALL:
            connection = <ResponseRing?>ready[index]
            if connection.muted or connection.inbox.length or not connection.is_plain:
                break
            start = scratch.position
            data = <uint8_t*>PyByteArray_AS_STRING(scratch.buffer)
            if start > self.last_position:
                break
            if start < 0 or PyByteArray_GET_SIZE(scratch.buffer) - start < self.receive_bytes:
                raise ValueError("the scratch buffer is too small")
            received = receive_some(connection.fd, data + start, self.receive_bytes)
            if received == -1:
                connection.is_ready = False
                index += 1
                served += 1
                continue
            if received <= 0:
                break                   # the end, or an error: the general way meets it again
            connection.is_ready = False
            index += 1
            served += 1
            end = scratch.position = start + received
            connection.last_activity_s = reactor.now_s
            reactor.received_bytes += received
            rest = self._lane.run(connection, scratch.view, data, start, end, self.max_frames)
            if rest != end:
                self._dispatch_rest(connection, scratch.view, rest, end)
                break
        return index
