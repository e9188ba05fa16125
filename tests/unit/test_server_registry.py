"""The table of APIs, and what is advertised from it."""

from __future__ import annotations

import importlib
import inspect
import struct
import subprocess
import sys

import pytest

from tests.unit.server_harness import serving
from trioq.errors import UnknownServerError
from trioq.server.handlers.registry import Api, Kind, by_key, served_apis
from trioq.wire.api_keys import APIS, ApiKey
from trioq.wire.messages.api_versions import ApiVersionsRequest, ApiVersionsResponse
from trioq.wire.messages.describe_cluster import DescribeClusterResponse

SHAPES = {
    Kind.ANSWER: (False, ["ctx", "request", "message"]),
    Kind.INLINE: (False, ["ctx", "request", "slot"]),
    Kind.TASK: (True, ["ctx", "request"]),
}


def test_the_handlers_of_every_client_are_imported_ahead() -> None:
    code = (
        "import sys; from trioq.server.handlers.registry import preload; preload();"
        "sys.exit('trioq.server.handlers.produce' not in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_api_of_the_wire_table_is_served_and_nothing_else() -> None:
    assert served_apis().keys() == APIS.keys()


@pytest.mark.parametrize("key", [ApiKey(key) for key in APIS], ids=lambda key: key.name)
def test_each_handler_has_the_shape_that_the_table_says(key: ApiKey) -> None:
    api = served_apis()[key]
    name = key.name.lower()
    module = importlib.import_module(f"trioq.server.handlers.{name}")
    handler = getattr(module, f"handle_{name}")
    is_async, parameters = SHAPES[api.kind]
    assert inspect.iscoroutinefunction(handler) == is_async
    assert [parameter.lstrip("_") for parameter in inspect.signature(handler).parameters] == (
        parameters
    )
    assert callable(api.load())
    assert api.load() is api.load()


@pytest.mark.parametrize("key", [ApiKey(key) for key in APIS], ids=lambda key: key.name)
def test_error_responses_can_be_encoded_in_every_version(key: ApiKey) -> None:
    api = served_apis()[key]
    if api.error_response is not None:
        for version in range(api.first_version, api.last_version + 1):
            response = api.error_response(UnknownServerError.code)
            assert response.encode(version)


@pytest.mark.trio
@pytest.mark.parametrize("version", range(5))
async def test_api_versions_lists_what_is_served(version: int) -> None:
    async with serving(apis=served_apis()) as harness, await harness.connect() as client:
        request = ApiVersionsRequest(client_software_name="a-client", client_software_version="1.0")
        header = struct.pack(">hhih", 18, version, 9, -1) + (b"\0" if version >= 3 else b"")
        frame = header + request.encode(version)
        await client.send(struct.pack(">i", len(frame)) + frame)
        correlation_id, body = await client.response()
        assert correlation_id == 9
        response = ApiVersionsResponse.decode(memoryview(body), 0, len(body), version)
        assert response.error_code == 0
        listed = {key.api_key: (key.min_version, key.max_version) for key in response.api_keys}
        assert listed == {
            key: (api.min_version, api.max_version) for key, api in APIS.items() if api.advertised
        }
        software = {c.client_software for c in harness.reactor.connections}
        assert software == ({("a-client", "1.0")} if version >= 3 else {None})


@pytest.mark.trio
@pytest.mark.parametrize("name", ["", "-", "a b", "name-", "näme", "x" * 20 + "."])
async def test_api_versions_refuses_software_names_that_are_none(name: str) -> None:
    async with serving(apis=served_apis()) as harness, await harness.connect() as client:
        request = ApiVersionsRequest(client_software_name=name, client_software_version="1.0")
        frame = struct.pack(">hhih", 18, 3, 9, -1) + b"\0" + request.encode(3)
        await client.send(struct.pack(">i", len(frame)) + frame)
        _, body = await client.response()
        response = ApiVersionsResponse.decode(memoryview(body), 0, len(body), 3)
        assert response.error_code == 42
        assert response.api_keys == []


@pytest.mark.trio
async def test_a_failing_handler_is_answered_where_the_api_has_a_place_for_it() -> None:
    def fail(*_arguments: object) -> None:
        raise ZeroDivisionError("a bug")

    api = Api(
        ApiKey.DESCRIBE_CLUSTER,
        Kind.INLINE,
        barrier=False,
        handler=fail,
        error_response=lambda code: DescribeClusterResponse(error_code=code),
    )
    async with serving(apis=by_key([api])) as harness, await harness.connect() as client:
        frame = struct.pack(">hhih", 60, 0, 3, -1) + b"\0" + b"\0\0"
        await client.send(struct.pack(">i", len(frame)) + frame)
        correlation_id, body = await client.response()
        assert correlation_id == 3
        response = DescribeClusterResponse.decode(memoryview(body), 1, len(body), 0)
        assert response.error_code == -1
        assert await client.is_closed()
        assert harness.reactor.counters.handler_failures == 1
