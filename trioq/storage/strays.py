"""Partition directories that no partition of this broker owns: matched by topic id."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from trioq import logs
from trioq.clock import Clock
from trioq.errors import KafkaStorageError
from trioq.storage.log_dir import LogDir
from trioq.storage.log_dir_files import STRAY_SUFFIX
from trioq.storage.segment import LOG_SUFFIX
from trioq.types import TopicId, TopicPartition

MAX_STRAY_PERCENT = 10
ALWAYS_ALLOWED = 2
"""With few partitions a topic that was deleted while the broker died is over any percentage."""

log = logs.get_logger(__name__)


class Strays:
    """Sets strays aside as `<partition>.<ms since the epoch>.stray`, but never many of them.

    Many strays mean that the metadata is wrong (lost, or another cluster's), not the data.
    """

    def __init__(self, dirs: list[LogDir], clock: Clock) -> None:
        self._dirs = dirs
        self._clock = clock
        self._set_aside = 0

    def _limit(self) -> int:
        total = sum(len(log_dir.present) for log_dir in self._dirs) + self._set_aside
        return max(ALWAYS_ALLOWED, total * MAX_STRAY_PERCENT // 100)

    def set_aside(
        self, log_dir: LogDir, topic_partition: TopicPartition, found_id: TopicId | None
    ) -> None:
        """Free the name of a partition whose directory holds another topic's id, or none.

        A directory without id and log files is what a crash left of one being made: removed.
        Raises KafkaStorageError over the limit, and OSError.
        """
        path = f"{log_dir.path}/{topic_partition}"
        if found_id is None and not any(
            name.endswith(LOG_SUFFIX) for name in log_dir.disk.listdir(path)
        ):
            log_dir.disk.remove_tree(path)
            log_dir.forget_partition(topic_partition)
            return
        if self._set_aside + 1 > self._limit():
            log.error(
                "strays_kept_offline",
                partition=str(topic_partition),
                holds_topic_id=str(found_id),
                strays=self._set_aside + 1,
                consequence="over 10 % of the partitions here belong to topics that the metadata "
                "does not know: nothing is renamed, they are not served; is the metadata right?",
            )
            raise KafkaStorageError(f"{path} holds the data of another topic, {found_id}")
        self._rename(log_dir, topic_partition, found_id)

    def set_aside_unassigned(
        self,
        assigned: Mapping[TopicPartition, TopicId],
        topic_id_in: Callable[[LogDir, TopicPartition], TopicId | None],
        undecided: Collection[TopicId] = (),
    ) -> list[str]:
        """See `LogDirs.set_aside_strays`."""
        strays = []
        for log_dir in self._dirs:
            if log_dir.error is not None:
                continue
            loaded = {one.topic_partition for one in log_dir.logs if one.segments.exists}
            for topic_partition in sorted(log_dir.present - loaded):
                found_id = topic_id_in(log_dir, topic_partition)
                if found_id in undecided:
                    continue
                if assigned.get(topic_partition) != found_id or found_id is None:
                    strays.append((log_dir, topic_partition, found_id))
        if self._set_aside + len(strays) > self._limit():
            log.error(
                "strays_kept_offline",
                strays=len(strays),
                partitions=sum(len(log_dir.present) for log_dir in self._dirs),
                consequence="over 10 % of the partitions here belong to topics that the metadata "
                "does not know: nothing is renamed, they are not served; is the metadata right?",
            )
            return []
        renamed = []
        for log_dir, topic_partition, found_id in strays:
            try:
                renamed.append(self._rename(log_dir, topic_partition, found_id))
            except OSError as error:
                log_dir.fail(error)
        return renamed

    def _rename(
        self, log_dir: LogDir, topic_partition: TopicPartition, found_id: TopicId | None
    ) -> str:
        name = f"{topic_partition}.{self._clock.now_ms()}{STRAY_SUFFIX}"
        log_dir.disk.rename(f"{log_dir.path}/{topic_partition}", f"{log_dir.path}/{name}")
        log_dir.disk.fsync_dir(log_dir.path)
        log_dir.forget_partition(topic_partition)
        self._set_aside += 1
        log.warning(
            "stray_set_aside",
            partition=str(topic_partition),
            holds_topic_id=str(found_id),
            renamed_to=f"{log_dir.path}/{name}",
        )
        return name


def stray_age_ms(name: str, now_ms: int) -> int | None:
    """How long ago a directory was set aside; None for other names."""
    if not name.endswith(STRAY_SUFFIX):
        return None
    stamp = name.removesuffix(STRAY_SUFFIX).rpartition(".")[2]
    return now_ms - int(stamp) if stamp.isascii() and stamp.isdigit() else None
