# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
"""Decodes and encodes wire messages by plans; the contract is in hot_wire.pyi.

A plan is a message's declaration resolved for one version: which fields there are, in wire
order, and in which slot of the Python object each lives. Reading compares every length with the
bytes left once, explicitly, before it touches or allocates anything.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE, PyByteArray_Resize
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.long cimport PyLong_AsLongLong
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport Py_NE, PyObject, PyObject_IsTrue, PyObject_RichCompareBool, PyTypeObject
from cpython.ref cimport Py_TYPE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DecodeUTF8
from libc.stdint cimport int8_t, int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

from trioq._native.bigendian cimport (
    load_i16,
    load_i32,
    load_i64,
    store_i16,
    store_i32,
    store_i64,
)

from types import MemberDescriptorType

from trioq.errors import ProtocolViolation


cdef extern from "structmember.h":
    ctypedef struct PyMemberDef:
        pass
    int PyMember_SetOne(char* address, PyMemberDef* member, object value) except -1
    object PyMember_GetOne(const char* address, PyMemberDef* member)


cdef extern from "Python.h":
    ctypedef struct PyMemberDescrObject:
        PyMemberDef* d_member


cdef extern from *:
    """
    static inline PyObject *trioq_new_instance(PyObject *cls) {
        return ((PyTypeObject *)cls)->tp_alloc((PyTypeObject *)cls, 0);
    }
    """
    object trioq_new_instance(PyObject* cls)


cdef enum Kind:
    BOOL
    INT8
    INT16
    INT32
    INT64
    UUID
    STRING
    BYTES
    RECORDS
    STRUCT
    ARRAY

cdef enum:
    MAX_DEPTH = 12
    MAX_STRING_BYTES = 0x7FFF
    INLINE_BYTES = 512

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
    cdef PyMemberDef* member

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

    cdef object cls     # a type
    cdef bint flexible
    cdef tuple fields   # all, in wire order
    cdef tuple tagged   # those present, in the order of their tags
    cdef int height     # of the tree of structs below, itself included

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

    cdef object uuid_from_bytes, records_length, splice, refusal

    def __init__(self, *, uuid_from_bytes, records_length, splice, refusal):
        self.uuid_from_bytes = uuid_from_bytes
        self.records_length = records_length
        self.splice = splice
        self.refusal = refusal


@cython.final
@cython.freelist(8)
cdef class Output:
    """Where one encoding goes: `out`, and `parts` or None."""

    cdef bytearray out
    cdef object parts
    cdef Tables tables


class _Malformed(ValueError):
    pass


cdef str _place(PyObject** fields, int depth, bint in_tags):
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


# Decoding ---------------------------------------------------------------------------------


cdef struct Reader:
    const uint8_t* start  # of the buffer, not of the body
    const uint8_t* p
    const uint8_t* end
    PyObject* fields[MAX_DEPTH]  # being read, from the outside in; borrowed
    int depth
    bint in_tags


cdef int _need(Reader* r, int64_t size) except -1:
    if size > r.end - r.p:
        raise _Malformed("cut off")
    return 0


cdef int _claim(Reader* r, int64_t length) except -1:
    if length > r.end - r.p:
        raise _Malformed(f"length {length}, but {r.end - r.p} bytes left")
    return 0


cdef int64_t _read_uvarint(Reader* r) except -1:
    cdef uint64_t value = 0
    cdef uint8_t byte
    cdef int shift = 0
    while shift < 35:
        if r.p >= r.end:
            raise _Malformed("cut off")
        byte = r.p[0]
        r.p += 1
        value |= <uint64_t>(byte & 0x7F) << shift
        if byte < 0x80:
            if value > 0xFFFFFFFF:
                break
            return <int64_t>value
        shift += 7
    raise _Malformed("varint of more than 32 bits")


cdef int64_t _read_length(Reader* r, bint flexible, int prefix_bytes) except -2:
    """A length or count; -1 for any that means null."""
    cdef int64_t length
    if flexible:
        return _read_uvarint(r) - 1
    _need(r, prefix_bytes)
    length = load_i16(r.p) if prefix_bytes == 2 else load_i32(r.p)
    r.p += prefix_bytes
    return length if length >= 0 else -1


cdef object _read_item(
    Reader* r, Kind kind, FieldPlan field, bint flexible, bint nullable, Tables tables, buf
):
    cdef int64_t length
    cdef const uint8_t* at
    if kind == INT32:
        _need(r, 4)
        r.p += 4
        return load_i32(r.p - 4)
    elif kind == INT64:
        _need(r, 8)
        r.p += 8
        return load_i64(r.p - 8)
    elif kind == INT16:
        _need(r, 2)
        r.p += 2
        return load_i16(r.p - 2)
    elif kind == INT8:
        _need(r, 1)
        r.p += 1
        return <int8_t>((r.p - 1)[0])
    elif kind == BOOL:
        _need(r, 1)
        r.p += 1
        return (r.p - 1)[0] != 0
    elif kind == UUID:
        _need(r, 16)
        r.p += 16
        return tables.uuid_from_bytes(PyBytes_FromStringAndSize(<char*>r.p - 16, 16))
    elif kind == STRUCT:
        if nullable:
            _need(r, 1)
            r.p += 1
            if <int8_t>((r.p - 1)[0]) < 0:
                return None
        return _read_struct(r, field.struct, tables, buf)
    length = _read_length(r, flexible, 2 if kind == STRING else 4)
    if length < 0:
        if nullable:
            return None
        raise _Malformed("must not be null")
    _claim(r, length)
    at = r.p
    r.p += length
    if kind == STRING:
        return PyUnicode_DecodeUTF8(<const char*>at, length, NULL)
    if kind == BYTES:
        return PyBytes_FromStringAndSize(<const char*>at, length)
    return buf[at - r.start : at - r.start + length]


cdef object _read_array(Reader* r, FieldPlan field, bint flexible, Tables tables, buf):
    cdef int64_t count = _read_length(r, flexible, 4)
    cdef int64_t i
    cdef list items
    if count < 0:
        if field.nullable:
            return None
        raise _Malformed("must not be null")
    if count * field.element_least_bytes > r.end - r.p:
        raise _Malformed(f"{count} elements, but {r.end - r.p} bytes left")
    items = []
    for i in range(count):
        items.append(_read_item(r, field.element, field, flexible, False, tables, buf))
    return items


cdef object _read_field(Reader* r, FieldPlan field, bint flexible, Tables tables, buf):
    r.fields[r.depth] = <PyObject*>field
    if field.kind == ARRAY:
        return _read_array(r, field, flexible, tables, buf)
    return _read_item(r, field.kind, field, flexible, field.nullable, tables, buf)


cdef object _read_struct(Reader* r, StructPlan plan, Tables tables, buf):
    cdef object made = trioq_new_instance(<PyObject*>plan.cls)
    cdef char* address = <char*><PyObject*>made
    cdef FieldPlan field
    r.depth += 1
    for field in plan.fields:
        if field.present and field.tag < 0:
            value = _read_field(r, field, plan.flexible, tables, buf)
        else:
            value = [] if field.is_list_by_default else field.default
        PyMember_SetOne(address, field.member, value)
    if plan.flexible:
        _read_tags(r, plan, address, tables, buf)
    r.depth -= 1
    return made


cdef int _read_tags(Reader* r, StructPlan plan, char* address, Tables tables, buf) except -1:
    cdef int64_t count, i, tag, length
    cdef const uint8_t* edge
    cdef FieldPlan field, known
    r.fields[r.depth] = NULL
    r.in_tags = True
    count = _read_uvarint(r)
    if count * 2 > r.end - r.p:
        raise _Malformed(f"{count} of them, but {r.end - r.p} bytes left")
    for i in range(count):
        tag = _read_uvarint(r)
        length = _read_uvarint(r)
        _claim(r, length)
        edge = r.p + length
        known = None
        for field in plan.tagged:
            if field.tag == tag:
                known = field
                break
        if known is not None:
            r.in_tags = False
            value = _read_field(r, known, plan.flexible, tables, buf)
            if r.p != edge:
                raise _Malformed("length of the tag is wrong")
            PyMember_SetOne(address, known.member, value)
            r.fields[r.depth] = NULL
            r.in_tags = True
        r.p = edge
    r.in_tags = False
    return 0


# Encoding ---------------------------------------------------------------------------------


cdef struct Writer:
    uint8_t* data
    Py_ssize_t length
    Py_ssize_t capacity
    uint8_t inline_data[INLINE_BYTES]


cdef struct Place:
    PyObject* fields[MAX_DEPTH]  # being written, from the outside in; borrowed
    int depth


cdef void _open(Writer* w) noexcept:
    w.data = w.inline_data
    w.length = 0
    w.capacity = INLINE_BYTES


cdef void _close(Writer* w) noexcept:
    if w.data != w.inline_data:
        PyMem_Free(w.data)
        w.data = w.inline_data


cdef uint8_t* _extend(Writer* w, Py_ssize_t size) except NULL:
    """Room for `size` more bytes, counted as written."""
    cdef Py_ssize_t needed = w.length + size
    cdef Py_ssize_t capacity
    cdef uint8_t* grown
    if needed > w.capacity:
        capacity = max(needed, 2 * w.capacity)
        grown = <uint8_t*>PyMem_Malloc(capacity)
        if grown == NULL:
            raise MemoryError
        memcpy(grown, w.data, w.length)
        _close(w)
        w.data = grown
        w.capacity = capacity
    w.length = needed
    return w.data + needed - size


cdef int _write(Writer* w, const void* data, Py_ssize_t size) except -1:
    memcpy(_extend(w, size), data, size)
    return 0


cdef int _write_uvarint(Writer* w, uint64_t value) except -1:
    while value > 0x7F:
        _extend(w, 1)[0] = <uint8_t>(value | 0x80)
        value >>= 7
    _extend(w, 1)[0] = <uint8_t>value
    return 0


cdef int _write_length(Writer* w, int64_t length, bint flexible, int prefix_bytes) except -1:
    """A length or count; -1 means null."""
    if flexible:
        return _write_uvarint(w, <uint64_t>(length + 1))
    if prefix_bytes == 2:
        store_i16(_extend(w, 2), length)
    else:
        if length > 0x7FFFFFFF:
            raise OverflowError(f"length {length} does not fit int32")
        store_i32(_extend(w, 4), length)
    return 0


cdef int64_t _integer(value, int bits) except? -1:
    cdef int64_t number
    if type(value) is not int:
        value = value.__index__()
    number = PyLong_AsLongLong(value)
    if bits < 64 and not -(<int64_t>1 << (bits - 1)) <= number < <int64_t>1 << (bits - 1):
        raise OverflowError(f"{number} does not fit int{bits}")
    return number


cdef int _write_bytes(Writer* w, value, bint flexible) except -1:
    cdef Py_buffer view
    PyObject_GetBuffer(value, &view, PyBUF_SIMPLE)
    try:
        _write_length(w, view.len, flexible, 4)
        _write(w, view.buf, view.len)
    finally:
        PyBuffer_Release(&view)
    return 0


cdef int _write_string(Writer* w, value, bint flexible) except -1:
    cdef Py_ssize_t length
    cdef const char* text
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a string")
    text = PyUnicode_AsUTF8AndSize(value, &length)
    if length > MAX_STRING_BYTES:
        raise OverflowError(f"a string of {length} bytes is too long")
    _write_length(w, length, flexible, 2)
    return _write(w, text, length)


cdef int _drain(Writer* w, bytearray out) except -1:
    """Move what was written to the end of `out`."""
    cdef Py_ssize_t length = PyByteArray_GET_SIZE(out)
    if w.length:
        PyByteArray_Resize(out, length + w.length)
        memcpy(PyByteArray_AS_STRING(out) + length, w.data, w.length)
        w.length = 0
    return 0


cdef int _write_item(
    Writer* w, Place* place, Kind kind, FieldPlan field, bint flexible, value, Output output
) except -1:
    """Write one value that is not null."""
    if kind == INT32:
        store_i32(_extend(w, 4), _integer(value, 32))
    elif kind == INT64:
        store_i64(_extend(w, 8), _integer(value, 64))
    elif kind == INT16:
        store_i16(_extend(w, 2), _integer(value, 16))
    elif kind == INT8:
        _extend(w, 1)[0] = <uint8_t>_integer(value, 8)
    elif kind == BOOL:
        _extend(w, 1)[0] = PyObject_IsTrue(value)
    elif kind == UUID:
        data = value.bytes
        if type(data) is not bytes or len(data) != 16:
            raise TypeError(f"{value!r} is not a UUID")
        _write(w, <const char*><bytes>data, 16)
    elif kind == STRING:
        _write_string(w, value, flexible)
    elif kind == STRUCT:
        _write_struct(w, place, field.struct, value, output)
    elif kind == BYTES:
        _write_bytes(w, value, flexible)
    else:
        _write_length(w, output.tables.records_length(value), flexible, 4)
        _drain(w, output.out)
        output.tables.splice(output.out, output.parts, value)
    return 0


cdef int _write_field(
    Writer* w, Place* place, FieldPlan field, bint flexible, value, Output output
) except -1:
    if field.kind == STRUCT:
        if field.nullable:
            _extend(w, 1)[0] = 0xFF if value is None else 1
        if value is not None:
            return _write_item(w, place, STRUCT, field, flexible, value, output)
        if field.nullable:
            return 0
    elif value is None and field.kind >= STRING:
        if field.nullable:
            return _write_length(w, -1, flexible, 2 if field.kind == STRING else 4)
    elif field.kind != ARRAY:
        return _write_item(w, place, field.kind, field, flexible, value, output)
    else:
        items = value if type(value) is list else list(value)
        _write_length(w, len(<list>items), flexible, 4)
        for item in <list>items:
            _write_item(w, place, field.element, field, flexible, item, output)
        return 0
    raise TypeError("must not be null")


cdef bint _differs(FieldPlan field, value) except -1:
    """Whether `value` is not the field's default."""
    cdef FieldPlan leaf
    if field.is_list_by_default:
        return value is None or len(value) > 0
    if value is field.default:
        return False
    if field.default is not None or field.kind != STRUCT or field.nullable:
        return PyObject_RichCompareBool(value, field.default, Py_NE)
    _check_type(field.struct, value)
    for leaf in field.struct.fields:
        inner = PyMember_GetOne(<char*><PyObject*>value, leaf.member)
        if PyObject_RichCompareBool(inner, leaf.default, Py_NE):
            return True
    return False


