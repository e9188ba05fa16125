"""Those who wait for an offset, for the other native modules; the contract is in ack_queue.pyi."""

from trioq._native.response_ring cimport ReadyAnswer


cdef class AckQueue:
    cdef list _waiting
    cdef Py_ssize_t _first      # of those that still wait

    cdef int add_answer(self, ReadyAnswer answer) except -1
