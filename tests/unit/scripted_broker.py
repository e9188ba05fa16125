"""A broker whose answers the test writes: real sockets, real frames, no logic."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable

from trioq.wire.api_keys import APIS, ApiKey
from trioq.wire.framing import response_frame
from trioq.wire.header import decode_request_header
from trioq.wire.messages.api_versions import ApiVersionsResponse, ApiVersionsResponseKey
from trioq.wire.schema import Message

Answer = Callable[[Message], Message | bytes | None]
"""A response, raw bytes to send instead, or None to close the connection."""


class ScriptedBroker:
    """Answers each request by the function given for its API; ApiVersions by itself."""

    def __init__(self, answers: dict[ApiKey, Answer], served: set[ApiKey] | None = None) -> None:
        self.requests: list[Message] = []
        self._answers = {ApiKey.API_VERSIONS: self._api_versions, **answers}
        self._served = served
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def port(self) -> int:
        return self._listener.getsockname()[1]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            stream = connection.makefile("rb")
            with stream:
                while prefix := stream.read(4):
                    frame = memoryview(stream.read(struct.unpack(">i", prefix)[0]))
                    reply = self._reply(frame)
                    if reply is None:
                        return
                    connection.sendall(reply)

    def _reply(self, frame: memoryview) -> bytes | None:
        header = decode_request_header(frame, 0, len(frame))
        api = APIS[header.api_key]
        request = api.request_class.decode(frame, header.position, len(frame), header.api_version)
        self.requests.append(request)
        answer = self._answers[api.key](request)
        if answer is None or isinstance(answer, bytes):
            return answer
        return b"".join(response_frame(api.key, header.api_version, header.correlation_id, answer))

    def _api_versions(self, _: Message) -> Message:
        return ApiVersionsResponse(
            api_keys=[
                ApiVersionsResponseKey(
                    api_key=api.key, min_version=api.min_version, max_version=api.max_version
                )
                for api in APIS.values()
                if self._served is None or api.key in self._served
            ]
        )
