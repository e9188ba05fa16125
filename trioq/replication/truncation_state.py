"""Where a follower's log parts from its leader's. Pure: offsets in, offsets out."""

from __future__ import annotations

from typing import NamedTuple


def truncation_offset(
    leader_epoch: int, leader_end: int, own_epoch: int, own_end: int, log_end: int
) -> int:
    """Where to cut a log that has parted from the leader's (KIP-101, KIP-279, KIP-595).

    Args:
        leader_epoch, leader_end: the greatest epoch of the leader's log at or below the one that
            was stated, and the offset where it ends there.
        own_epoch, own_end: the greatest epoch of this log at or below `leader_epoch`, and where
            it ends here; -1 for both when there is none.
        log_end: of this log.

    Up to the result the logs are equal, or the next request finds a lower point. Where the two
    name the same epoch, they are equal up to the lesser end of it. Where this log lacks the
    leader's epoch, its own batches above the one it has are of terms that the leader's log never
    saw. The high watermark has no say.

    """
    if own_epoch < 0:
        return min(leader_end, log_end)
    if own_epoch == leader_epoch:
        return min(leader_end, own_end, log_end)
    return min(own_end, log_end)


class Reset(NamedTuple):
    """How to come back into the range of the leader's log."""

    offset: int
    is_restart: bool
    """True: drop everything and begin again there; False: truncate to it."""


def reset(log_start: int, log_end: int, leader_start: int, leader_end: int) -> Reset | None:
    """What to do with a log whose end is said to be outside of the leader's; None: ask again."""
    if log_end < leader_start:
        return Reset(leader_start, is_restart=True)
    if log_end > leader_end:
        return Reset(max(leader_end, leader_start), is_restart=leader_end < log_start)
    return None
