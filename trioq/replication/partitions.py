"""The partitions hosted by this broker, following the cluster image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from trioq import logs
from trioq.config import BrokerConfig, TopicConfig
from trioq.errors import ConfigError, CorruptMessage, KafkaError, KafkaStorageError
from trioq.metastore.image import changed_topics
from trioq.replication.partition import Partition
from trioq.replication.unhosted import UnhostedReplica
from trioq.types import TopicId, TopicPartition

if TYPE_CHECKING:
    from trioq.metastore.image import ClusterImage, TopicImage
    from trioq.metastore.layout import PartitionState
    from trioq.replication.waiters import JoinWatcher
    from trioq.storage.log_dirs import LogDirs

log = logs.get_logger(__name__)


class Partitions:
    """Registry of hosted partitions, by topic name and by topic id.

    Owned by the broker's loop; `apply_image` is the only one that changes it. Lookups are
    on the hot path: two dictionary reads.
    """

    __slots__ = (
        "_broker_epoch",
        "_by_id",
        "_by_topic",
        "_config",
        "_is_loaded",
        "_join_watcher",
        "_local_id",
        "_log_dirs",
        "_refused",
        "_unhosted",
        "terms_led",
    )

    def __init__(self, log_dirs: LogDirs, config: BrokerConfig) -> None:
        self._log_dirs = log_dirs
        self._config = config
        self._local_id = config.node_id
        self._broker_epoch = -1
        self._join_watcher: JoinWatcher | None = None
        self._is_loaded = False
        """The first image has come: partitions that are not in it are created from now on."""
        self._refused: set[tuple[TopicId, int]] = set()
        """Partitions whose data contradicts the metastore; offline for this process's life."""
        self._unhosted: dict[tuple[TopicId, int], UnhostedReplica] = {}
        self.terms_led = 0
        """Grows with each term in which something is led here."""
        self._by_topic: dict[str, dict[int, Partition]] = {}
        self._by_id: dict[TopicId, dict[int, Partition]] = {}

    def find(self, topic: str, partition: int) -> Partition | None:
        """The hosted partition, or None if it is not hosted here (or unknown)."""
        hosted = self._by_topic.get(topic)
        return None if hosted is None else hosted.get(partition)

    def find_by_id(self, topic_id: TopicId, partition: int) -> Partition | None:
        """Like `find`, by topic id."""
        hosted = self._by_id.get(topic_id)
        return None if hosted is None else hosted.get(partition)

    def log_end(self, topic_id: TopicId, partition: int) -> int | None:
        """The end of the log of a partition hosted here; None if it is not."""
        hosted = self.find_by_id(topic_id, partition)
        return None if hosted is None else hosted.log.log_end_offset

    def __iter__(self) -> Iterator[Partition]:
        for hosted in self._by_topic.values():
            yield from hosted.values()

    @property
    def unhosted(self) -> Sequence[UnhostedReplica]:
        """The replicas that are to be here, but whose log directories have failed."""
        return tuple(self._unhosted.values())

    @property
    def local_id(self) -> int:
        """This broker's id."""
        return self._local_id

    @property
    def broker_epoch(self) -> int:
        """Of this broker's registration; -1 before the first."""
        return self._broker_epoch

    def __len__(self) -> int:
        return sum(map(len, self._by_topic.values()))

    def use_broker_epoch(self, broker_epoch: int) -> None:
        """This broker is registered under `broker_epoch`; before, it leads nothing.

        Called with each registration. What was led by an earlier one is led no longer, until
        a partition state names the new epoch (rule 6 of SAFETY).
        """
        self._broker_epoch = broker_epoch
        for partition in self:
            try:
                partition.use_broker_epoch(broker_epoch)
            except KafkaStorageError as error:
                _log_offline(partition.topic_partition, error)
            if partition.log.failed and self._join_watcher is not None:
                self._join_watcher.log_failed(partition)

    def use_join_watcher(self, watcher: JoinWatcher | None) -> None:
        """Have `watcher` told of followers that may join the ISR, or nobody."""
        self._join_watcher = watcher
        for partition in self:
            partition.join_watcher = watcher

    def apply_image(self, before: ClusterImage, after: ClusterImage) -> None:
        """Host what `after` assigns to this broker, drop what it no longer does.

        Costs in proportion to the topics that changed. Does not raise: a partition whose log
        cannot be used is logged and answered with KAFKA_STORAGE_ERROR.
        """
        for old, new in changed_topics(before, after):
            if new is None:
                if old is not None:
                    self._drop_topic(old)
            else:
                known = len(old.partitions) if old is not None else 0
                self._follow_topic(new, old, new_from=known if self._is_loaded else None)
        self._is_loaded = True

    def use_config(self, config: BrokerConfig, image: ClusterImage) -> None:
        """Take changed broker defaults, also for the topics hosted already."""
        self._config = config
        for topic in image.topics.values():
            self._follow_topic(topic)

    def _follow_topic(
        self, topic: TopicImage, old: TopicImage | None = None, *, new_from: int | None = None
    ) -> None:
        """Follow one topic, whose partitions from number `new_from` on were just created.

        Partitions that are the same in `old`, which was followed before, cost a comparison.
        """
        config = self._topic_config(topic)
        same: Sequence[PartitionState] = ()
        if old is not None and old.name == topic.name and old.config == topic.config:
            same = old.partitions
        hosted = self._by_id.setdefault(topic.topic_id, {})
        self._by_topic[topic.name] = hosted
        for number, state in enumerate(topic.partitions):
            partition = hosted.get(number)
            if number < len(same) and same[number] is state and partition is not None:
                continue
            if self._local_id not in state.replicas:
                self._note_hosted(topic.topic_id, number)
                if partition is not None:
                    del hosted[number]
                    self._drop(partition)
                continue
            if partition is None:
                is_new = new_from is not None and number >= new_from
                partition = self._host(topic, number, config, is_new=is_new)
                if partition is None:
                    self._note_unhosted(topic, number, state)
                    continue
                self._note_hosted(topic.topic_id, number)
                if self._contradicts(partition, state):
                    continue
                hosted[number] = partition
            else:
                partition.apply_config(config, self._config)
            term = partition.term
            try:
                partition.apply_state(state)
            except KafkaStorageError as error:
                _log_offline(partition.topic_partition, error)
            if partition.term != term and partition.is_leader:
                self.terms_led += 1

    def _host(
        self, topic: TopicImage, number: int, config: TopicConfig, *, is_new: bool
    ) -> Partition | None:
        topic_partition = TopicPartition(topic.name, number)
        try:
            partition_log = self._log_dirs.log(
                topic_partition, topic.topic_id, config, is_new=is_new
            )
        except KafkaStorageError as error:
            _log_offline(topic_partition, error)
            return None
        partition = Partition(topic_partition, topic.topic_id, partition_log, config, self._config)
        partition.broker_epoch = self._broker_epoch
        partition.join_watcher = self._join_watcher
        return partition

    def _note_unhosted(self, topic: TopicImage, number: int, state: PartitionState) -> None:
        known = self._unhosted.get((topic.topic_id, number))
        if known is not None:
            known.apply_state(state)
            return
        self._unhosted[topic.topic_id, number] = UnhostedReplica(
            TopicPartition(topic.name, number), topic.topic_id, state
        )

    def _note_hosted(self, topic_id: TopicId, number: int) -> None:
        """There is a log, or none is wanted any more."""
        known = self._unhosted.pop((topic_id, number), None)
        if known is not None:
            known.is_closed = True

    def _topic_config(self, topic: TopicImage) -> TopicConfig:
        try:
            return TopicConfig.of(self._config, topic.config)
        except ConfigError as error:
            # Written by another version of trioq: the topic stays usable with the defaults.
            log.warning(
                "topic_config_ignored", topic=topic.name, used="broker defaults", reason=str(error)
            )
            return TopicConfig.of(self._config, {})

    def _drop_topic(self, topic: TopicImage) -> None:
        hosted = self._by_id.pop(topic.topic_id, {})
        for topic_id, number in [key for key in self._unhosted if key[0] == topic.topic_id]:
            self._note_hosted(topic_id, number)
        # A topic of the same name may have been created in the meantime.
        if self._by_topic.get(topic.name) is hosted:
            del self._by_topic[topic.name]
        for partition in hosted.values():
            self._drop(partition)

    def _drop(self, partition: Partition) -> None:
        """It is no longer hosted here: its log is removed."""
        partition.close()
        self._log_dirs.delete(partition.topic_partition, partition.topic_id)

    def _contradicts(self, partition: Partition, state: PartitionState) -> bool:
        """Whether the log comes from a leader epoch that the metastore does not know yet.

        Then the metastore has lost what it knew, and what it says of this partition is not to be
        believed: the data stays as it is (SAFETY rule 3).
        """
        key = (partition.topic_id, partition.topic_partition.partition)
        try:
            latest_epoch = partition.log.epochs.latest_epoch
        except (KafkaStorageError, CorruptMessage) as error:
            # Hosted all the same: offline, or copied anew from the leader.
            _log_offline(partition.topic_partition, error)
            latest_epoch = -1
        if latest_epoch > state.leader_epoch and key not in self._refused:
            self._refused.add(key)
            log.error(
                "partition_contradicts_metastore",
                partition=str(partition.topic_partition),
                log_leader_epoch=latest_epoch,
                metastore_leader_epoch=state.leader_epoch,
                consequence="its data here is not served: was the metastore "
                "restored from an old backup? Restore a newer one, or move the directory away to "
                "have this replica copied anew",
            )
        return key in self._refused


def _log_offline(topic_partition: TopicPartition, error: KafkaError) -> None:
    log.error("partition_offline", partition=str(topic_partition), reason=str(error))
