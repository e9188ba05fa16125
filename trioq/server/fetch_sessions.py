"""Incremental fetch sessions (KIP-227): what a consumer follows, kept between its requests.

A session listens to its partitions, and those with something to read are its `ready`
partitions: a fetch looks at these alone, so following 1,000 idle partitions costs nothing.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Protocol

from trioq.errors import (
    FetchSessionIdNotFound,
    FetchSessionTopicIdError,
    InvalidFetchSessionEpoch,
)
from trioq.types import TopicId

if TYPE_CHECKING:
    from trioq.replication.partition import Partition
    from trioq.replication.replica import Replica

INITIAL_EPOCH = 0
FINAL_EPOCH = -1
MAX_EPOCH = 2**31 - 1

PartitionKey = tuple[TopicId | str, int]
"""Topic id (Fetch 13 and later) or topic name, and partition number."""


class FollowedPartition:
    """One partition of a fetch: what the client asked for and what it was last told."""

    __slots__ = (
        "current_leader_epoch",
        "fetch_offset",
        "last_fetched_epoch",
        "log_start_offset",
        "max_bytes",
        "number",
        "partition",
        "told_high_watermark",
        "told_log_start_offset",
        "topic",
        "topic_id",
    )

    def __init__(
        self,
        topic: str,
        topic_id: TopicId,
        number: int,
        fetch_offset: int,
        max_bytes: int,
        current_leader_epoch: int,
        last_fetched_epoch: int,
        log_start_offset: int = -1,
    ) -> None:
        self.topic = topic
        self.topic_id = topic_id
        self.number = number
        self.fetch_offset = fetch_offset
        self.max_bytes = max_bytes
        self.current_leader_epoch = current_leader_epoch
        self.last_fetched_epoch = last_fetched_epoch
        self.log_start_offset = log_start_offset
        self.partition: Partition | None = None
        self.told_high_watermark = -1
        self.told_log_start_offset = -1

    def has_news(self, high_watermark: int, log_start_offset: int) -> bool:
        """Whether the client was told others last."""
        return (
            self.told_high_watermark != high_watermark
            or self.told_log_start_offset != log_start_offset
        )


class ParkedFetch(Protocol):
    """A fetch of the session that waits for data."""

    def progressed(self, partition: Replica, new_bytes: int) -> None:
        """See trioq.replication.waiters.ProgressListener."""
        ...

    def answer(self) -> None:
        """Answer with what there is now."""
        ...


class FetchSession:
    """What one consumer follows. Owned by the broker's loop; a ProgressListener.

    At most one fetch of a session is parked at a time.
    """

    __slots__ = ("_by_partition", "epoch", "followed", "last_used_s", "parked", "ready",
                 "session_id", "uses_topic_ids")  # fmt: skip

    gives_way: ClassVar[bool] = True
    """To a follower that needs its place in a full cache."""

    def __init__(self, session_id: int, *, uses_topic_ids: bool) -> None:
        self.session_id = session_id
        self.uses_topic_ids = uses_topic_ids
        self.epoch = 1
        self.last_used_s = 0.0
        self.parked: ParkedFetch | None = None
        self.followed: dict[PartitionKey, FollowedPartition] = {}
        self.ready: OrderedDict[FollowedPartition, None] = OrderedDict()
        """Partitions to look at with the next fetch, in the order of their turn."""
        self._by_partition: dict[Replica, FollowedPartition] = {}

    def follow(self, followed: FollowedPartition) -> None:
        """Add a partition, or take the new position of one that is followed already."""
        key = self._key(followed)
        known = self.followed.get(key)
        if known is None:
            self.followed[key] = known = followed
        else:
            known.fetch_offset = followed.fetch_offset
            known.max_bytes = followed.max_bytes
            known.current_leader_epoch = followed.current_leader_epoch
            known.last_fetched_epoch = followed.last_fetched_epoch
            known.log_start_offset = followed.log_start_offset
        self.ready[known] = None

    def forget(self, topic: str, topic_id: TopicId, number: int) -> None:
        """Stop following a partition; nothing happens if it is not followed."""
        key = (topic_id if self.uses_topic_ids else topic, number)
        followed = self.followed.pop(key, None)
        if followed is not None:
            self.ready.pop(followed, None)
            self._stop_listening(followed)

    def resolved(self, followed: FollowedPartition, partition: Partition | None) -> None:
        """The followed partition is (now) served by `partition`: listen to that one."""
        if followed.partition is partition:
            return
        self._stop_listening(followed)
        followed.partition = partition
        if partition is not None:
            self._by_partition[partition] = followed
            self._listen(partition)

    def looked_at(self, followed: FollowedPartition, *, again: bool) -> None:
        """A fetch has read `followed`; `again`: it has its next turn after the others, with
        the next fetch (it had data or an error), else it waits for progress.
        """
        if not again:
            self.ready.pop(followed, None)
        elif followed in self.ready:
            self.ready.move_to_end(followed)

    def look_again(self, followed: FollowedPartition) -> None:
        """The next answer has something to tell of `followed`, which is followed here."""
        self.ready[followed] = None

    def progressed(self, partition: Replica, new_bytes: int) -> None:
        """A followed partition has more to read, or changed its state."""
        if self._is_ready(partition) and self.parked is not None:
            self.parked.progressed(partition, new_bytes)

    def _is_ready(self, partition: Replica) -> bool:
        """Look at `partition` with the next fetch, if it is followed."""
        followed = self._by_partition.get(partition)
        if followed is None:
            return False
        self.ready[followed] = None
        return True

    def close(self) -> None:
        """Listen to nothing any more; a parked fetch is answered."""
        parked, self.parked = self.parked, None
        for followed in self.followed.values():
            self._stop_listening(followed)
        if parked is not None:
            parked.answer()

    def _key(self, followed: FollowedPartition) -> PartitionKey:
        return (followed.topic_id if self.uses_topic_ids else followed.topic, followed.number)

    def _stop_listening(self, followed: FollowedPartition) -> None:
        partition, followed.partition = followed.partition, None
        if partition is not None:
            self._leave(partition)
            self._by_partition.pop(partition, None)

    def _listen(self, partition: Partition) -> None:
        partition.add_listener(self)

    def _leave(self, partition: Partition) -> None:
        partition.remove_listener(self)


class FetchSessions:
    """The broker's fetch sessions, at most `slots` of them.

    A full cache gives up its least recently used session if that was idle for
    `eviction_s`, or for a follower the one of a consumer that was used least recently; otherwise
    the newcomer is served without a session, which every client understands.
    """

    __slots__ = ("_eviction_s", "_sessions", "_slots")

    def __init__(self, *, slots: int, eviction_s: float) -> None:
        self._slots = slots
        self._eviction_s = eviction_s
        self._sessions: OrderedDict[int, FetchSession] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def open(
        self,
        followed: Iterable[FollowedPartition],
        *,
        uses_topic_ids: bool,
        now_s: float,
        make: type[FetchSession] | None = None,
    ) -> FetchSession | None:
        """A new session over `followed`, or None when all slots are in use.

        `make` makes it, if not FetchSession itself.
        """
        kind = make or FetchSession
        if not kind.gives_way:
            self._close_left(now_s)
        if len(self._sessions) >= self._slots and not self._evict(
            now_s, at_once=not kind.gives_way
        ):
            return None
        session_id = 0
        while session_id == 0 or session_id in self._sessions:
            session_id = secrets.randbits(31)
        session = kind(session_id, uses_topic_ids=uses_topic_ids)
        session.last_used_s = now_s
        for one in followed:
            session.follow(one)
        self._sessions[session_id] = session
        return session

    def resume(
        self, session_id: int, epoch: int, *, uses_topic_ids: bool, now_s: float
    ) -> FetchSession:
        """The session of an incremental fetch, its epoch moved on.

        Raises:
            FetchSessionIdNotFound, InvalidFetchSessionEpoch, FetchSessionTopicIdError: the
                client must start a new session.
        """
        session = self._sessions.get(session_id)
        if session is None:
            raise FetchSessionIdNotFound
        if epoch != session.epoch:
            raise InvalidFetchSessionEpoch(f"expected epoch {session.epoch}, not {epoch}")
        if uses_topic_ids != session.uses_topic_ids:
            raise FetchSessionTopicIdError
        session.epoch = 1 if epoch == MAX_EPOCH else epoch + 1
        session.last_used_s = now_s
        self._sessions.move_to_end(session_id)
        if session.parked is not None:
            parked, session.parked = session.parked, None
            parked.answer()
        return session

    def close(self, session_id: int) -> None:
        """End a session; nothing happens if it is unknown."""
        session = self._sessions.pop(session_id, None)
        if session is not None:
            session.close()

    def _close_left(self, now_s: float) -> None:
        """Close followers' sessions that were not used for `eviction_s`: a follower fetches all the
        time, and one that has another leader, or was killed, leaves its session behind, which
        would hear of each record.
        """
        left = []
        for one in self._sessions.values():  # those used least recently come first
            if now_s - one.last_used_s < self._eviction_s:
                break
            if not one.gives_way and one.parked is None:
                left.append(one.session_id)
        for session_id in left:
            self.close(session_id)

    def _evict(self, now_s: float, *, at_once: bool) -> bool:
        """Make room; with `at_once` also at the cost of a consumer that comes often."""
        oldest = next(iter(self._sessions.values()), None)
        if oldest is not None and now_s - oldest.last_used_s < self._eviction_s:
            of_consumers = (one for one in self._sessions.values() if one.gives_way)
            oldest = next(of_consumers, None) if at_once else None
        if oldest is None:
            return False
        self.close(oldest.session_id)
        return True
