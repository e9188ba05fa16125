from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.stored_partition import StoredPartition, three_segments
from trioq._native.batch import build
from trioq.record.control import build_end_transaction
from trioq.storage.checkpoints import encode_offsets
from trioq.storage.dump import DumpLine, UnknownFile, dump_file
from trioq.storage.txn_index import AbortedTransaction, encode_aborted
from trioq.types import TopicPartition


def shown(path: Path, *, records: bool = False) -> list[tuple[str, dict[str, object]]]:
    return [(line.kind, dict(line.fields)) for line in dump_file(path, records=records)]


@pytest.fixture
def partition(tmp_path: Path) -> StoredPartition:
    return three_segments(tmp_path / "orders-0")


def test_a_log(partition: StoredPartition) -> None:
    lines = list(dump_file(partition.file(".log", 6)))
    assert [line.kind for line in lines] == ["batch"] * 3
    assert [line.position for line in lines] == [b.position for b in partition.segments[6]]
    fields = dict(lines[1].fields)
    assert fields.pop("crc")
    assert fields == {
        "size_bytes": len(partition.segments[6][1].data),
        "base_offset": 8,
        "last_offset": 9,
        "record_count": 2,
        "leader_epoch": 1,
        "base_timestamp": 1_900,
        "max_timestamp": 1_900,
        "timestamp_type": "create",
        "codec": "none",
        "producer_id": 9,
        "producer_epoch": 0,
        "base_sequence": 8,
        "is_transactional": False,
        "is_control": False,
        "is_valid": True,
    }


def test_records(partition: StoredPartition) -> None:
    lines = shown(partition.file(".log", 6), records=True)
    assert [kind for kind, _ in lines] == ["batch", "record", "record"] * 3
    assert lines[1][1] == {
        "offset": 6,
        "timestamp": 1_500,
        "key": "k",
        "value": "v0",
        "headers": "h: 1",
    }


def test_a_line_is_one_line_whatever_a_record_holds(tmp_path: Path) -> None:
    partition = StoredPartition(tmp_path / "t-0")
    partition.append_raw(build([(5, None, b"\xff\n\x1b[2J x", [("a\nb", None)])]))
    partition.write()
    record = list(dump_file(partition.file(".log"), records=True))[1]
    assert str(record) == (
        "record position=0 offset=0 timestamp=5 key=null "
        r"value='\\xff\n\x1b[2J x' headers='a\nb: None'"
    )


def test_a_marker(tmp_path: Path) -> None:
    partition = StoredPartition(tmp_path / "t-0")
    marker = build_end_transaction(
        committed=False, coordinator_epoch=8, producer_id=3, producer_epoch=1, timestamp_ms=99
    )
    partition.append_raw(marker)
    partition.write()
    assert shown(partition.file(".log"))[1] == (
        "record",
        {"offset": 0, "timestamp": 99, "control": "ABORT", "coordinator_epoch": 8},
    )


def test_damage_is_a_line_and_the_rest_is_shown(partition: StoredPartition) -> None:
    log = partition.file(".log")
    content = bytearray(log.read_bytes())
    content[70] ^= 1
    log.write_bytes(content[:-1])
    lines = list(dump_file(log, records=True))
    assert [line.kind for line in lines] == [
        "batch",
        "problem",
        "batch",
        "record",
        "record",
        "problem",
    ]
    assert dict(lines[0].fields)["is_valid"] is False
    assert dict(lines[1].fields) == {"what": "CRC does not match"}
    assert lines[5].position == partition.segments[12][2].position


def test_records_that_cannot_be_opened_are_a_problem(tmp_path: Path) -> None:
    partition = StoredPartition(tmp_path / "t-0")
    partition.append_raw(
        build([(0, None, b"v", ())], attributes=4, compress=lambda _: b"no zstd frame")
    )
    partition.append([b"fine"])
    partition.write()
    kinds = [kind for kind, _ in shown(partition.file(".log"), records=True)]
    assert kinds == ["batch", "problem", "batch", "record"]


def test_indexes(partition: StoredPartition) -> None:
    position = partition.segments[6][1].position
    assert shown(partition.file(".index", 6))[:2] == [
        ("offset", {"offset": 7, "log_position": 0}),
        ("offset", {"offset": 9, "log_position": position}),
    ]
    assert shown(partition.file(".timeindex", 6)) == [
        ("time", {"timestamp": 1_500, "offset": 7}),
        ("time", {"timestamp": 1_900, "offset": 9}),
    ]
    for suffix in (".index", ".timeindex"):
        file = partition.file(suffix, 6)
        file.write_bytes(file.read_bytes()[:-1])
        assert list(dump_file(file))[-1].kind == "problem"


def test_a_snapshot(partition: StoredPartition) -> None:
    file = partition.snapshot_file
    assert list(dump_file(file)) == [
        DumpLine(
            "producer",
            10,
            (
                ("producer_id", 9),
                ("producer_epoch", 0),
                ("last_sequence", 17),
                ("last_offset", 17),
                ("offset_delta", 1),
                ("timestamp_ms", 2_700),
                ("coordinator_epoch", -1),
                ("current_txn_first_offset", -1),
            ),
        )
    ]
    file.write_bytes(b"no")
    assert [kind for kind, _ in shown(file)] == ["problem"]


def test_a_transaction_index(partition: StoredPartition) -> None:
    file = partition.file(".txnindex")
    entry = encode_aborted(AbortedTransaction(9, 12, 13, 14))
    file.write_bytes(entry + entry[:1])
    lines = list(dump_file(file))
    assert dict(lines[0].fields)["last_offset"] == 13
    assert (lines[1].kind, lines[1].position) == ("problem", 34)
    file.write_bytes(entry + entry)
    assert [kind for kind, _ in shown(file)] == ["aborted", "problem"]


def test_checkpoints(partition: StoredPartition, tmp_path: Path) -> None:
    file = partition.path / "leader-epoch-checkpoint"
    lines = [str(line) for line in dump_file(file)]
    assert lines[1] == "epoch position=4 leader_epoch=1 start_offset=6"
    file.write_bytes(b"?")
    assert [kind for kind, _ in shown(file)] == ["problem"]
    file = tmp_path / "replication-offset-checkpoint"
    file.write_bytes(encode_offsets({TopicPartition("orders", 0): 18}))
    assert shown(file) == [("checkpoint", {"topic": "orders", "partition": 0, "offset": 18})]
    file.write_bytes(b"?")
    assert [kind for kind, _ in shown(file)] == ["problem"]


def test_names(partition: StoredPartition, tmp_path: Path) -> None:
    log = partition.file(".log")
    deleted = log.rename(log.with_name(log.name + ".deleted"))
    assert len(shown(deleted)) == 3
    with pytest.raises(UnknownFile, match=r"shown are \.log"):
        dump_file(tmp_path / "notes.txt")
    with pytest.raises(FileNotFoundError):
        list(dump_file(tmp_path / "00000000000000000000.log"))
