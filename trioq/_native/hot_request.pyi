"""What nearly every request looks like, read in one call.

Each reader gives None for anything out of the ordinary, malformed bytes included: the caller then
takes the general way (trioq.wire), which tells what it is. Where a reader gives something, it is
what the general way would have given.
"""

from typing import TypeVar

_Head = TypeVar("_Head", bound=RequestHead)

class RequestHead:
    """The head of a request frame, and where its body is; a base for the server's Request."""

    api_key: int
    api_version: int
    correlation_id: int
    client_id: str | None
    body: memoryview
    """Borrowed: what `position` and `end` are positions in."""
    position: int
    """Where the body starts."""
    end: int
    """Where the body ends."""

    def move(self, body: memoryview, by: int, end: int) -> None:
        """The same bytes are now in `body`, `by` further on, and end at `end`."""

def read_head(
    cls: type[_Head], buf: memoryview, start: int, end: int, flexible_from: dict[int, int]
) -> _Head | None:
    """Read the header of the frame body in buf[start:end] into a new `cls`.

    `cls` is made without calling its __init__. `flexible_from` has the first flexible version
    of each API. None for an API that is not in it, for tagged fields, and for malformed bytes.
    ValueError if [start, end) is not within `buf`.
    """

class SingleBatch:
    """A Produce request of one batch for one partition, outside of transactions."""

    acks: int
    timeout_ms: int
    topic: str
    partition: int
    records: memoryview
    """Borrows the request's buffer; unchecked, may be empty."""

    def answer(
        self,
        correlation_id: int,
        base_offset: int,
        append_time_ms: int,
        log_start_offset: int,
    ) -> bytes:
        """The whole response frame that says the batch was appended."""

def read_single_batch(buf: memoryview, position: int, end: int, version: int) -> SingleBatch | None:
    """Read the body of a Produce request in buf[position:end].

    None for several topics or partitions, a transactional id, null records, tagged fields, a
    version that it does not know, and malformed bytes. ValueError if [position, end) is not
    within `buf`.
    """
