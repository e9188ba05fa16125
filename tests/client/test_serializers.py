"""Serializers: both directions, and their errors where values are touched."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass

import msgspec
import pytest

import trioq
from tests.client.written import create, write
from trioq.client.serializers import (
    json_deserializer,
    json_serializer,
    msgspec_json,
    msgspec_msgpack,
    text_deserializer,
    text_serializer,
)
from trioq.errors import ClientUsageError


@dataclass
class Order:
    item: str
    count: int


class Price(msgspec.Struct):
    cents: int


def test_text_and_json() -> None:
    assert text_deserializer(text_serializer("häß")) == "häß"
    assert json_serializer({"a": [1, None, "ü"]}) == '{"a":[1,null,"ü"]}'.encode()
    assert json_deserializer(b'{"a":1}') == {"a": 1}
    with pytest.raises(json.JSONDecodeError):
        json_deserializer(b"{")


@pytest.mark.parametrize("make", [msgspec_json, msgspec_msgpack])
def test_msgspec(make) -> None:
    orders = make(Order)
    assert orders.deserialize(orders.serialize(Order("tea", 2))) == Order("tea", 2)
    with pytest.raises(msgspec.ValidationError):
        orders.deserialize(make(Price).serialize(Price(5)))


def test_without_msgspec_it_is_said_what_to_do(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "msgspec", None)
    with pytest.raises(ClientUsageError, match=r"pip install trioq\[msgspec\]"):
        msgspec_json(Order)


@pytest.mark.anyio
async def test_what_cannot_be_read_raises_where_it_is_touched(broker, topic):
    orders = msgspec_json(Order)
    async with trioq.connect(broker.address) as client:
        await create(client, topic)
        await write(client, topic, [orders.serialize(Order("tea", 1)), b"no order"])
        async with client.consumer(
            topic, auto_offset_reset="earliest", value_deserializer=orders.deserialize
        ) as consumer:
            assert (await anext(consumer)).value == Order("tea", 1)
            record = await anext(consumer)
            with pytest.raises(msgspec.DecodeError):
                _ = record.value
            assert (record.offset, record.raw_value) == (1, b"no order")
