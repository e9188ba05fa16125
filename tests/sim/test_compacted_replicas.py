"""Replicas of a compacted topic, each of which compacts for itself: real logs, real fetchers."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

import pytest
import trio

from tests.sim.replica_world import Broker, ReplicaWorld, in_virtual_time, replica_world
from tests.unit.compaction_support import compact_log, keyed_batch, records_of
from tests.unit.storage_support import NOW_MS
from trioq.record.batch import Record
from trioq.storage.memory_disk import MemoryDisk

KEYS = [b"key-%d" % number for number in range(6)]
PRODUCERS = (7, 8)
STEPS = 150
ACTIONS = (
    *("produce",) * 8,
    *("compact",) * 3,
    *("elect", "elect", "restart", "wipe", "cut", "heal", "delete", "retain", "again", "sleep"),
)
TOPIC_CONFIG = {
    "cleanup.policy": "compact,delete",
    "flush.policy": "commit",
    "segment.bytes": "1200",
    "min.insync.replicas": "1",
    "retention.bytes": "9000",
    "retention.ms": "-1",
}


class Sent(NamedTuple):
    data: bytearray
    end_offset: int
    last_ms: int
    """Of its last record."""
    leader_epoch: int


class History:
    """Producers whose batches are retried, and what of them was committed."""

    def __init__(self, world: ReplicaWorld, seed: int) -> None:
        self.world = world
        self.random = Random(seed)
        self.committed: dict[int, Record] = {}
        """By offset, what any leader held below its high watermark."""
        self.sent: dict[int, Sent] = {}
        """By producer its last batch."""
        self.time_ms = NOW_MS
        self.sequences = dict.fromkeys(PRODUCERS, 0)
        self.epochs = dict.fromkeys(PRODUCERS, 0)

    @property
    def leader(self) -> Broker | None:
        leader = self.world.leader()
        return leader if leader.is_up and leader.partition().is_leader else None

    async def run(self) -> None:
        for _ in range(STEPS):
            await getattr(self, "_" + self.random.choice(ACTIONS))()
            await trio.sleep(self.random.choice((0, 0.001, 0.02)))
            self._join()
            self.look()

    def look(self) -> None:
        """What is below the high watermark stays what it was, for as long as it is there."""
        leader = self.leader
        if leader is None:
            return
        log = leader.log()
        for record in records_of(log):
            if record.offset >= log.high_watermark:
                break
            known = self.committed.setdefault(record.offset, record)
            assert known[:4] == record[:4], f"offset {record.offset} has two records"

    # ---- what happens ----

    async def _sleep(self) -> None:
        await trio.sleep(self.random.random() * 0.3)

    async def _produce(self) -> None:
        leader = self.leader
        if leader is None:
            return
        producer = self.random.choice(PRODUCERS)
        last = self.sent.get(producer)
        if last is not None and not self._is_committed(last):
            if last.leader_epoch == leader.partition().leader_epoch:
                return  # in flight
            self._begin_anew(producer)  # perhaps lost with its leader
        count = self.random.randint(1, 3)
        values = (None, b"x" * self.random.randint(1, 60))
        records = [(self.random.choice(KEYS), self.random.choice(values)) for _ in range(count)]
        self.time_ms += count
        data = keyed_batch(
            records,
            timestamp=self.time_ms,
            producer=(producer, self.epochs[producer], self.sequences[producer]),
        )
        self.sequences[producer] += count
        end_offset = self._append(data)
        last_ms = self.time_ms + count - 1
        self.sent[producer] = Sent(data, end_offset, last_ms, leader.partition().leader_epoch)

    def _begin_anew(self, producer: int) -> None:
        del self.sent[producer]
        self.epochs[producer] += 1
        self.sequences[producer] = 0

    def _is_committed(self, sent: Sent) -> bool:
        """Known by the time of its last record, which no other has."""
        known = self.committed.get(sent.end_offset - 1)
        return known is not None and known.timestamp == sent.last_ms

    async def _again(self) -> None:
        """What is committed is known for a duplicate by every leader."""
        if self.leader is not None:
            for sent in self.sent.values():
                if self._is_committed(sent):
                    assert self._append(bytearray(sent.data)) == sent.end_offset

    def _append(self, data: bytearray) -> int:
        leader = self.leader
        assert leader is not None
        partition = leader.partition()
        sent = bytearray(data)
        header = partition.check_batch(memoryview(sent))
        appended = partition.append_as_leader(memoryview(sent), header, acks=1, now_ms=NOW_MS)
        leader.dirs.end_pass()
        return appended.last_offset + 1

    def _broker(self) -> Broker:
        return self.world.brokers[self.random.choice((1, 2, 3))]

    async def _compact(self) -> None:
        broker = self._broker()
        if broker.is_up and not broker.log().is_borrowing:
            if self.random.random() < 0.5:
                broker.log().roll()
                broker.dirs.dirs[0].writer.run_round()
            compact_log(broker.log())

    async def _retain(self) -> None:
        broker = self._broker()
        if broker.is_up:
            broker.log().delete_retired_segments(NOW_MS)

    async def _delete(self) -> None:
        if self.leader is not None and self.random.random() < 0.3:
            log = self.leader.log()
            offset = self.random.randint(log.log_start_offset, log.high_watermark)
            self.leader.partition().delete_records(offset)

    async def _elect(self) -> None:
        world = self.world
        up = [one for one in world.states[0].isr if world.brokers[one].is_up]
        world.elect(self.random.choice(up), tell=False)
        for broker in world.brokers.values():
            if broker.is_up and self.random.random() < 0.8:
                broker.take_image()

    async def _restart(self) -> None:
        broker = self._broker()
        if broker.is_up and broker is not self.world.leader():
            broker.stop(self.random.choice((None, self.random)))
            await broker.start()

    async def _wipe(self) -> None:
        """A follower gets an empty disk, out of the ISR."""
        world, broker = self.world, self._broker()
        if not broker.is_up or broker is world.leader() or self.random.random() < 0.3:
            return
        broker.stop()
        self._set_isr([one for one in world.states[0].isr if one != broker.broker_id])
        broker.disk = MemoryDisk()
        broker.broker_epoch += 1
        world.tell()
        await broker.start()

    def _join(self) -> None:
        """Who is in sync again joins, as the leader would have it."""
        leader = self.leader
        if leader is None:
            return
        isr = leader.partition().isr
        if isr is None or isr.state.partition_epoch != self.world.states[0].partition_epoch:
            return
        joining = isr.joiners(leader.log().high_watermark, trio.current_time())
        if joining:
            self._set_isr([*self.world.states[0].isr, *joining])
            self.world.tell()

    def _set_isr(self, isr: list[int]) -> None:
        epochs = tuple(self.world.brokers[one].broker_epoch for one in isr)
        self.world.change(isr=tuple(isr), broker_epochs=epochs)

    async def _cut(self) -> None:
        self.world.cuts.add((self.random.randint(1, 3), self.random.randint(1, 3)))

    async def _heal(self) -> None:
        self.world.cuts.clear()

    # ---- the end ----

    async def check(self) -> None:
        """All is in sync; every replica has the last committed value of every key."""
        world = self.world
        world.cuts.clear()
        world.tell()
        await world.until(lambda: self.leader is not None)
        self._append(keyed_batch([(b"last", b"")]))

        def is_whole() -> bool:
            self._join()
            return len(world.states[0].isr) == 3 and self._is_same_end()

        await world.until(is_whole)
        self.look()
        last = {record.key: record for _, record in sorted(self.committed.items())}
        for broker in world.brokers.values():
            log = broker.log()
            held = {record.key: record for record in records_of(log)}
            for key, record in last.items():
                if record.offset >= log.log_start_offset:
                    assert held.get(key, record)[:4] == record[:4], f"{broker.broker_id}: {key!r}"
                    assert key in held, f"{broker.broker_id} lacks {key!r}"
            assert broker.fetchers.counters.faults == 0

    def _is_same_end(self) -> bool:
        logs = [broker.log() for broker in self.world.brokers.values()]
        return len({one.log_end_offset for one in logs} | {one.high_watermark for one in logs}) == 1


@pytest.mark.parametrize("seed", range(12))
def test_histories_of_replicas_that_compact_and_delete(seed: int) -> None:
    """What was committed is not replaced, nor any key's last value lost; retries are known; a
    replica copies what the leader's log has left, from the middle of it or from an empty disk.
    """

    async def story() -> None:
        async with replica_world(topic_config=TOPIC_CONFIG) as world:
            world.elect(1)
            history = History(world, seed)
            await history.run()
            await history.check()

    in_virtual_time(story)
