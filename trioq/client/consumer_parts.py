"""What a consumer is made of while it is open, and how the parts tell each other."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Generic

from trioq import logs
from trioq.client.cluster import Cluster
from trioq.client.commits import Commits
from trioq.client.consumer_settings import ConsumerSettings
from trioq.client.fetcher import Fetcher
from trioq.client.fetcher_state import FetcherState
from trioq.client.group_calls import GroupCalls, MemberIdentity, OffsetAndMetadata
from trioq.client.member import group_member
from trioq.client.position_state import FetchSettings
from trioq.client.positions import Positions
from trioq.client.pulse import Notice
from trioq.client.reader import K, Reader, V
from trioq.client.retry import retrying
from trioq.client.subscription import Subscribed, Subscription
from trioq.client.tasks import BackgroundTasks
from trioq.errors import ClientUsageError, KafkaError, TrioqError
from trioq.record.fetched import RecordBatchView
from trioq.types import TopicPartition

_log = logs.get_logger(__name__)

_numbers: Final = itertools.count(1)

Deserializer = Callable[[bytes], object] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerStatistics:
    """A consumer's counts at one moment."""

    partitions: int
    """Partitions that are read."""

    buffered_bytes: int
    """Fetched and not given out yet, as fetched."""

    fetches: int
    failed_fetches: int
    commits: int
    failed_commits: int
    rebalances: int
    lag: dict[TopicPartition, int]
    """Records from the position to the end, of partitions where both are known."""


