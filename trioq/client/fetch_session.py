"""Fetch sessions (KIP-227), the client's side: what one broker still knows of the last fetch.

Pure: it is told what to fetch and says what of that has to be sent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from trioq.types import ZERO_TOPIC_ID, TopicId, TopicPartition
from trioq.wire.messages.fetch import (
    FetchRequestForgottenTopic,
    FetchRequestPartition,
    FetchRequestTopic,
)

NO_SESSION: Final = 0
INITIAL_EPOCH: Final = 0
MAX_EPOCH: Final = 2**31 - 1


class Wanted(NamedTuple):
    """What is fetched of one partition."""

    topic_id: TopicId
    offset: int
    leader_epoch: int
    max_bytes: int


class SessionPart(NamedTuple):
    """What of a request depends on the session; `is_full` starts a new one."""

    session_id: int
    epoch: int
    topics: list[FetchRequestTopic]
    forgotten: list[FetchRequestForgottenTopic]
    uses_topic_ids: bool
    is_full: bool


class FetchSession:
    """The session with one broker. At most one of its requests is under way at a time."""

    __slots__ = ("_epoch", "_known", "_sent", "_session_id", "_uses_topic_ids")

    def __init__(self) -> None:
        self._session_id = NO_SESSION
        self._epoch = INITIAL_EPOCH
        self._known: Mapping[TopicPartition, Wanted] = {}
        self._sent: Mapping[TopicPartition, Wanted] = {}
        self._uses_topic_ids = True

    def request(self, wanted: Mapping[TopicPartition, Wanted]) -> SessionPart:
        """What to send so that exactly `wanted` is fetched; then `answered`, `refused` or `lost`.

        The broker keeps the order in which partitions were sent; the first come first.
        """
        known = self._known
        changed = {
            partition: one for partition, one in wanted.items() if known.get(partition) != one
        }
        # What did not change was found to have an id before, if ids are used.
        unsure = changed if self._uses_topic_ids else wanted
        uses_topic_ids = all(one.topic_id != ZERO_TOPIC_ID for one in unsure.values())
        if uses_topic_ids != self._uses_topic_ids:
            self._uses_topic_ids = uses_topic_ids
            self.refused()
        self._sent = wanted
        if self._epoch == INITIAL_EPOCH:
            return SessionPart(
                self._session_id, INITIAL_EPOCH, _topics(wanted), [], uses_topic_ids, is_full=True
            )
        forgotten: list[TopicPartition] = []
        if wanted.keys() != known.keys():
            forgotten += [partition for partition in known if partition not in wanted]
        # A topic that came back with another id is another topic: the old one is forgotten.
        forgotten += [
            partition
            for partition, one in changed.items()
            if partition in known and known[partition].topic_id != one.topic_id
        ]
        return SessionPart(
            self._session_id,
            self._epoch,
            _topics(changed),
            self._forgotten(forgotten),
            uses_topic_ids,
            is_full=False,
        )

    def name_of(self, topic_id: TopicId) -> str | None:
        """The name of a topic that was last asked for by its id."""
        for partition, one in self._sent.items():
            if one.topic_id == topic_id:
                return partition.topic
        return None

    def answered(self, session_id: int) -> None:
        """The request was answered without an error for the session; `session_id` is the answer's.

        Brokers without room for a session answer the first request with none.
        """
        if session_id == NO_SESSION:
            self._session_id = NO_SESSION
            self._epoch = INITIAL_EPOCH
            self._known = {}
            return
        self._session_id = session_id
        self._epoch = 1 if self._epoch == MAX_EPOCH else self._epoch + 1
        self._known = self._sent

    def refused(self) -> None:
        """The broker does not know the session, or not so: the next request is a full one."""
        self._session_id = NO_SESSION
        self._epoch = INITIAL_EPOCH
        self._known = {}

    def lost(self) -> None:
        """No answer came: the next request is a full one, and ends the session if it exists."""
        self._epoch = INITIAL_EPOCH
        self._known = {}

    def _forgotten(self, partitions: Iterable[TopicPartition]) -> list[FetchRequestForgottenTopic]:
        by_topic: dict[tuple[str, TopicId], list[int]] = defaultdict(list)
        for partition in partitions:
            key = partition.topic, self._known[partition].topic_id
            by_topic[key].append(partition.partition)
        return [
            FetchRequestForgottenTopic(topic=topic, topic_id=topic_id, partitions=numbers)
            for (topic, topic_id), numbers in by_topic.items()
        ]


def _topics(wanted: Mapping[TopicPartition, Wanted]) -> list[FetchRequestTopic]:
    by_topic: dict[tuple[str, TopicId], list[FetchRequestPartition]] = defaultdict(list)
    for partition, one in wanted.items():
        by_topic[partition.topic, one.topic_id].append(
            FetchRequestPartition(
                partition=partition.partition,
                current_leader_epoch=one.leader_epoch,
                fetch_offset=one.offset,
                partition_max_bytes=one.max_bytes,
            )
        )
    return [
        FetchRequestTopic(topic=topic, topic_id=topic_id, partitions=partitions)
        for (topic, topic_id), partitions in by_topic.items()
    ]
