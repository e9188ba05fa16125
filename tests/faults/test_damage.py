"""Files truncated, flipped or missing at a start: repaired, or refused with a sentence.

Never wrong data: every record that is served is one that was acknowledged, at its offset. After
a clean stop nothing is read again, so damage in records is the consumer's CRC to find; after a
crash the broker checks from the recovery point on, and the log ends at the first damage.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.e2e.broker_process import BrokerFailedError
from tests.faults.client import Client
from tests.faults.faulty_broker import FaultyBroker
from tests.faults.ledger import OFFSET_OUT_OF_RANGE, Ledger
from trioq.errors import CorruptMessage, InvalidRecord

Make = Callable[..., FaultyBroker]
Hurt = Callable[[Path], None]

SETTINGS = {"log.segment.bytes": "4000", "log.index.interval.bytes": "500"}
BATCHES = 20
CORRUPT_MESSAGE, STORAGE_ERROR = 2, 56


def truncated(path: Path) -> None:
    """The second half is gone."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def flipped(path: Path) -> None:
    """One bit in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def garbled(path: Path) -> None:
    """As long as before, and nothing in it makes sense."""
    path.write_bytes(b"\xff\x00garbage\n" * (len(path.read_bytes()) // 10 + 1))


def missing(path: Path) -> None:
    path.unlink()


DAMAGE: tuple[Hurt, ...] = (truncated, flipped, emptied, garbled, missing)


class Derived(NamedTuple):
    """A kind of file that can be rebuilt from the log: which one of a partition's."""

    pattern: str
    which: int


DERIVED = (
    Derived("*.index", 0),
    Derived("*.index", -1),
    Derived("*.timeindex", 0),
    Derived("*.timeindex", -1),
    Derived("*.snapshot", 0),
    Derived("*.snapshot", -1),
    Derived("leader-epoch-checkpoint", 0),
)
PARTITIONS = len(DERIVED) * len(DAMAGE)


class Filled(NamedTuple):
    """A data directory with a history, and what was acknowledged in it."""

    directory: Path
    ledgers: list[Ledger]


def fill(broker: FaultyBroker) -> list[Ledger]:
    """Several leader epochs, segments and producers; also a second producer without ids."""
    broker.start()
    client = broker.client()
    client.create("t", PARTITIONS)
    ledgers = [Ledger("t", number) for number in range(PARTITIONS)]
    for ledger in ledgers:
        ledger.send(client, BATCHES)
    broker.restart()
    client = broker.client()
    for ledger in ledgers:
        ledger.send(client, 2)
    return ledgers


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Filled:
    """After a clean stop."""
    broker = FaultyBroker(tmp_path_factory.mktemp("stopped"), settings=SETTINGS)
    try:
        ledgers = fill(broker)
        assert broker.terminate() == 0
    finally:
        broker.kill9()
    return Filled(broker.data_dir, ledgers)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Filled:
    """After kill -9."""
    broker = FaultyBroker(tmp_path_factory.mktemp("killed"), settings=SETTINGS)
    try:
        ledgers = fill(broker)
    finally:
        broker.kill9()
    return Filled(broker.data_dir, ledgers)


def copied(make_broker: Make, filled: Filled) -> FaultyBroker:
    broker = make_broker(settings=SETTINGS)
    shutil.copytree(filled.directory, broker.data_dir)
    return broker


def pick(broker: FaultyBroker, partition: int, pattern: str, which: int) -> Path:
    found = sorted((broker.data_dir / f"t-{partition}").glob(pattern))
    assert found, f"there is no {pattern}"
    return found[which]


def assert_served_right(client: Client, ledger: Ledger) -> None:
    """From the start, from every fifth offset, and by time: what the ledger says."""
    partition = ledger.partition
    assert ledger.check(client) == 0
    records = client.fetch_all("t", partition=partition).records
    for offset in range(0, len(records), 5):
        found = client.fetch("t", offset, partition=partition, max_bytes=1)
        assert found.records
        assert found.records == records[offset : offset + len(found.records)]
        timestamp = records[offset][1]
        first = next(number for number, one in enumerate(records) if one[1] >= timestamp)
        assert client.offset("t", timestamp, partition=partition) == (0, first)


