"""The partitions hosted by this broker, following the cluster image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import structlog

from trioq.config import BrokerConfig, TopicConfig
from trioq.errors import ConfigError, KafkaStorageError
from trioq.replication.partition import Partition
from trioq.types import TopicId, TopicPartition

if TYPE_CHECKING:
    from trioq.metastore.image import ClusterImage, TopicImage
    from trioq.storage.log_dirs import LogDirs

log = structlog.get_logger(__name__)


class Partitions:
    """Registry of hosted partitions, by topic name and by topic id.

    Owned by the broker's loop; `apply_image` is the only one that changes it. Lookups are
    on the hot path: two dictionary reads.
    """

    __slots__ = ("_by_id", "_by_topic", "_config", "_image", "_local_id", "_log_dirs")

    def __init__(self, log_dirs: LogDirs, config: BrokerConfig) -> None:
        self._log_dirs = log_dirs
        self._config = config
        self._local_id = config.node_id
        self._image: ClusterImage | None = None
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

    def __iter__(self) -> Iterator[Partition]:
        for hosted in self._by_topic.values():
            yield from hosted.values()

    def __len__(self) -> int:
        return sum(map(len, self._by_topic.values()))

    def apply_image(self, image: ClusterImage) -> None:
        """Host what `image` assigns to this broker, drop what it no longer does.

        Costs in proportion to the topics that changed: unchanged TopicImage objects are
        the same object in both images.
        """
        old, self._image = self._image, image
        old_topics = {} if old is None else old.topics
        broker_config_changed = old is not None and old.broker_configs != image.broker_configs
        for name, topic in old_topics.items():
            current = image.topics.get(name)
            if current is None or current.topic_id != topic.topic_id:
                self._drop_topic(topic)
        for name, topic in image.topics.items():
            if broker_config_changed or old_topics.get(name) is not topic:
                self._follow_topic(topic)

    def use_config(self, config: BrokerConfig) -> None:
        """Take changed broker defaults; the next `apply_image` hands them to the topics."""
        self._config = config

    def _follow_topic(self, topic: TopicImage) -> None:
        config = self._topic_config(topic)
        hosted = self._by_topic.setdefault(topic.name, {})
        for number, state in enumerate(topic.partitions):
            partition = hosted.get(number)
            if self._local_id not in state.replicas:
                continue
            if partition is None:
                partition = self._host(topic, number, config)
                if partition is None:
                    continue
                hosted[number] = partition
            elif partition.config is not config:
                partition.apply_config(config)
                partition.log.apply_config(config)
            partition.apply_state(state)
        self._by_id[topic.topic_id] = hosted

    def _host(self, topic: TopicImage, number: int, config: TopicConfig) -> Partition | None:
        topic_partition = TopicPartition(topic.name, number)
        try:
            partition_log = self._log_dirs.log(topic_partition, topic.topic_id, config)
        except KafkaStorageError as error:
            log.error("partition_offline", partition=str(topic_partition), reason=str(error))
            return None
        return Partition(topic_partition, topic.topic_id, partition_log, config, self._local_id)

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
        self._by_id.pop(topic.topic_id, None)
        for partition in self._by_topic.pop(topic.name, {}).values():
            partition.close()
            self._log_dirs.delete(partition.topic_partition, topic.topic_id)
