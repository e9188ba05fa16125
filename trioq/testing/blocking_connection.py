"""A blocking connection to a broker, for plain tests and for tests whose loop is busy."""

from __future__ import annotations

import socket
import struct
import time
from typing import Final, Self, TypeVar

from trioq import __version__
from trioq.client.address import HostPort
from trioq.errors import ProtocolViolation, TrioqError, UnsupportedVersion
from trioq.wire.api_keys import APIS, ApiKey
from trioq.wire.framing import LENGTH_BYTES, request_frame
from trioq.wire.messages.api_versions import ApiVersionsRequest, ApiVersionsResponse
from trioq.wire.primitives import read_uvarint
from trioq.wire.schema import Message

Response = TypeVar("Response", bound=Message)

MAX_RESPONSE_BYTES: Final = 256 * 1024 * 1024
_CLIENT_ID: Final = "trioq-testing"


class AdminError(TrioqError):
    """What a test asked of a broker cannot be done; the message says why.

    `code` is the broker's error code, 0 where it was not the broker that refused.
    """

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class BlockingConnection:
    """One connection that asks one request at a time. Close it, or use it in a `with`."""

    def __init__(self, address: HostPort, *, timeout_s: float) -> None:
        """Connect and ask which versions the broker serves; raises AdminError."""
        self.address = address
        self._timeout_s = timeout_s
        self._correlation_id = 0
        try:
            self._socket = socket.create_connection(address, timeout=timeout_s)
        except OSError as error:
            raise AdminError(
                f"no broker answers at {address} ({_reason(error)}): was it stopped or crashed?"
            ) from error
        self._versions: dict[int, tuple[int, int]] = {}
        try:
            self._versions = self._negotiated()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket; may be called again."""
        self._socket.close()

    def ask(self, key: ApiKey, request: Message, response_class: type[Response]) -> Response:
        """Send a request in the greatest version both sides know; return its response.

        Raises AdminError when the broker does not serve the API, does not answer in time, or
        answers something else.
        """
        api = APIS[key]
        first, last = self._versions.get(key, (0, -1))
        version = min(last, api.max_version)
        if version < max(first, api.implemented_min):
            raise AdminError(f"the broker at {self.address} does not serve {api.name}")
        return self._exchange(key, version, request, response_class)

    def _negotiated(self) -> dict[int, tuple[int, int]]:
        version = APIS[ApiKey.API_VERSIONS].max_version
        request = ApiVersionsRequest(
            client_software_name="trioq", client_software_version=__version__
        )
        response = self._exchange(ApiKey.API_VERSIONS, version, request, ApiVersionsResponse)
        return {api.api_key: (api.min_version, api.max_version) for api in response.api_keys}

    def _exchange(
        self, key: ApiKey, version: int, request: Message, response_class: type[Response]
    ) -> Response:
        self._correlation_id += 1
        frame = b"".join(
            bytes(part)  # type: ignore[arg-type]  # no file regions
            for part in request_frame(key, version, self._correlation_id, _CLIENT_ID, request)
        )
        deadline = time.monotonic() + self._timeout_s
        try:
            self._socket.settimeout(self._timeout_s)
            self._socket.sendall(frame)
            body = self._frame(deadline)
            return self._decoded(key, version, body, response_class)
        except TimeoutError as error:
            raise AdminError(
                f"the broker at {self.address} did not answer within {self._timeout_s:g} s: is it "
                "paused? see its log"
            ) from error
        except OSError as error:
            raise AdminError(
                f"the connection to {self.address} broke ({_reason(error)}): see the broker's log"
            ) from error
        except (ProtocolViolation, struct.error, IndexError, ValueError) as error:
            raise AdminError(
                f"what answers at {self.address} does not speak Kafka's protocol: {error}"
            ) from error

    def _decoded(
        self, key: ApiKey, version: int, body: memoryview, response_class: type[Response]
    ) -> Response:
        (correlation_id,) = struct.unpack_from(">i", body)
        if correlation_id != self._correlation_id:
            raise ProtocolViolation(f"answer {correlation_id} to request {self._correlation_id}")
        position = 4
        if key != ApiKey.API_VERSIONS and APIS[key].is_flexible(version):
            count, position = read_uvarint(body, position)
            for _ in range(count):
                _, position = read_uvarint(body, position)
                length, position = read_uvarint(body, position)
                position += length
        elif key == ApiKey.API_VERSIONS and _is_unsupported_version(body, position):
            version = 0  # the one answer that comes in another version than asked for
        return response_class.decode(body, position, len(body), version)

    def _frame(self, deadline: float) -> memoryview:
        (length,) = struct.unpack(">i", self._received(LENGTH_BYTES, deadline))
        if not 4 <= length <= MAX_RESPONSE_BYTES:
            raise ProtocolViolation(f"a response of {length} bytes")
        return memoryview(self._received(length, deadline))

    def _received(self, length: int, deadline: float) -> bytes:
        chunks = []
        while length:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            self._socket.settimeout(left_s)
            chunk = self._socket.recv(min(length, 1 << 20))
            if not chunk:
                raise ConnectionError("closed by the other side")
            chunks.append(chunk)
            length -= len(chunk)
        return b"".join(chunks)


def _is_unsupported_version(body: memoryview, position: int) -> bool:
    (code,) = struct.unpack_from(">h", body, position)
    return bool(code == UnsupportedVersion.code)


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
