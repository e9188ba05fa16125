# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
"""The receiving half of a pass for ordinary requests; the contract is in intake.pyi."""

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

from trioq._native.bigendian cimport load_i32
from trioq._native.request_lane cimport RequestLane
from trioq._native.response_ring cimport InboxState, PassQueue, ResponseRing
from trioq._native.socket_io cimport receive_some


cdef enum:
    CONNECTIONS_PER_CALL = 16       # the clock is read after each call
    LENGTH_BYTES = 4
    NO_FRAME = -1                   # trioq.server.connection.NO_FRAME


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
        Py_ssize_t held_bytes,
        Py_ssize_t last_position,
        int max_frames,
    ):
        self._reactor = reactor
        self._scratch = scratch
        self._lane = lane
        self.receive_bytes = receive_bytes
        self.held_bytes = held_bytes
        self.last_position = last_position
        self.max_frames = max_frames
        self._going_on = []

    def serve_small(self, list ready not None, Py_ssize_t index):
        cdef ScratchState scratch = self._scratch
        cdef PassQueue reactor = self._reactor
        cdef ResponseRing connection
        cdef InboxState inbox
        cdef Py_ssize_t start, body, end, rest, held
        cdef ssize_t received
        cdef uint8_t* data
        cdef int served = 0
        if index < 0:
            raise ValueError(f"{index} is no index")
        while index < len(ready) and served < CONNECTIONS_PER_CALL:
            connection = <ResponseRing?>ready[index]
            inbox = connection.inbox
            held = inbox.length
            if connection.muted or not connection.is_plain:
                break
            if held > self.held_bytes or inbox.frame_bytes > self.held_bytes:
                break
            start = scratch.position
            body = start + held
            data = <uint8_t*>PyByteArray_AS_STRING(scratch.buffer)
            if start > self.last_position:
                break
            if start < 0 or PyByteArray_GET_SIZE(scratch.buffer) - body < self.receive_bytes:
                raise ValueError("the scratch buffer is too small")
            received = receive_some(connection.fd, data + body, self.receive_bytes)
            if received <= 0 and received != -1:
                break                   # the end, or an error: the general way meets it again
            connection.is_ready = False
            index += 1
            served += 1
            if received == -1:
                continue
            end = scratch.position = body + received
            connection.last_activity_s = reactor.now_s
            reactor.received_bytes += received
            if held:
                if PyByteArray_GET_SIZE(inbox.buffer) < held:
                    raise ValueError("the inbox holds less than its length")
                memcpy(data + start, PyByteArray_AS_STRING(inbox.buffer), held)
                self._emptied(inbox)
            rest = self._lane.run(connection, scratch.view, data, start, end, self.max_frames)
            if rest != start:
                connection.frame_started_s = NO_FRAME
            if rest == end:
                continue
            if not self.keep_partial(connection, data, rest, end):
                self._dispatch_rest(connection, scratch.view, rest, end)
                break
            if received == self.receive_bytes and inbox.frame_bytes > self.held_bytes:
                connection.is_ready = True
                self._going_on.append(connection)
        return index

    cdef bint keep_partial(
        self, ResponseRing connection, const uint8_t* data, Py_ssize_t start, Py_ssize_t end
    ) except -1:
        # True if [start, end) is the beginning of one frame, which the inbox now holds.
        cdef Py_ssize_t length
        cdef Py_ssize_t frame_bytes = 0
        if end - start >= LENGTH_BYTES:
            length = load_i32(data + start)
            if length <= 0 or length > self._lane.max_frame_bytes:
                return False
            frame_bytes = LENGTH_BYTES + length
            if frame_bytes <= end - start:
                return False
        if connection.is_closing or connection.is_finishing:
            return False
        self._hold(connection.inbox, start, end, frame_bytes)
        if connection.frame_started_s == NO_FRAME:
            connection.frame_started_s = self._reactor.now_s
        return True
