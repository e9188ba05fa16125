# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
"""A connection's responses in order; the contract is in response_ring.pyi."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

from trioq._native.socket_io cimport send_some


OPEN = OPEN_C
ANSWERED = ANSWERED_C
DISCARDED = DISCARDED_C
CANCELLED = CANCELLED_C

cdef enum:
    JOINED_BYTES = 65536    # most bytes of answers that are sent by one call from here
    READABLE = 1
    SENT_ALL = 0            # trioq.net.egress.SendState.DONE

cdef uint8_t[JOINED_BYTES] _joined
"""Where answers are put together. Used within one call, with the interpreter lock held."""


cdef class PassQueue:

    def __cinit__(self, *_args, **_named):
        self._dirty = []
        self._ready = []

    def take_up(self, list events not None):
        cdef list left = []
        cdef ResponseRing connection
        cdef tuple event
        for event in events:
            connection = event[0]
            if event[1] != READABLE or connection.muted:
                left.append(event)
            elif not connection.is_ready:
                connection.is_ready = True
                self._ready.append(connection)
        return left

    def flush_small(self, list dirty not None):
        cdef list left = []
        cdef ResponseRing connection
        for connection in dirty:
            connection.is_dirty = False
            if connection.is_closed:
                continue
            if (
                connection.muted
                or connection.is_finishing
                or connection.interest != READABLE
                or not connection.flush_small(self.now_s)
            ):
                left.append(connection)
        return left


cdef class EgressQueue:
    pass


cdef class InboxState:
    pass


cdef class RingEntry:
    pass


@cython.final
cdef class ReadyAnswer(RingEntry):

    def __init__(self):
        raise TypeError("a ReadyAnswer comes from a lane")

    cdef int acknowledge(self) except -1:
        if self.state != OPEN_C:
            return 0
        self.length = PyBytes_GET_SIZE(self.frame)
        self.parts = self.frame
        self.state = ANSWERED_C
        self.refuse = self.partition = None
        (<ResponseRing>self.connection).finished(self)
        return 0

    def acknowledged(self, _index):
        self.acknowledge()

    def refused(self, _index, error):
        if self.state == OPEN_C:
            refuse, partition = self.refuse, self.partition
            self.refuse = self.partition = None
            refuse(self, partition, error)

    def complete_frame(self, bytes frame not None):
        self.frame = frame
        self.acknowledge()

    def cancel(self):
        if self.state == OPEN_C:
            self.state = CANCELLED_C
        self.parts = None
        self.refuse = self.partition = None


cdef class ResponseRing:

    def __cinit__(self, *_args, **_named):
        self.ring = []

    cdef int mark_dirty(self) except -1:
        cdef PassQueue reactor = self._reactor
        if not self.is_dirty:
            if reactor._in_pass:
                self.is_dirty = True
                reactor._dirty.append(self)
            else:
                reactor.flush_soon(self)
        return 0

    cdef int finished(self, RingEntry entry) except -1:
        if entry.parked_bytes:
            self.parked_count -= 1
            self.parked_bytes -= entry.parked_bytes
            entry.parked_bytes = 0
            if self.parked_count == 0:
                self.barrier_is_open = False
        return self.mark_dirty()

    def slot_finished(self, RingEntry entry not None):
        self.finished(entry)

    cdef int answer_now(self, object frame) except -1:
        cdef ReadyAnswer answer = ReadyAnswer.__new__(ReadyAnswer)
        answer.state = ANSWERED_C
        answer.parts = frame
        answer.length = PyBytes_GET_SIZE(frame)
        self.ring.append(answer)
        return self.mark_dirty()

    cdef int answer_later(self, ReadyAnswer answer, Py_ssize_t size_bytes) except -1:
        answer.connection = self
        answer.parked_bytes = size_bytes
        self.ring.append(answer)
        self.parked_count += 1
        self.parked_bytes += size_bytes
        return 0

    cdef bint flush_small(self, double now_s) except *:
        # True if everything that is finished was sent, or there is nothing; False for what needs
        # the general way.
        cdef list ring = self.ring
        cdef Py_ssize_t entries = len(ring)
        cdef Py_ssize_t count = 0
        cdef Py_ssize_t total = 0
        cdef ssize_t sent
        cdef RingEntry entry
        cdef object part
        if not self.is_plain or self.egress.queued_bytes or <int>self.send_state != SENT_ALL:
            return False
        while count < entries:
            entry = <RingEntry>ring[count]
            if entry.state == OPEN_C:
                break
            if entry.length:
                part = entry.parts
                if not PyBytes_CheckExact(part):
                    if len(part) != 1:
                        return False
                    part = part[0]
                    if not PyBytes_CheckExact(part):
                        return False
                if entry.length > JOINED_BYTES - total or PyBytes_GET_SIZE(part) != entry.length:
                    return False
                memcpy(_joined + total, PyBytes_AS_STRING(part), entry.length)
                total += entry.length
            count += 1
        if total == 0:
            del ring[:count]
            return True
        sent = send_some(self.fd, _joined, total)
        if sent < 0:
            return False                # it blocks, or an error: the general way meets it again
        del ring[:count]
        self.send_progress_s = self.last_activity_s = now_s
        self._reactor.sent_bytes += sent
        if sent == total:
            return True
        self._keep_rest(PyBytes_FromStringAndSize(<const char*>_joined + sent, total - sent))
        return False
