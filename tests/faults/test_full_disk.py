"""A file system that is full: what was acknowledged stays, and the rest of the broker goes on."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from tests.faults.client import Client
from tests.faults.faulty_broker import FaultyBroker
from tests.faults.ledger import Ledger

Make = Callable[..., FaultyBroker]
Mount = Callable[[str, int], Path]

STORAGE_ERROR = 56
VOLUME_BYTES = 6 << 20
BALLAST_BYTES = 3 << 20
BATCH_BYTES = 100_000


def put_ballast(volume: Path) -> Path:
    """Something that is in the way, and that an operator may remove."""
    path = volume / "ballast"
    path.write_bytes(bytes(BALLAST_BYTES))
    return path


def fill(client: Client, topic: str, partition: int = 0, *, offset: int = 0) -> list[bytes]:
    """Produce until an error comes, which has to be KAFKA_STORAGE_ERROR; what was taken."""
    taken: list[bytes] = []
    while True:
        value = b"%d " % len(taken) + os.urandom(BATCH_BYTES)
        answer = client.produce(topic, [value], partition=partition)
        if answer.error_code:
            assert answer.error_code == STORAGE_ERROR
            return taken
        assert answer.base_offset == offset + len(taken)
        taken.append(value)
        assert len(taken) * BATCH_BYTES < VOLUME_BYTES, "the disk did not fill up"


def fill_volume(volume: Path) -> None:
    """Take the last byte of it."""
    with (volume / "ballast").open("ab", buffering=0) as file:
        for size in (1 << 16, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as error:
                assert error.errno == errno.ENOSPC


def test_one_of_two_directories_fills_up(
    make_broker: Make, mount_tmpfs: Mount, tmp_path: Path
) -> None:
    volume = mount_tmpfs("small", VOLUME_BYTES)
    ballast = put_ballast(volume)
    first = tmp_path / "first"
    broker = make_broker(data_dirs=[first, volume / "second"]).start()
    client = broker.client()
    client.create("t", 4)
    ledgers = [Ledger("t", partition) for partition in range(4)]
    for ledger in ledgers:
        ledger.send(client)
    on_volume = [number for number in range(4) if (volume / f"second/t-{number}").exists()]
    elsewhere = [ledger for ledger in ledgers if ledger.partition not in on_volume]
    assert len(on_volume) == len(elsewhere) == 2
    full, beside = on_volume
    before = ledgers[full].acknowledged
    values = fill(client, "t", full, offset=len(before))
    # The whole directory is offline, by one clear line, and only this one.
    (line,) = broker.events("log_dir_offline")
    assert line["log_dir"] == str(volume / "second")
    assert "No space left" in line["error"]
    assert client.produce("t", [b"v"], partition=beside).error_code == STORAGE_ERROR
    assert client.fetch("t", 0, partition=full).error_code == STORAGE_ERROR
    assert client.offset("t", -1, partition=full)[0] == STORAGE_ERROR
    for ledger in elsewhere:
        ledger.send(client, 3)
        ledger.check(client)
    # Stopping and starting while it is still full hurts nothing.
    assert broker.terminate() == 0
    broker.start()
    client = broker.client()
    for ledger in elsewhere:
        ledger.send(client)
    broker.terminate()
    ballast.unlink()
    broker.start()
    client = broker.client()
    assert client.fetch_all("t", 0, partition=full).values == before + values
    for ledger in (*elsewhere, ledgers[beside]):
        ledger.check(client)
        ledger.send(client, 2)
        ledger.check(client)
    broker.stop_sound()


def test_the_only_directory_fills_up(make_broker: Make, mount_tmpfs: Mount) -> None:
    """The metastore's directory too: the broker lives, refuses, and is whole afterwards."""
    volume = mount_tmpfs("small", VOLUME_BYTES)
    ballast = put_ballast(volume)
    broker = make_broker(data_dirs=[volume / "data"]).start()
    client = broker.client()
    client.create("t", 1)
    values = fill(client, "t", 0)
    assert values
    assert client.topics() == {"t"}, "it still answers"
    assert len(broker.events("log_dir_offline")) == 1
    assert broker.terminate() == 0
    fill_volume(volume)
    sentence = broker.refusal()
    assert "No space left" in sentence or "full" in sentence, sentence
    ballast.unlink()
    broker.start()
    client = broker.client()
    assert client.fetch_all("t").values == values
    assert client.produce("t", [b"after"]) == (0, len(values))
    client.create("another")
    broker.stop_sound()
