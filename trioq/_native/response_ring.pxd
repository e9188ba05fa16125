"""A connection's responses in order, for the other native modules; see response_ring.pyi."""

from libc.stdint cimport int32_t, int64_t


cdef enum:
    OPEN_C = 0
    ANSWERED_C = 1
    DISCARDED_C = 2
    CANCELLED_C = 3


cdef class PassQueue:
    cdef public bint _in_pass
    cdef public list _dirty
    cdef public list _ready
    cdef public double now_s
    cdef public Py_ssize_t sent_bytes
    cdef public Py_ssize_t received_bytes


cdef class EgressQueue:
    cdef public Py_ssize_t queued_bytes


cdef class InboxState:
    cdef public bytearray buffer
    cdef public Py_ssize_t length
    cdef public Py_ssize_t frame_bytes


cdef class RingEntry:
    cdef public object connection
    cdef public int state
    cdef public Py_ssize_t parked_bytes
    cdef public object parts
    cdef public Py_ssize_t length
    cdef public object on_cancel
    cdef public object on_drain


cdef class ReadyAnswer(RingEntry):
    cdef readonly int api_version
    cdef readonly int32_t correlation_id
    cdef int64_t end_offset
    cdef double due_s               # when the wait is too long; 0 for never
    cdef object frame
    cdef object refuse
    cdef object partition

    cdef int acknowledge(self) except -1


cdef class ResponseRing:
    cdef public PassQueue _reactor
    cdef public EgressQueue egress
    cdef public InboxState inbox
    cdef public list ring
    cdef public int fd
    cdef public bint is_plain
    cdef public bint barrier_is_open
    cdef public bint needs_idle
    cdef public bint is_dirty
    cdef public bint is_ready
    cdef public bint is_closing
    cdef public bint is_finishing
    cdef public bint is_closed
    cdef public int muted
    cdef public int interest
    cdef public object send_state
    cdef public str listener_name
    cdef public object client_software
    cdef public Py_ssize_t parked_count
    cdef public Py_ssize_t parked_bytes
    cdef public Py_ssize_t alone_count
    cdef public double last_activity_s
    cdef public double frame_started_s
    cdef public double send_progress_s

    cdef int mark_dirty(self) except -1
    cdef int finished(self, RingEntry entry) except -1
    # Put an answer that is complete at the end of the ring.
    cdef int answer_now(self, object frame) except -1
    # Put an answer there that waits for `acknowledge`; it counts as parked with `size_bytes`.
    cdef int answer_later(self, ReadyAnswer answer, Py_ssize_t size_bytes) except -1
    cdef bint flush_small(self, double now_s) except *
