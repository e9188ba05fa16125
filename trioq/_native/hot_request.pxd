"""The C side of hot_request.pyx; the contract is in hot_request.pyi."""

from libc.stdint cimport int16_t, int32_t


cdef class RequestHead:
    cdef public object api_key
    cdef public object api_version
    cdef public object correlation_id
    cdef public object client_id
    cdef public object body
    cdef public Py_ssize_t position
    cdef public Py_ssize_t end


cdef class SingleBatch:
    cdef readonly int16_t acks
    cdef readonly int32_t timeout_ms
    cdef readonly str topic
    cdef readonly int32_t partition
    cdef readonly object records
    cdef bytes _name
    cdef int _version
