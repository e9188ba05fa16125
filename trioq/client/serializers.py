"""Serializers and deserializers: plain callables for keys and values.

    async with client.producer(value_serializer=json_serializer) as producer: ...
    orders = msgspec_json(Order)
    async with client.consumer("orders", value_deserializer=orders.deserialize) as consumer:
        async for record in consumer:
            record.value  # an Order

Anything that takes a value and gives bytes, or the other way round, serves as well. Neither is
called for None. What they raise comes out of `send`, or where a key or value is touched.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

from trioq.errors import ClientUsageError

T = TypeVar("T")


class Serde(NamedTuple, Generic[T]):
    """Both directions for one type."""

    serialize: Callable[[T], bytes]
    deserialize: Callable[[bytes], T]


def text_serializer(text: str) -> bytes:
    """UTF-8."""
    return text.encode()


def text_deserializer(data: bytes) -> str:
    """UTF-8; raises UnicodeDecodeError."""
    return data.decode()


def json_serializer(value: object) -> bytes:
    """Compact JSON in UTF-8, by the standard library; raises TypeError for what JSON has not."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def json_deserializer(data: bytes) -> Any:
    """JSON, by the standard library; raises json.JSONDecodeError."""
    return json.loads(data)


def msgspec_json(type_: type[T]) -> Serde[T]:
    """JSON of a msgspec Struct, dataclass or other type, checked when it is read.

    Deserializing raises msgspec.ValidationError for another shape. Needs the package msgspec.
    """
    module = _msgspec()
    return Serde(module.json.Encoder().encode, module.json.Decoder(type_).decode)


def msgspec_msgpack(type_: type[T]) -> Serde[T]:
    """As `msgspec_json`, in MessagePack."""
    module = _msgspec()
    return Serde(module.msgpack.Encoder().encode, module.msgpack.Decoder(type_).decode)


def _msgspec() -> Any:
    try:
        import msgspec  # noqa: PLC0415 - an extra that few need
    except ImportError as error:
        raise ClientUsageError(
            "the package msgspec is not installed: pip install trioq[msgspec]"
        ) from error
    return msgspec
