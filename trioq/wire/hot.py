"""Plans of the native codec for the messages that every produce and fetch carries.

They are made from the same declarations as the generated Python code of the others and
behave the same (tests hold the two against each other for every message).
"""

from __future__ import annotations

from typing import Final

from trioq._native.hot_wire import MessagePlan
from trioq._native.wire_plan import FieldPlan, StructPlan, Tables
from trioq.wire.kinds import (
    UNBOUNDED,
    ArrayOf,
    Field,
    Kind,
    Primitive,
    StructSchema,
    element_field,
    min_bytes,
)
from trioq.wire.primitives import EncodeError, records_length, splice, uuid_from_bytes

_TABLES: Final = Tables(
    uuid_from_bytes=uuid_from_bytes,
    records_length=records_length,
    splice=splice,
    refusal=EncodeError,
)


def message_plan(
    schema: StructSchema, version: int, *, flexible: bool, max_elements: int = UNBOUNDED
) -> MessagePlan:
    """The native codec of `schema` in `version`."""
    body = _struct_plan(schema, version, flexible)
    return MessagePlan(body, schema.name, version, _TABLES, max_elements=max_elements)


def _struct_plan(schema: StructSchema, version: int, flexible: bool) -> StructPlan:
    fields = [_field_plan(schema, field, version, flexible) for field in schema.fields]
    return StructPlan(schema.cls, fields, flexible=flexible)


def _field_plan(schema: StructSchema, field: Field, version: int, flexible: bool) -> FieldPlan:
    kind = field.kind
    element = kind.element if isinstance(kind, ArrayOf) else None
    inner = element or kind
    return FieldPlan(
        getattr(schema.cls, field.name),
        kind=_kind_name(kind),
        element=_kind_name(element) if element is not None else "",
        struct=(
            _struct_plan(inner, version, flexible) if isinstance(inner, StructSchema) else None
        ),
        element_least_bytes=(
            min_bytes(element_field(element), version, flexible=flexible)
            if element is not None
            else 0
        ),
        present=field.in_version(version),
        nullable=field.nullable_in(version),
        ignorable=field.ignorable,
        tag=-1 if field.tag is None else field.tag,
        default=field.default,
        is_list_by_default=field.factory is not None,
    )


def _kind_name(kind: Kind) -> str:
    if isinstance(kind, ArrayOf):
        return "array"
    return kind.name if isinstance(kind, Primitive) else "struct"
