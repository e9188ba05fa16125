"""Requests in pieces: few system calls for what is small, no copies of what is large."""

from __future__ import annotations

from typing import Final

from trioq.types import FileRegion
from trioq.wire.primitives import Part

_JOIN_BYTES: Final = 128 * 1024
"""Pieces up to this size are joined with their neighbours: copying costs less than sending."""


def joined(parts: list[Part]) -> list[bytes]:
    """The same bytes in as few pieces as copying small ones makes sense; large ones as they are."""
    pieces: list[bytes] = []
    small: list[bytes] = []
    for part in parts:
        assert not isinstance(part, FileRegion), "a client sends no files"
        if len(part) <= _JOIN_BYTES:
            small.append(part)  # type: ignore[arg-type]  # anything that join and send take
            continue
        if small:
            pieces.append(small[0] if len(small) == 1 else b"".join(small))
            small = []
        pieces.append(part)  # type: ignore[arg-type]
    if small:
        pieces.append(small[0] if len(small) == 1 else b"".join(small))
    return pieces
