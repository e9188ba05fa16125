"""The native codec against the generated one: the same results and the same errors."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.wire_oracle import implemented, message_id, messages
from trioq._native.hot_wire import MessagePlan
from trioq._native.wire_plan import FieldPlan, StructPlan
from trioq.errors import ProtocolViolation
from trioq.types import FileRegion
from trioq.wire.decoder import generate_decoder
from trioq.wire.encoder import generate_encoder
from trioq.wire.hot import message_plan
from trioq.wire.kinds import INT64, STRING
from trioq.wire.messages.fetch import FetchRequest, FetchResponse, FetchResponsePartition
from trioq.wire.messages.produce import (
    ProduceRequest,
    ProduceRequestTopic,
    ProduceResponse,
    ProduceResponseCurrentLeader,
    ProduceResponsePartition,
    ProduceResponseTopic,
)
from trioq.wire.primitives import EncodeError
from trioq.wire.schema import Message, Struct, array, wire

every_version = pytest.mark.parametrize(("cls", "version"), implemented(), ids=message_id)
quick = settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


class Codecs:
    """Both codecs of one message and version."""

    def __init__(self, cls: type[Message], version: int) -> None:
        flexible = version >= cls.FLEXIBLE_FROM
        self.native = message_plan(cls.SCHEMA, version, flexible=flexible)
        self._decode = generate_decoder(cls.SCHEMA, version, flexible=flexible)
        self._encode = generate_encoder(cls.SCHEMA, version, flexible=flexible)

    def decoded(self, data: bytes, position: int = 0, end: int | None = None) -> list[Any]:
        """The message, or the error's type, of the native codec and of the generated one."""
        results: list[Any] = []
        for decode in (self.native.decode, self._decode):
            try:
                results.append(
                    decode(memoryview(data), position, len(data) if end is None else end)
                )
            except ProtocolViolation as error:
                results.append(type(error))
        return results

    def encoded(self, message: Any) -> list[Any]:
        """The bytes, or the error's type, of the native codec and of the generated one."""
        results: list[Any] = []
        for encode in (self.native.encode, self._encode):
            out = bytearray(b"before")
            try:
                encode(message, out, None)
                results.append(bytes(out))
            except EncodeError as error:
                results.append(type(error))
        return results


@every_version
def test_the_same_bytes_and_messages(cls: type[Message], version: int) -> None:
    codecs = Codecs(cls, version)

    @quick
    @given(messages(cls, version))
    def check(message: Any) -> None:
        native, generated = codecs.encoded(message)
        assert native == generated
        assert isinstance(native, bytes)
        assert codecs.decoded(native, 6) == [message, message]
        for end in range(6, len(native)):
            assert codecs.decoded(native, 6, end) == [ProtocolViolation, ProtocolViolation]

    check()


@every_version
def test_the_same_on_mutated_bytes(cls: type[Message], version: int) -> None:
    codecs = Codecs(cls, version)

    @quick
    @given(
        messages(cls, version),
        st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=4),
    )
    def check(message: Any, changes: list[tuple[int, int]]) -> None:
        data = bytearray(message.encode(version))
        for place, byte in changes if data else []:
            data[place % len(data)] = byte
        native, generated = codecs.decoded(bytes(data))
        assert native == generated

    check()


@every_version
def test_the_same_on_random_bytes(cls: type[Message], version: int) -> None:
    codecs = Codecs(cls, version)

    @quick
    @given(st.binary(max_size=64))
    def check(data: bytes) -> None:
        native, generated = codecs.decoded(data)
        assert native == generated

    check()


@every_version
def test_the_same_on_values_of_other_versions(cls: type[Message], version: int) -> None:
    """Fields that the version lacks: dropped or refused by both."""
    codecs = Codecs(cls, version)
    newest = cls.LAST_VERSION

    @quick
    @given(messages(cls, newest))
    def check(message: Any) -> None:
        native, generated = codecs.encoded(message)
        assert native == generated

    check()


