# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
"""Asks an epoll descriptor what is ready; the contract is in ready.pyi."""

from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EINTR, errno
from libc.stdint cimport int64_t, uint32_t
from libc.string cimport strerror


cdef extern from "ready_impl.h" nogil:
    ctypedef struct trioq_ready_event:
        int fd
        uint32_t mask
    enum:
        TRIOQ_MOST_READY
    int trioq_ready(int epoll_fd, trioq_ready_event* events, int wait_us)


cdef extern from "monotonic_clock.h" nogil:
    int64_t trioq_now_ns()


cdef class ReadyOwners:

    cdef int _epoll_fd
    cdef readonly dict owners
    cdef readonly double lock_wait_s

    def __init__(self, int epoll_fd):
        self._epoll_fd = epoll_fd
        self.owners = {}

    @classmethod
    def __class_getitem__(cls, _owner):
        return cls

    def poll(self, double wait_s=0.0, bint keeps_lock=False):
        cdef trioq_ready_event[TRIOQ_MOST_READY] events
        cdef list found = []
        cdef int count, i, error
        cdef int wait_us = <int>(wait_s * 1e6)
        cdef int64_t waited_until_ns
        if wait_us > 0 and not keeps_lock:
            with nogil:
                count = trioq_ready(self._epoll_fd, events, wait_us)
                error = errno
                waited_until_ns = trioq_now_ns()
            self.lock_wait_s = (trioq_now_ns() - waited_until_ns) * 1e-9
        else:
            count = trioq_ready(self._epoll_fd, events, wait_us)
            error = errno
        if count < 0:
            if error != EINTR:
                raise OSError(error, strerror(error).decode("utf-8", "replace"))
            PyErr_CheckSignals()
            return found
        for i in range(count):
            found.append((self.owners[events[i].fd], events[i].mask))
        return found
