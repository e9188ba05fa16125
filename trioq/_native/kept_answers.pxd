"""Answers kept encoded, for the other native modules; the contract is in kept_answers.pyi."""

from libc.stdint cimport uint8_t


cdef class KeptAnswer:
    cdef readonly bytes encoded
    cdef readonly object note


cdef class KeptAnswers:
    cdef Py_ssize_t max_bytes
    cdef Py_ssize_t size_bytes
    cdef object source
    cdef dict by_listener           # name -> {version and request's body: KeptAnswer}

    cdef KeptAnswer lookup(
        self, object source, str listener, int version, const uint8_t* body, Py_ssize_t length
    )
