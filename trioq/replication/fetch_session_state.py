"""The follower's end of an incremental fetch session (KIP-227).

Pure: no I/O, no clock. The leader remembers the partitions of a session and where each stands, so
a request names only those that moved, joined or left.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from trioq.types import TopicId

PartitionKey = tuple[TopicId, int]

NO_SESSION: Final = 0
FULL: Final = 0
"""The epoch of a request that names every partition and begins a session."""

MAX_EPOCH: Final = 2**31 - 1


class Position(NamedTuple):
    """Where a follower stands in a partition, as it states it to the leader."""

    leader_epoch: int
    """The term in which it asks."""
    fetch_offset: int
    """It holds everything below, as safely as its flush.policy asks."""
    last_fetched_epoch: int
    """The leader epoch of its last batch; -1 for none."""
    log_start_offset: int
    """Where its log begins. Beyond `fetch_offset`: its files are damaged, it holds nothing."""

    @property
    def is_harmed(self) -> bool:
        """It states that it holds nothing of what it held."""
        return self.log_start_offset > self.fetch_offset


class SessionPlan(NamedTuple):
    """What one request says of the session."""

    session_id: int
    epoch: int
    asked: list[tuple[PartitionKey, Position]]
    forgotten: list[PartitionKey]

    @property
    def is_full(self) -> bool:
        return self.epoch == FULL


class FetchSessionState:
    """What the leader was told, by partition; one request is under way at a time."""

    __slots__ = ("_epoch", "_session_id", "told")

    def __init__(self) -> None:
        self.told: dict[PartitionKey, Position] = {}
        """Where the leader thinks that each partition of the session stands."""
        self._session_id = NO_SESSION
        self._epoch = FULL

    @property
    def is_new(self) -> bool:
        """The next request names every partition."""
        return self._epoch == FULL

    def has_others_than(self, keys: list[PartitionKey]) -> bool:
        """Whether the session has a partition that is not in `keys`."""
        if self.is_new:
            return False
        leaving = set(keys)
        return len(self.told) > len(leaving) or any(key not in leaving for key in self.told)

    def plan(self, moved: dict[PartitionKey, Position], left: list[PartitionKey]) -> SessionPlan:
        """The next request: with a new session `moved` is everything that is to be fetched.

        Partitions of `moved` that stand where the leader thinks they do are not named.
        """
        if self.is_new:
            self.told = dict(moved)
            return SessionPlan(self._session_id, FULL, list(moved.items()), [])
        told = self.told
        asked = [(key, at) for key, at in moved.items() if told.get(key) != at]
        told.update(asked)
        forgotten = [key for key in left if told.pop(key, None) is not None]
        return SessionPlan(self._session_id, self._epoch, asked, forgotten)

    def answered(self, session_id: int) -> None:
        """A request was answered without an error of the session.

        A leader that has no room for sessions answers with none: then each request is full.
        """
        if session_id == NO_SESSION:
            self._session_id, self._epoch = NO_SESSION, FULL
            return
        self._epoch = 1 if self._epoch == MAX_EPOCH else self._epoch + 1
        self._session_id = session_id

    def lost(self, *, is_known: bool) -> None:
        """A request failed: the next one begins a session.

        `is_known` says that the leader may still hold the old one, which that request then closes.
        """
        self._epoch = FULL
        if not is_known:
            self._session_id = NO_SESSION
