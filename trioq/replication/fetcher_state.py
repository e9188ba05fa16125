"""What a follower asks its leader next, and what it makes of the answers.

Pure: no I/O, no clock; times are arguments. The driver (fetcher.py) owns sockets and logs, and
tells where each partition stands when it is asked.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import Final, NamedTuple

from trioq.errors import (
    FencedLeaderEpoch,
    FetchSessionIdNotFound,
    FetchSessionTopicIdError,
    InconsistentTopicId,
    InvalidFetchSessionEpoch,
    NotLeaderOrFollower,
    OffsetNotAvailable,
    OffsetOutOfRange,
    ReplicaNotAvailable,
    StaleBrokerEpoch,
    UnknownLeaderEpoch,
    UnknownTopicId,
    UnknownTopicOrPartition,
)
from trioq.replication.fetch_session_state import (
    FetchSessionState,
    PartitionKey,
    Position,
    SessionPlan,
)

PositionOf = Callable[[PartitionKey], Position | None]
"""Where a partition stands; None while it must not state that yet (not synced, not written)."""

NO_ERROR: Final = 0
SOON_S: Final = 0.01
"""How long the leader may hold a request at most while a partition is about to be ready for one."""

MAX_BACKOFF_DOUBLINGS: Final = 6
"""A partition that fails again and again is asked for 2^6 times as seldom."""

IMAGE_WAIT_BACKOFFS: Final = 10
"""A partition that waits for a newer image is asked for again after so many backoffs: the image
may have been the newest, and the leader behind."""

SESSION_ERRORS: Final = frozenset(
    {FetchSessionIdNotFound.code, InvalidFetchSessionEpoch.code, FetchSessionTopicIdError.code}
)
_OLD_IMAGE: Final = frozenset({FencedLeaderEpoch.code})
"""The leader is in a later term: a newer image is on its way here."""

_UNEQUAL_IMAGES: Final = frozenset(
    {
        NotLeaderOrFollower.code,
        UnknownLeaderEpoch.code,
        UnknownTopicOrPartition.code,
        UnknownTopicId.code,
        InconsistentTopicId.code,
        OffsetNotAvailable.code,
        ReplicaNotAvailable.code,
        StaleBrokerEpoch.code,
    }
)
"""One of the two is behind; which one will show."""


class Verdict(Enum):
    """What to do with the answer for one partition."""

    APPEND = auto()
    TRUNCATE = auto()
    LOOK_UP = auto()
    """The offset is outside the leader's log: ask where that begins and ends."""
    WAIT = auto()
    """Nothing here; it is asked for again later, or when a newer image has come."""
    REPORT = auto()
    """As WAIT, and it is an error that somebody should know of."""


def judge(error_code: int, *, is_diverging: bool) -> Verdict:
    """What the leader's answer for a partition calls for."""
    if error_code == NO_ERROR:
        return Verdict.TRUNCATE if is_diverging else Verdict.APPEND
    if error_code == OffsetOutOfRange.code:
        return Verdict.LOOK_UP
    if error_code in _OLD_IMAGE or error_code in _UNEQUAL_IMAGES:
        return Verdict.WAIT
    return Verdict.REPORT


class FetchPlan(NamedTuple):
    """One request, but for the sizes that the driver puts in."""

    session: SessionPlan
    wait_s: float
    """How long the leader may hold the request at most."""


class _Followed:
    """One partition of the fetcher."""

    __slots__ = ("failures", "leader_epoch", "retry_at_s")

    def __init__(self, leader_epoch: int) -> None:
        self.leader_epoch = leader_epoch
        self.failures = 0
        self.retry_at_s = 0.0


