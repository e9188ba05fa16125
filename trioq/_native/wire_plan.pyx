# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
"""Plans of wire messages; the contract is in wire_plan.pyi, the attributes are in wire_plan.pxd."""

cimport cython
from cpython.object cimport PyObject

from types import MemberDescriptorType


cdef extern from "Python.h":
    ctypedef struct PyMemberDescrObject:
        PyMemberDef* d_member


KINDS = {
    "bool": BOOL,
    "int8": INT8,
    "int16": INT16,
    "int32": INT32,
    "int64": INT64,
    "uuid": UUID,
    "string": STRING,
    "bytes": BYTES,
    "records": RECORDS,
    "struct": STRUCT,
    "array": ARRAY,
}


@cython.final
cdef class FieldPlan:
    """One field: its kind, and the slot it lives in."""

    def __init__(
        self,
        descriptor,
        *,
        str kind,
        str element,
        StructPlan struct,
        int64_t element_least_bytes,
        bint present,
        bint nullable,
        bint ignorable,
        int tag,
        default,
        bint is_list_by_default,
    ):
        if type(descriptor) is not MemberDescriptorType:
            raise TypeError(f"{descriptor!r} is not the descriptor of a slot")
        self.name = descriptor.__name__
        self.kind = KINDS[kind]
        self.element = KINDS[element or kind]
        if (self.kind == STRUCT or self.element == STRUCT) and struct is None:
            raise TypeError(f"{self.name} needs the plan of its struct")
        self.struct = struct
        self.element_least_bytes = max(element_least_bytes, 1)
        self.present = present
        self.nullable = nullable
        self.ignorable = ignorable
        self.tag = tag
        self.default = default
        self.is_list_by_default = is_list_by_default
        self.descriptor = descriptor
        self.member = (<PyMemberDescrObject*><PyObject*>descriptor).d_member


@cython.final
cdef class StructPlan:
    """One struct class in one version."""

    def __init__(self, cls, fields, *, bint flexible):
        cdef FieldPlan field
        if not isinstance(cls, type):
            raise TypeError(f"{cls!r} is not a class")
        self.cls = cls
        self.flexible = flexible
        self.fields = tuple(fields)
        self.height = 1
        for field in self.fields:
            if field.descriptor.__objclass__ is not cls:
                raise TypeError(f"{field.name} is no slot of {cls!r}")
            if field.struct is not None:
                self.height = max(self.height, field.struct.height + 1)
        if self.height > MAX_DEPTH:
            raise TypeError(f"{cls!r} is nested too deeply")
        self.tagged = tuple(
            sorted([f for f in self.fields if f.tag >= 0 and (<FieldPlan>f).present],
                   key=lambda f: f.tag)
        )


@cython.final
cdef class Tables:
    """What the plans need of higher floors."""

    def __init__(self, *, uuid_from_bytes, records_length, splice, refusal):
        self.uuid_from_bytes = uuid_from_bytes
        self.records_length = records_length
        self.splice = splice
        self.refusal = refusal


cdef str place_name(PyObject** fields, int depth, bint in_tags):
    cdef FieldPlan field
    cdef list names = []
    cdef int level
    for level in range(depth + 1):
        if fields[level] == NULL:
            break
        field = <FieldPlan>fields[level]
        names.append(f"{field.name}[]" if field.kind == ARRAY and level < depth else field.name)
    if in_tags:
        names.append("tagged fields")
    return ".".join(names) or "the body"
