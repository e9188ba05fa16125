from libc.stdint cimport int64_t

from trioq._native.wire_plan cimport StructPlan, Tables


cdef object read_message(
    StructPlan plan, Tables tables, str title, int64_t max_elements, buf, Py_ssize_t position,
    Py_ssize_t end
)
