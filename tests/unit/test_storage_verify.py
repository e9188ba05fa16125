from __future__ import annotations

import random
import uuid
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.storage_support import TOPIC_ID, TP, Config, open_dirs, put
from tests.unit.stored_partition import StoredPartition, three_segments
from trioq._native.batch import build
from trioq.storage import batch_audit
from trioq.storage.checkpoints import LEADER_EPOCH_FILE, encode_epochs, encode_offsets
from trioq.storage.disk import OsDisk
from trioq.storage.identity import LogDirIdentity
from trioq.storage.txn_index import AbortedTransaction, encode_aborted
from trioq.storage.verify import NotALogDirectory, Severity, VerifyReport, verify_dir
from trioq.types import TopicPartition


@pytest.fixture
def partition(tmp_path: Path) -> StoredPartition:
    return three_segments(tmp_path / "orders-0")


def found(report: VerifyReport) -> list[tuple[str, str, int]]:
    return [(p.severity.value, Path(p.file).name, p.position) for p in report.problems]


def overwrite(path: Path, position: int, data: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[position : position + len(data)] = data
    path.write_bytes(content)


def log_name(base_offset: int) -> str:
    return f"{base_offset:020d}.log"


def test_a_sound_partition(partition: StoredPartition) -> None:
    calls: list[tuple[str, int, int]] = []
    report = verify_dir(partition.path, progress=lambda *call: calls.append(call))
    assert found(report) == []
    assert report.is_sound
    assert (report.partitions, report.segments, report.batches, report.records) == (1, 3, 9, 18)
    assert [call[1] for call in calls] == [report.log_bytes * n // 3 for n in (1, 2, 3)]
    assert {call[2] for call in calls} == {report.log_bytes}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_a_stopped_log_leaves_is_sound(tmp_path: Path, seed: int) -> None:
    choose = random.Random(seed)
    config = Config(segment_bytes=2_000, index_interval_bytes=150)
    expected = 0
    for epoch in range(4):
        dirs = open_dirs(OsDisk(), (str(tmp_path),))
        dirs.recover()
        log = dirs.log(TP, TOPIC_ID, config)
        for sequence in range(choose.randrange(20, 40)):
            timestamp = choose.randrange(1_000, 2_000)
            put(log, b"v" * 40, timestamp=timestamp, producer=(5, epoch, sequence), epoch=epoch)
            expected += 1
        dirs.close(clean=choose.random() < 0.7 or epoch == 3)
    report = verify_dir(tmp_path)
    assert found(report) == []
    assert report.batches == expected
    assert report.segments > 3


def test_a_flipped_bit_is_found_and_the_batches_behind_it_are_still_read(
    partition: StoredPartition,
) -> None:
    damaged = partition.segments[6][1]
    log = partition.file(".log", 6)
    overwrite(log, damaged.position + 70, b"\xff\xff")
    report = verify_dir(partition.path)
    assert found(report) == [("damage", log_name(6), damaged.position)]
    assert "CRC does not match" in report.problems[0].what
    assert report.batches == 8
    assert str(log) in str(report.problems[0])


def test_what_follows_an_unreadable_length_is_named(partition: StoredPartition) -> None:
    damaged = partition.segments[0][1]
    overwrite(partition.file(".log", 0), damaged.position + 8, b"\xff\xff\xff\xff")
    report = verify_dir(partition.path)
    assert found(report) == [
        ("damage", log_name(0), damaged.position),
        ("damage", log_name(6), 0),
    ]
    assert "offsets 2 to 5 are missing" in report.problems[1].what


def test_a_cut_off_last_batch_is_the_brokers_to_remove(partition: StoredPartition) -> None:
    log = partition.file(".log")
    content = log.read_bytes()
    last = partition.segments[12][2]
    for keep in (len(content) - 1, last.position + 3):
        log.write_bytes(content[:keep])
        report = verify_dir(partition.path)
        assert found(report)[0] == ("repairable", log.name, last.position)
        assert report.is_sound
    log = partition.file(".log", 0)
    log.write_bytes(log.read_bytes()[:-1])
    report = verify_dir(partition.path)
    assert not report.is_sound


def test_a_missing_segment(partition: StoredPartition) -> None:
    partition.file(".log", 6).unlink()
    assert found(verify_dir(partition.path)) == [("damage", log_name(12), 0)]
    assert verify_dir(partition.path, allow_gaps=True).is_sound


def test_offsets_that_come_again(partition: StoredPartition) -> None:
    log = partition.file(".log")
    first = partition.segments[12][0]
    size = len(log.read_bytes())
    log.write_bytes(log.read_bytes() + first.data)
    report = verify_dir(partition.path)
    assert ("damage", log.name, size) in found(report)
    assert "offset 12 again, after 17" in report.problems[0].what


def test_a_leader_epoch_that_goes_back(tmp_path: Path) -> None:
    partition = StoredPartition(tmp_path / "t-0")
    partition.append([b"a"], epoch=3)
    second = partition.append([b"b"], epoch=2)
    partition.write()
    report = verify_dir(partition.path)
    assert ("damage", log_name(0), second.position) in found(report)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (encode_epochs([(0, 0), (2, 6), (4, 12)]), "says epoch 2 for offset 6, the batch says 1"),
        (encode_epochs([(0, 0), (1, 6), (4, 12), (5, 90)]), "begins at offset 90"),
        (b"0\n9\n", "9 entries announced"),
    ],
)
def test_an_epoch_checkpoint_that_is_wrong(
    partition: StoredPartition, content: bytes, says: str
) -> None:
    (partition.path / LEADER_EPOCH_FILE).write_bytes(content)
    report = verify_dir(partition.path)
    assert found(report) == [("repairable", LEADER_EPOCH_FILE, 0)]
    assert says in report.problems[0].what


