from trioq._native.wire_plan cimport StructPlan, Tables


cdef int write_message(
    StructPlan plan, Tables tables, str title, message, bytearray out, parts
) except -1
