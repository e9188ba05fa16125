"""Refusals: every API that is served has a place for an error, and it is all filled in."""

from __future__ import annotations

import pytest

from trioq.errors import NotController, NotLeaderOrFollower, RebootstrapRequired
from trioq.testing.refusals import refusal
from trioq.wire.api_keys import APIS, ApiKey
from trioq.wire.kinds import BOOL, BYTES, RECORDS, STRING, UUID, ArrayOf, StructSchema
from trioq.wire.schema import Struct

SAMPLES = {STRING: "name", BOOL: True, BYTES: b"bytes", RECORDS: None}


def sample(schema, version):
    """A struct with one element in each array."""
    values = {}
    for field in schema.fields:
        if not field.in_version(version) or field.tag is not None:
            continue
        kind = field.kind
        if isinstance(kind, ArrayOf):
            element = kind.element
            values[field.name] = [
                sample(element, version)
                if isinstance(element, StructSchema)
                else SAMPLES.get(element, 7)
            ]
        elif isinstance(kind, StructSchema):
            values[field.name] = sample(kind, version)
        elif kind is not UUID:
            values[field.name] = SAMPLES.get(kind, 7)
    return schema.cls(**values)


def codes(struct):
    """Every error code in a struct and below."""
    for field in struct.SCHEMA.fields:
        value = getattr(struct, field.name)
        if field.name == "error_code":
            yield value
        elif isinstance(value, list):
            for element in value:
                if isinstance(element, Struct):
                    yield from codes(element)


CASES = [
    (key, version)
    for key, api in APIS.items()
    for version in range(api.implemented_min, api.max_version + 1)
]


@pytest.mark.parametrize(("key", "version"), CASES)
def test_every_api_and_version(key, version):
    api = APIS[key]
    request = sample(api.request_class.SCHEMA, version)
    response, is_refused = refusal(ApiKey(key), request, version, NotLeaderOrFollower)
    assert is_refused
    assert NotLeaderOrFollower.code in set(codes(response))
    encoded = response.encode(version)
    decoded = api.response_class.decode(memoryview(encoded), 0, len(encoded), version)
    assert NotLeaderOrFollower.code in set(codes(decoded))


def answered(key, version=None, **values):
    api = APIS[key]
    version = api.max_version if version is None else version
    request = sample(api.request_class.SCHEMA, version)
    for name, value in values.items():
        setattr(request, name, value)
    return refusal(key, request, version, NotController)


def test_the_answer_is_about_what_was_asked():
    response, _ = answered(ApiKey.PRODUCE)
    (topic,) = response.responses
    assert topic.name == "name"
    assert [(p.index, p.error_code) for p in topic.partition_responses] == [(7, 41)]
    response, _ = answered(ApiKey.LIST_OFFSETS)
    (partition,) = response.topics[0].partitions
    assert (partition.partition_index, partition.timestamp, partition.offset) == (7, -1, -1)
    response, _ = answered(ApiKey.DELETE_TOPICS, 5)
    assert [(one.name, one.error_code) for one in response.responses] == [("name", 41)]
    response, _ = answered(ApiKey.FIND_COORDINATOR)
    assert [(one.key, one.error_code) for one in response.coordinators] == [("name", 41)]


def test_fetch_errors_are_the_partitions():
    response, _ = answered(ApiKey.FETCH)
    assert response.error_code == 0
    (partition,) = response.responses[0].partitions
    assert (partition.partition_index, partition.error_code) == (7, 41)
    response, is_refused = answered(ApiKey.FETCH, topics=[])
    assert (response.error_code, is_refused) == (41, True)


def test_where_there_is_no_place():
    for version in (9, 13):
        _, is_refused = answered(ApiKey.METADATA, version, topics=None)
        assert not is_refused
    request = sample(APIS[ApiKey.METADATA].request_class.SCHEMA, 13)
    response, _ = refusal(ApiKey.METADATA, request, 13, RebootstrapRequired)
    assert response.error_code == RebootstrapRequired.code
