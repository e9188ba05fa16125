"""Which partitions are hosted here, as the image says, and which are not although it says so."""

from __future__ import annotations

import errno

import pytest

from tests.unit.storage_support import TOPIC_ID, TP, open_dirs, put
from trioq.config import BrokerConfig
from trioq.logs import captured
from trioq.metastore.image import ClusterImage, TopicImage
from trioq.metastore.layout import NO_CONFIG, PartitionState
from trioq.replication.partition import Partition
from trioq.replication.partitions import Partitions
from trioq.storage.checkpoints import LEADER_EPOCH_FILE
from trioq.storage.memory_disk import MemoryDisk

BROKER = BrokerConfig.from_mapping({"node.id": "1"})


def image_of(*replicas: int, leader_epoch: int, version: int = 0) -> ClusterImage:
    state = PartitionState(
        leader=replicas[0],
        leader_epoch=leader_epoch,
        isr=replicas,
        broker_epochs=tuple(0 for _ in replicas),
        replicas=replicas,
        partition_epoch=version,
    )
    topic = TopicImage(TP.topic, TOPIC_ID, (state,), NO_CONFIG, 0)
    return ClusterImage(topics={TP.topic: topic}, topics_by_id={TOPIC_ID: topic})


def hosting(disk: MemoryDisk, image: ClusterImage) -> Partitions:
    partitions = Partitions(open_dirs(disk), BROKER)
    partitions.use_broker_epoch(0)
    partitions.apply_image(ClusterImage(), image)
    return partitions


def disk_with_records(leader_epoch: int) -> MemoryDisk:
    """What a broker leaves that led the partition at `leader_epoch`."""
    disk = MemoryDisk()
    dirs = open_dirs(disk)
    partitions = Partitions(dirs, BROKER)
    partitions.apply_image(ClusterImage(), image_of(1, leader_epoch=leader_epoch))
    partition = partitions.find(*TP)
    assert partition is not None
    put(partition.log, b"a record", epoch=leader_epoch)
    dirs.close()
    return disk


def test_safety_3_a_log_of_a_later_epoch_than_the_metastore_knows_stays_offline():
    disk = disk_with_records(leader_epoch=7)
    with captured() as lines:
        before = image_of(1, 2, leader_epoch=6)
        partitions = hosting(disk, before)
        assert partitions.find(*TP) is None
        # The metastore catches up by and by: what it says of this log is no truer for that.
        partitions.apply_image(before, image_of(1, 2, leader_epoch=8, version=1))
    assert partitions.find(*TP) is None
    (line,) = [line for line in lines if line["event"] == "partition_contradicts_metastore"]
    assert (line["log_leader_epoch"], line["metastore_leader_epoch"]) == (7, 6)


def test_a_log_of_the_epoch_that_the_metastore_knows_is_hosted():
    for leader_epoch in (7, 8):
        partitions = hosting(
            disk_with_records(leader_epoch=7), image_of(1, leader_epoch=leader_epoch)
        )
        partition = partitions.find(*TP)
        assert partition is not None
        assert partition.log.log_end_offset == 1


def test_an_image_is_followed_to_its_end_where_one_log_cannot_be_read():
    disk = disk_with_records(leader_epoch=7)
    disk.inject("read_file", errno.EIO, path_contains=LEADER_EPOCH_FILE)
    partitions = hosting(disk, image_of(2, 1, leader_epoch=8))
    partition = partitions.find(*TP)
    assert partition is not None
    assert partition.log.failed
    assert not partition.is_follower


def test_a_replica_that_was_moved_away_is_dropped_with_its_log():
    before = image_of(1, 2, leader_epoch=7)
    partitions = hosting(disk_with_records(leader_epoch=7), before)
    assert partitions.find(*TP) is not None
    partitions.apply_image(before, image_of(2, 3, leader_epoch=8, version=1))
    assert partitions.find(*TP) is None
    assert partitions.find_by_id(TOPIC_ID, TP.partition) is None
    # Brought back it starts empty.
    partitions.apply_image(
        image_of(2, 3, leader_epoch=8, version=1), image_of(2, 1, leader_epoch=8, version=2)
    )
    partition = partitions.find(*TP)
    assert partition is not None
    assert partition.log.log_end_offset == 0


def test_a_change_of_one_partition_costs_the_others_nothing(monkeypatch: pytest.MonkeyPatch):
    (state,) = image_of(1, leader_epoch=0).topics[TP.topic].partitions
    other = state._replace(leader_epoch=1, partition_epoch=1)
    before, after, configured = (
        ClusterImage(topics={TP.topic: topic}, topics_by_id={TOPIC_ID: topic})
        for topic in (
            TopicImage(TP.topic, TOPIC_ID, (state, state, state), NO_CONFIG, 0),
            TopicImage(TP.topic, TOPIC_ID, (state, other, state), NO_CONFIG, 0),
            TopicImage(TP.topic, TOPIC_ID, (state, other, state), {"retention.ms": "5"}, 1),
        )
    )
    partitions = hosting(MemoryDisk(), before)
    followed = []
    apply_state = Partition.apply_state

    def remember(self: Partition, state: PartitionState) -> None:
        followed.append(self.topic_partition.partition)
        apply_state(self, state)

    monkeypatch.setattr(Partition, "apply_state", remember)
    partitions.apply_image(before, after)
    assert followed == [1]
    partitions.apply_image(after, configured)
    assert followed == [1, 0, 1, 2]
    assert all(partition.config.retention_ms == 5 for partition in partitions)
