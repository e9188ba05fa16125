"""The fetchers of one broker: who copies what from whom, as the cluster image says."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Protocol

import trio

from trioq.metastore.image import changed_topics
from trioq.metrics import Counters
from trioq.replication.fetch_session_state import PartitionKey
from trioq.replication.fetched_replicas import Channel, FetcherCounters, key_of
from trioq.replication.fetcher import ReplicaFetcher
from trioq.replication.throttle_state import ThrottleState
from trioq.supervise import supervise

if TYPE_CHECKING:
    from trioq.config import BrokerConfig
    from trioq.metastore.image import ClusterImage, TopicImage
    from trioq.replication.partition import Partition
    from trioq.replication.partitions import Partitions

LARGEST_RESPONSE_BYTES = (1 << 31) - 1
"""One batch may be larger than replica.fetch.response.max.bytes, which then holds it alone."""

HEADERS_BYTES = 1 << 20
"""What an answer has beside the records of replica.fetch.response.max.bytes, and then some."""


class Channels(Protocol):
    """Where fetchers get their connections from; trioq.net.peer.Peers is one."""

    def channel(self, broker_id: int, *, max_bytes: int, kept_bytes: int) -> Channel:
        """A way to one broker that nobody else uses."""
        ...


class ReplicaFetchers:
    """Every partition hosted here that follows is copied by one task per (leader, i).

    `i` is below num.replica.fetchers and chosen by the partition, so that what was in one order
    stays in it. Owned by the broker's loop. `follow` is called with each swapped image, after
    Partitions took it; `refresh` when roles changed without one. A task begins with the first
    partition of its leader, and ends with the last.
    """

    def __init__(
        self,
        partitions: Partitions,
        peers: Channels,
        config: Callable[[], BrokerConfig],
    ) -> None:
        self.counters = FetcherCounters()
        self._partitions = partitions
        self._peers = peers
        self._config = config
        self._fetchers: dict[tuple[int, int], ReplicaFetcher] = {}
        self._scopes: dict[tuple[int, int], trio.CancelScope] = {}
        self._placed: dict[PartitionKey, tuple[int, int]] = {}
        self._throttle: ThrottleState | None = None
        self._nursery: trio.Nursery | None = None

    def __iter__(self) -> Iterator[ReplicaFetcher]:
        return iter(self._fetchers.values())

    # ---- what to copy -------------------------------------------------------------------

    def follow(self, before: ClusterImage, after: ClusterImage) -> None:
        """The image was swapped, and the partitions' roles with it."""
        if before.brokers is not after.brokers:
            for fetcher in self._fetchers.values():
                leader_id = fetcher.leader_id
                if before.brokers.get(leader_id) != after.brokers.get(leader_id):
                    fetcher.leader_changed()
        for old, new in changed_topics(before, after):
            self._place_topic(old, new)

    def refresh(self) -> None:
        """Roles may have changed anywhere: this broker registered anew."""
        for partition in self._partitions:
            self._place(partition)

    def _place_topic(self, old: TopicImage | None, new: TopicImage | None) -> None:
        topic = new or old
        assert topic is not None
        numbers = max(len(one.partitions) for one in (old, new) if one is not None)
        for number in range(numbers):
            partition = self._partitions.find_by_id(topic.topic_id, number)
            if partition is None:
                self._take_away((topic.topic_id, number))
            else:
                self._place(partition)

    def _place(self, partition: Partition) -> None:
        key = key_of(partition)
        if not partition.is_follower:
            self._take_away(key)
            return
        count = self._config().num_replica_fetchers
        number = zlib.crc32(key[1].to_bytes(4, "big"), zlib.crc32(key[0].bytes)) % count
        place = (partition.leader_id, number)
        if self._placed.get(key, place) != place:
            self._take_away(key)
        self._placed[key] = place
        self._fetcher(place).follow(partition)

    def _take_away(self, key: PartitionKey) -> None:
        place = self._placed.pop(key, None)
        if place is None:
            return
        fetcher = self._fetchers.get(place)
        if fetcher is None:
            return  # it gave the partition up by itself, and ended with another one
        fetcher.unfollow(key)
        if not len(fetcher):
            del self._fetchers[place]
            scope = self._scopes.pop(place, None)
            if scope is not None:
                scope.cancel()

    def _fetcher(self, place: tuple[int, int]) -> ReplicaFetcher:
        fetcher = self._fetchers.get(place)
        if fetcher is None:
            leader_id, _ = place
            channel = self._peers.channel(
                leader_id,
                max_bytes=LARGEST_RESPONSE_BYTES,
                kept_bytes=self._config().replica_fetch_response_max_bytes + HEADERS_BYTES,
            )
            fetcher = ReplicaFetcher(
                leader_id, channel, self._config, self._use_throttle, self.counters
            )
            self._fetchers[place] = fetcher
            if self._nursery is not None:
                self._start(self._nursery, place, fetcher)
        return fetcher

    def _use_throttle(self) -> ThrottleState:
        """The bound on copying to replicas that are being added, of all fetchers together."""
        rate, now_s = self._config().follower_replication_throttled_rate, trio.current_time()
        if self._throttle is None:
            self._throttle = ThrottleState(rate, now_s)
        elif self._throttle.rate_bytes != rate:
            self._throttle.use_rate(rate, now_s)
        return self._throttle

    # ---- the tasks ----------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Copy until cancelled. A fetcher that fails is started again; see supervise."""
        try:
            async with trio.open_nursery() as self._nursery:
                for place, fetcher in self._fetchers.items():
                    self._start(self._nursery, place, fetcher)
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None
            self._scopes.clear()

    def _start(
        self, nursery: trio.Nursery, place: tuple[int, int], fetcher: ReplicaFetcher
    ) -> None:
        scope = self._scopes[place] = trio.CancelScope()
        nursery.start_soon(self._run_one, place, fetcher, scope)

    @staticmethod
    async def _run_one(
        place: tuple[int, int], fetcher: ReplicaFetcher, scope: trio.CancelScope
    ) -> None:
        with scope:
            await supervise(f"fetcher[broker={place[0]},id={place[1]}]", partial(fetcher.run))