@pytest.mark.parametrize("state", ["stopped", "killed"])
def test_derived_files_are_repaired(
    make_broker: Make, request: pytest.FixtureRequest, state: str
) -> None:
    """Indexes, snapshots and epochs: one partition for each kind of file and of damage."""
    filled: Filled = request.getfixturevalue(state)
    broker = copied(make_broker, filled)
    cases = [(derived, hurt) for derived in DERIVED for hurt in DAMAGE]
    for partition, (derived, hurt) in enumerate(cases):
        found = list((broker.data_dir / f"t-{partition}").glob(derived.pattern))
        if not found and state == "killed":
            continue  # of an active segment, not written before a clean stop
        hurt(pick(broker, partition, *derived))
    broker.start()
    client = broker.client()
    for partition, (derived, hurt) in enumerate(cases):
        ledger = filled.ledgers[partition]
        try:
            assert_served_right(client, ledger)
            # The producer's last batch is known, whatever happened to the snapshot: a retry
            # of it is a duplicate, and its next one follows.
            again = ledger.copy()
            again.send(client)
            again.check(client)
        except AssertionError as error:
            raise AssertionError(f"{derived.pattern} {derived.which} {hurt.__name__}") from error
    broker.stop_sound(may_repair=True)  # what nobody looked at is as it was


def test_a_log_cut_off_is_cut_back_to_whole_batches(make_broker: Make, killed: Filled) -> None:
    """After a crash: the tail is torn, or a bit is wrong in it; the log ends before that."""
    broker = copied(make_broker, killed)
    for partition in range(0, PARTITIONS, 2):
        path = pick(broker, partition, "*.log", -1)
        data = path.read_bytes()
        path.write_bytes(data[:-7])
        if partition + 1 < PARTITIONS:
            flipped(pick(broker, partition + 1, "*.log", -1))
    broker.start()
    client = broker.client()
    for ledger in killed.ledgers:
        found = client.fetch_all("t", partition=ledger.partition)
        assert found.error_code == 0
        assert found.values == ledger.acknowledged[: len(found.values)]
        assert 0 < len(found.values) < len(ledger.acknowledged)
        answer = client.produce("t", [b"after"], partition=ledger.partition)
        assert answer == (0, len(found.values))
    assert broker.events("log_tail_removed")
    broker.stop_sound()


@pytest.mark.parametrize("hurt", [truncated, flipped, emptied, garbled, missing])
def test_damaged_records_after_a_clean_stop(make_broker: Make, stopped: Filled, hurt: Hurt) -> None:
    """Nothing is checked at this start: what a reader gets is right, or an error, or its CRC
    is wrong; other partitions do not notice."""
    broker = copied(make_broker, stopped)
    for partition in (0, 1):
        hurt(pick(broker, partition, "*.log", (1, -1)[partition]))
    broker.start()
    client = broker.client()
    for ledger in stopped.ledgers[:2]:
        for offset in range(len(ledger.acknowledged)):
            check_one(client, ledger, offset)
    stopped.ledgers[2].check(client)
    assert broker.running


def check_one(client: Client, ledger: Ledger, offset: int) -> None:
    """What is served from `offset` on is what was acknowledged there."""
    try:
        found = client.fetch("t", offset, partition=ledger.partition, max_bytes=1)
    except (CorruptMessage, InvalidRecord):
        return  # the consumer's check finds it
    assert found.error_code in (0, OFFSET_OUT_OF_RANGE, CORRUPT_MESSAGE, STORAGE_ERROR)
    for at, _, value in found.records:
        assert at < len(ledger.acknowledged), "nothing was ever there"
        assert value == ledger.acknowledged[at]


@pytest.mark.parametrize("hurt", [truncated, flipped, emptied, garbled, missing])
@pytest.mark.parametrize("state", ["stopped", "killed"])
def test_checkpoints_are_repaired(
    make_broker: Make, request: pytest.FixtureRequest, state: str, hurt: Hurt
) -> None:
    """Damaged offset checkpoints cost a recovery, not a record."""
    filled: Filled = request.getfixturevalue(state)
    broker = copied(make_broker, filled)
    for name in (
        "recovery-point-offset-checkpoint",
        "replication-offset-checkpoint",
        "log-start-offset-checkpoint",
    ):
        path = broker.data_dir / name
        if path.exists():
            hurt(path)
    broker.start()
    client = broker.client()
    twins = [ledger.copy() for ledger in filled.ledgers[:4]]
    for ledger in twins:
        assert ledger.check(client) == 0
        ledger.send(client)
        ledger.check(client)
    # The mark of the clean stop before must not vouch for what is written now.
    broker.kill9()
    broker.start()
    client = broker.client()
    for ledger in twins:
        ledger.check(client)
    broker.stop_sound()


