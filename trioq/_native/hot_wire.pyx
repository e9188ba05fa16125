# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
"""Decodes and encodes wire messages by plans; the contract is in hot_wire.pyi.

A plan is a message's declaration resolved for one version: which fields there are, in wire
order, and in which slot of the Python object each lives.
"""

cimport cython
from libc.stdint cimport int64_t

from trioq._native.wire_decode cimport read_message
from trioq._native.wire_encode cimport write_message
from trioq._native.wire_plan cimport StructPlan, Tables


@cython.final
cdef class MessagePlan:

    cdef StructPlan body
    cdef Tables tables
    cdef str title
    cdef int64_t max_elements

    def __init__(
        self,
        StructPlan body not None,
        str name,
        int version,
        Tables tables not None,
        *,
        int64_t max_elements,
    ):
        self.body = body
        self.tables = tables
        self.title = f"{name} v{version}"
        self.max_elements = max_elements

    def decode(self, buf, Py_ssize_t position, Py_ssize_t end):
        return read_message(
            self.body, self.tables, self.title, self.max_elements, buf, position, end
        )

    def encode(self, message, bytearray out not None, parts):
        write_message(self.body, self.tables, self.title, message, out, parts)