class ReplicationGauges(Counters):
    """What is so at the moment of collection: replicas here, and how far behind they are."""

    __slots__ = ("_fetchers", "_partitions")

    def __init__(self, partitions: Partitions, fetchers: ReplicaFetchers) -> None:
        self._partitions = partitions
        self._fetchers = fetchers

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return ("failed", "followed", "led", "max_lag", "under_min_isr", "under_replicated")

    @property
    def failed(self) -> int:
        """Replicas that are to be here, but whose log directories have failed."""
        partitions = self._partitions
        return sum(one.log.failed for one in partitions) + len(partitions.unhosted)

    @property
    def led(self) -> int:
        """Partitions led here."""
        return sum(1 for _ in self._led())

    @property
    def followed(self) -> int:
        """Partitions copied from others."""
        return sum(len(one) for one in self._fetchers)

    @property
    def under_replicated(self) -> int:
        """Partitions led here with replicas that are not in sync."""
        return sum(
            1
            for one in self._led()
            if one.state is not None and len(one.state.isr) < len(one.state.replicas)
        )

    @property
    def under_min_isr(self) -> int:
        """Partitions led here that take no acks=all for want of in-sync replicas."""
        return sum(
            1
            for one in self._led()
            if one.state is not None and len(one.state.isr) < one.config.min_insync_replicas
        )

    @property
    def max_lag(self) -> int:
        """Records that the replica furthest behind its leader's high watermark lacks."""
        return max((lag for one in self._fetchers for lag in one.lags.values()), default=0)

    def _led(self) -> Iterable[Partition]:
        return (one for one in self._partitions if one.is_leader)
