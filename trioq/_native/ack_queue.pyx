# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
"""Produce requests that wait for an offset to be passed; the contract is in ack_queue.pyi."""

cimport cython
from libc.stdint cimport int64_t

from trioq._native.response_ring cimport ReadyAnswer


cdef enum:
    SLACK = 256     # places of those who were told that are kept before the list is shortened


@cython.final
cdef class AckQueue:
    # Who waits is an answer of the produce lane, which knows its offset, or a tuple.

    def __cinit__(self):
        self._waiting = []
        self._first = 0

    def __len__(self):
        return len(self._waiting) - self._first

    def add(self, int64_t end_offset, waiter not None, index):
        self._waiting.append((end_offset, waiter, index))

    cdef int add_answer(self, ReadyAnswer answer) except -1:
        self._waiting.append(answer)
        return 0

    def pass_offset(self, int64_t end_offset):
        cdef list waiting = self._waiting
        cdef object one
        cdef ReadyAnswer answer
        while self._first < len(waiting):
            one = waiting[self._first]
            if type(one) is ReadyAnswer:
                answer = <ReadyAnswer>one
                if answer.end_offset > end_offset:
                    break
                waiting[self._first] = None
                self._first += 1
                answer.acknowledge()
            else:
                if <int64_t>(<tuple>one)[0] > end_offset:
                    break
                waiting[self._first] = None
                self._first += 1
                (<tuple>one)[1].acknowledged((<tuple>one)[2])
        if self._first == len(waiting):
            waiting.clear()
            self._first = 0
        elif self._first > SLACK:
            del waiting[:self._first]
            self._first = 0

    def expire(self, double now_s, error not None):
        cdef list late = []
        cdef object one
        for one in self._waiting[self._first:]:
            if type(one) is ReadyAnswer and 0 < (<ReadyAnswer>one).due_s <= now_s:
                (<ReadyAnswer>one).due_s = 0
                late.append(one)
        for one in late:
            one.refused(0, error)       # its place stays until its offset is passed
        return self._first < len(self._waiting)

    def refuse_all(self, error not None):
        cdef list waiting = self._waiting[self._first:]
        self._waiting = []
        self._first = 0
        for one in waiting:
            if type(one) is ReadyAnswer:
                one.refused(0, error)
            else:
                one[1].refused(one[2], error)
