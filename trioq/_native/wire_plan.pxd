"""The plans of wire messages, for cimport: see hot_wire.pyx."""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t


cdef extern from "structmember.h":
    ctypedef struct PyMemberDef:
        pass
    int PyMember_SetOne(char* address, PyMemberDef* member, object value) except -1
    object PyMember_GetOne(const char* address, PyMemberDef* member)


cdef enum:
    MAX_DEPTH = 12  # of structs in structs

cdef enum Kind:
    BOOL
    INT8
    INT16
    INT32
    INT64
    UUID
    STRING  # from here on, values may be null
    BYTES
    RECORDS
    STRUCT
    ARRAY


cdef class FieldPlan:
    cdef readonly str name
    cdef Kind kind
    cdef Kind element
    cdef StructPlan struct
    cdef int64_t element_least_bytes
    cdef bint present, nullable, ignorable
    cdef readonly int tag  # -1: not tagged
    cdef object default
    cdef bint is_list_by_default
    cdef object descriptor
    cdef PyMemberDef* member  # of the descriptor


cdef class StructPlan:
    cdef object cls     # a type
    cdef bint flexible
    cdef tuple fields   # all, in wire order
    cdef tuple tagged   # those present, in the order of their tags
    cdef int height     # of the tree of structs below, itself included


cdef class Tables:
    cdef object uuid_from_bytes, records_length, splice, refusal


cdef str place_name(PyObject** fields, int depth, bint in_tags)
