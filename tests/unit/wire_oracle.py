"""Random wire messages, and the same messages as kio, the independent implementation, has them."""

from __future__ import annotations

import dataclasses
import datetime as dt
import importlib
import io
import pkgutil
import types
import typing
import uuid
from typing import Any

from hypothesis import strategies as st
from kio.schema.errors import ErrorCode
from kio.serial import entity_reader, entity_writer

from trioq.wire import kinds
from trioq.wire import messages as declarations
from trioq.wire.kinds import ArrayOf, Field, Kind, StructSchema
from trioq.wire.schema import Message

INTEGERS = {
    kinds.INT8: st.integers(-(1 << 7), (1 << 7) - 1),
    kinds.INT16: st.integers(-(1 << 15), (1 << 15) - 1),
    kinds.INT32: st.integers(-(1 << 31), (1 << 31) - 1),
    kinds.INT64: st.integers(-(1 << 63), (1 << 63) - 1),
}
PRIMITIVES = {
    **INTEGERS,
    kinds.BOOL: st.booleans(),
    kinds.UUID: st.uuids(),
    # Surrogates are not UTF-8; 130 characters take a varint of two bytes.
    kinds.STRING: st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    | st.just("x" * 130),
    kinds.BYTES: st.binary(max_size=8) | st.just(b"y" * 130),
    kinds.RECORDS: st.binary(max_size=64) | st.just(b"z" * 130),
}
ERROR_CODES = st.sampled_from([code.value for code in ErrorCode])
# kio has these as datetimes and timedeltas, which cannot hold every int64.
TIMES_MS = st.integers(0, 1 << 42) | st.just(-1)
TIME_FIELDS = {"log_append_time_ms", "retention_time_ms", "session_lifetime_ms"}
SUFFIX_MS = "_ms"

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def implemented() -> list[tuple[type[Message], int]]:
    """Every message class with every version it declares, advertised or not."""
    names = [found.name for found in pkgutil.iter_modules(declarations.__path__)]
    modules = [importlib.import_module(f"{declarations.__name__}.{name}") for name in names]
    return [
        (cls, version)
        for module in modules
        for cls in vars(module).values()
        if isinstance(cls, type) and issubclass(cls, Message) and cls.__module__ == module.__name__
        for version in range(cls.FIRST_VERSION, cls.LAST_VERSION + 1)
    ]


def known_to_kio() -> list[tuple[type[Message], int]]:
    """As `implemented`, without what Kafka 4 and so kio no longer have.

    See test_wire_produce_old.py and test_wire_controlled_shutdown.py.
    """
    since = {"ProduceRequest": 3, "ProduceResponse": 3}
    gone = {"ControlledShutdownRequest", "ControlledShutdownResponse"}
    return [
        (cls, v)
        for cls, v in implemented()
        if v >= since.get(cls.__name__, 0) and cls.__name__ not in gone
    ]


def message_id(case: object) -> str:
    return case.__name__ if isinstance(case, type) else f"v{case}"


def messages(cls: type[Any], version: int) -> st.SearchStrategy[Any]:
    """Instances of a message or struct with values in the fields that `version` has."""
    values = {
        field.name: _values(field, version)
        for field in cls.SCHEMA.fields
        if field.in_version(version)
    }
    return st.builds(cls, **values)


def _values(field: Field, version: int) -> st.SearchStrategy[Any]:
    if field.name == "error_code":
        return ERROR_CODES
    if field.name in TIME_FIELDS:
        return TIMES_MS
    values = _kind_values(field.kind, version)
    if isinstance(field.kind, StructSchema) and field.tag is not None:
        # One that says nothing is not sent; None is how we have that.
        default = field.kind.cls()
        return st.none() | values.filter(lambda value: value != default)
    return st.none() | values if field.nullable_in(version) else values


def _kind_values(kind: Kind, version: int) -> st.SearchStrategy[Any]:
    if isinstance(kind, StructSchema):
        return messages(kind.cls, version)
    if isinstance(kind, ArrayOf):
        return st.lists(_kind_values(kind.element, version), max_size=3)
    return PRIMITIVES[kind]


def kio_class(cls: type[Message], version: int) -> type[Any]:
    """kio's class for one version of one of our messages."""
    name = cls.__module__.rpartition(".")[2]
    part = cls.__name__.lower().removeprefix(name.replace("_", ""))
    if name == "consumer_protocol":
        name, part = f"{name}_{part}", "data"
    module = importlib.import_module(f"kio.schema.{name}.v{version}.{part}")
    found: type[Any] = getattr(module, cls.__name__)
    return found


def to_kio(message: Any, kio_type: type[Any], version: int) -> Any:
    """The same message in kio's classes; fails if the fields differ in name, order or number."""
    ours = [field for field in message.SCHEMA.fields if field.in_version(version)]
    theirs = dataclasses.fields(kio_type)
    assert [_plain_name(field.name) for field in ours] == [
        _plain_name(field.name) for field in theirs
    ]
    types_ = typing.get_type_hints(kio_type)
    return kio_type(
        **{
            their.name: _value_to_kio(
                getattr(message, our.name),
                our.kind,
                types_[their.name],
                their.metadata.get("kafka_type", ""),
                version,
            )
            for our, their in zip(ours, theirs, strict=True)
        }
    )


def _plain_name(name: str) -> str:
    return name.removesuffix(SUFFIX_MS).replace("_", "")


def _value_to_kio(value: Any, kind: Kind, kio_type: Any, kafka_type: str, version: int) -> Any:
    if isinstance(kind, StructSchema):
        cls = _without_none(kio_type)
        if value is None:
            return None if cls is not kio_type else to_kio(kind.cls(), cls, version)
        return to_kio(value, cls, version)
    if value is None:
        return None
    if isinstance(kind, ArrayOf):
        element_type = typing.get_args(_without_none(kio_type))[0]
        return tuple(
            _value_to_kio(item, kind.element, element_type, kafka_type, version) for item in value
        )
    if kafka_type == "error_code":
        return ErrorCode(value)
    if kafka_type in ("timedelta_i32", "timedelta_i64"):
        return dt.timedelta(milliseconds=value)
    if kafka_type == "datetime_i64":
        return None if value == -1 else EPOCH + dt.timedelta(milliseconds=value)
    if kafka_type == "uuid" and value == uuid.UUID(int=0):
        return None
    return value


def _without_none(kio_type: Any) -> Any:
    """X for a type X | None."""
    if isinstance(kio_type, types.UnionType) or typing.get_origin(kio_type) is typing.Union:
        return next(arg for arg in typing.get_args(kio_type) if arg is not type(None))
    return kio_type


def kio_encode(message: Any) -> bytes:
    with io.BytesIO() as out:
        entity_writer(type(message))(out, message)
        return out.getvalue()


def kio_decode(kio_type: type[Any], data: bytes) -> Any:
    """Decode all of `data`; fails if something is left over."""
    message, size = entity_reader(kio_type)(data, 0)
    assert size == len(data)
    return message