class ConsumerParts(Generic[K, V]):
    """The open consumer behind Consumer; the Host of its membership."""

    def __init__(
        self,
        cluster: Cluster,
        tasks: BackgroundTasks,
        settings: ConsumerSettings,
        deserializers: tuple[Deserializer, Deserializer],
    ) -> None:
        self.cluster = cluster
        self.settings = settings
        self.assigned_by_user = False
        self.subscribed: frozenset[str] = frozenset()
        self.found = Notice()
        """Given when a position was found, or cannot be."""

        self._tasks = tasks
        self._lanes = tuple(f"{kind}-{next(_numbers)}" for kind in ("fetch", "join"))
        self.state = FetcherState(
            fetch_settings(cluster, settings, deserializers), has_group=settings.group is not None
        )
        self.calls: GroupCalls | None = None
        self.commits: Commits | None = None
        self.reader: Reader[K, V] = Reader(
            self.state,
            on_asked=self._user_asked,
            on_taken=self._taken,
            before_batch=self._commit_batch if settings.commit == "before_processing" else None,
            eager=settings.commit == "after_processing",
        )
        if settings.group is not None:
            self.calls = GroupCalls(cluster, settings.group, join_lane=self._lanes[1])
            self.commits = Commits(
                cluster,
                self.calls,
                settings,
                self.reader,
                identity=self._identity_or_nobody,
                on_refused=self._commit_refused,
            )
            self.member = group_member(cluster, self.calls, settings, self.reader, self)
        self.is_member = False
        self._member_tasks_run = False
        self.fetcher = Fetcher(
            cluster, self.state, tasks, lane=self._lanes[0], on_filled=self.reader.filled.beat
        )
        self.positions = Positions(
            cluster,
            self.state,
            self.calls,
            identity=self._identity,
            on_found=self._position_found,
        )
        self.subscription = Subscription(
            cluster, on_change=self._topics_changed, on_failure=self.fail
        )

    async def _commit_batch(self, batch: RecordBatchView[K, V]) -> None:
        assert self.commits is not None, "checked by ConsumerSettings"
        await self.commits.commit_batch(batch)

    def start(self) -> None:
        """Start the tasks that every consumer has."""
        self._tasks.start_soon(self.fetcher.run)
        self._tasks.start_soon(self.positions.run)
        self._tasks.start_soon(self.subscription.run)
        if self.commits is not None and self.settings.commit in {"auto", "after_processing"}:
            self._tasks.start_soon(self.commits.run)

    async def close(self, error: BaseException | None) -> None:
        """Commit as the mode says, tell the listener, leave the group; the tasks have ended."""
        if error is None:
            self.reader.finish()
        owned = frozenset(self.state.partitions)
        try:
            await self._commit_processed(owned)
            if self.is_member:
                if owned and self.settings.on_revoked is not None:
                    await self.settings.on_revoked(owned)
                await self.member.leave()
        finally:
            self.state.unassign(owned)
            for lane in self._lanes:
                self.cluster.connections.close_lane(lane)

    # ---- what is read -----------------------------------------------------------------

    async def unsubscribe(self) -> None:
        """See Consumer."""
        self.reader.finish()
        self.subscription.unsubscribe()
        self.assigned_by_user = False
        owned = frozenset(self.state.partitions)
        if self.is_member:
            await self.give_up(owned, lost=False)
            self.is_member = False
            await self.member.leave()
        else:
            await self._commit_processed(owned)
            self._stop_reading(owned)

    def assign_by_user(self, partitions: frozenset[TopicPartition]) -> None:
        """Read exactly these."""
        self.assigned_by_user = True
        self._stop_reading(frozenset(self.state.partitions) - partitions)
        self._start_reading(partitions)

    def read_now(
        self, partitions: Iterable[TopicPartition | tuple[str, int]]
    ) -> list[TopicPartition]:
        """The partitions that a user named, which must be assigned."""
        named = [TopicPartition(*one) for one in partitions]
        for partition in named:
            if partition not in self.state.partitions:
                raise ClientUsageError(f"{partition} is not assigned to this consumer")
        return named

    def wake_all(self) -> None:
        """Have every task look again."""
        self.fetcher.update_leaders()
        self.positions.poke()
        self.reader.filled.beat()

    def fail(self, error: TrioqError) -> None:
        """Raise `error` where the user asks for records; nothing else comes."""
        self.reader.failure = error
        self.reader.filled.beat()
        self.found.give()

    def _start_reading(self, partitions: frozenset[TopicPartition]) -> None:
        self.state.assign(partitions)
        topics = frozenset(partition.topic for partition in self.state.partitions)
        for topic in topics:
            self.cluster.metadata.want(topic)
        self.subscription.also(topics)
        self.wake_all()

    def _stop_reading(self, partitions: frozenset[TopicPartition]) -> None:
        self.reader.drop(partitions)
        self.state.unassign(partitions)
        if self.commits is not None:
            self.commits.forget(partitions)
        self.subscription.also(frozenset(partition.topic for partition in self.state.partitions))
        self.found.give()

    # ---- membership -------------------------------------------------------------------

    async def take_up(self, added: frozenset[TopicPartition]) -> None:
        """See group.Host."""
        self._start_reading(added)
        if self.settings.on_assigned is not None:
            await self.settings.on_assigned(added)

    async def give_up(self, partitions: frozenset[TopicPartition], *, lost: bool) -> None:
        """See group.Host."""
        on_revoked, on_lost = self.settings.on_revoked, self.settings.on_lost
        if lost:
            self._stop_reading(partitions)
            listener = on_lost or on_revoked
            if listener is not None:
                await listener(partitions)
            return
        try:
            await self._commit_processed(partitions)
            if on_revoked is not None:
                await on_revoked(partitions)
        finally:
            self._stop_reading(partitions)

    def _topics_changed(self, subscribed: Subscribed | None) -> None:
        self.fetcher.update_leaders()
        self.positions.poke()
        if subscribed is None:
            self.subscribed = frozenset()
            return
        self.subscribed = subscribed.topics
        if self.calls is not None:
            self.member.subscribe(subscribed.topics)
            for topic in self.member.watched_topics:
                self.cluster.metadata.want(topic)
            self.member.metadata_changed(self._partition_counts())
            if not self.is_member:
                self.is_member = True
                self.member.machine.return_to_group()
                if not self._member_tasks_run:
                    self._member_tasks_run = True
                    for task in (
                        self.member.run,
                        self.member.run_heartbeats,
                        self.member.run_watch,
                    ):
                        self._tasks.start_soon(task)
                self.member.poke()
            return
        wanted = frozenset(
            TopicPartition(topic, number)
            for topic, count in subscribed.partition_counts.items()
            for number in range(count)
        )
        gone = {one for one in self.state.partitions if one.topic not in subscribed.topics}
        if gone:
            self._stop_reading(frozenset(gone))
        added = wanted - self.state.partitions.keys()
        if added:
            self._start_reading(added)

    def _partition_counts(self) -> dict[str, int]:
        """Of every topic that is known: a leader has more topics than it subscribes to."""
        return {
            name: len(info.partitions)
            for name, info in self.cluster.metadata.state.topics.items()
            if not info.error_code
        }

    def _identity(self) -> MemberIdentity | None:
        if not self.is_member or self.settings.group_protocol == "classic":
            return None
        return self.member.identity

    def _identity_or_nobody(self) -> MemberIdentity:
        return self.member.identity if self.is_member else MemberIdentity()

    def _commit_refused(self, identity: MemberIdentity, error: KafkaError) -> None:
        if self.is_member:
            self.member.commit_refused(identity, error)

    # ---- what the parts tell ----------------------------------------------------------

    def _user_asked(self) -> None:
        if self.is_member:
            self.member.user_asked()
        if self.commits is not None:
            self.commits.user_asked()

    def _taken(self) -> None:
        if self.state.room_made:
            self.state.room_made = False
            self.fetcher.room_made()

    def _position_found(self) -> None:
        self.fetcher.poke()
        self.reader.filled.beat()
        self.found.give()

    async def _commit_processed(self, partitions: frozenset[TopicPartition]) -> None:
        """Where the mode is to commit by itself; a failure is logged: others go on from before."""
        if self.commits is None or self.settings.commit not in {"auto", "after_processing"}:
            return
        try:
            await self.commits.commit_processed(partitions)
        except TrioqError as error:
            _log.warning("offsets not committed", group=self.settings.group, reason=str(error))

    async def committed(
        self, partitions: list[TopicPartition]
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        """See Consumer."""
        calls = self.calls
        if calls is None:
            raise ClientUsageError("a consumer without a group has no committed offsets")
        identity = self._identity()

        async def attempt() -> dict[TopicPartition, OffsetAndMetadata]:
            found = await calls.committed(
                partitions,
                require_stable=self.state.settings.read_committed,
                member_id=identity.member_id if identity is not None else None,
                member_epoch=identity.generation if identity is not None else -1,
            )
            offsets = {}
            for partition, one in found.items():
                if isinstance(one, KafkaError):
                    raise one
                offsets[partition] = one
            return offsets

        return await retrying(
            attempt,
            what=f"asking for the offsets of group {calls.group_id!r}",
            timeout_s=self.cluster.settings.call_timeout_s,
            backoff=self.cluster.backoff,
        )

    def statistics(self) -> ConsumerStatistics:
        """See Consumer."""
        self.reader.sync()
        read_committed = self.state.settings.read_committed
        return ConsumerStatistics(
            partitions=len(self.state.partitions),
            buffered_bytes=self.state.buffered_bytes,
            fetches=self.fetcher.fetches,
            failed_fetches=self.fetcher.failed_fetches,
            commits=self.commits.commits if self.commits is not None else 0,
            failed_commits=self.commits.failed_commits if self.commits is not None else 0,
            rebalances=self.member.rebalances if self.calls is not None else 0,
            lag={
                partition: max(end - one.position, 0)
                for partition, one in self.state.partitions.items()
                if one.position >= 0
                and (end := one.last_stable_offset if read_committed else one.high_watermark) >= 0
            },
        )


def fetch_settings(
    cluster: Cluster, settings: ConsumerSettings, deserializers: tuple[Deserializer, Deserializer]
) -> FetchSettings:
    """The part of a consumer's settings that its fetcher needs."""
    key_deserializer, value_deserializer = deserializers
    return FetchSettings(
        min_bytes=settings.fetch_min_bytes,
        max_wait_ms=settings.fetch_max_wait_ms,
        max_bytes=settings.fetch_max_bytes,
        partition_max_bytes=settings.partition_max_bytes,
        prefetch_bytes=settings.prefetch_bytes,
        read_committed=settings.isolation == "read_committed",
        rack=cluster.settings.rack or "",
        auto_offset_reset=settings.auto_offset_reset,
        check_crc=settings.check_crc,
        retry_backoff_ms=cluster.settings.retry_backoff_ms,
        replica_max_age_ms=cluster.settings.metadata_max_age_ms,
        key_deserializer=key_deserializer,
        value_deserializer=value_deserializer,
    )
