"""The codec engine on declarations made for the purpose, and what encoding promises."""

from __future__ import annotations

import uuid

import pytest

from trioq.errors import TrioqError
from trioq.types import ZERO_TOPIC_ID, FileRegion, TopicId
from trioq.wire.kinds import BOOL, BYTES, INT8, INT16, INT32, INT64, RECORDS, STRING, UUID
from trioq.wire.messages.api_versions import ApiVersionsRequest
from trioq.wire.messages.fetch import (
    FetchRequest,
    FetchRequestReplicaState,
    FetchResponse,
    FetchResponseNodeEndpoint,
    FetchResponsePartition,
    FetchResponseTopic,
)
from trioq.wire.messages.metadata import MetadataRequest, MetadataRequestTopic, MetadataResponse
from trioq.wire.messages.produce import ProduceRequest, ProduceRequestTopic
from trioq.wire.primitives import EncodeError, Records
from trioq.wire.schema import Message, Struct, array, wire


class Leaf(Struct):
    number: int = wire(INT8, default=7)
    extra: str | None = wire(STRING, default=None, nullable=0, tag=5)


class Everything(Message, versions=(0, 3), flexible=2):
    flag: bool = wire(BOOL, default=False)
    name: str | None = wire(STRING, default="", nullable=1)
    raw: bytes = wire(BYTES, default=b"")
    short: int = wire(INT16, default=-1, since=1, ignorable=True)
    long: int = wire(INT64, default=0, since=1)
    topic_id: TopicId = wire(UUID, default=ZERO_TOPIC_ID)
    leaf: Leaf | None = wire(Leaf, default=None, nullable=0)
    leaves: list[Leaf] = wire(array(Leaf), factory=list)
    ids: list[TopicId] = wire(array(UUID), factory=list)
    flags: list[bool] = wire(array(BOOL), factory=list)
    words: list[str] = wire(array(STRING), factory=list)
    numbers: list[int] | None = wire(array(INT64), factory=list, nullable=1)
    tagged_list: list[int] = wire(array(INT32), factory=list, since=2, tag=300)
    tagged_leaf: Leaf | None = wire(Leaf, default=None, since=3, tag=1, ignorable=True)
    records: Records = wire(RECORDS, default=None, nullable=0)


def example() -> Everything:
    return Everything(
        flag=True,
        name="näme",
        raw=b"\0\1",
        topic_id=uuid.UUID(int=5),
        leaf=Leaf(number=-3),
        leaves=[Leaf(), Leaf(number=1)],
        ids=[uuid.UUID(int=1), ZERO_TOPIC_ID],
        flags=[True, False],
        words=["", "x" * 300],
        numbers=[1, -(1 << 63)],
        records=b"abc",
    )


def round_trip(message: Everything, version: int) -> Everything:
    data = message.encode(version)
    return Everything.decode(memoryview(data), 0, len(data), version)


@pytest.mark.parametrize("version", [0, 1, 2, 3])
def test_every_kind_of_field(version: int) -> None:
    assert round_trip(example(), version) == example()


def test_tagged_fields_inside_structs_and_with_large_tags() -> None:
    message = example()
    message.leaves[1].extra = "e"
    message.tagged_list = [1, 2]
    message.tagged_leaf = Leaf(number=1, extra="f")
    assert round_trip(message, 3) == message
    # In the order of their tags; 300 is a varint of two bytes.
    assert message.encode(3).endswith(
        b"\x04abc\x02\x01\x06\x01\x01\x05\x02\x02f\xac\x02\x09\x03\x00\x00\x00\x01\x00\x00\x00\x02"
    )


def test_a_nullable_struct_takes_a_marker() -> None:
    message = example()
    message.leaf = None
    assert round_trip(message, 1) == message


def test_a_tagged_struct_of_defaults_is_not_sent() -> None:
    message = example()
    plain = message.encode(3)
    message.tagged_leaf = Leaf()
    assert message.encode(3) == plain


def test_unknown_tagged_fields_are_skipped() -> None:
    data = FetchRequest(rack_id="r").encode(12)
    assert data.endswith(b"\0")
    extended = data[:-1] + b"\x02\x63\x03abc\x80\x01\x00"  # tags 99 and 128
    decoded = FetchRequest.decode(memoryview(extended), 0, len(extended), 12)
    assert decoded == FetchRequest(rack_id="r")


def test_a_value_that_a_version_lacks_is_dropped_if_ignorable_else_refused() -> None:
    message = Everything(short=4)
    assert message.encode(0) == Everything().encode(0)
    message.long = 5
    with pytest.raises(EncodeError, match="Everything v0 has no long: 5"):
        message.encode(0)


