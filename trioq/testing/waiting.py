"""Looks at a broker from outside, with plain blocking calls, until something is there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from trioq.client.address import HostPort
from trioq.errors import (
    CoordinatorLoadInProgress,
    CoordinatorNotAvailable,
    GroupIdNotFound,
    NotCoordinator,
    error_class,
)
from trioq.record.fetched import Record, read_fetched
from trioq.testing.blocking_connection import BlockingConnection
from trioq.testing.blocking_topics import create_topic, extents
from trioq.types import ZERO_TOPIC_ID, TopicPartition
from trioq.wire.api_keys import ApiKey
from trioq.wire.messages.fetch import (
    FetchRequest,
    FetchRequestPartition,
    FetchRequestTopic,
    FetchResponse,
)
from trioq.wire.messages.metadata import MetadataRequest, MetadataRequestTopic, MetadataResponse
from trioq.wire.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchResponse,
)

if TYPE_CHECKING:
    from trioq.types import TopicId

CALL_TIMEOUT_S: Final = 10.0
"""For each single call to the broker."""

_POLL_S: Final = 0.02
_FETCH_BYTES: Final = 8 << 20
_READ_COMMITTED: Final = 1

_COORDINATOR_COMES: Final = frozenset(
    {CoordinatorNotAvailable.code, CoordinatorLoadInProgress.code, NotCoordinator.code}
)

T = TypeVar("T")


class NotInTime(AssertionError):
    """What a test waited for did not come; the message says what was there instead."""


def wait_for(
    look: Callable[[], T], is_there: Callable[[T], bool], said: Callable[[T], str], timeout_s: float
) -> T:
    """Look again and again until it is there; raises NotInTime with what `said` says."""
    deadline = time.monotonic() + timeout_s
    while True:
        seen = look()
        if is_there(seen):
            return seen
        if time.monotonic() >= deadline:
            raise NotInTime(f"after {timeout_s:g} s {said(seen)}")
        time.sleep(_POLL_S)


class TopicReader:
    """Reads all records of a topic, from its beginning, on a connection of its own."""

    def __init__(self, address: HostPort, topic: str) -> None:
        self._connection = BlockingConnection(address, timeout_s=CALL_TIMEOUT_S)
        self._topic = topic
        self._topic_id: TopicId = ZERO_TOPIC_ID
        self._positions: dict[int, int] = {}
        self.records: list[Record[Any, Any]] = []
        """What was read so far, each partition in order."""

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def read(self) -> list[Record[Any, Any]]:
        """Read on to the end of every partition; `records` with what is new."""
        self._find_partitions()
        while self._positions and self._read_some():
            pass
        return self.records

    def _find_partitions(self) -> None:
        """Partitions may be added, and the topic may not exist yet."""
        request = MetadataRequest(
            topics=[MetadataRequestTopic(name=self._topic)], allow_auto_topic_creation=False
        )
        response = self._connection.ask(ApiKey.METADATA, request, MetadataResponse)
        topic = response.topics[0]
        if topic.topic_id != self._topic_id:  # it was deleted and made anew
            self._positions.clear()
            self._topic_id = topic.topic_id
        for partition in topic.partitions:
            self._positions.setdefault(partition.partition_index, 0)

    def _read_some(self) -> bool:
        """False when there was nothing new."""
        request = FetchRequest(
            max_wait_ms=0,
            min_bytes=0,
            max_bytes=_FETCH_BYTES,
            isolation_level=_READ_COMMITTED,
            topics=[
                FetchRequestTopic(
                    topic=self._topic,
                    topic_id=self._topic_id,
                    partitions=[
                        FetchRequestPartition(
                            partition=number,
                            fetch_offset=position,
                            partition_max_bytes=_FETCH_BYTES,
                        )
                        for number, position in self._positions.items()
                    ],
                )
            ],
        )
        response = self._connection.ask(ApiKey.FETCH, request, FetchResponse)
        is_new = False
        for partition in response.responses[0].partitions if response.responses else ():
            number = partition.partition_index
            if partition.error_code:
                self._positions[number] = max(self._positions[number], partition.log_start_offset)
                continue
            found = read_fetched(
                cast("memoryview | None", partition.records),  # as it is decoded
                topic=self._topic,
                partition=number,
                start_offset=self._positions[number],
                aborted=[
                    (aborted.producer_id, aborted.first_offset)
                    for aborted in partition.aborted_transactions or ()
                ],
            )
            self.records += [record for batch in found.batches for record in batch]
            is_new |= found.next_offset > self._positions[number]
            self._positions[number] = found.next_offset
        return is_new


class Observer:
    """Asks a broker at an address what is in it; every call on connections of its own."""

    def __init__(self, host: str, port: int) -> None:
        self._address = HostPort(host, port)

    def create_topic(self, name: str, partitions: int, config: Mapping[str, str]) -> None:
        """Create a topic; raises AdminError."""
        with self._connected() as connection:
            create_topic(connection, name, partitions, config, timeout_s=CALL_TIMEOUT_S)

    def end_offsets(self, topic: str) -> dict[int, int]:
        """The next offset of each partition."""
        with self._connected() as connection:
            return {number: one.end_offset for number, one in extents(connection, topic).items()}

    def records(self, topic: str) -> list[Record[Any, Any]]:
        """All committed records of a topic; none where it does not exist."""
        with closing(TopicReader(self._address, topic)) as reader:
            return reader.read()

    def wait_for_records(self, topic: str, count: int, timeout_s: float) -> list[Record[Any, Any]]:
        """At least `count` committed records of a topic, which may not exist yet."""
        with closing(TopicReader(self._address, topic)) as reader:
            return wait_for(
                reader.read,
                lambda records: len(records) >= count,
                lambda records: f"{topic} has {len(records)} records of {count}",
                timeout_s,
            )

    def lag(self, group: str, topic: str | None) -> dict[TopicPartition, int]:
        """See BrokerUnderTest.lag."""
        lag: dict[TopicPartition, int] = {}
        with self._connected() as connection:
            committed = _committed(connection, group)
            topics = {one.topic for one in committed} if topic is None else {topic}
            for name in sorted(topics):
                for number, extent in extents(connection, name).items():
                    partition = TopicPartition(name, number)
                    if topic is not None or partition in committed:
                        start = committed.get(partition, extent.start_offset)
                        lag[partition] = max(0, extent.end_offset - start)
        return lag

    def wait_for_lag(
        self, group: str, topic: str | None, at_most: int, timeout_s: float
    ) -> dict[TopicPartition, int]:
        """The lag of a group, once it is `at_most` in all partitions together and there is one."""
        return wait_for(
            lambda: self.lag(group, topic),
            lambda lag: bool(lag) and sum(lag.values()) <= at_most,
            lambda lag: _said_lag(group, lag),
            timeout_s,
        )

    def _connected(self) -> BlockingConnection:
        return BlockingConnection(self._address, timeout_s=CALL_TIMEOUT_S)


def _committed(connection: BlockingConnection, group: str) -> dict[TopicPartition, int]:
    """Every offset that a group has committed; none where it does not exist."""
    request = OffsetFetchRequest(groups=[OffsetFetchRequestGroup(group_id=group, topics=None)])
    response = connection.ask(ApiKey.OFFSET_FETCH, request, OffsetFetchResponse)
    answered = response.groups[0]
    if answered.error_code in (0, GroupIdNotFound.code):
        return {
            TopicPartition(topic.name, partition.partition_index): partition.committed_offset
            for topic in answered.topics
            for partition in topic.partitions
            if partition.error_code == 0 and partition.committed_offset >= 0
        }
    if answered.error_code in _COORDINATOR_COMES:
        return {}
    raise error_class(answered.error_code)


def _said_lag(group: str, lag: dict[TopicPartition, int]) -> str:
    if not lag:
        return f"group {group} has committed nothing"
    shown = ", ".join(f"{partition}: {count}" for partition, count in lag.items())
    return f"group {group} has a lag of {sum(lag.values())} ({shown})"
