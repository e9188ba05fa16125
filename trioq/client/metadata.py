"""Metadata kept fresh: topics that somebody wants, brokers, leaders."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

import anyio

from trioq import logs
from trioq.client.cluster_state import ClusterState, Node, PartitionInfo, TopicInfo
from trioq.client.connection import Connection, again
from trioq.client.retry import Backoff, is_retriable, retrying
from trioq.client.settings import ClientSettings
from trioq.errors import (
    ClientError,
    ConnectionFailed,
    InvalidTopicException,
    KafkaError,
    LeaderNotAvailable,
    RebootstrapRequired,
    UnknownTopicOrPartition,
    error_class,
)
from trioq.wire.messages.metadata import (
    MetadataRequest,
    MetadataRequestTopic,
    MetadataResponse,
)

_log = logs.get_logger(__name__)

_TOPIC_IDLE_S: Final = 300.0
"""Topics that nobody asked for during this time are no longer refreshed."""


class Metadata:
    """Refreshed by one task (`run`) when somebody asks, and when it has become old.

    `any_connection` lends a connection to any broker; `on_change` is called after each refresh.
    """

    def __init__(
        self,
        settings: ClientSettings,
        *,
        any_connection: Callable[[], AbstractAsyncContextManager[Connection]],
        on_change: Callable[[], None],
    ) -> None:
        self.state = ClusterState()
        self.refreshes = 0
        self.backoff = Backoff(
            settings.retry_backoff_ms / 1000, settings.retry_backoff_max_ms / 1000
        )
        self._settings = settings
        self._any_connection = any_connection
        self._on_change = on_change
        self._wanted: dict[str, float] = {}
        self._wants_all_until_s = 0.0
        self._may_create: set[str] = set()
        self._refresh_wanted = anyio.Event()
        self._round_ended = anyio.Event()
        self._rounds_begun = 0
        self._rounds_ended = 0
        self._hurry = anyio.Event()
        self._round_failure: ClientError | None = None
        self._changed = anyio.Event()

    async def run(self) -> None:
        """Refresh whenever that is asked for, and when what is known has become old."""
        failures = 0
        while True:
            with anyio.move_on_after(self._settings.metadata_max_age_ms / 1000):
                await self._refresh_wanted.wait()
            self._refresh_wanted = anyio.Event()
            self._hurry = anyio.Event()
            self._rounds_begun += 1
            try:
                await self._refresh()
                failures, self._round_failure = 0, None
            except ClientError as error:
                failures += 1
                self._round_failure = error
                _log.debug("metadata not refreshed", reason=str(error))
            self._rounds_ended = self._rounds_begun
            ended, self._round_ended = self._round_ended, anyio.Event()
            ended.set()
            self._notify()
            pause_s = self.backoff.delay_s(failures, random.random())  # noqa: S311
            if failures:
                await anyio.sleep(pause_s)
            else:
                with anyio.move_on_after(pause_s):
                    await self._hurry.wait()

    def request_refresh(self) -> None:
        """Have the metadata refreshed soon; at most one round per retry backoff."""
        self._refresh_wanted.set()

    async def refreshed(self) -> None:
        """Return after a refresh that began after this call; raises what kept it from ending.

        Raises ConnectionFailed, AuthenticationFailed, UnsupportedByBroker.
        """
        begun = self._rounds_begun
        while self._rounds_ended <= begun:
            self.request_refresh()
            await self._round_ended.wait()
        if self._round_failure is not None:
            raise again(self._round_failure)

    async def changed(self) -> None:
        """Return when the state has changed, or a refresh has failed, after this call."""
        await self._changed.wait()

    def _notify(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    def want(self, topic: str, *, may_create: bool = False) -> None:
        """Have `topic` in every refresh from now on, for as long as it is wanted now and then."""
        if topic not in self._wanted:
            self._hurry.set()
            self.request_refresh()
        self._wanted[topic] = anyio.current_time()
        if may_create:
            self._may_create.add(topic)
        else:
            self._may_create.discard(topic)

    def topic_names(self) -> frozenset[str]:
        """Every topic that is known to exist; all of the cluster's after `all_topics`."""
        return frozenset(name for name, info in self.state.topics.items() if not info.error_code)

    async def all_topics(self) -> frozenset[str]:
        """The names of all topics in the cluster, fresh."""
        self._wants_all_until_s = anyio.current_time() + _TOPIC_IDLE_S
        await retrying(
            self.refreshed,
            what="asking for all topics",
            timeout_s=self._settings.call_timeout_s,
            backoff=self.backoff,
        )
        return self.topic_names()

    async def topic(
        self, name: str, *, may_create: bool = False, timeout_s: float | None = None
    ) -> TopicInfo:
        """What is known of topic `name`; asks until it is there or `timeout_s` is over.

        With `may_create` the broker may create it. Raises the broker's error for the topic
        (UnknownTopicOrPartition, TopicAuthorizationFailed, ...), ConnectionFailed.
        """
        self.want(name, may_create=may_create)
        known = self.state.topics.get(name)
        if known is not None and not known.error_code:
            return known
        patience_s = self._settings.unknown_topic_timeout_ms / 1000
        unknown_from_s = anyio.current_time() + patience_s

        async def attempt() -> TopicInfo:
            self.want(name, may_create=may_create)
            await self.refreshed()
            info = self.state.topics.get(name)
            if info is not None and not info.error_code:
                return info
            raise topic_error(
                name, UnknownTopicOrPartition.code if info is None else info.error_code
            )

        def retriable(error: BaseException) -> bool:
            if isinstance(error, UnknownTopicOrPartition):
                return anyio.current_time() < unknown_from_s
            return is_retriable(error)

        return await retrying(
            attempt,
            what=f"asking for topic {name!r}",
            timeout_s=self._settings.call_timeout_s if timeout_s is None else timeout_s,
            backoff=self.backoff,
            retriable=retriable,
        )

    def leader(self, topic: str, partition: int) -> PartitionInfo | None:
        """The partition with its leader, if one is known; else a refresh is asked for."""
        info = self.state.leader(topic, partition)
        if info is None:
            self.request_refresh()
        return info

    def leader_is_not(self, topic: str, partition: int, node_id: int) -> None:
        """A broker said that it is not the leader: forget that it was, and ask anew."""
        self.state.lose_leader(topic, partition, node_id)
        self.request_refresh()

    def leader_moved(
        self, topic: str, partition: int, leader_id: int, leader_epoch: int, node: Node | None
    ) -> bool:
        """A response named the new leader (KIP-951); False if that is no news."""
        moved = self.state.move_leader(topic, partition, leader_id, leader_epoch, node)
        if moved:
            self._notify()
        return moved

    async def _refresh(self) -> None:
        now_s = anyio.current_time()
        for name, wanted_s in list(self._wanted.items()):
            if now_s - wanted_s > _TOPIC_IDLE_S:
                del self._wanted[name]
                self._may_create.discard(name)
                self.state.forget(name)
        asks_all = now_s < self._wants_all_until_s
        asked = None if asks_all else list(self._wanted)
        async with self._any_connection() as connection:
            response = await self._metadata(connection, asked)
            created = [name for name in self._may_create if self._is_missing(response, name)]
            if created:
                fresh = await self._metadata(connection, created, creates=True)
                response.topics = [t for t in response.topics if t.name not in created]
                response.topics += fresh.topics
                response.brokers = fresh.brokers
        if response.error_code == RebootstrapRequired.code:
            self.state.nodes = {}
            raise ConnectionFailed("the cluster asks its clients to bootstrap again")
        if response.brokers:
            self.state.apply(response, asked)
            self._on_change()
        self.refreshes += 1

    async def _metadata(
        self, connection: Connection, asked: list[str] | None, *, creates: bool = False
    ) -> MetadataResponse:
        version = connection.version_of(MetadataRequest)
        topics: list[MetadataRequestTopic] | None = None
        if asked is not None:
            topics = [MetadataRequestTopic(name=name) for name in asked]
        elif version == 0:
            topics = []
        # Versions below 4 create what they are asked for, whatever is wished.
        request = MetadataRequest(topics=topics, allow_auto_topic_creation=creates or version < 4)
        return await connection.call(
            request, MetadataResponse, timeout_s=self._settings.request_timeout_s
        )

    @staticmethod
    def _is_missing(response: MetadataResponse, name: str) -> bool:
        return not any(
            topic.name == name and topic.error_code != UnknownTopicOrPartition.code
            for topic in response.topics
        )


def topic_error(name: str, code: int) -> KafkaError:
    """A broker's error for topic `name`, saying which topic and what to do."""
    kind = error_class(code)
    if kind is UnknownTopicOrPartition:
        return kind(
            f"the cluster does not know topic {name!r}: create it, or check its name (brokers with "
            "auto.create.topics.enable=false do not create topics by themselves)"
        )
    if kind is LeaderNotAvailable:
        return kind(f"topic {name!r} has no leader yet: it is being created")
    if kind is InvalidTopicException:
        return kind(
            f"{name!r} is no name for a topic: allowed are up to 249 letters, digits, '.', '_' "
            "and '-'"
        )
    return kind(f"topic {name!r}: {kind.kafka_name}")
