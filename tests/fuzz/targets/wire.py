"""Frames, request headers, and the decoders of all messages, native and generated."""

from __future__ import annotations

import functools
import random
import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.fuzz.target import Choices, Raised, Target, outcome, seeded
from tests.reference import framing
from trioq._native.frames import split
from trioq._native.hot_request import RequestHead, read_head, read_single_batch
from trioq.errors import ProtocolViolation
from trioq.wire import kinds
from trioq.wire.api_keys import APIS, ApiKey
from trioq.wire.decoder import generate_decoder
from trioq.wire.encoder import generate_encoder
from trioq.wire.framing import request_frame, response_frame
from trioq.wire.header import decode_request_header
from trioq.wire.hot import message_plan
from trioq.wire.kinds import ArrayOf, Field, StructSchema
from trioq.wire.messages.produce import (
    ProduceRequest,
    ProduceResponse,
    ProduceResponsePartition,
    ProduceResponseTopic,
)
from trioq.wire.schema import Message

_FLEXIBLE_FROM = {int(key): api.flexible_from for key, api in APIS.items()}


class Case(NamedTuple):
    """One version of one message."""

    cls: type[Message]
    version: int


REQUESTS = [
    Case(api.request_class, version)
    for api in APIS.values()
    for version in range(api.request_class.FIRST_VERSION, api.request_class.LAST_VERSION + 1)
]
RESPONSES = [
    Case(api.response_class, version)
    for api in APIS.values()
    for version in range(api.response_class.FIRST_VERSION, api.response_class.LAST_VERSION + 1)
]


class Codecs:
    """The native and the generated codec of one version of one message."""

    def __init__(self, cls: type[Message], version: int) -> None:
        flexible = version >= cls.FLEXIBLE_FROM
        tail = version >= cls._tail_from
        plan = message_plan(cls.SCHEMA, version, flexible=flexible)
        decode = generate_decoder(cls.SCHEMA, version, flexible=flexible, tail=tail)
        self.generated_decode = instrumented(decode)
        self.generated_encode = generate_encoder(cls.SCHEMA, version, flexible=flexible)
        self.native_decode = plan.decode
        self.native_encode = plan.encode
        self.is_strict = not tail
        """False where bytes behind the message are let through, which only one of them does."""


def instrumented(function: Any) -> Any:
    """With coverage, where the fuzzing engine runs; replaced by the runner."""
    return function


@functools.cache
def codecs(case: Case) -> Codecs:
    return Codecs(*case)


def check_frames(data: bytes) -> None:
    choices = Choices(data)
    limit = (1 << (choices.byte() % 32)) - 1
    most = choices.byte() % 8
    start = choices.byte() % 8
    buf = choices.rest()
    end = len(buf) - choices.byte() % 4
    if not 0 <= start <= end <= len(buf):
        return
    found = outcome(ProtocolViolation, split, buf, start, end, limit, most)
    assert found == outcome(ProtocolViolation, framing.split, buf, start, end, limit, most)


def check_header(data: bytes) -> None:
    view = memoryview(data)
    header = outcome(ProtocolViolation, decode_request_header, view, 0, len(data))
    padded = memoryview(b"\x01\x02\x03" + data + b"\0\0\0\0")
    moved = outcome(ProtocolViolation, decode_request_header, padded, 3, 3 + len(data))
    head = read_head(RequestHead, padded, 3, 3 + len(data), _FLEXIBLE_FROM)
    if isinstance(header, Raised):
        assert moved == header
        assert head is None
        return
    assert 0 < header.position <= len(data)
    assert moved == header._replace(position=header.position + 3)
    if head is not None:
        fields = head.api_key, head.api_version, head.correlation_id, head.client_id, head.position
        assert fields == moved


def check_requests(data: bytes) -> None:
    choices = Choices(data)
    check_message(REQUESTS[choices.byte() % len(REQUESTS)], choices.rest())


def check_responses(data: bytes) -> None:
    choices = Choices(data)
    check_message(RESPONSES[choices.byte() % len(RESPONSES)], choices.rest())


