"""The metadata and assignments of the classic protocol's consumers, as bytes of a group."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.wire_oracle import messages
from trioq.errors import ProtocolViolation
from trioq.wire.messages.consumer_protocol import (
    ConsumerProtocolAssignment,
    ConsumerProtocolSubscription,
    ConsumerProtocolTopicPartition,
    decode_assignment,
    decode_subscription,
    encode_assignment,
    encode_subscription,
)
from trioq.wire.schema import MAX_REQUEST_ELEMENTS

VERSIONS = st.integers(0, 3)


@settings(max_examples=50, deadline=None)
@given(VERSIONS.flatmap(lambda v: st.tuples(st.just(v), messages(ConsumerProtocolSubscription, v))))
def test_a_subscription_is_read_back(case: tuple[int, Any]) -> None:
    version, content = case
    assert decode_subscription(encode_subscription(content, version)) == (version, content)


@settings(max_examples=50, deadline=None)
@given(VERSIONS.flatmap(lambda v: st.tuples(st.just(v), messages(ConsumerProtocolAssignment, v))))
def test_an_assignment_is_read_back(case: tuple[int, Any]) -> None:
    version, content = case
    assert decode_assignment(encode_assignment(content, version)) == (version, content)


def test_the_bytes_of_a_cooperative_consumer() -> None:
    data = bytes.fromhex(
        "0001"  # version
        "00000001 0001 74"  # one topic, t
        "ffffffff"  # no user data
        "00000001 0001 74 00000002 00000000 00000002"  # owns t-0 and t-2
    )
    owned = ConsumerProtocolTopicPartition(topic="t", partitions=[0, 2])
    expected = ConsumerProtocolSubscription(topics=["t"], owned_partitions=[owned])
    assert decode_subscription(data) == (1, expected)
    assert encode_subscription(expected, 1) == data


def test_a_version_to_come_is_read_as_the_newest_known() -> None:
    subscription = ConsumerProtocolSubscription(topics=["a", "b"], rack_id="r", generation_id=4)
    data = b"\x00\x09" + encode_subscription(subscription, 3)[2:] + b"what it adds"
    assert decode_subscription(data) == (9, subscription)
    part = ConsumerProtocolTopicPartition(topic="t", partitions=[1])
    assignment = ConsumerProtocolAssignment(assigned_partitions=[part], user_data=b"u")
    data = b"\x00\x09" + encode_assignment(assignment, 3)[2:] + b"what it adds"
    assert decode_assignment(data) == (9, assignment)


def test_a_client_that_writes_version_0_and_says_1_is_understood() -> None:
    subscription = ConsumerProtocolSubscription(topics=["a"], user_data=b"u")
    data = b"\x00\x01" + encode_subscription(subscription, 0)[2:]
    assert decode_subscription(data) == (1, subscription)


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"\xff\xff\0\0\0\0", b"\0\0", b"\0\1\x7f\xff\xff\xff"]
)
def test_what_is_not_the_consumer_protocol_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        decode_subscription(data)
    with pytest.raises(ProtocolViolation):
        decode_assignment(data)


def test_elements_are_bounded_as_in_a_request() -> None:
    data = encode_subscription(ConsumerProtocolSubscription(topics=[""] * 100_001), 0)
    assert len(data) > MAX_REQUEST_ELEMENTS
    with pytest.raises(ProtocolViolation, match="more than a message may have"):
        decode_subscription(data)
