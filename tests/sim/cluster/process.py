"""One life of a broker: registration, image, its replica of the partition, its drivers."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache, partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from tests.sim.cluster.controlling import Controlling
from tests.sim.cluster.fetching import Fetching
from tests.sim.cluster.isr_changes import IsrChanges
from tests.sim.cluster.metastore import TOPIC, TOPIC_ID, Expired, Refused, Unknown
from tests.sim.cluster.model_log import Batch, ModelLog
from trioq.config import BrokerConfig, TopicConfig
from trioq.errors import KafkaError, KafkaStorageError
from trioq.metastore.image import ClusterImage
from trioq.metastore.layout import PartitionState
from trioq.replication.partition import ACKS_ALL, Partition
from trioq.types import TopicPartition

if TYPE_CHECKING:
    from tests.sim.cluster.world import Broker, World

HEADER: Any = SimpleNamespace(
    base_sequence=-1, size_bytes=1, base_timestamp=0, max_timestamp=0, is_transactional=False
)


@lru_cache
def broker_config(number: int) -> BrokerConfig:
    return BrokerConfig.from_mapping({"node.id": str(number)})


@lru_cache
def topic_config(flush_policy: str, min_insync: str) -> TopicConfig:
    overrides = {"min.insync.replicas": min_insync, "flush.policy": flush_policy}
    return TopicConfig.of(broker_config(0), overrides)


class Clock:
    def __init__(self, world: World) -> None:
        self._world = world

    def monotonic_s(self) -> float:
        return self._world.now_ms / 1000

    def now_ms(self) -> int:
        return int(self._world.now_ms)


class Process:
    """Everything here is forgotten when the process ends, but for its broker's disk."""

    def __init__(self, world: World, broker: Broker, *, was_clean: bool) -> None:
        self.world = world
        self.broker = broker
        self.broker_id = broker.broker_id
        self.was_clean = was_clean
        self.clock: Any = Clock(world)
        self.session = world.open_session(self.broker_id)
        self.last_arrival_ms = 0.0
        self.answered_ms = world.now_ms
        """When the last request that the metastore answered had been sent (rule 12)."""
        self.broker_epoch = -1
        self.image = ClusterImage()
        self.config = broker_config(self.broker_id)
        topic = topic_config(world.settings.flush_policy, "2")
        self.log = ModelLog(broker.disk, topic, self.clock, self._request_sync)
        log: Any = self.log
        self.partition = Partition(TopicPartition(TOPIC, 0), TOPIC_ID, log, topic, self.config)
        self.feed = Feed(self)
        self.fetching = Fetching(self)
        self.isr_changes = IsrChanges(self)
        self.controlling = Controlling(self)
        self._is_registering = False

    def start(self) -> None:
        self.feed.changed()
        self._beat()
        self.register()
        self.isr_changes.tick()
        self._keep()

    # ---- registration -------------------------------------------------------------------

    def _beat(self) -> None:
        sent_ms = self.world.now_ms

        def answered(result: Any) -> None:
            if isinstance(result, Expired):
                self.lost_session()
            elif not isinstance(result, Unknown):
                self.answered_ms = max(self.answered_ms, sent_ms)
                self.feed.changed()
                self.controlling.look()

        self.world.call(self, lambda: True, answered)
        self.world.later(self, self.world.settings.session_ms / 4, self._beat)

    @property
    def lease_holds(self) -> bool:
        """Whether a role that is backed by the metastore may be acted in."""
        held_ms = self.world.settings.session_ms * 2 / 3
        return not self.session.is_over and self.world.now_ms < self.answered_ms + held_ms

    def lost_session(self) -> None:
        """The metastore said that the session is over: register again, in the same life."""
        if not self.session.is_over or self._is_registering:
            return
        self.world.note(f"{self.broker_id} learns that its session is over")
        self.controlling.lost()
        self.session = self.world.open_session(self.broker_id)
        self.answered_ms = self.world.now_ms
        self.was_clean = self.was_clean or self.broker_epoch >= 0
        self.register()

    def register(self) -> None:
        self._is_registering = True
        metastore, session = self.world.metastore, self.session

        def found(result: Any) -> None:
            if isinstance(result, Unknown | Expired):
                self._register_again()
                return
            epoch, is_mine = result
            if is_mine:
                registered(epoch)
                return
            self.world.call(
                self,
                lambda: metastore.register(self, session, epoch, clean=self.was_clean),
                registered,
            )

        def registered(result: Any) -> None:
            if isinstance(result, Unknown | Expired | Refused):
                self._register_again()
                return
            self._is_registering = False
            self.broker_epoch = result
            self.was_clean = True
            self.world.note(f"{self.broker_id} is registered in epoch {result}")
            self.partition.use_broker_epoch(result)
            self.fetching.follow()

        def look() -> tuple[int, bool]:
            is_mine = metastore.holders.get(self.broker_id) is session
            return metastore.broker_epochs.get(self.broker_id, -1), is_mine

        self.world.call(self, look, found)

    def _register_again(self) -> None:
        if self.session.is_over:
            self.session = self.world.open_session(self.broker_id)
        self.world.later(self, 40, self.register)

    # ---- image --------------------------------------------------------------------------

    def see(self, image: ClusterImage) -> None:
        """An image has come."""
        self.image = image
        topic = image.topics_by_id[TOPIC_ID]
        self.partition.apply_config(
            topic_config(self.world.settings.flush_policy, topic.config["min.insync.replicas"]),
            self.config,
        )
        self._apply(topic.partitions[0])
        self.fetching.follow()
        self.controlling.look()

    def see_state(self, state: PartitionState) -> None:
        """The state of the partition is known before its image comes."""
        self._apply(state)
        self.fetching.follow()

    def _apply(self, state: PartitionState) -> None:
        with suppress(KafkaStorageError):
            self.partition.apply_state(state)

    # ---- the log ------------------------------------------------------------------------

    def _keep(self) -> None:
        """Now and then the high watermark is kept, and what is written gets to the disk."""
        self.log.checkpoint()
        if self.log.config.flush_policy != "commit":
            self._sync(50)
        each_ms = self.world.settings.sync_each_ms
        self.world.later(self, self.world.random.uniform(each_ms / 4, each_ms), self._keep)

    def _request_sync(self, _log: ModelLog) -> None:
        self._sync(self.world.settings.commit_ms)

    def _sync(self, most_ms: float) -> None:
        log = self.log
        done = partial(log.synced, log.written_end_offset, log.truncations)
        self.world.later(self, self.world.random.uniform(1, most_ms), done)

    @property
    def stops_cleanly(self) -> bool:
        """What the mark of a clean stop may say: all that was held in the last epoch is there."""
        return self.was_clean and not self.log.failed

    def close(self) -> None:
        self.log.checkpoint()
        self.partition.close()

    # ---- producers ----------------------------------------------------------------------

    def produce(self, value: int, records: int) -> None:
        """A client's acks=all request."""
        partition, log, ledger = self.partition, self.log, self.world.ledger
        batch: Any = (value, records)
        try:
            appended = partition.append_as_leader(batch, HEADER, acks=ACKS_ALL, now_ms=0)
        except KafkaError:
            return
        epoch = partition.leader_epoch
        log.write_group()
        end_offset = appended.last_offset + 1
        waiter: Any = Waiter(partial(ledger.acknowledged_by, self, value, end_offset, epoch))
        partition.await_acks(end_offset, ACKS_ALL, waiter, 0)

    def replica_read(self, request: dict[str, Any]) -> dict[str, Any]:
        """A follower's fetch."""
        try:
            result = self.partition.read_as_replica(
                **request, min_one_batch=True, now_s=self.clock.monotonic_s()
            )
        except KafkaError as error:
            return {"error_code": error.code}
        batches: Any = result.region or []
        return {
            "error_code": 0,
            "batches": list[Batch](batches),
            "diverging": result.diverging,
            "high_watermark": result.high_watermark,
            "log_start_offset": result.log_start_offset,
        }


