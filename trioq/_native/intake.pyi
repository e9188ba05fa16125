"""The receiving half of a pass for connections whose requests are ordinary."""

from typing import Any

from trioq._native.request_lane import RequestLane
from trioq._native.response_ring import PassQueue

class ScratchState:
    """A base for ScratchBuffer."""

    buffer: bytearray
    view: memoryview
    """Of `buffer`."""
    position: int

class Intake:
    """A base for Receiver."""

    _reactor: Any
    _scratch: Any
    _lane: RequestLane
    _going_on: list[Any]
    """Connections whose last receive was full and ended within a frame that their inbox takes at
    exact size: the rest of it is probably there. They are marked ready; Receiver takes them up.
    """

    def __init__(
        self,
        reactor: PassQueue,
        scratch: ScratchState,
        lane: RequestLane,
        *,
        receive_bytes: int,
        held_bytes: int,
        last_position: int,
        max_frames: int,
    ) -> None:
        """A receive takes up to `receive_bytes`, and starts at `last_position` or before, behind
        what the connection's inbox holds, up to `held_bytes`.
        """

    def _emptied(self, inbox: Any) -> None:
        """What the inbox held is in the scratch buffer; Receiver's."""

    def _hold(self, inbox: Any, start: int, end: int, frame_bytes: int) -> None:
        """Keep these bytes of the scratch buffer, the beginning of a frame; Receiver's."""

    def _dispatch_rest(self, connection: Any, view: memoryview, start: int, end: int) -> None:
        """Take what the lane did not, from the first frame on; Receiver's."""

    def serve_small(self, ready: list[Any], index: int) -> int:
        """Receive from ready[index:] and take what the lane takes; some connections per call.

        Stops before the first connection that needs the general way, and after one whose
        bytes went to `_dispatch_rest` in part. Returns where it stopped.
        """
