"""The files of a small data directory, as a broker leaves them, and scripts that damage them."""

from __future__ import annotations

import functools
from random import Random

from tests.fuzz.target import Choices
from tests.unit.storage_support import NOW_MS, TOPIC_ID, TP, Config, append, batch, open_dirs
from trioq._native.batch import seal
from trioq._native.crc32c import crc32c
from trioq.clock import ManualClock
from trioq.record.compression import Codec
from trioq.record.control import build_end_transaction
from trioq.record.layout import BASE_SEQUENCE_AT
from trioq.storage.memory_disk import MemoryDisk

DATA = "/data"
PARTITION = f"{DATA}/{TP}"
CONFIG = Config(segment_bytes=900, index_interval_bytes=150, file_delete_delay_ms=0)
CLEAN_MARK = f"{DATA}/.kafka_cleanshutdown"

DERIVED_SUFFIXES = (".index", ".timeindex", ".snapshot", "leader-epoch-checkpoint")
"""Files that can be made anew from the log: damage to these may not lose a record."""

Files = dict[str, bytes]


@functools.cache
def sound_files() -> Files:
    """By path. Several segments, codecs, epochs, producers, a transaction; stopped cleanly."""
    disk = MemoryDisk()
    dirs = open_dirs(disk, clock=ManualClock(NOW_MS))
    log = dirs.log(TP, TOPIC_ID, CONFIG)
    for number in range(12):
        values = [b"value %d" % number * 8] * (1 + number % 3)
        append(
            log,
            batch(
                *values,
                codec=Codec(number % 5),
                timestamp=NOW_MS + number * 10,
                producer=(1 + number % 2, 0, 0) if number in {3, 4} else None,
            ),
            epoch=number // 4,
        )
        log.write_group()
    transactional = batch(b"t" * 50, producer=(7, 1, 0), is_transactional=True)
    append(log, transactional, epoch=3)
    log.write_group()
    marker = build_end_transaction(
        committed=True, coordinator_epoch=2, producer_id=7, producer_epoch=1, timestamp_ms=NOW_MS
    )
    marker[BASE_SEQUENCE_AT : BASE_SEQUENCE_AT + 4] = (1).to_bytes(4, "big")  # or append refuses it
    seal(marker)
    append(log, marker, epoch=3)
    log.write_group()
    log.set_high_watermark(log.log_end_offset - 1)
    dirs.close()
    return _contents(disk, DATA)


def _contents(disk: MemoryDisk, path: str) -> Files:
    found: Files = {}
    directories = set(disk.list_subdirectories(path))
    for name in disk.listdir(path):
        if name in directories:
            found |= _contents(disk, f"{path}/{name}")
        else:
            found[f"{path}/{name}"] = disk.read_file(f"{path}/{name}")
    return found


def damaged(choices: Choices) -> tuple[Files, set[str]]:
    """The sound files after the damage that `choices` spell, and the paths that were touched.

    The first byte: 1 takes the clean-shutdown mark away, 2 mends the CRCs in log files and
    snapshots afterwards, 4 removes the offset checkpoints.
    """
    files = dict(sound_files())
    paths = sorted(path for path in files if not path.endswith((".lock", "cleanshutdown")))
    touched: set[str] = set()
    mode = choices.byte()
    if mode & 1:
        del files[CLEAN_MARK]
    if mode & 4:
        for path in paths:
            if path.startswith(f"{DATA}/") and path.endswith("offset-checkpoint"):
                files.pop(path)
    steps = 0
    while not choices.is_used_up and steps < 20:
        steps += 1
        kind = choices.byte()
        path = paths[choices.byte() % len(paths)]
        content = files.get(path, b"")
        touched.add(path)
        other = _damage(content, kind, choices)
        if other is None:
            files.pop(path, None)
        else:
            files[path] = other
    if mode & 2:
        for path in touched & files.keys():
            files[path] = _mended(path, files[path])
    return files, touched


def _damage(content: bytes, kind: int, choices: Choices) -> bytes | None:
    """One change to one file; None removes it."""
    at = choices.number(2) % (len(content) + 1)
    match kind % 8:
        case 0:
            return content[:at] + choices.take(1) + content[at + 1 :]
        case 1:
            return content[:at] + choices.take(4) + content[at + 4 :]
        case 2:
            return content[:at] + choices.take(8) + content[at + 8 :]
        case 3:
            return content[:at]
        case 4:
            return content + choices.take(choices.byte())
        case 5:
            return content[:at] + choices.take(choices.byte() % 16) + content[at:]
        case 6:
            return content[:at] + bytes(choices.byte()) + content[at + 1 :]
        case _:
            return None if choices.byte() & 1 else b""


def _mended(path: str, content: bytes) -> bytes:
    """With right CRCs, so that what lies behind that check is met too."""
    if path.endswith(".snapshot") and len(content) > 6:
        return content[:2] + crc32c(content[6:]).to_bytes(4, "big") + content[6:]
    if not path.endswith(".log"):
        return content
    out = bytearray(content)
    at = 0
    while len(out) - at >= 61:
        size = int.from_bytes(out[at + 8 : at + 12], "big", signed=True) + 12
        if not 61 <= size <= len(out) - at:
            break
        out[at + 17 : at + 21] = crc32c(bytes(out[at + 21 : at + size])).to_bytes(4, "big")
        at += size
    return bytes(out)


def disk_of(files: Files) -> MemoryDisk:
    """A disk with these files, synced."""
    disk = MemoryDisk()
    disk.make_directory(PARTITION)
    for path, content in files.items():
        disk.write_file(path, content)
    return disk


def random_scripts(name: str, count: int) -> list[bytes]:
    """Scripts for `damaged`, of one to three steps."""
    chance = Random(name)
    return [
        bytes([chance.randrange(8)]) + chance.randbytes(5 * chance.randrange(4))
        for _ in range(count)
    ]