class Waiter:
    def __init__(self, acknowledged: Any) -> None:
        self._acknowledged = acknowledged

    def acknowledged(self, _index: int) -> None:
        self._acknowledged()

    def refused(self, _index: int, _error: type[KafkaError]) -> None:
        """The client is told that it does not know."""


class Feed:
    """Brings topics and live brokers, each by its own way, late, and in order."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._world = process.world
        self._is_reading = {"topics": False, "brokers": False}
        self._seen = {"topics": -1, "brokers": -1}
        self._brokers: Any = {}

    def changed(self) -> None:
        """Something has changed; read it, unless that is about to be done."""
        for what, is_reading in self._is_reading.items():
            if not is_reading:
                self._is_reading[what] = True
                self._world.at(self._delay_ms(), partial(self._read, what))

    def _delay_ms(self) -> float:
        return self._world.random.uniform(1, 15)

    def _read(self, what: str) -> None:
        self._is_reading[what] = False
        process, metastore = self._process, self._world.metastore
        if process.broker_id in self._world.cut_off or process.session.is_over:
            return  # the next answered beat brings it
        if what == "brokers":
            action = partial(self._take_brokers, dict(metastore.registrations))
        else:
            action = partial(self._take_image, metastore.image({}))
        self._world.later(process, self._delay_ms(), action)

    def _take_brokers(self, brokers: Any) -> None:
        if brokers != self._brokers:
            self._brokers = brokers
            if self._process.image.position >= 0:
                self._process.see(self._process.image.with_brokers(brokers))

    def _take_image(self, image: ClusterImage) -> None:
        if image.position > self._process.image.position:
            self._process.see(image.with_brokers(self._brokers))