cdef int _check_type(StructPlan plan, value) except -1:
    # Slots are read by their address: only in objects that surely have them.
    if Py_TYPE(value) != <PyTypeObject*>plan.cls:
        raise TypeError(f"{value!r} is not a {plan.cls.__name__}")
    return 0


cdef int _write_struct(
    Writer* w, Place* place, StructPlan plan, struct, Output output
) except -1:
    cdef FieldPlan field
    cdef const char* address = <const char*><PyObject*>struct
    _check_type(plan, struct)
    place.depth += 1
    for field in plan.fields:
        place.fields[place.depth] = <PyObject*>field
        if not field.present:
            if not field.ignorable:
                value = PyMember_GetOne(address, field.member)
                if _differs(field, value):
                    raise TypeError(f"this version has no such field: {value!r}")
        elif field.tag < 0:
            value = PyMember_GetOne(address, field.member)
            _write_field(w, place, field, plan.flexible, value, output)
    if plan.flexible:
        if plan.tagged:
            _write_tags(w, place, plan, struct, output)
        else:
            _extend(w, 1)[0] = 0
    place.depth -= 1
    return 0


cdef int _write_tags(
    Writer* w, Place* place, StructPlan plan, struct, Output output
) except -1:
    cdef Writer content
    cdef FieldPlan field
    cdef list present = []
    for field in plan.tagged:
        place.fields[place.depth] = <PyObject*>field
        value = PyMember_GetOne(<const char*><PyObject*>struct, field.member)
        if _differs(field, value):
            present.append((field, value))
    _write_uvarint(w, len(present))
    for known, value in present:
        field = <FieldPlan>known
        place.fields[place.depth] = <PyObject*>field
        _open(&content)
        try:
            _write_field(&content, place, field, plan.flexible, value, output)
            _write_uvarint(w, field.tag)
            _write_uvarint(w, content.length)
            _write(w, content.data, content.length)
        finally:
            _close(&content)
    return 0