class FetcherState:
    """The partitions that one fetcher copies from one leader.

    A partition is asked for, or waits until a time. The cost of a request is that of the
    partitions that moved since the one before: thousands that rest cost nothing.
    """

    __slots__ = ("_backoff_s", "_delays", "_followed", "_max_wait_s", "_moved", "_session")

    def __init__(self, *, backoff_s: float, max_wait_s: float) -> None:
        """`backoff_s` and `max_wait_s`: replica.fetch.backoff.ms and .wait.max.ms."""
        self._backoff_s = backoff_s
        self._max_wait_s = max_wait_s
        self._followed: dict[PartitionKey, _Followed] = {}
        self._moved: dict[PartitionKey, None] = {}
        """To be looked at with the next request, in the order in which they came up."""
        self._delays: list[tuple[float, PartitionKey]] = []
        self._session = FetchSessionState()

    def __len__(self) -> int:
        return len(self._followed)

    def __contains__(self, key: PartitionKey) -> bool:
        return key in self._followed

    def keys(self) -> Iterable[PartitionKey]:
        return self._followed.keys()

    # ---- who is followed ----------------------------------------------------------------

    def follow(self, key: PartitionKey, leader_epoch: int) -> bool:
        """Copy the partition from this leader, whose term is `leader_epoch`, from now on.

        A later term ends every wait of an earlier one; the same term changes nothing, and is
        answered with False.
        """
        followed = self._followed.get(key)
        if followed is not None and followed.leader_epoch == leader_epoch:
            return False
        self._followed[key] = _Followed(leader_epoch)
        self._moved[key] = None
        return True

    def unfollow(self, key: PartitionKey) -> None:
        """Ask for the partition no longer; nothing happens if it is not followed."""
        if self._followed.pop(key, None) is not None:
            self._moved[key] = None

    def is_current(self, key: PartitionKey, leader_epoch: int) -> bool:
        """Whether an answer to a request of that term is still wanted."""
        followed = self._followed.get(key)
        return followed is not None and followed.leader_epoch == leader_epoch

    # ---- asking -------------------------------------------------------------------------

    def plan(self, now_s: float, position_of: PositionOf) -> FetchPlan | None:
        """The next request, or None when there is nothing to ask for now.

        A partition that does not stand anywhere yet (None) leaves the session until it does.
        """
        self._end_delays(now_s)
        is_new = self._session.is_new
        looked_at = list(self._followed) if is_new else list(self._moved)
        moved: dict[PartitionKey, Position] = {}
        left: list[PartitionKey] = []
        self._moved.clear()
        for key in looked_at:
            followed = self._followed.get(key)
            if followed is None:
                left.append(key)
                continue
            at = None
            if followed.retry_at_s <= now_s:
                at = position_of(key)
                if at is None:
                    self._moved[key] = None
            if at is None:
                left.append(key)
            else:
                moved[key] = at
        if not (moved or self._session.has_others_than(left)):
            # A request would have nothing to bring; the leader drops the session with the next.
            self._session.lost(is_known=True)
            return None
        return FetchPlan(self._session.plan(moved, left), self._wait_s(now_s))

    def _wait_s(self, now_s: float) -> float:
        wait_s = min(self._max_wait_s, SOON_S) if self._moved else self._max_wait_s
        if self._delays:
            wait_s = min(wait_s, max(SOON_S, self._delays[0][0] - now_s))
        return wait_s

    def stated(self, key: PartitionKey) -> Position | None:
        """What the request under way, or the last one, says of the partition."""
        return self._session.told.get(key)

    def next_retry_s(self) -> float | None:
        """When the first partition that waits is to be asked for; None if none waits."""
        return self._delays[0][0] if self._delays else None

    def _end_delays(self, now_s: float) -> None:
        while self._delays and self._delays[0][0] <= now_s:
            _, key = heapq.heappop(self._delays)
            self._moved[key] = None

    # ---- answers ------------------------------------------------------------------------

    def answered(self, error_code: int, session_id: int) -> bool:
        """The request was answered; False if the answer says nothing of partitions."""
        if error_code == NO_ERROR:
            self._session.answered(session_id)
            return True
        self._session.lost(is_known=error_code not in SESSION_ERRORS)
        return False

    def unanswered(self) -> None:
        """The request failed on its way there or back."""
        self._session.lost(is_known=True)

    def moved(self, key: PartitionKey) -> None:
        """The partition stands elsewhere than was stated, or may soon."""
        followed = self._followed.get(key)
        if followed is not None:
            followed.failures = 0
            self._moved[key] = None

    def delay(self, key: PartitionKey, now_s: float, error_code: int) -> None:
        """An answer, or what was done with it, was an error: ask again after a while."""
        followed = self._followed.get(key)
        if followed is None:
            return
        times = 2.0 ** min(followed.failures, MAX_BACKOFF_DOUBLINGS)
        followed.failures += 1
        if error_code in _OLD_IMAGE:
            times = IMAGE_WAIT_BACKOFFS
        elif error_code in _UNEQUAL_IMAGES:
            times = min(times, IMAGE_WAIT_BACKOFFS)
        pause_s = self._backoff_s * times
        self.pause(key, now_s + pause_s)

    def rests(self, key: PartitionKey, now_s: float) -> bool:
        """Whether the partition waits for a later time, or is not followed."""
        followed = self._followed.get(key)
        return followed is None or followed.retry_at_s > now_s

    def pause(self, key: PartitionKey, until_s: float) -> None:
        """Do not ask for the partition before a time."""
        followed = self._followed.get(key)
        if followed is not None:
            followed.retry_at_s = until_s
            heapq.heappush(self._delays, (until_s, key))
            self._moved[key] = None