WRONG = [
    ProduceRequest(acks=1 << 15),
    ProduceRequest(acks=1 << 70),
    ProduceRequest(acks="1"),  # type: ignore[arg-type]
    ProduceRequest(acks=None),  # type: ignore[arg-type]
    ProduceRequest(acks=1.0),  # type: ignore[arg-type]
    ProduceRequest(transactional_id="\ud800"),
    ProduceRequest(transactional_id="x" * 32768),
    ProduceRequest(transactional_id=b"bytes"),  # type: ignore[arg-type]
    ProduceRequest(topic_data=None),  # type: ignore[arg-type]
    ProduceRequest(topic_data=[None]),  # type: ignore[list-item]
    ProduceRequest(topic_data=[ProduceRequestTopic(name=None)]),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("message", WRONG, ids=lambda message: repr(message)[:60])
@pytest.mark.parametrize("version", [3, 9])
def test_the_same_refusals(message: ProduceRequest, version: int) -> None:
    assert Codecs(ProduceRequest, version).encoded(message) == [EncodeError, EncodeError]


def test_the_refusal_names_the_field() -> None:
    with pytest.raises(EncodeError, match=r"^ProduceRequest v3: topic_data\[\].name: must not be"):
        ProduceRequest(topic_data=[ProduceRequestTopic(name=None)]).encode(3)  # type: ignore[arg-type]
    with pytest.raises(EncodeError, match="current_leader: this version has no such field"):
        partition = ProduceResponsePartition(
            current_leader=ProduceResponseCurrentLeader(leader_id=1, leader_epoch=1)
        )
        ProduceResponse(responses=[ProduceResponseTopic(partition_responses=[partition])]).encode(9)


def test_an_object_of_another_class_is_refused() -> None:
    """Slots are read by address, so only ever in objects of exactly the declared class."""
    topic: Any = FetchResponsePartition()
    with pytest.raises(EncodeError, match="is not a ProduceRequestTopic"):
        ProduceRequest(topic_data=[topic]).encode(9)
    plan = message_plan(ProduceRequest.SCHEMA, 9, flexible=True)
    with pytest.raises(EncodeError, match="is not a ProduceRequest"):
        plan.encode(FetchRequest(), bytearray(), None)


def test_a_slot_that_was_deleted_is_refused() -> None:
    message = ProduceRequest()
    del message.acks
    with pytest.raises(EncodeError, match="acks"):
        message.encode(9)


def test_a_range_outside_the_buffer_is_refused() -> None:
    plan = message_plan(ProduceRequest.SCHEMA, 9, flexible=True)
    for position, end in ((-1, 2), (2, 1), (0, 5)):
        with pytest.raises(ValueError, match="outside the buffer of 4 bytes"):
            plan.decode(memoryview(bytes(4)), position, end)


def test_hot_messages_have_the_native_codec() -> None:
    for cls in (ProduceRequest, ProduceResponse, FetchRequest, FetchResponse):
        cls().encode(11)
        assert isinstance(cls._encoders[11].__self__, MessagePlan)  # type: ignore[attr-defined]


@pytest.mark.parametrize("version", [4, 12])
def test_parts_are_spliced_alike(version: int) -> None:
    region = FileRegion(None, 5, 500)  # type: ignore[arg-type]
    partition = FetchResponsePartition(records=[b"abc", region, memoryview(b"def")])
    codecs = Codecs(FetchResponse, version)
    response = FetchResponse()
    response.responses = [type(response).SCHEMA.fields[3].kind.element.cls()]  # type: ignore[union-attr]
    response.responses[0].partitions = [partition, partition]
    results = []
    for encode in (codecs.native.encode, codecs._encode):
        out, parts = bytearray(b"head"), []
        encode(response, out, parts)
        results.append([*parts, bytes(out)])
    assert results[0] == results[1]
    assert len(results[0]) == 9
    assert [part for part in results[0] if part is region] == [region] * 2


class Inner(Struct):
    number: int = wire(INT64, default=3)


class Wide(Message, versions=(0, 1), flexible=1):
    inner: Inner = wire(Inner, factory=Inner)
    texts: list[str] = wire(array(STRING), factory=list)


@pytest.mark.parametrize("version", [0, 1])
def test_output_longer_than_the_first_buffer(version: int) -> None:
    codecs = Codecs(Wide, version)
    message = Wide(texts=["x" * number for number in range(200)], inner=Inner(number=-1))
    native, generated = codecs.encoded(message)
    assert native == generated
    assert codecs.decoded(native, 6) == [message, message]


def test_plans_are_made_of_slots_only() -> None:
    settings_: dict[str, Any] = {
        "kind": "int32",
        "element": "",
        "struct": None,
        "element_least_bytes": 0,
        "present": True,
        "nullable": False,
        "ignorable": False,
        "tag": -1,
        "default": 0,
        "is_list_by_default": False,
    }
    with pytest.raises(TypeError, match="not the descriptor of a slot"):
        FieldPlan(Message.decode, **settings_)
    field = FieldPlan(Inner.__dict__["number"], **settings_)
    with pytest.raises(TypeError, match="is no slot of"):
        StructPlan(Wide, [field], flexible=False)
    with pytest.raises(TypeError, match="needs the plan of its struct"):
        FieldPlan(Inner.__dict__["number"], **settings_ | {"kind": "struct"})
    deep: Any = StructPlan(Inner, [field], flexible=False)
    with pytest.raises(TypeError, match="nested too deeply"):
        for _ in range(20):
            around = FieldPlan(
                Inner.__dict__["number"], **settings_ | {"kind": "struct", "struct": deep}
            )
            deep = StructPlan(Inner, [around], flexible=False)