def test_kafkas_rules_on_what_may_be_dropped() -> None:
    assert ApiVersionsRequest(client_software_name="x").encode(0) == b""
    with pytest.raises(EncodeError, match="allow_auto_topic_creation"):
        MetadataRequest(allow_auto_topic_creation=False).encode(3)
    with pytest.raises(EncodeError, match="replica_id"):
        FetchRequest(replica_id=1).encode(15)
    with pytest.raises(EncodeError, match="replica_state"):
        FetchRequest(replica_state=FetchRequestReplicaState(replica_id=1)).encode(14)
    assert FetchRequest(replica_state=FetchRequestReplicaState()).encode(14)
    with pytest.raises(EncodeError, match="node_endpoints"):
        FetchResponse(node_endpoints=[FetchResponseNodeEndpoint()]).encode(15)
    assert MetadataResponse(cluster_id="c").encode(1) == MetadataResponse().encode(1)


@pytest.mark.parametrize(
    ("message", "version", "place"),
    [
        (MetadataRequest(topics=None), 0, "topics: must not be null"),
        (MetadataRequest(topics=[MetadataRequestTopic(name=None)]), 9, "name: must not be null"),
        (ProduceRequest(acks=1 << 15), 3, "ProduceRequest v3: .*"),
        (
            ProduceRequest(topic_data=[ProduceRequestTopic(name="x" * 32768)]),
            9,
            r"topic_data\[\].name: a string of 32768 bytes is too long",
        ),
        (ProduceRequest(transactional_id="\ud800"), 3, "transactional_id: .*surrogates"),
    ],
)
def test_what_does_not_fit_is_refused(message: Message, version: int, place: str) -> None:
    with pytest.raises(EncodeError, match=place) as caught:
        message.encode(version)
    assert isinstance(caught.value, TrioqError)


def test_a_version_that_is_not_declared_is_refused() -> None:
    with pytest.raises(EncodeError, match="ProduceRequest has no version 12"):
        ProduceRequest().encode(12)


def test_declared_classes_behave_like_values() -> None:
    assert Leaf() == Leaf(number=7)
    assert Leaf() != Leaf(number=8)
    assert Leaf() != Everything()
    assert repr(Leaf(number=8)) == "Leaf(number=8, extra=None)"
    with pytest.raises(TypeError):
        hash(Leaf())
    with pytest.raises(TypeError):
        Leaf(nimber=1)  # type: ignore[call-arg]
    with pytest.raises(AttributeError):
        Leaf().nimber = 1  # type: ignore[attr-defined]
    assert Everything().leaves is not Everything().leaves


class File:
    """An open file that counts nothing: encoding passes regions on untouched."""

    def fileno(self) -> int:
        raise AssertionError

    retain = release = fileno


def fetched(records: Records, *, more: bool = False) -> FetchResponse:
    partitions = [FetchResponsePartition(records=records)]
    if more:
        partitions.append(FetchResponsePartition(partition_index=1, records=b"more"))
    return FetchResponse(responses=[FetchResponseTopic(topic="t", partitions=partitions)])


@pytest.mark.parametrize("version", [4, 12])
def test_file_regions_are_spliced(version: int) -> None:
    region = FileRegion(File(), 100, 300)
    view = memoryview(b"v" * 5)
    parts = fetched([region, view, b""], more=True).encode_parts(version)
    assert parts[1] is region
    assert parts[2] is view
    assert parts[4] == b"more"
    assert len(parts) == (5 if version == 4 else 6)  # tagged fields come behind the last
    filled = b"".join(b"f" * 300 if part is region else bytes(part) for part in parts)  # type: ignore[arg-type]
    assert filled == fetched(b"f" * 300 + b"v" * 5, more=True).encode(version)


@pytest.mark.parametrize("version", [4, 12])
def test_empty_and_null_records_are_no_parts(version: int) -> None:
    for records in (None, b"", [], FileRegion(File(), 0, 0)):
        (only,) = fetched(records).encode_parts(version)
        data = bytes(only)  # type: ignore[arg-type]
        (partition,) = (
            FetchResponse.decode(memoryview(data), 0, len(data), version).responses[0].partitions
        )
        assert partition.records == (None if records is None else b"")


def test_a_file_region_is_never_copied() -> None:
    with pytest.raises(EncodeError, match="file region"):
        fetched(FileRegion(File(), 0, 10)).encode(4)


def test_decoded_records_borrow_the_buffer() -> None:
    data = bytearray(fetched(b"abc").encode(4))
    decoded = FetchResponse.decode(memoryview(data), 0, len(data), 4)
    records = decoded.responses[0].partitions[0].records
    assert isinstance(records, memoryview)
    data[-3:] = b"xyz"
    assert records == b"xyz"
