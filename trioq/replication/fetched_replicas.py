"""The replicas that one fetcher copies: how they fare, and what is amiss with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

import trio

from trioq import logs
from trioq.errors import BY_CODE, CorruptMessage, KafkaError, KafkaStorageError
from trioq.metrics import Counters
from trioq.replication.fetch_session_state import PartitionKey
from trioq.replication.fetcher_state import NO_ERROR, FetcherState

if TYPE_CHECKING:
    from trioq.config import BrokerConfig
    from trioq.replication.partition import Partition
    from trioq.replication.replica import Replica
    from trioq.replication.throttle_state import ThrottleState
    from trioq.storage.log_dir import LogDir
    from trioq.wire.schema import Message

INTERRUPT_S: Final = 0.1
"""A long poll is broken off for a partition that comes to be followed, but not oftener than this:
it costs a new connection and a new session."""

log = logs.get_logger("trioq.replication.fetcher")


class Channel(Protocol):
    """The fetcher's own way to its leader; PeerChannel is one."""

    async def call(self, request: Message, *, api_version: int, timeout_s: float) -> Message:
        """The answer; records in it are valid until the next call. Raises PeerUnreachable."""
        ...

    def close(self) -> None: ...

    @property
    def is_receiving(self) -> bool:
        """Whether some of the answer to the call under way has come."""
        ...


class FetcherCounters(Counters):
    """What followers on this broker did."""

    __slots__ = (
        "failed_requests",
        "faults",
        "fetched_bytes",
        "requests",
        "restarts",
        "truncations",
    )

    failed_requests: int
    faults: int
    """Answers for a partition that were errors, or held what could not be taken."""
    fetched_bytes: int
    requests: int
    restarts: int
    truncations: int


