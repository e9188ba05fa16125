# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
"""Asks an epoll descriptor what is ready; the contract is in ready.pyi."""

from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EINTR, errno
from libc.stdint cimport uint32_t
from libc.string cimport strerror


cdef extern from "ready_impl.h" nogil:
    ctypedef struct trioq_ready_event:
        int fd
        uint32_t mask
    enum:
        TRIOQ_MOST_READY
    int trioq_ready(int epoll_fd, trioq_ready_event* events, int wait_us)


def ready(int epoll_fd, dict owners not None, int wait_us):
    cdef trioq_ready_event[TRIOQ_MOST_READY] events
    cdef list found = []
    cdef int count, i, error
    if wait_us > 0:
        with nogil:
            count = trioq_ready(epoll_fd, events, wait_us)
            error = errno
    else:
        count = trioq_ready(epoll_fd, events, 0)
        error = errno
    if count < 0:
        if error != EINTR:
            raise OSError(error, strerror(error).decode("utf-8", "replace"))
        PyErr_CheckSignals()
        return found
    for i in range(count):
        found.append((owners[events[i].fd], events[i].mask))
    return found