def check_message(case: Case, body: bytes) -> None:
    codec = codecs(case)
    view = memoryview(body)
    generated = outcome(ProtocolViolation, codec.generated_decode, view, 0, len(body))
    padded = memoryview(b"\x7f\x7f\x7f" + body + b"\x7f\0\0\0")
    native = outcome(ProtocolViolation, codec.native_decode, padded, 3, 3 + len(body))
    if codec.is_strict or isinstance(generated, Raised):
        assert native == generated, (case, native, generated)
    if case.cls is ProduceRequest:
        _check_single(case, generated, padded)
    if isinstance(generated, Raised):
        return
    out, native_out = bytearray(), bytearray()
    codec.generated_encode(generated, out, None)
    codec.native_encode(generated, native_out, None)
    assert native_out == out, case
    again = codec.generated_decode(memoryview(bytes(out)), 0, len(out))
    assert again == generated, case


def _check_single(case: Case, general: Any, padded: memoryview) -> None:
    """The short way of reading a request of one batch gives the same, or nothing."""
    single = read_single_batch(padded, 3, len(padded) - 4, case.version)
    if single is None:
        return
    assert not isinstance(general, Raised)
    (topic,) = general.topic_data
    (partition,) = topic.partition_data
    assert general.transactional_id is None
    assert (single.acks, single.timeout_ms) == (general.acks, general.timeout_ms)
    assert (single.topic, single.partition) == (topic.name, partition.index)
    assert single.records == partition.records
    answered = ProduceResponsePartition(
        index=partition.index, base_offset=5, log_append_time_ms=-1, log_start_offset=2
    )
    response = ProduceResponse(
        responses=[ProduceResponseTopic(name=topic.name, partition_responses=[answered])]
    )
    expected = response_frame(ApiKey.PRODUCE, case.version, 9, response)
    assert [single.answer(9, 5, -1, 2)] == expected


def _value(field: Field, version: int, chance: random.Random, elements: int) -> Any:
    """A value of the field's kind, small, sometimes null where that is allowed."""
    kind = field.kind
    if field.nullable_in(version) and chance.random() < 0.2:
        return None
    if isinstance(kind, StructSchema):
        return _struct(kind, version, chance, elements)
    if isinstance(kind, ArrayOf):
        element = kinds.element_field(kind.element)
        return [_value(element, version, chance, elements) for _ in range(elements)]
    if kind is kinds.BOOL:
        return chance.random() < 0.5
    if kind is kinds.STRING:
        return "".join(chance.choices("abé-", k=chance.randrange(6)))
    if kind in {kinds.BYTES, kinds.RECORDS}:
        return chance.randbytes(chance.randrange(8))
    if kind is kinds.UUID:
        return uuid.UUID(int=chance.getrandbits(128))
    return chance.choice((-1, 0, 1, 100))


def _struct(schema: StructSchema, version: int, chance: random.Random, elements: int) -> Any:
    return schema.cls(
        **{
            field.name: _value(field, version, chance, elements)
            for field in schema.fields
            if field.in_version(version)
        }
    )


def _message_seeds(cases: list[Case]) -> Iterator[bytes]:
    chance = seeded("messages")
    for number, case in enumerate(cases):
        for elements in (0, 1, 1, 2):
            message = _struct(case.cls.SCHEMA, case.version, chance, elements)
            yield bytes([number]) + message.encode(case.version)


def _frame_seeds() -> Iterator[bytes]:
    chance = seeded("frames")
    bodies = [chance.randbytes(length) for length in (1, 5, 0, 30)]
    stream = b"".join(len(body).to_bytes(4, "big") + body for body in bodies)
    for limit, most in ((31, 7), (31, 1), (4, 7), (20, 0)):
        yield bytes([limit, most, 0]) + stream
        yield bytes([limit, most, 0]) + stream[:9]
    for hello in (b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x02\x00\x01", b"POST /", b"\xff" * 8):
        yield bytes([24, 7, 0]) + hello


def _header_seeds() -> Iterator[bytes]:
    for api in APIS.values():
        for version in (api.min_version, api.max_version):
            for client_id in (None, "", "client-1"):
                message = api.request_class()
                parts = request_frame(api.key, version, 7, client_id, message)
                yield b"".join(bytes(part) for part in parts)[4:]  # type: ignore[arg-type]


TARGETS = (
    Target("frames", check_frames, _frame_seeds, 512),
    Target("header", check_header, _header_seeds, 256),
    Target("requests", check_requests, lambda: _message_seeds(REQUESTS), 2048),
    Target("responses", check_responses, lambda: _message_seeds(RESPONSES), 2048),
)
