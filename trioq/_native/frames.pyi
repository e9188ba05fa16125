"""Splits a receive buffer into request frames (a 4-byte length, then as many bytes)."""

from typing_extensions import Buffer

LENGTH_BYTES: int
"""Bytes of the length prefix, which does not count itself."""

def split(
    buf: Buffer, start: int, end: int, max_frame_bytes: int, max_frames: int
) -> tuple[list[tuple[int, int]], int, int]:
    """The whole frames in buf[start:end], at most `max_frames` of them.

    Returns ([(body start, body end)...], position of the first byte not consumed, bytes that the
    frame at that position has in all, its length prefix included). The last is 0 while fewer than
    four bytes are there; it is at most `end - position` only when `max_frames` stopped the split.
    Raises ProtocolViolation, naming the length, for any length met that is not in
    1..max_frame_bytes; what looks like HTTP or TLS is called so.
    """
