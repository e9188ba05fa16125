"""A slot: the place of one response in its connection's order."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from trioq._native.response_ring import ANSWERED, CANCELLED, DISCARDED, OPEN, RingEntry
from trioq.errors import BrokerBug
from trioq.types import FileRegion
from trioq.wire.framing import LENGTH_BYTES, length_prefix, response_frame
from trioq.wire.header import response_header
from trioq.wire.primitives import Part, records_length

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trioq.server.connection import Connection
    from trioq.wire.schema import Message

JOINED_BYTES: Final = 4096
"""A body up to this size is joined with its header; larger ones are not copied."""


class Slot(RingEntry):
    """The response that is owed to one request.

    Owned by the broker's loop: all methods are plain calls on its thread, made at any time
    until the connection ends and harmless afterwards. A slot is finished once, by
    `complete`, `complete_frame`, `complete_raw`, `discard` or `close`.

    `on_cancel` is called without arguments when the connection ends before the slot is
    finished, `on_drain` when the broker is about to stop and asks the waiting request to
    answer with what it has (it may finish the slot in that call). Both are set by the
    handler that keeps the slot, may be None, and must not raise.
    """

    __slots__ = ("api_key", "api_version", "correlation_id")

    connection: Connection
    parts: Sequence[Part]
    on_cancel: Callable[[], None] | None
    on_drain: Callable[[], None] | None

    def __init__(
        self, connection: Connection, api_key: int, api_version: int, correlation_id: int
    ) -> None:
        self.connection = connection
        self.api_key = api_key
        self.api_version = api_version
        self.correlation_id = correlation_id
        self.parts = ()

    @property
    def is_open(self) -> bool:
        """True until the slot is finished or its connection has ended."""
        return self.state == OPEN

    def complete(self, message: Message) -> None:
        """Answer with `message`, encoded now; file regions in it pass to the connection.

        Raises EncodeError when the version cannot express the message.
        """
        if self.state != OPEN:
            self._refuse(message.encode_parts(self.api_version))
            return
        parts = response_frame(self.api_key, self.api_version, self.correlation_id, message)
        self.parts = parts
        self.length = len(parts[0]) if len(parts) == 1 else records_length(parts)
        self._finish(ANSWERED)

    def complete_frame(self, frame: bytes) -> None:
        """Answer with a whole response frame: length, header and body, without file regions."""
        if self.state != OPEN:
            self._refuse(())
            return
        self.parts = (frame,)
        self.length = len(frame)
        self._finish(ANSWERED)

    def complete_raw(self, body: Sequence[Part]) -> None:
        """Answer with an encoded body (no header); file regions in it pass to the connection."""
        if self.state != OPEN:
            self._refuse(body)
            return
        header = response_header(self.api_key, self.api_version, self.correlation_id)
        only = body[0] if len(body) == 1 else None
        if type(only) is bytes and len(only) <= JOINED_BYTES:
            self.complete_frame(length_prefix(len(header) + len(only)) + header + only)
            return
        length = len(header) + records_length(list(body))
        self.parts = [length_prefix(length) + header, *body]
        self.length = length + LENGTH_BYTES
        self._finish(ANSWERED)

    def discard(self) -> None:
        """There is no response to this request (acks=0); its place in the order is given up."""
        if self.state == OPEN:
            self._finish(DISCARDED)

    def close(self, reason: str) -> None:
        """End the connection, with a log line that says why, instead of answering."""
        self.connection.close(reason)

    def cancel(self) -> None:
        """Called by the connection when it ends; tells the handler that keeps the slot."""
        if self.state != OPEN:
            release_regions(self.parts)
            self.parts = ()
            return
        self.state = CANCELLED
        on_cancel = self.on_cancel
        self.on_cancel = self.on_drain = None
        if on_cancel is not None:
            on_cancel()

    def _finish(self, state: int) -> None:
        self.state = state
        self.on_cancel = self.on_drain = None
        self.connection.slot_finished(self)

    def _refuse(self, body: Sequence[Part]) -> None:
        if self.state != CANCELLED:
            raise BrokerBug(f"a response to API {self.api_key} was completed twice")
        release_regions(body)


def release_regions(parts: Sequence[Part]) -> None:
    """Give back every file region among `parts`."""
    for part in parts:
        if isinstance(part, FileRegion):
            part.file.release()
