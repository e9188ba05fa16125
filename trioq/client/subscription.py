"""What a consumer subscribes to, kept in step with the cluster's topics."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Final, NamedTuple

import anyio

from trioq import logs
from trioq.client.cluster import Cluster
from trioq.client.metadata import topic_error
from trioq.client.pulse import Pulse
from trioq.errors import TrioqError, error_class

_log = logs.get_logger(__name__)

_WANT_AGAIN_S: Final = 60.0
"""Metadata forgets topics that nobody asks for."""


class Subscribed(NamedTuple):
    """The topics that a consumer is for now, and how many partitions those have that exist."""

    topics: frozenset[str]
    partition_counts: dict[str, int]


class Subscription:
    """Topics by name or by pattern; `run` belongs into the consumer's task group.

    `on_change` is called with every change of metadata, `on_failure` with a topic's error that
    time does not mend.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        on_change: Callable[[Subscribed | None], None],
        on_failure: Callable[[TrioqError], None],
    ) -> None:
        self.names: frozenset[str] | None = None
        self.pattern: re.Pattern[str] | None = None
        self._cluster = cluster
        self._on_change = on_change
        self._on_failure = on_failure
        self._also: frozenset[str] = frozenset()
        self._all_at_s = 0.0
        self._pulse = Pulse()
        self._missing: set[str] = set()

    def subscribe(self, names: Collection[str], pattern: re.Pattern[str] | None) -> None:
        """Topics of these names from now on, or all that `pattern` matches in full."""
        self.names = frozenset(names) if pattern is None else None
        self.pattern = pattern
        self._all_at_s = 0.0
        self._pulse.beat()

    def unsubscribe(self) -> None:
        """No topics from now on."""
        self.names = self.pattern = None
        self._pulse.beat()

    def also(self, topics: frozenset[str]) -> None:
        """Keep the metadata of these topics too: partitions of them are read."""
        if topics != self._also:
            self._also = topics
            self._pulse.beat()

    async def run(self) -> None:
        """Tell about topics and leaders whenever they changed."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch)
            while True:
                await self._ask_for_all()
                self._tell()
                await self._pulse.wait(anyio.current_time() + _WANT_AGAIN_S)

    async def _watch(self) -> None:
        while True:
            await self._cluster.metadata.changed()
            self._pulse.beat()

    async def _ask_for_all(self) -> None:
        """For a pattern, have all of the cluster's topics known, as fresh as metadata is kept."""
        if self.pattern is None or anyio.current_time() < self._all_at_s:
            return
        try:
            await self._cluster.metadata.all_topics()
        except TrioqError as error:
            _log.warning("topics for a pattern not found", reason=str(error))
            await anyio.sleep(self._cluster.settings.retry_backoff_max_ms / 1000)
            return
        max_age_s = self._cluster.settings.metadata_max_age_ms / 1000
        self._all_at_s = anyio.current_time() + max_age_s

    def _tell(self) -> None:
        metadata = self._cluster.metadata
        topics = metadata.state.topics
        if self.pattern is not None:
            names = frozenset(
                name
                for name, info in topics.items()
                if not info.is_internal and not info.error_code and self.pattern.fullmatch(name)
            )
        else:
            names = self.names or frozenset()
        for name in names | self._also:
            metadata.want(name)
        self._look_at_errors(names)
        if self.names is None and self.pattern is None:
            self._on_change(None)
            return
        counts = {
            name: len(topics[name].partitions)
            for name in names
            if name in topics and not topics[name].error_code
        }
        self._on_change(Subscribed(names, counts))

    def _look_at_errors(self, names: frozenset[str]) -> None:
        topics = self._cluster.metadata.state.topics
        self._missing &= names
        for name in sorted(names):
            info = topics.get(name)
            if info is None or not info.error_code:
                self._missing.discard(name)
            elif not error_class(info.error_code).retriable:
                self._on_failure(topic_error(name, info.error_code))
            elif name not in self._missing:
                self._missing.add(name)
                _log.warning("a subscribed topic is not there (yet)", topic=name)
