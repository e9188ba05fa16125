# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
"""Answers kept encoded; the contract is in kept_answers.pyi."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.dict cimport PyDict_GetItem
from cpython.object cimport PyObject
from libc.stdint cimport int16_t, uint8_t
from libc.string cimport memcpy

from trioq._native.bigendian cimport store_i16


cdef enum:
    VERSION_BYTES = 2


cdef bytes _key(int version, const uint8_t* body, Py_ssize_t length):
    cdef bytes key = PyBytes_FromStringAndSize(NULL, VERSION_BYTES + length)
    cdef uint8_t* p = <uint8_t*>PyBytes_AS_STRING(key)
    store_i16(p, <int16_t>version)
    if length:  # a body of no bytes may have no address
        memcpy(p + VERSION_BYTES, body, length)
    return key


@cython.final
cdef class KeptAnswer:

    def __init__(self):
        raise TypeError("a KeptAnswer comes from KeptAnswers")


@cython.final
cdef class KeptAnswers:

    def __init__(self, Py_ssize_t max_bytes):
        self.max_bytes = max_bytes
        self.size_bytes = 0
        self.source = None
        self.by_listener = {}

    cdef KeptAnswer lookup(
        self, object source, str listener, int version, const uint8_t* body, Py_ssize_t length
    ):
        cdef PyObject* found
        if source is not self.source:
            return None
        found = PyDict_GetItem(self.by_listener, listener)
        if found == NULL:
            return None
        found = PyDict_GetItem(<dict>found, _key(version, body, length))
        return None if found == NULL else <KeptAnswer>found

    def find(self, source, str listener not None, int version, const uint8_t[::1] body not None):
        cdef Py_ssize_t length = body.shape[0]
        return self.lookup(source, listener, version, &body[0] if length else NULL, length)

    def keep(
        self,
        source,
        str listener not None,
        int version,
        const uint8_t[::1] body not None,
        bytes encoded not None,
        note=None,
    ):
        cdef Py_ssize_t length = body.shape[0]
        cdef Py_ssize_t size_bytes = length + len(encoded)
        cdef KeptAnswer kept
        if source is not self.source or self.size_bytes + size_bytes > self.max_bytes:
            self.source = source
            self.by_listener = {}
            self.size_bytes = 0
        if size_bytes > self.max_bytes:
            return
        kept = KeptAnswer.__new__(KeptAnswer)
        kept.encoded = encoded
        kept.note = note
        answers = self.by_listener.setdefault(listener, {})
        answers[_key(version, &body[0] if length else NULL, length)] = kept
        self.size_bytes += size_bytes
