"""A connection's responses in order, and what a pass of the reactor does for every connection.

Bases of the server's classes, with their state in C: the ways that nearly every request and every
answer take are here, all others are the server's own. Owned by the reactor, as those classes are.
"""

from typing import Any, Final, final

OPEN: Final = 0
ANSWERED: Final = 1
DISCARDED: Final = 2
"""No response: acks=0."""
CANCELLED: Final = 3
"""The connection ended first."""

class RingEntry:
    """The place of one response in its connection's order: a base for Slot.

    `state` is OPEN until the response is finished. `parts` are its bytes, `length` of them, once
    it is ANSWERED; `parked_bytes` what it counts for while it waits, 0 if it does not.
    """

    connection: Any
    state: int
    parked_bytes: int
    parts: Any
    length: int
    on_cancel: Any
    on_drain: Any

    def cancel(self) -> None:
        """The connection ends. Every subclass has this."""

@final
class ReadyAnswer(RingEntry):
    """An answer that was made beforehand, to be sent once its batch is safe. An AckWaiter."""

    api_version: int
    correlation_id: int

    def acknowledged(self, _index: int) -> None: ...
    def refused(self, _index: int, error: type[Exception]) -> None:
        """Calls what the lane was given: `refuse(answer, partition, error)`, which completes it."""

    def complete_frame(self, frame: bytes) -> None:
        """Answer with another frame instead."""

    def cancel(self) -> None: ...

class PassQueue:
    """What waits for a pass: a base for the reactor."""

    _in_pass: bool
    _dirty: list[Any]
    """To be flushed at the end of the pass."""
    _ready: list[Any]
    """To be served without an event."""
    now_s: float
    sent_bytes: int
    """By flush_small, since somebody set it to 0."""
    received_bytes: int
    """By Intake, likewise."""

    def take_up(self, events: list[tuple[Any, int]]) -> list[tuple[Any, int]]:
        """Put the connections that are just readable on the ready list; returns the others."""

    def flush_small(self, dirty: list[Any]) -> list[Any]:
        """Flush connections whose answers are small and are read from; returns the others.

        Clears `is_dirty` of all. What is returned was flushed in part or not at all. Errors of a
        socket are left to the general way.
        """

class EgressQueue:
    """A base for Egress."""

    queued_bytes: int
    """Bytes accepted and not yet sent, file regions included."""

class InboxState:
    """A base for Inbox."""

    buffer: bytearray
    length: int
    frame_bytes: int

class ResponseRing:
    """A connection's ring of responses, and its state in a pass: a base for Connection."""

    _reactor: Any
    egress: Any
    inbox: Any
    ring: list[Any]
    """What is not sent yet, in the order of the requests."""
    fd: int
    is_plain: bool
    """What is sent goes to `fd` as it is."""
    barrier_is_open: bool
    needs_idle: bool
    is_dirty: bool
    is_ready: bool
    is_closing: bool
    is_finishing: bool
    is_closed: bool
    muted: int
    interest: int
    send_state: Any
    listener_name: str
    client_software: Any
    parked_count: int
    parked_bytes: int
    alone_count: int
    last_activity_s: float
    frame_started_s: float
    """When the partial frame in the inbox began to arrive; -1 without one."""
    send_progress_s: float

    def slot_finished(self, entry: RingEntry) -> None:
        """Called by an entry of the ring when it is answered or discarded."""

    def _keep_rest(self, rest: bytes) -> None:
        """The socket took a part of what was sent; this is what is left. Connection's."""