@pytest.mark.parametrize("base_offset", [0, 6, 12])
@pytest.mark.parametrize(
    ("suffix", "position", "data", "says"),
    [
        (".index", 12, b"\x00\x00\x00\x01", "is not where a batch starts"),
        (".index", 20, b"\x00\x7f\x00\x00", "beyond the last batch"),
        (".index", 8, b"\x00\x00\x00\x05", "is said to be at position"),
        (".timeindex", 4, b"\x00\x00\x00\x01", "is said to be the greatest"),
        (".timeindex", 8, b"\x00\x00\x00\x03", "is said to be the greatest"),
        (".timeindex", 20, b"\x00\x00\x70\x00", "beyond the last batch"),
        (".timeindex", 12, b"\x00" * 8, "timestamp 0 follows"),
        (".timeindex", 24, b"\x00", "the last entry is cut off"),
        (".index", 24, b"\x00", "the last entry is cut off"),
    ],
)
def test_an_index_that_is_wrong(
    partition: StoredPartition, base_offset: int, suffix: str, position: int, data: bytes, says: str
) -> None:
    file = partition.file(suffix, base_offset)
    overwrite(file, position, data)
    report = verify_dir(partition.path)
    assert [(s, name) for s, name, _ in found(report)] == [("repairable", file.name)]
    assert says in report.problems[0].what
    assert report.is_sound


def test_the_time_index_of_a_sealed_segment_ends_with_its_maximum(
    partition: StoredPartition,
) -> None:
    for base_offset in (6, 12):
        file = partition.file(".timeindex", base_offset)
        file.write_bytes(file.read_bytes()[:12])
    report = verify_dir(partition.path)
    assert found(report) == [("repairable", partition.file(".timeindex", 6).name, 12)]


def test_missing_indexes_matter_for_sealed_segments_only(partition: StoredPartition) -> None:
    for base_offset in partition.segments:
        for suffix in (".index", ".timeindex"):
            partition.file(suffix, base_offset).unlink()
    report = verify_dir(partition.path)
    assert [name for _, name, _ in found(report)] == [
        partition.file(suffix, base_offset).name
        for base_offset in (0, 6)
        for suffix in (".index", ".timeindex")
    ]
    assert report.is_sound


def test_snapshots(partition: StoredPartition) -> None:
    good = partition.snapshot_file.read_bytes()
    partition.file(".snapshot", 6).write_bytes(good)  # knows offset 17
    partition.file(".snapshot", 12).write_bytes(good[:-1])
    partition.file(".snapshot", 30).write_bytes(good)
    report = verify_dir(partition.path)
    assert [name for _, name, _ in found(report)] == [
        partition.file(".snapshot", offset).name for offset in (6, 12, 30)
    ]
    assert report.is_sound


