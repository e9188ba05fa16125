"""Headers and frames, against kio and byte by byte."""

from __future__ import annotations

import importlib
import io
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kio.schema.request_header.v1.header import RequestHeader as KioHeaderV1
from kio.schema.request_header.v2.header import RequestHeader as KioHeaderV2
from kio.serial import entity_writer

from trioq.errors import ProtocolViolation
from trioq.types import FileRegion
from trioq.wire.api_keys import APIS, Api, ApiKey
from trioq.wire.framing import length_prefix, request_frame, response_frame
from trioq.wire.header import RequestHeader, decode_request_header, response_header
from trioq.wire.messages.api_versions import ApiVersionsRequest, ApiVersionsResponse
from trioq.wire.messages.fetch import FetchResponse, FetchResponsePartition, FetchResponseTopic
from trioq.wire.messages.metadata import MetadataRequest

int32 = st.integers(-(1 << 31), (1 << 31) - 1)
client_ids = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def written_by_kio(header: Any) -> bytes:
    with io.BytesIO() as out:
        entity_writer(type(header))(out, header)
        return out.getvalue()


@given(st.sampled_from(list(APIS.values())), st.data(), int32, client_ids)
def test_request_headers(
    api: Api, data: st.DataObject, correlation_id: int, client_id: str | None
) -> None:
    version = data.draw(st.integers(api.min_version, api.max_version))
    kio_type: Any = KioHeaderV2 if api.is_flexible(version) else KioHeaderV1
    encoded = written_by_kio(
        kio_type(
            request_api_key=int(api.key),
            request_api_version=version,
            correlation_id=correlation_id,
            client_id=client_id,
        )
    )
    buf = memoryview(b"##" + encoded + b"body")
    assert decode_request_header(buf, 2, len(buf)) == RequestHeader(
        api.key, version, correlation_id, client_id, 2 + len(encoded)
    )


@pytest.mark.parametrize(
    "api",
    # Kafka 4, and so kio, has it no longer; see test_wire_controlled_shutdown.py.
    [api for api in APIS.values() if api.key is not ApiKey.CONTROLLED_SHUTDOWN],
    ids=lambda api: api.name,
)
def test_response_headers(api: Api) -> None:
    """kio knows from Kafka which header each response has: ApiVersions v0, always."""
    for version in range(api.implemented_min, api.max_version + 1):
        module = importlib.import_module(f"kio.schema.{api.key.name.lower()}.v{version}.response")
        kio_type = getattr(module, f"{api.name}Response").__header_schema__
        expected = written_by_kio(kio_type(correlation_id=77))
        assert response_header(api.key, version, 77) == expected


def test_an_unknown_api_or_version_is_left_to_the_caller() -> None:
    unknown = struct.pack(">hhih", 999, 3, 5, -1)
    assert decode_request_header(memoryview(unknown), 0, 10) == (999, 3, 5, None, 10)
    newer = struct.pack(">hhih", 18, 99, 5, 1) + b"c\0"
    assert decode_request_header(memoryview(newer), 0, 12) == (18, 99, 5, "c", 12)


def test_tagged_fields_of_the_header_are_skipped() -> None:
    data = struct.pack(">hhih", 18, 3, 5, -1) + b"\x02\x00\x02ab\x07\x00body"
    assert decode_request_header(memoryview(data), 0, len(data)).position == len(data) - 4


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "cut off: 0 bytes"),
        (b"\0" * 9, "cut off: 9 bytes"),
        (struct.pack(">hhih", 3, 1, 5, 4) + b"abc", "client id of 4 bytes, 3 bytes left"),
        (struct.pack(">hhih", 3, 1, 5, 2) + b"\xff\xff", "utf-8"),
        (struct.pack(">hhih", 3, 9, 5, -1), "cut off"),
        (struct.pack(">hhih", 3, 9, 5, -1) + b"\x01\x00\x05", "tagged field of 5 bytes"),
        (struct.pack(">hhih", 3, 9, 5, -1) + b"\x05\x00", "5 tagged fields"),
        (struct.pack(">hhih", 3, 9, 5, -1) + b"\xff" * 6, "varint"),
    ],
)
def test_malformed_request_headers(data: bytes, reason: str) -> None:
    buf = memoryview(data + b"\0" * 100)
    with pytest.raises(ProtocolViolation, match=reason):
        decode_request_header(buf, 0, len(data))


@pytest.mark.parametrize("client_id", [None, "c"])
@pytest.mark.parametrize("version", [8, 9])
def test_request_frames(version: int, client_id: str | None) -> None:
    (frame,) = request_frame(3, version, 5, client_id, MetadataRequest(topics=None))
    assert isinstance(frame, bytes)
    assert frame[:4] == length_prefix(len(frame) - 4)
    header = decode_request_header(memoryview(frame), 4, len(frame))
    assert header[:4] == (3, version, 5, client_id)
    body = MetadataRequest.decode(memoryview(frame), header.position, len(frame), version)
    assert body.topics is None


def test_a_small_response_is_one_piece() -> None:
    parts = response_frame(18, 0, 9, ApiVersionsResponse(error_code=35))
    assert parts == [struct.pack(">iihi", 10, 9, 35, 0)]
    assert ApiVersionsRequest().encode(0) == b""


def test_the_length_of_a_response_counts_its_regions() -> None:
    region = FileRegion(None, 7, 1000)  # type: ignore[arg-type]
    message = FetchResponse(
        responses=[
            FetchResponseTopic(topic="t", partitions=[FetchResponsePartition(records=region)])
        ]
    )
    first, second, last = response_frame(1, 12, 9, message)
    assert second is region
    assert isinstance(first, bytes)
    assert isinstance(last, bytes)
    assert first[:9] == struct.pack(">iix", len(first) - 4 + 1000 + len(last), 9)
