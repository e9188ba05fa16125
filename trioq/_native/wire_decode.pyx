# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
"""Reads wire messages by plans; the contract is in hot_wire.pyi.

Every length is compared with the bytes left once, explicitly, before anything is touched or
allocated.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int8_t, int64_t, uint8_t, uint64_t

from trioq._native.bigendian cimport load_i16, load_i32, load_i64
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
    PyMember_SetOne,
    StructPlan,
    Tables,
    place_name,
)

from trioq.errors import ProtocolViolation


cdef extern from *:
    """
    static inline PyObject *trioq_new_instance(PyObject *cls) {
        return ((PyTypeObject *)cls)->tp_alloc((PyTypeObject *)cls, 0);
    }
    """
    object trioq_new_instance(PyObject* cls)


class _Malformed(ValueError):
    pass


cdef struct Reader:
    const uint8_t* start  # of the buffer, not of the body
    const uint8_t* p
    const uint8_t* end
    PyObject* fields[MAX_DEPTH]  # being read, from the outside in; borrowed
    int depth
    bint in_tags
    int64_t elements_left  # that arrays may still have, over the whole message


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
    r.elements_left -= count
    if r.elements_left < 0:
        raise _Malformed(f"{count} elements, {-r.elements_left} more than a message may have")
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


cdef object read_message(
    StructPlan plan, Tables tables, str title, int64_t max_elements, buf, Py_ssize_t position,
    Py_ssize_t end
):
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
        r.elements_left = max_elements
        r.fields[0] = NULL
        try:
            message = _read_struct(&r, plan, tables, buf)
            if r.p != r.end:
                raise _Malformed(f"{r.end - r.p} bytes left over")
        except (_Malformed, UnicodeDecodeError) as error:
            place = place_name(r.fields, r.depth, r.in_tags)
            at = r.p - r.start - position
            raise ProtocolViolation(f"{title}: {place}, byte {at}: {error}") from None
        return message
    finally:
        PyBuffer_Release(&view)