def test_transaction_index(partition: StoredPartition) -> None:
    entry = encode_aborted(AbortedTransaction(1, 7, 8, 9))
    partition.file(".txnindex", 6).write_bytes(entry)
    assert found(verify_dir(partition.path)) == []
    partition.file(".txnindex", 6).write_bytes(entry + entry[:5])
    partition.file(".txnindex", 12).write_bytes(entry)
    partition.file(".txnindex", 0).write_bytes(entry + entry)
    report = verify_dir(partition.path)
    assert [(name[-11:], position) for _, name, position in found(report)] == [
        ("00.txnindex", 0),
        ("06.txnindex", 34),
        ("12.txnindex", 0),
    ]


def test_a_batch_larger_than_a_chunk(tmp_path: Path) -> None:
    partition = StoredPartition(tmp_path / "t-0")
    partition.append([b"small"])
    large = partition.append([random.Random(1).randbytes(3 * batch_audit.CHUNK_BYTES)])
    partition.append([b"small"])
    partition.write()
    report = verify_dir(partition.path)
    assert (found(report), report.batches) == ([], 3)
    overwrite(partition.file(".log"), large.position + 2 * batch_audit.CHUNK_BYTES, b"xyz")
    report = verify_dir(partition.path)
    assert found(report) == [("damage", log_name(0), large.position)]
    assert report.batches == 2


def test_a_data_directory(tmp_path: Path) -> None:
    for name in ("orders-0", "orders-1"):
        three_segments(tmp_path / name)
    three_segments(tmp_path / "orders-2.1234.stray")
    empty = StoredPartition(tmp_path / "empty-0")
    empty.roll()
    empty.write()
    identity = LogDirIdentity("c", 1, uuid.UUID(int=5))
    (tmp_path / "meta.properties").write_bytes(identity.encode())
    ends = {TopicPartition("orders", 0): 18, TopicPartition("gone", 0): 5}
    for name in ("recovery-point-offset-checkpoint", "replication-offset-checkpoint"):
        (tmp_path / name).write_bytes(encode_offsets(ends))
    report = verify_dir(tmp_path)
    assert found(report) == []
    assert (report.partitions, report.batches) == (3, 18)

    ends[TopicPartition("orders", 1)] = 19
    for name in ("recovery-point-offset-checkpoint", "replication-offset-checkpoint"):
        (tmp_path / name).write_bytes(encode_offsets(ends))
    (tmp_path / "log-start-offset-checkpoint").write_bytes(b"?")
    (tmp_path / "meta.properties").write_bytes(b"version=1\n")
    (tmp_path / "orders-0" / "partition.metadata").write_bytes(b"")
    assert sorted(found(verify_dir(tmp_path))) == [
        ("damage", "meta.properties", 0),
        ("damage", "partition.metadata", 0),
        ("damage", "recovery-point-offset-checkpoint", 0),
        ("repairable", "log-start-offset-checkpoint", 0),
        ("repairable", "replication-offset-checkpoint", 0),
    ]


def test_what_is_nothing_to_check(tmp_path: Path) -> None:
    with pytest.raises(NotALogDirectory, match="name a partition or a data directory"):
        verify_dir(tmp_path)
    with pytest.raises(NotALogDirectory, match="is not a directory"):
        verify_dir(tmp_path / "none")


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_damage_to_a_log_goes_unseen(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Flip a byte anywhere, or cut anywhere: it is told, and nothing else breaks."""
    path = tmp_path_factory.mktemp("flip") / "t-0"
    partition = StoredPartition(path)
    for i in range(4):
        partition.append([b"x" * 20], epoch=5, timestamp=i)
    partition.write()
    log = partition.file(".log")
    content = bytearray(log.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[position] ^= data.draw(st.integers(1, 255))
    else:
        del content[position:]
    log.write_bytes(content)
    report = verify_dir(path)
    assert report.problems
    assert all(problem.what and problem.advice for problem in report.problems)


def test_the_list_of_problems_is_bounded(tmp_path: Path) -> None:
    partition = StoredPartition(tmp_path / "t-0")
    for _ in range(1_200):
        partition.append_raw(build([(0, None, b"v", ())]))
    partition.write()
    log = partition.file(".log")
    size = len(partition.segments[0][0].data)
    content = bytearray(log.read_bytes())
    for start in range(0, len(content), size):
        content[start + size - 2] ^= 1
    log.write_bytes(content)
    report = verify_dir(partition.path)
    assert report.damage_count == 1_200
    assert len(report.problems) == 1_000
    assert {problem.severity for problem in report.problems} == {Severity.DAMAGE}
