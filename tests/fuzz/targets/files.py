"""The small files of storage: indexes, checkpoints, identities, producer snapshots."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator

from tests.fuzz.target import Choices, Raised, Target, outcome, seeded
from tests.reference import index_search as reference
from trioq._native import index_search as native
from trioq._native.crc32c import crc32c
from trioq.storage.checkpoints import (
    CorruptCheckpoint,
    decode_epochs,
    decode_offsets,
    encode_epochs,
    encode_lines,
    encode_offsets,
)
from trioq.storage.epoch_cache import EpochCache
from trioq.storage.identity import (
    CorruptIdentity,
    LogDirIdentity,
    decode_partition_metadata,
    encode_partition_metadata,
)
from trioq.storage.offset_index import OffsetIndex
from trioq.storage.producer_snapshot import (
    CorruptSnapshot,
    SnapshotEntry,
    decode_snapshot,
    encode_snapshot,
)
from trioq.storage.producer_state import ProducerState
from trioq.storage.time_index import TimeIndex
from trioq.storage.txn_index import (
    AbortedTransaction,
    CorruptTransactionIndex,
    aborted_in,
    decode_aborted,
    encode_aborted,
    truncated_bytes,
)
from trioq.types import TopicPartition

_MAX_OFFSET = 2**63 - 1


def check_index(data: bytes) -> None:
    """Both index files, as search in native code and as the objects over it."""
    choices = Choices(data)
    mode = choices.byte()
    target = choices.number(8 if mode & 1 else 4)
    extra = choices.byte() % 3
    body = choices.rest()
    form, find, expected = (
        (">qi", native.find_time, reference.find_time)
        if mode & 1
        else (">ii", native.find_offset, reference.find_offset)
    )
    size = struct.calcsize(form)
    entries = [struct.unpack_from(form, body, at) for at in range(0, len(body) - size + 1, size)]
    outcome(ValueError, find, body, len(entries) + extra, target)
    if extra:
        assert outcome(ValueError, find, body, len(entries) + extra, target) == Raised(ValueError)
    found = find(body, len(entries), target)
    assert found == (-1, -1) or (found in entries and found[0] <= target)
    ordered = b"".join(struct.pack(form, *entry) for entry in sorted(entries))
    assert find(ordered, len(entries), target) == expected(ordered, len(entries), target)
    if mode & 1:
        _use_times(TimeIndex(body), target, choices.byte())
    else:
        _use_offsets(OffsetIndex(body), target)


def _use_offsets(index: OffsetIndex, target: int) -> None:
    index.floor(target)
    assert index.floor_position(target) <= max(target, 0)
    index.truncate(target)
    assert len(index.data) == index.entries * 8
    if index.entries:
        assert index.entry(index.entries - 1)[0] < target


def _use_times(index: TimeIndex, target: int, offset: int) -> None:
    index.floor(target)
    index.is_ordered()
    index.maybe_append(target, offset)
    assert index.last()[0] >= target or target == -1
    index.truncate(offset)
    assert len(index.data) == index.entries * 12


def check_checkpoint(data: bytes) -> None:
    if data[:1] == b"\xff":  # past the count of lines
        lines = data[1:].decode("latin-1").replace("\r", "").split("\n")
        data = encode_lines(lines)
    offsets = outcome(CorruptCheckpoint, decode_offsets, data, "file")
    if not isinstance(offsets, Raised):
        assert all(0 <= offset <= _MAX_OFFSET for offset in offsets.values())
        assert decode_offsets(encode_offsets(offsets), "file") == offsets
    epochs = outcome(CorruptCheckpoint, decode_epochs, data, "file")
    if not isinstance(epochs, Raised):
        assert decode_epochs(encode_epochs(epochs), "file") == epochs
        cache = EpochCache.decode(data, "file")
        assert cache.entries() == epochs
        for offset in (0, 1, 100, _MAX_OFFSET):
            cache.epoch_for_offset(offset)
            cache.end_offset_for(offset, _MAX_OFFSET)
        cache.truncate_from_start(5)
        cache.truncate_from_end(50)


def check_identity(data: bytes) -> None:
    identity = outcome(CorruptIdentity, LogDirIdentity.decode, data, "meta.properties")
    if not isinstance(identity, Raised):
        assert LogDirIdentity.decode(identity.encode(), "meta.properties") == identity
    topic_id = outcome(CorruptIdentity, decode_partition_metadata, data, "partition.metadata")
    if not isinstance(topic_id, Raised):
        again = encode_partition_metadata(topic_id)
        assert decode_partition_metadata(again, "partition.metadata") == topic_id


def check_snapshot(data: bytes) -> None:
    choices = Choices(data)
    body = choices.rest() if not choices.byte() & 1 else _with_crc(choices.rest())
    entries = outcome(CorruptSnapshot, decode_snapshot, body)
    state = ProducerState()
    if isinstance(entries, Raised):
        assert outcome(CorruptSnapshot, state.load, body) == entries
        return
    assert decode_snapshot(encode_snapshot(entries)) == entries
    if outcome(CorruptSnapshot, state.load, body) is not None:
        return
    assert len(state) == len(entries)
    state.first_unstable_offset()
    state.active_producers()
    again = ProducerState()
    again.load(state.snapshot(_MAX_OFFSET))
    assert again.active_producers() == state.active_producers()
    state.remove_expired(_MAX_OFFSET, 1)


def _with_crc(body: bytes) -> bytes:
    return body[:2] + crc32c(body[6:]).to_bytes(4, "big") + body[6:]


def check_transactions(data: bytes) -> None:
    found = outcome(CorruptTransactionIndex, lambda: list(decode_aborted(data)))
    if isinstance(found, Raised):
        return
    assert b"".join(map(encode_aborted, found)) == data[: len(found) * 34]
    for offset in (0, 10, _MAX_OFFSET):
        aborted_in(found, 0, offset)
        assert truncated_bytes(data, offset) <= len(data)


def _index_seeds() -> Iterator[bytes]:
    chance = seeded("index")
    for mode, form, width in ((0, ">ii", 4), (1, ">qi", 8)):
        for count in (0, 1, 2, 7, 40):
            values = sorted(chance.sample(range(1000), count))
            body = b"".join(struct.pack(form, value, value * 3) for value in values)
            for target in (-1, 0, 500, 999):
                for extra in (0, 1):
                    head = bytes([mode]) + target.to_bytes(width, "big", signed=True)
                    yield head + bytes([extra]) + body


def _checkpoint_seeds() -> Iterator[bytes]:
    offsets = {TopicPartition("orders", 0): 5, TopicPartition("a.b-c", 12): 2**62}
    for made in (encode_offsets(offsets), encode_epochs([(0, 0), (3, 17), (9, 200)]), b""):
        yield made
        yield made.replace(b"\n", b"\r\n")
        yield b"\xff" + b"\n".join(made.split(b"\n")[2:-1])
    yield b"1\n0\n"
    yield "0\n1\nt٣ 0 5\n".encode()


def _identity_seeds() -> Iterator[bytes]:
    made = LogDirIdentity("cluster=1 é\U0001f600", 7, uuid.UUID(int=5)).encode()
    yield made
    yield made.replace(b"node.id", b"broker.id").replace(b"version=1", b"version : 0")
    yield b"# comment\n\n" + made.replace(b"=", b"\\\n  = ", 1)
    yield encode_partition_metadata(uuid.UUID(int=99))
    yield encode_partition_metadata(uuid.UUID(int=99)).replace(b"\n", b"\r\n") + b"==\n"


def _snapshot_seeds() -> Iterator[bytes]:
    entries = [
        SnapshotEntry(1, 0, 41, 100, 3, 1_700_000_000_000, -1, -1),
        SnapshotEntry(2, 5, -1, -1, 0, -1, 7, -1),
        SnapshotEntry(3, 1, 2**31 - 1, 99, 0, 5, 2, 90),
    ]
    for count in range(4):
        made = encode_snapshot(entries[:count])
        yield b"\0" + made
        yield b"\1" + made


def _transaction_seeds() -> Iterator[bytes]:
    found = [AbortedTransaction(1, 0, 9, 0), AbortedTransaction(2, 5, 12, 13)]
    for count in range(3):
        made = b"".join(map(encode_aborted, found[:count]))
        yield made
        yield made + b"\0\0\0"


TARGETS = (
    Target("index", check_index, _index_seeds, 600),
    Target("checkpoint", check_checkpoint, _checkpoint_seeds, 400),
    Target("identity", check_identity, _identity_seeds, 300),
    Target("snapshot", check_snapshot, _snapshot_seeds, 400),
    Target("transactions", check_transactions, _transaction_seeds, 300),
)
