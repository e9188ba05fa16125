"""What a replica does that follows the leader's log."""

from __future__ import annotations

from trioq.replication.replica import Replica


class FollowerSide(Replica):
    """The follower's side of a partition."""

    __slots__ = ()
