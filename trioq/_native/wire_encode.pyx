# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
"""Writes wire messages by plans; the contract is in hot_wire.pyi."""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE, PyByteArray_Resize
from cpython.long cimport PyLong_AsLongLong
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport Py_NE, PyObject, PyObject_IsTrue, PyObject_RichCompareBool, PyTypeObject
from cpython.ref cimport Py_TYPE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

from trioq._native.bigendian cimport store_i16, store_i32, store_i64
from trioq._native.wire_plan cimport (
    ARRAY,
    BOOL,
    BYTES,
    INT8,
    INT16,
    INT32,
    INT64,
    MAX_DEPTH,
    STRING,
    STRUCT,
    UUID,
    FieldPlan,
    Kind,
    PyMember_GetOne,
    StructPlan,
    Tables,
    place_name,
)


cdef enum:
    MAX_STRING_BYTES = 0x7FFF
    INLINE_BYTES = 512


@cython.final
@cython.freelist(8)
cdef class Output:
    """Where one encoding goes: `out`, and `parts` or None."""

    cdef bytearray out
    cdef object parts
    cdef Tables tables


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


cdef int write_message(
    StructPlan plan, Tables tables, str title, message, bytearray out, parts
) except -1:
    cdef Writer w
    cdef Place place
    cdef Output output = Output.__new__(Output)
    output.out = out
    output.parts = parts
    output.tables = tables
    place.depth = -1
    place.fields[0] = NULL
    _open(&w)
    try:
        _write_struct(&w, &place, plan, message, output)
        _drain(&w, out)
    except (TypeError, AttributeError, OverflowError, UnicodeError) as error:
        where = place_name(place.fields, place.depth, False)
        raise tables.refusal(f"{title}: {where}: {error}") from error
    finally:
        _close(&w)
    return 0
