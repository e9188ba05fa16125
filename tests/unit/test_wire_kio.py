"""Every version of every message against kio's independent implementation."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from tests.unit.wire_oracle import (
    kio_class,
    kio_decode,
    kio_encode,
    known_to_kio,
    message_id,
    messages,
    to_kio,
)
from trioq.wire.schema import Message

every_version = pytest.mark.parametrize(("cls", "version"), known_to_kio(), ids=message_id)
quick = settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


@every_version
def test_bytes_are_the_same_both_ways(cls: type[Message], version: int) -> None:
    kio_type = kio_class(cls, version)

    @quick
    @given(messages(cls, version))
    def check(message: Any) -> None:
        theirs = to_kio(message, kio_type, version)
        data = message.encode(version)
        assert data == kio_encode(theirs)
        assert kio_decode(kio_type, data) == theirs
        assert cls.decode(memoryview(data), 0, len(data), version) == message
        # A body in the middle of a buffer, as a receive buffer has it.
        around = memoryview(b"\x80" * 3 + data + b"\x80" * 3)
        assert cls.decode(around, 3, 3 + len(data), version) == message

    check()


@every_version
def test_defaults_are_the_same(cls: type[Message], version: int) -> None:
    """What a version lacks is decoded as what a new instance has."""
    message = cls()
    data = message.encode(version)
    assert data == kio_encode(to_kio(message, kio_class(cls, version), version))
    decoded = cls.decode(memoryview(data), 0, len(data), version)
    assert decoded == message


@every_version
def test_parts_joined_are_the_bytes(cls: type[Message], version: int) -> None:
    @quick
    @given(messages(cls, version))
    def check(message: Any) -> None:
        assert b"".join(message.encode_parts(version)) == message.encode(version)

    check()