class FetchedReplicas:
    """The replicas of one fetcher, which is this and a task: see ReplicaFetcher."""

    def __init__(
        self,
        leader_id: int,
        channel: Channel,
        config: Callable[[], BrokerConfig],
        throttle: Callable[[], ThrottleState],
        counters: FetcherCounters,
        *,
        request_timeout_s: float = 30.0,
    ) -> None:
        """Own `channel`, which leads to the leader's broker.

        `request_timeout_s` is how late an answer may be before the connection is given up.
        """
        self.leader_id = leader_id
        self.counters = counters
        self.lags: dict[PartitionKey, int] = {}
        """How many records each partition lacked when its leader answered last."""
        self._channel = channel
        self._config = config
        self._throttle = throttle
        self._request_timeout_s = request_timeout_s
        current = config()
        self._state = FetcherState(
            backoff_s=current.replica_fetch_backoff_ms / 1000,
            max_wait_s=current.replica_fetch_wait_max_ms / 1000,
        )
        self._partitions: dict[PartitionKey, Partition] = {}
        self._log_dirs: set[LogDir] = set()
        self._terms: dict[PartitionKey, int] = {}
        """Of each partition, the term in which its position was stated."""
        self._unsettled: set[PartitionKey] = set()
        self._slow: set[PartitionKey] = set()
        """Unsettled for longer than a request waits."""
        self._look_up: list[PartitionKey] = []
        self._paused: dict[PartitionKey, float] = {}
        self._offline: list[PartitionKey] = []
        self._damaged: dict[PartitionKey, int] = {}
        """Own files do not hold what they should: to be copied anew, once the leader knows it,
        from where its log begins; -1 until that is known."""
        self._reported: dict[PartitionKey, int] = {}
        self._is_reachable = True
        self._broker_epoch = -1
        """Of the registration in which positions are stated."""
        self._wake = trio.Event()
        self._poll: trio.CancelScope | None = None
        """Of the request under way that the leader may hold."""
        self._interrupted_s = -INTERRUPT_S

    # ---- who is followed ----------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._partitions)

    def follow(self, partition: Partition) -> None:
        """Copy the partition, in the term that it is in; a term that is known changes nothing."""
        key = key_of(partition)
        if self._partitions.get(key) is not partition:
            self.unfollow(key)
            self._partitions[key] = partition
            self._log_dirs.add(partition.log.log_dir)
            partition.settle_watcher = self
        if self._state.follow(key, partition.leader_epoch):
            self._wake.set()
            self._interrupt()
        if key in self._damaged:
            self._state.pause(key, trio.current_time())  # it may be counted on no longer
            self._wake.set()

    def leader_changed(self) -> None:
        """Its broker has registered anew, or is gone: an answer under way may never come."""
        if self._poll is not None:
            self._poll.cancel()

    def _interrupt(self) -> None:
        """Break off a request that waits at the leader: there is more to ask for."""
        now_s = trio.current_time()
        if (
            self._poll is not None
            and not self._channel.is_receiving
            and now_s - self._interrupted_s >= INTERRUPT_S
        ):
            self._interrupted_s = now_s
            self._poll.cancel()

    def unfollow(self, key: PartitionKey) -> None:
        """Copy the partition no longer; nothing happens if it is not followed."""
        partition = self._partitions.pop(key, None)
        if partition is not None and partition.settle_watcher is self:
            partition.settle_watcher = None
        self._state.unfollow(key)
        for known in (self._terms, self._reported, self.lags, self._damaged):
            known.pop(key, None)
        for marked in (self._unsettled, self._slow):
            marked.discard(key)
        self._wake.set()

    def settled(self, partition: Replica) -> None:
        """See trioq.replication.waiters.SettleWatcher."""
        key = (partition.topic_id, partition.topic_partition.partition)
        if key in self._unsettled:
            self._unsettled.discard(key)
            self._slow.discard(key)
            self._state.moved(key)
            self._wake.set()

    def log_start_moved(self, partition: Replica) -> None:
        """See trioq.replication.waiters.SettleWatcher."""
        self._state.moved(key_of(partition))

    # ---- trouble ------------------------------------------------------------------------

    def _failed(self, key: PartitionKey, error: KafkaError) -> None:
        """What the answer called for could not be done here."""
        if isinstance(error, KafkaStorageError):
            # The directory is offline until a restart: nothing is followed there any more.
            self.unfollow(key)
            self.counters.faults += 1
        elif isinstance(error, CorruptMessage):
            self._found_damage(key, error)
        else:
            self._delay(key, error.code)

    def _found_damage(self, key: PartitionKey, error: CorruptMessage) -> None:
        """A file of this replica does not hold what it should."""
        self._report(key, error.code, f"this replica is damaged and will be copied anew: {error}")
        self._damaged.setdefault(key, -1)
        self._look_up.append(key)

    def _delay(self, key: PartitionKey, error_code: int) -> None:
        self._state.delay(key, trio.current_time(), error_code)

    def _report(self, key: PartitionKey, error_code: int, reason: str) -> None:
        """Count an error; say so when it is not what was said of the partition last."""
        self.counters.faults += 1
        if self._reported.get(key) == error_code:
            return
        self._reported[key] = error_code
        known = BY_CODE.get(error_code)
        log.error(
            "replica_fetch_failed",
            partition=str(self._partitions[key].topic_partition),
            leader=self.leader_id,
            error=known.kafka_name if known is not None else error_code,
            reason=reason,
            consequence="this replica does not get on; it is tried again",
        )

    def _moved_elsewhere(self, key: PartitionKey, partition: Partition, *, moved: bool) -> None:
        """The log was changed; if it was not, the answer made no sense and is asked for later."""
        if not moved:
            self._delay(key, NO_ERROR)
            return
        self._state.moved(key)
        if not partition.is_settled:
            self._unsettled.add(key)


def key_of(partition: Replica) -> PartitionKey:
    """Topic id and number of a partition."""
    return partition.topic_id, partition.topic_partition.partition