# The two together -------------------------------------------------------------------------


@cython.final
cdef class MessagePlan:

    cdef StructPlan body
    cdef readonly str name
    cdef readonly int version
    cdef Tables tables

    def __init__(self, StructPlan body not None, str name, int version, Tables tables not None):
        self.body = body
        self.name = name
        self.version = version
        self.tables = tables

    def decode(self, buf, Py_ssize_t position, Py_ssize_t end):
        cdef Py_buffer view
        cdef Reader r
        PyObject_GetBuffer(buf, &view, PyBUF_SIMPLE)
        try:
            if position < 0 or end < position or end > view.len:
                raise ValueError(f"[{position}, {end}) is outside the buffer of {view.len} bytes")
            r.start = <const uint8_t*>view.buf
            r.p = r.start + position
            r.end = r.start + end
            r.depth = -1
            r.in_tags = False
            r.fields[0] = NULL
            try:
                message = _read_struct(&r, self.body, self.tables, buf)
                if r.p != r.end:
                    raise _Malformed(f"{r.end - r.p} bytes left over")
            except (_Malformed, UnicodeDecodeError) as error:
                place = _place(r.fields, r.depth, r.in_tags)
                at = r.p - r.start - position
                raise ProtocolViolation(
                    f"{self.name} v{self.version}: {place}, byte {at}: {error}"
                ) from None
            return message
        finally:
            PyBuffer_Release(&view)

    def encode(self, message, bytearray out not None, parts):
        cdef Writer w
        cdef Place place
        cdef Output output = Output.__new__(Output)
        output.out = out
        output.parts = parts
        output.tables = self.tables
        place.depth = -1
        place.fields[0] = NULL
        _open(&w)
        try:
            _write_struct(&w, &place, self.body, message, output)
            _drain(&w, out)
        except (TypeError, AttributeError, OverflowError, UnicodeError) as error:
            raise self.tables.refusal(
                f"{self.name} v{self.version}: {_place(place.fields, place.depth, False)}: {error}"
            ) from error
        finally:
            _close(&w)
