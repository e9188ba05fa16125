"""One connection to a broker: requests out, responses matched to those who wait for them."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any, Final, Generic, TypeVar

import anyio
from anyio.abc import ByteStream

from trioq.client.address import HostPort
from trioq.client.apis import ClientApi, api_of, common_version
from trioq.client.pieces import joined
from trioq.client.response_frames import ResponseFrames
from trioq.client.transport import RECEIVE_BYTES, reason
from trioq.errors import (
    CallTimeout,
    ClientError,
    ConnectionFailed,
    ProtocolViolation,
)
from trioq.wire.framing import request_frame
from trioq.wire.primitives import Part, read_uvarint
from trioq.wire.schema import Message

Response = TypeVar("Response", bound=Message)

_CORRELATION_ID: Final = struct.Struct(">i")


class PendingCall(Generic[Response]):
    """A request under way, and what came of it."""

    __slots__ = (
        "api",
        "deadline_s",
        "failure",
        "frame",
        "on_end",
        "response_class",
        "timeout_s",
        "version",
    )

    def __init__(
        self,
        api: ClientApi,
        version: int,
        response_class: type[Response],
        timeout_s: float,
        on_end: Callable[[PendingCall[Response]], None],
    ) -> None:
        self.api = api
        self.version = version
        self.response_class = response_class
        self.timeout_s = timeout_s
        self.deadline_s = monotonic() + timeout_s
        self.on_end = on_end
        self.frame: memoryview | None = None
        self.failure: ClientError | None = None

    def end(self) -> None:
        """The answer is there, or will not come."""
        self.on_end(self)


class Connection:
    """A stream to one broker on which up to `max_in_flight` requests are under way.

    `run` does the I/O and belongs into the task group of whoever opened the stream; `call`
    may be used by any number of tasks. Answers come in the order of the requests, as Kafka's
    protocol has it. The first failure closes the connection for good: every call under way
    and every later one raises it.
    """

    def __init__(
        self,
        stream: ByteStream,
        address: HostPort,
        *,
        client_id: str,
        max_in_flight: int,
        max_response_bytes: int,
    ) -> None:
        self.address = address
        self.versions: dict[int, tuple[int, int]] = {}
        """First and last version of each API that the broker serves, once it was asked."""

        self.expires_at_s: float | None = None
        """When the authenticated session ends, by anyio.current_time(); None for never."""

        self.received_bytes = 0
        self.sent_bytes = 0
        self._stream = stream
        self._client_id = client_id
        self._max_in_flight = max_in_flight
        self._frames = ResponseFrames(max_response_bytes)
        self._correlation_id = 0
        self._pending: deque[tuple[int, PendingCall[Any]]] = deque()
        self._outbox: list[Part] = []
        self._unsent = 0
        self._timer_needed = anyio.Event()
        self._outbox_filled = anyio.Event()
        self._progress = anyio.Event()
        self._failure: ClientError | None = None
        self._scope = anyio.CancelScope()

    # ---- what it is -------------------------------------------------------------------

    @property
    def failure(self) -> ClientError | None:
        """Why the connection is closed; None while it is open."""
        return self._failure

    @property
    def in_flight(self) -> int:
        """Requests that wait for their response."""
        return len(self._pending)

    def is_usable(self, now_s: float) -> bool:
        """False once the connection failed or its session is about to end."""
        return self._failure is None and (self.expires_at_s is None or now_s < self.expires_at_s)

    def version_of(
        self, request_class: type[Message], *, at_least: int = 0, at_most: int | None = None
    ) -> int:
        """The version in which such a request would be sent; raises UnsupportedByBroker."""
        api = api_of(request_class)
        return common_version(api, self.versions, at_least=at_least, at_most=at_most)

    # ---- calls ------------------------------------------------------------------------

    async def call(
        self,
        request: Message,
        response_class: type[Response],
        *,
        timeout_s: float,
        at_least: int = 0,
        at_most: int | None = None,
    ) -> Response:
        """Send `request` in the highest version both sides know; its response.

        Args:
            request: encoded once there is room among those in flight.
            response_class: what the response is decoded as; records in it borrow the frame.
            timeout_s: for waiting for room, and again for the answer.
            at_least: the lowest version that can express what is asked.
            at_most: the highest version to use; None for what the client implements.

        Raises UnsupportedByBroker, ConnectionFailed (CallTimeout when the answer is late,
        which closes the connection: answers behind it would be late too), EncodeError.
        A cancelled call may have been carried out; its answer is dropped.

        """
        version = self.version_of(type(request), at_least=at_least, at_most=at_most)
        pending = await self._ended(request, response_class, version, timeout_s)
        return self.result(pending)

    async def call_raw(
        self, request: Message, response_class: type[Response], version: int, *, timeout_s: float
    ) -> memoryview:
        """As `call`, in a given version; the bytes behind the correlation id, undecoded."""
        pending = await self._ended(request, response_class, version, timeout_s)
        return self._frame(pending)[_CORRELATION_ID.size :]

    async def _ended(
        self, request: Message, response_class: type[Response], version: int, timeout_s: float
    ) -> PendingCall[Response]:
        await self._room_for_one(api_of(type(request)), timeout_s)
        ended = anyio.Event()
        pending = self.begin(
            request,
            response_class,
            version,
            timeout_s=timeout_s,
            on_end=lambda _: ended.set(),
        )
        with anyio.move_on_after(timeout_s):
            await ended.wait()
        if pending.frame is None and pending.failure is None:
            raise self._timed_out(pending.api, timeout_s)
        return pending

    def begin(
        self,
        request: Message,
        response_class: type[Response],
        version: int,
        *,
        timeout_s: float,
        on_end: Callable[[PendingCall[Response]], None],
    ) -> PendingCall[Response]:
        """Put `request` behind those that were begun before; for callers who keep to `has_room`.

        `on_end` is called once, in the order of the requests, when `result` has something to
        say; it must not wait or raise. Raises ConnectionFailed, EncodeError.
        """
        self._refuse_if_failed()
        pending = PendingCall(api_of(type(request)), version, response_class, timeout_s, on_end)
        correlation_id = self._enqueue(pending.api, version, request)
        self._pending.append((correlation_id, pending))
        self._timer_needed.set()
        return pending

    def result(self, pending: PendingCall[Response]) -> Response:
        """The response to a call that has ended; raises as `call`."""
        frame = self._frame(pending)
        try:
            position = _CORRELATION_ID.size
            if pending.api.has_tagged_response_header(pending.version):
                position = _skip_tagged_fields(frame, position)
            return pending.response_class.decode(frame, position, len(frame), pending.version)
        except (ProtocolViolation, IndexError, ValueError) as error:
            failure = ConnectionFailed(
                f"{self.address} answered {pending.api.name} with bytes that make no sense: {error}"
            )
            self.fail(failure)
            raise failure from error

    def _frame(self, pending: PendingCall[Response]) -> memoryview:
        if pending.failure is not None:
            raise again(pending.failure)
        assert pending.frame is not None, "the call has not ended"
        return pending.frame

    def tell(self, request: Message, version: int) -> None:
        """Send a request that has no response: Produce with acks=0.

        It is lost if the connection breaks before it is sent. Callers keep to `has_room`.
        """
        self._refuse_if_failed()
        self._enqueue(api_of(type(request)), version, request)

    @property
    def has_room(self) -> bool:
        """Whether another request may be begun without exceeding what may be in flight."""
        return len(self._pending) < self._max_in_flight and self._unsent < self._max_in_flight

    async def wait_for_room(self) -> None:
        """Return when there may be room, or the connection failed."""
        while not self.has_room and self._failure is None:
            await self.wait_for_progress()

    async def wait_for_progress(self) -> None:
        """Return when the next request was sent or answered, or the connection failed."""
        if self._failure is None:
            if self._progress.is_set():
                self._progress = anyio.Event()
            await self._progress.wait()

    async def _room_for_one(self, api: ClientApi, timeout_s: float) -> None:
        with anyio.move_on_after(timeout_s):
            await self.wait_for_room()
        self._refuse_if_failed()
        if not self.has_room:
            raise self._timed_out(api, timeout_s)

    def _timed_out(self, api: ClientApi, timeout_s: float) -> CallTimeout:
        failure = CallTimeout(
            f"{self.address} did not answer {api.name} within {timeout_s:g} s: see the broker's "
            "log, or allow more time"
        )
        self.fail(failure)
        return failure

    def _refuse_if_failed(self) -> None:
        if self._failure is not None:
            raise again(self._failure)

    def _enqueue(self, api: ClientApi, version: int, request: Message) -> int:
        correlation_id = self._correlation_id = (self._correlation_id + 1) & 0x7FFFFFFF
        parts = request_frame(api.key, version, correlation_id, self._client_id, request)
        self._outbox += parts
        self._unsent += 1
        self._outbox_filled.set()
        return correlation_id

    # ---- I/O --------------------------------------------------------------------------

    async def run(self) -> None:
        """Send and receive until the connection fails or `close` is called; closes the stream."""
        try:
            with self._scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._send)
                    tasks.start_soon(self._keep_time)
                    await self._receive()
        finally:
            self.fail(ConnectionFailed(f"the connection to {self.address} was closed"))
            with anyio.CancelScope(shield=True):
                await anyio.aclose_forcefully(self._stream)

    async def _send(self) -> None:
        while True:
            await self._outbox_filled.wait()
            self._outbox_filled = anyio.Event()
            parts, self._outbox = self._outbox, []
            self._unsent = 0
            try:
                for data in joined(parts):
                    await self._stream.send(data)
                    self.sent_bytes += len(data)
            except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
                self._broke(error)
                return
            self._progress.set()

    async def _keep_time(self) -> None:
        """Fail the connection when its oldest call is not answered in time."""
        while True:
            if not self._pending:
                self._timer_needed = anyio.Event()
                await self._timer_needed.wait()
                continue
            _, oldest = self._pending[0]
            left_s = oldest.deadline_s - monotonic()
            if left_s <= 0:
                self._timed_out(oldest.api, oldest.timeout_s)
            await anyio.sleep(max(left_s, 0))

    async def _receive(self) -> None:
        while True:
            try:
                data = await self._stream.receive(RECEIVE_BYTES)
            except (
                OSError,
                anyio.EndOfStream,
                anyio.BrokenResourceError,
                anyio.ClosedResourceError,
            ) as error:
                self._broke(error)
                return
            self.received_bytes += len(data)
            try:
                for frame in self._frames.feed(data):
                    self._deliver(frame)
            except ProtocolViolation as error:
                self.fail(ConnectionFailed(f"{self.address} does not speak the protocol: {error}"))
                return

    def _deliver(self, frame: memoryview) -> None:
        (answered_id,) = _CORRELATION_ID.unpack_from(frame)
        if not self._pending or self._pending[0][0] != answered_id:
            raise ProtocolViolation(f"an answer to request {answered_id}, which is not the next")
        _, pending = self._pending.popleft()
        pending.frame = frame
        pending.end()
        self._progress.set()

    def _broke(self, error: Exception) -> None:
        self.fail(ConnectionFailed(f"the connection to {self.address} broke ({reason(error)})"))

    def fail(self, failure: ClientError) -> None:
        """Close the connection because of `failure`; only the first reason counts."""
        if self._failure is not None:
            return
        self._failure = failure
        while self._pending:
            _, pending = self._pending.popleft()
            pending.failure = failure
            pending.end()
        self._progress.set()
        self._scope.cancel()

    def close(self) -> None:
        """Close the connection; calls under way raise ConnectionFailed."""
        self.fail(ConnectionFailed(f"the connection to {self.address} was closed"))


def again(failure: ClientError) -> ClientError:
    """The same failure as an exception of its own, so that each caller has its own traceback."""
    copy = type(failure)(*failure.args)
    copy.__cause__ = failure.__cause__
    return copy


def _skip_tagged_fields(frame: memoryview, position: int) -> int:
    count, position = read_uvarint(frame, position)
    for _ in range(count):
        _, position = read_uvarint(frame, position)
        length, position = read_uvarint(frame, position)
        position += length
    return position