def test_a_clean_mark_that_lies(make_broker: Make, killed: Filled) -> None:
    """The mark of a clean stop beside logs that were not closed: nothing wrong is served."""
    broker = copied(make_broker, killed)
    (broker.data_dir / ".kafka_cleanshutdown").write_bytes(b'{"version":0,"brokerEpoch":-1}')
    for partition in range(6):
        path = pick(broker, partition, "*.log", -1)
        path.write_bytes(path.read_bytes()[:-9])
    broker.start()
    client = broker.client()
    for ledger in killed.ledgers[:8]:
        for offset in range(len(ledger.acknowledged)):
            check_one(client, ledger, offset)
    assert broker.running


@pytest.mark.parametrize("hurt", [truncated, flipped, emptied, garbled, missing])
def test_identity_is_not_guessed(make_broker: Make, stopped: Filled, hurt: Hurt) -> None:
    """Without a sound meta.properties the directory is refused; the data is not touched."""
    broker = copied(make_broker, stopped)
    path = broker.data_dir / "meta.properties"
    sound = path.read_bytes()
    hurt(path)
    sentence = broker.refusal()
    assert "meta.properties" in sentence or "belongs to" in sentence, sentence
    path.write_bytes(sound)
    broker.start()
    client = broker.client()
    for ledger in stopped.ledgers[:4]:
        ledger.check(client)
    broker.stop_sound()


@pytest.mark.parametrize("state", ["stopped", "killed"])
def test_a_partition_without_its_id_is_set_aside(
    make_broker: Make, request: pytest.FixtureRequest, state: str
) -> None:
    """Whose records they are is unknown: not served, not removed, said."""
    filled: Filled = request.getfixturevalue(state)
    broker = copied(make_broker, filled)
    for partition, hurt in enumerate((flipped, emptied)):
        hurt(broker.data_dir / f"t-{partition}" / "partition.metadata")
    broker.start()
    client = broker.client()
    for ledger in filled.ledgers[:2]:
        found = client.fetch_all("t", partition=ledger.partition)
        assert found.records == []
        kept = list(broker.data_dir.glob(f"t-{ledger.partition}*.stray"))
        assert len(kept) == 1
        assert list(kept[0].glob("*.log"))
    for ledger in filled.ledgers[2:6]:
        ledger.check(client)
    assert broker.terminate() == 0


@pytest.mark.parametrize("hurt", [truncated, flipped, emptied, garbled])
def test_a_damaged_metastore_is_refused(make_broker: Make, stopped: Filled, hurt: Hurt) -> None:
    """Never started over with another cluster's id or without topics; the logs are kept."""
    broker = copied(make_broker, stopped)
    path = broker.data_dir / "metastore.sqlite"
    sound = path.read_bytes()
    hurt(path)
    before = {one: one.stat().st_size for one in broker.data_dir.glob("t-*/*.log")}
    if hurt is flipped:
        # A bit in the middle may lie where nothing is stored: then all is as it was.
        try:
            broker.start()
        except BrokerFailedError:
            assert "trioq: " in broker.log_text()
        else:
            client = broker.client()
            for ledger in stopped.ledgers[:4]:
                ledger.check(client)
            return
    else:
        sentence = broker.refusal()
        assert "metastore" in sentence or "belongs to" in sentence, sentence
    assert {one: one.stat().st_size for one in broker.data_dir.glob("t-*/*.log")} == before
    for one in broker.data_dir.glob("metastore.sqlite*"):
        one.unlink()
    path.write_bytes(sound)
    broker.start()
    client = broker.client()
    for ledger in stopped.ledgers[:4]:
        ledger.check(client)


def test_a_missing_metastore_does_not_orphan_the_logs(make_broker: Make, stopped: Filled) -> None:
    broker = copied(make_broker, stopped)
    (broker.data_dir / "metastore.sqlite").unlink()
    sentence = broker.refusal()
    assert "belongs to cluster" in sentence
    assert not list(broker.data_dir.glob("*.stray"))


@pytest.mark.parametrize("hurt", [truncated, flipped, emptied, garbled, missing])
def test_a_damaged_metastore_journal(make_broker: Make, killed: Filled, hurt: Hurt) -> None:
    """SQLite takes the journal up to the first damage, or there is a sentence; no wrong data."""
    broker = copied(make_broker, killed)
    journal = broker.data_dir / "metastore.sqlite-wal"
    assert journal.stat().st_size > 0, "a broker that was killed leaves one"
    hurt(journal)
    try:
        broker.start()
    except BrokerFailedError:
        assert "trioq: " in broker.log_text()
        assert "Traceback" not in broker.log_text()
        return
    client = broker.client()
    for ledger in killed.ledgers[:4]:
        found = client.fetch_all("t", partition=ledger.partition)
        if found.error_code == 0:
            assert found.values == ledger.acknowledged[: len(found.values)]
    assert len(list(broker.data_dir.glob("t-*"))) >= PARTITIONS, "no log is removed"
