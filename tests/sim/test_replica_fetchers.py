"""Followers copy their leader's log: through elections, crashes, damage and a bad network."""

from __future__ import annotations

import errno
from random import Random

import pytest
import trio

from tests.sim.replica_world import FakeChannel, ReplicaWorld, in_virtual_time, replica_world
from tests.unit.storage_support import NOW_MS, TOPIC_ID, headers
from trioq.errors import CorruptMessage
from trioq.replication.fetch_session_state import Position
from trioq.replication.partition import Partition
from trioq.storage.memory_disk import MemoryDisk
from trioq.wire.messages.fetch import FetchRequest
from trioq.wire.schema import Message


def run(story, **options: object) -> None:
    async def main() -> None:
        async with replica_world(**options) as world:
            await story(world)

    in_virtual_time(main)


def assert_same(world: ReplicaWorld, number: int = 0) -> None:
    contents = {b: world.content(b, number) for b, one in world.brokers.items() if one.is_up}
    assert len(set(contents.values())) == 1
    states = [
        (one.log(number).epochs.entries(), sorted(one.log(number).producers.last_offsets().items()))
        for one in world.brokers.values()
        if one.is_up
    ]
    assert all(state == states[0] for state in states)


def test_followers_come_to_hold_what_the_leader_holds() -> None:
    async def story(world: ReplicaWorld) -> None:
        world.elect(1)
        for number in range(20):
            world.produce(b"a", b"b", producer=(5, 0, 2 * number))
        await world.settled()
        assert world.leader().log().high_watermark == 40
        assert_same(world)
        # And go on so: the long poll brings what comes later.
        world.produce()
        await world.settled()
        assert_same(world)

    run(story)


def test_an_acknowledgement_comes_as_soon_as_followers_have_it() -> None:
    async def story(world: ReplicaWorld) -> None:
        world.elect(1)
        world.produce()
        await world.settled()
        started = trio.current_time()
        end = world.produce()
        await world.until(lambda: world.leader().log().high_watermark >= end)
        assert trio.current_time() - started < 0.05

    run(story)


def test_a_new_leader_without_the_tail_has_it_cut_off_by_epoch() -> None:
    """Rule 1: the tail goes with its epochs and its producers; what was acknowledged stays."""

    async def story(world: ReplicaWorld) -> None:
        world.elect(1)
        world.produce(b"safe", producer=(5, 0, 0))
        await world.settled()
        world.cuts = {(1, 2), (1, 3)}
        for number in range(3):
            world.produce(b"lost", producer=(5, 0, number + 1))
        world.elect(2)
        world.produce(b"new", producer=(6, 0, 0))
        world.cuts = set()
        await world.settled()
        assert_same(world)
        log = world.brokers[1].log()
        assert log.log_end_offset == 2
        assert log.epochs.entries() == [(1, 0), (2, 1)]
        # The retry of what was lost is appended, not called a duplicate.
        world.elect(1)
        world.produce(b"lost", producer=(5, 0, 1))
        await world.settled()
        assert world.leader().log().log_end_offset == 3
        assert_same(world)

    run(story)


def test_truncation_goes_by_epochs_and_not_by_the_high_watermark() -> None:
    """KIP-101: a follower that restarts before it learnt the high watermark loses nothing."""

    async def story(world: ReplicaWorld) -> None:
        world.elect(1)
        world.produce(b"one")
        await world.until(lambda: all(b.log().log_end_offset == 1 for b in world.brokers.values()))
        follower = world.brokers[2]
        follower.stop(clean=True)
        await follower.start()
        follower.log().high_watermark = 0
        world.brokers[1].stop()
        world.elect(2, isr=(2, 3), broker_epochs=(20, 30))
        await world.settled()
        assert world.content(3) == world.content(2)
        assert follower.log().log_end_offset == 1

    run(story)


def test_rule_1_an_answer_of_a_term_that_is_over_is_dropped() -> None:
    async def story(world: ReplicaWorld) -> None:
        world.elect(1)
        world.produce(b"one")
        await world.settled()
        partition = world.brokers[3].partition()
        term = partition.term
        data = memoryview(bytearray(world.content(1)))
        world.elect(2)
        with pytest.raises(Exception, match="the term in which orders-0 was asked is over"):
            partition.append_as_follower(data, term=term, high_watermark=9, log_start_offset=0)
        with pytest.raises(Exception, match="is over"):
            partition.cut_to_leader(term=term, leader_epoch=0, end_offset=0)
        with pytest.raises(Exception, match="is over"):
            partition.come_into_range(term=term, leader_start=5, leader_end=9)
        assert partition.log.log_end_offset == 1

    run(story)


def test_rule_1_a_follower_takes_no_damaged_batch_and_says_so(capsys) -> None:
    async def story(world: ReplicaWorld) -> None:
        world.elect(1)
        world.produce(b"one")
        await world.settled()

        def flip(data: bytearray) -> bytearray:
            data[-1] ^= 1
            return data

        world.damage = flip
        world.produce(b"two")
        await trio.sleep(2)
        assert {b.log().log_end_offset for b in world.brokers.values()} == {1, 2}
        assert world.brokers[2].fetchers.counters.faults > 0
        asked = len(world.calls)
        await trio.sleep(10)
        assert len(world.calls) - asked < 100, "a fault is asked for again and again"
        world.damage = lambda data: data
        await world.settled()
        assert_same(world)

    run(story)


@pytest.mark.parametrize("policy", ["os", "commit"])
def test_rule_2_what_is_stated_is_synced(policy: str) -> None:
    """With flush.policy=commit no fetch states an offset that a power cut could take back."""

    async def story(world: ReplicaWorld) -> None:
        world.elect(1)
        world.stalled = {2}
        world.produce(b"one")
        leader, follower = world.leader(), world.brokers[2]
        await world.until(lambda: follower.log().log_end_offset == 1)
        await trio.sleep(1)
        stated = [
            one.fetch_offset
            for origin, _, request in world.calls
            if origin == 2 and isinstance(request, FetchRequest)
            for topic in request.topics
            for one in topic.partitions
        ]
        if policy == "commit":
            assert max(stated) == 0
            assert leader.log().high_watermark == 0
        world.stalled = set()
        await world.settled()
        if policy == "commit":
            follower.stop(Random(1))
            await follower.start()
            assert follower.log().log_end_offset == 1

    run(story, topic_config={"flush.policy": policy})


def test_rule_11_below_the_leaders_start_a_follower_begins_again_out_of_the_isr() -> None:
    async def story(world: ReplicaWorld) -> None:
        world.elect(1)
        for _ in range(5):
            world.produce(b"x" * 300)
        await world.settled()
        follower = world.brokers[3]
        follower.stop()
        world.change(isr=(1, 2), broker_epochs=(10, 20))
        world.tell()
        for _ in range(20):
            world.produce(b"x" * 300)
        await world.until(lambda: world.leader().log().high_watermark == 25)
        world.leader().partition().delete_records(12)
        # While the image still has it in the ISR it does not drop what it holds.
        world.change(isr=(1, 2, 3), broker_epochs=(10, 20, 30))
        await follower.start()
        await trio.sleep(3)
        assert (follower.log().log_start_offset, follower.log().log_end_offset) == (0, 5)
        world.change(isr=(1, 2), broker_epochs=(10, 20))
        world.tell()
        await world.until(lambda: follower.log().log_end_offset == 25)
        await world.settled()
        assert follower.log().log_start_offset == 12
        assert follower.fetchers.counters.restarts == 1
        assert follower.log().segments.items[0].base_offset == 12

    run(story, topic_config={"segment.bytes": "1024", "min.insync.replicas": "1"})


@pytest.mark.parametrize("policy", ["compact", "delete"])
def test_a_gap_above_the_high_watermark_is_for_compacted_topics(policy: str) -> None:
    async def story(world: ReplicaWorld) -> None:
        world.elect(1)
        follower = world.brokers[3].partition()
        world.cuts = {(1, 2), (1, 3)}
        for _ in range(3):
            world.produce()
        data = world.content(1)
        first, second, _ = headers(data)
        gapped = data[: first.size_bytes] + data[second.position + second.size_bytes :]
        fault = follower.append_as_follower(
            memoryview(gapped), term=follower.term, high_watermark=0, log_start_offset=0
        )
        assert (fault is None) is (policy == "compact")
        assert follower.log.log_end_offset == (3 if policy == "compact" else 1)

    run(story, topic_config={"cleanup.policy": policy})


def test_an_empty_log_may_begin_inside_the_leaders_first_batch() -> None:
    async def story(world: ReplicaWorld) -> None:
        world.elect(1)
        follower = world.brokers[3]
        follower.stop()
        world.change(isr=(1, 2), broker_epochs=(10, 20))
        world.tell()
        world.produce(*[b"x"] * 10)
        await world.until(lambda: world.leader().log().high_watermark == 10)
        world.leader().partition().delete_records(4)
        await follower.start()
        await world.settled()
        assert follower.log().log_start_offset == 4
        assert world.content(3) == world.content(1)

    run(story, topic_config={"min.insync.replicas": "1"})


def test_deleted_records_go_on_followers_too() -> None:
    async def story(world: ReplicaWorld) -> None:
        world.elect(1)
        for _ in range(10):
            world.produce(b"x" * 300)
        await world.settled()
        leader = world.leader().partition()
        world.cuts = {(1, 3)}
        leader.delete_records(7)
        await trio.sleep(1)
        assert world.brokers[2].log().log_start_offset == 7
        assert not leader.is_deleted_below(7)
        world.cuts = set()
        await world.until(lambda: leader.is_deleted_below(7))
        assert not leader.is_deleted_below(8)
        await world.settled()
        for broker in world.brokers.values():
            assert broker.log().log_start_offset == 7
            assert broker.log().segments.items[0].base_offset > 0

    run(story, topic_config={"segment.bytes": "1024"})


def test_the_leader_of_a_follower_that_rests_hears_where_retention_let_its_log_begin() -> None:
    async def story(world: ReplicaWorld) -> None:
        world.elect(1)
        for _ in range(6):
            world.produce(b"x" * 500)
        await world.settled()
        isr = world.brokers[1].partition().isr
        assert isr is not None
        assert isr.start_of(2) == 0
        log = world.brokers[2].log()
        assert log.delete_retired_segments(NOW_MS)
        await world.until(lambda: isr.start_of(2) == log.log_start_offset > 0)

    run(story, topic_config={"segment.bytes": "1024", "retention.bytes": "1024"})


def test_a_follower_whose_tail_was_torn_copies_it_again() -> None:
    async def story(world: ReplicaWorld) -> None:
        world.elect(1)
        for number in range(30):
            world.produce(b"x" * 300, producer=(7, 0, number))
        await world.settled()
        for seed in range(8):
            follower = world.brokers[2]
            follower.stop(Random(seed))
            await follower.start()
            await world.settled()
            assert_same(world)

    run(story)


def test_a_follower_whose_files_are_damaged_is_copied_anew() -> None:
    async def story(world: ReplicaWorld) -> None:
        world.elect(1)
        for _ in range(6):
            world.produce(b"x" * 300)
        await world.settled()
        follower = world.brokers[2]
        follower.stop(clean=True)
        world.change(isr=(1, 3), broker_epochs=(10, 30))
        assert isinstance(follower.disk, MemoryDisk)
        directory = "/data/orders-0"
        name = next(n for n in follower.disk.listdir(directory) if n.endswith(".log"))
        follower.disk.write_file(f"{directory}/{name}", b"\x55" * 1900)
        for suffix in (".index", ".timeindex"):
            follower.disk.unlink(f"{directory}/{name}".replace(".log", suffix))
        await follower.start()
        world.tell()
        world.produce(b"more")
        await world.settled()
        assert_same(world)
        assert follower.fetchers.counters.restarts == 1

    run(story, topic_config={"min.insync.replicas": "1"})


def test_rule_9_an_electable_replica_that_is_damaged_keeps_what_it_has_until_it_is_none() -> None:
    async def story(world: ReplicaWorld) -> None:
        world.elect(1)
        for _ in range(6):
            world.produce(b"x" * 300)
        await world.settled()
        follower = world.brokers[2]
        follower.stop(clean=True)
        world.change(isr=(1,), broker_epochs=(10,), elr=(2, 3), elr_epochs=(20, 30))
        assert isinstance(follower.disk, MemoryDisk)
        directory = "/data/orders-0"
        name = next(n for n in follower.disk.listdir(directory) if n.endswith(".log"))
        follower.disk.write_file(f"{directory}/{name}", b"\x55" * 1900)
        for suffix in (".index", ".timeindex"):
            follower.disk.unlink(f"{directory}/{name}".replace(".log", suffix))
        await follower.start()
        world.tell()
        world.produce(b"more")
        leader = world.brokers[1].partition()
        await world.until(lambda: leader.isr is not None and leader.isr.harmed() == {2})
        await trio.sleep(5)
        assert follower.fetchers.counters.restarts == 0
        assert leader.log.high_watermark == 6
        world.change(elr_epochs=(18, 30))
        world.tell()
        await world.until(lambda: follower.fetchers.counters.restarts == 1)
        await world.until(lambda: follower.log().log_end_offset == 7)
        world.change(isr=(1, 2, 3), broker_epochs=(10, 20, 30), elr=(), elr_epochs=())
        world.tell()
        await world.settled()
        assert_same(world)

    run(story, topic_config={"min.insync.replicas": "2"})


def test_a_follower_that_finds_its_damage_before_it_asks_is_copied_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story(world: ReplicaWorld) -> None:
        world.elect(1)
        world.produce()
        await world.settled()
        damaged = {world.brokers[2].partition()}
        position = Partition.position

        def find_damage(self: Partition) -> Position | None:
            if self in damaged:
                damaged.remove(self)
                raise CorruptMessage("no batch where one should be")
            return position(self)

        monkeypatch.setattr(Partition, "position", find_damage)
        world.elect(1, isr=(1, 3), broker_epochs=(10, 30))
        await world.until(lambda: world.brokers[2].fetchers.counters.restarts == 1)
        world.produce()
        await world.settled()
        assert_same(world)

    run(story, topic_config={"min.insync.replicas": "1"})


def test_a_follower_given_up_while_its_leaders_ends_are_asked_for_is_followed_anew() -> None:
    async def story(world: ReplicaWorld) -> None:
        world.elect(1)
        world.produce()
        await world.settled()
        follower = world.brokers[2]
        fetcher = next(iter(follower.fetchers))
        key = (TOPIC_ID, 0)
        fetcher.unfollow(key)
        fetcher.follow(follower.partition())
        fetcher._come_into_range(key, follower.partition(), 0, 0)
        assert follower.log().log_end_offset == 1
        world.produce()
        await world.settled()

    run(story)


def test_a_log_directory_that_failed_for_another_log_is_not_asked_for() -> None:
    async def story(world: ReplicaWorld) -> None:
        for number in range(2):
            world.elect(1, number)
            world.produce(number=number)
        await world.settled(0)
        await world.settled(1)
        follower = world.brokers[2]
        # One directory holds both: fail the one log alone, as its directory's failure would.
        follower.log(0).log_dir.logs.pop(follower.log(1))
        follower.log(0).log_dir.fail(OSError(errno.EIO, "as another log met it"))
        world.produce(number=0)
        await trio.sleep(1)
        world.calls.clear()
        await trio.sleep(5)
        assert sum(origin == 2 for origin, _, _ in world.calls) < 100

    run(story, partitions=2)


def test_a_failing_log_directory_touches_its_own_partitions_only() -> None:
    async def story(world: ReplicaWorld) -> None:
        for number in range(2):
            world.elect(1, number)
            world.produce(number=number)
        await world.settled(0)
        await world.settled(1)
        follower = world.brokers[2]
        assert isinstance(follower.disk, MemoryDisk)
        # One directory holds both: fail the log alone, as its directory's failure would.
        follower.disk.inject("pwritev", errno.EIO, path_contains="orders-0")
        follower.log(0).log_dir.logs.pop(follower.log(1))
        world.produce(number=0)
        await world.until(lambda: follower.log(0).failed)
        for _ in range(3):
            world.produce(number=1)
        await world.until(lambda: follower.log(1).log_end_offset == 4)
        asked = len(world.calls)
        await trio.sleep(5)
        assert len(world.calls) - asked < 400

    run(story, partitions=2)


def test_a_failed_directory_follows_its_leaders_no_more() -> None:
    """What was given up is led by others in the end, which must not take the follower down."""

    async def story(world: ReplicaWorld) -> None:
        for number in range(2):
            world.elect(1, number)
            world.produce(number=number)
        await world.settled(0)
        await world.settled(1)
        follower = world.brokers[2]
        assert isinstance(follower.disk, MemoryDisk)
        follower.disk.inject("pwritev", errno.EIO, path_contains="orders-1")
        follower.log(1).log_dir.logs.pop(follower.log(0))
        world.produce(number=1)
        await world.until(lambda: follower.log(1).failed)
        fetcher = next(iter(follower.fetchers))
        await world.until(lambda: len(fetcher) == 1)
        world.elect(3, 0, tell=False)
        world.elect(3, 1)
        assert {one.leader_id for one in follower.fetchers} == {3}

    run(story, partitions=2)


def test_a_stalled_log_directory_does_not_hold_up_its_neighbours() -> None:
    async def story(world: ReplicaWorld) -> None:
        for number in range(2):
            world.elect(1, number)
            world.produce(number=number)
        await world.settled(0)
        await world.settled(1)
        follower = world.brokers[2]
        world.stalled = {2}
        writer = follower.log(0).log_dir.writer
        writer.is_threaded = True
        world.produce(number=0)
        await world.until(lambda: follower.log(0).has_staged)
        writer.is_threaded = False  # as if partition 1 were in another directory
        started = trio.current_time()
        for _ in range(10):
            end = world.produce(number=1)
            await world.until(lambda end=end: follower.log(1).written_end_offset == end)
        assert trio.current_time() - started < 1.0
        assert follower.log(0).has_staged
        world.stalled = set()
        await world.settled(0)
        assert_same(world, 0)

    run(story, partitions=2)


def test_a_full_queue_for_a_stalled_disk_is_not_added_to() -> None:
    async def story(world: ReplicaWorld) -> None:
        for number in range(20):
            world.elect(1, number)
            world.produce(number=number)
        for number in range(20):
            await world.settled(number)
        follower = world.brokers[2]
        log_dir = follower.log(0).log_dir
        log_dir.max_unwritten_bytes = 3000
        world.stalled = {2}
        world.cuts = {(1, 2)}
        for number in range(20):
            for _ in range(10):
                world.produce(b"x" * 500, number=number)
        log_dir.writer.is_threaded = True
        world.max_bytes = 700
        world.cuts = set()
        await trio.sleep(3)
        one_answer = 1400 + 700
        assert 3000 < log_dir.unwritten_bytes <= 3000 + one_answer
        asked = len(world.calls)
        await trio.sleep(5)
        assert len([one for one in world.calls[asked:] if one[0] == 2]) < 20 * 50
        world.stalled = set()
        for number in range(20):
            await world.settled(number)

    run(story, partitions=20, broker_config={"replica.fetch.response.max.bytes": "1400"})


def test_after_an_unclean_election_the_new_leaders_log_counts() -> None:
    """What was acknowledged is cut off, below the follower's high watermark, and that is said."""

    async def story(world: ReplicaWorld) -> None:
        world.elect(1)
        world.produce(b"one")
        await world.settled()
        world.brokers[3].stop()
        world.change(isr=(1, 2), broker_epochs=(10, 20))
        world.tell()
        for _ in range(3):
            world.produce(b"more")
        await world.until(lambda: world.brokers[2].log().high_watermark == 4)
        await world.brokers[3].start()
        world.brokers[1].stop()
        world.cuts = {(2, 3)}
        world.elect(3, isr=(3,), broker_epochs=(30,))
        world.produce(b"other")
        world.cuts = set()
        await world.settled()
        assert world.brokers[2].log().log_end_offset == 2
        assert_same(world)

    run(story, topic_config={"min.insync.replicas": "1"})


def test_fenced_followers_wait_for_the_image_and_then_go_on() -> None:
    async def story(world: ReplicaWorld) -> None:
        world.elect(1)
        world.produce()
        await world.settled()
        world.elect(2, tell=False)
        for broker in (1, 2):
            world.brokers[broker].take_image()
        world.produce()
        asked = len(world.calls)
        await trio.sleep(1)
        mine = [one for one in world.calls[asked:] if one[0] == 3]
        assert 1 <= len(mine) < 20
        assert world.brokers[3].log().log_end_offset == 1
        world.brokers[3].take_image()
        await world.settled()
        assert_same(world)

    run(story)


def test_one_request_carries_many_partitions_and_rest_costs_nothing() -> None:
    async def story(world: ReplicaWorld) -> None:
        for number in range(30):
            world.elect(1, number, tell=False)
        world.tell()
        for number in range(30):
            world.produce(number=number)
        for number in range(30):
            await world.settled(number)
        del world.calls[:]
        end = world.produce(number=7)
        await world.until(lambda: world.leader().log(7).high_watermark == end)
        named = [
            one.partition
            for origin, _, request in world.calls
            if isinstance(request, FetchRequest)
            for topic in request.topics
            for one in topic.partitions
        ]
        assert set(named) == {7}
        assert len(list(world.brokers[2].fetchers)) == 1

    run(story, partitions=30)


def test_fetchers_end_with_their_last_partition() -> None:
    async def story(world: ReplicaWorld) -> None:
        world.elect(1, 0)
        world.elect(1, 1)
        assert {one.leader_id for one in world.brokers[2].fetchers} == {1}
        world.elect(3, 0)
        assert {one.leader_id for one in world.brokers[2].fetchers} == {1, 3}
        world.elect(2, 0)
        world.elect(2, 1)
        assert not list(world.brokers[2].fetchers)
        world.produce(number=0)
        await world.settled(0)

    run(story, partitions=2)


def test_an_answer_of_a_leader_that_has_registered_anew_is_not_waited_for() -> None:
    """A machine that lost power sends no reset for the connections that it had."""

    async def story(world: ReplicaWorld) -> None:
        world.register(1, 10)
        world.elect(1)
        world.produce()
        await world.settled()
        world.swallows = {1}
        await trio.sleep(2)
        world.swallows = set()
        started = trio.current_time()
        world.register(1, 11)
        world.tell()
        world.produce()
        await world.settled()
        assert trio.current_time() - started < 2

    run(story)


class EagerChannel(FakeChannel):
    """The leader has always answered, with more, before anybody looks."""

    calls = 0

    async def call(self, request: Message, *, api_version: int, timeout_s: float) -> Message:
        assert isinstance(request, FetchRequest)
        type(self).calls += 1
        assert self.calls < 1000, "nobody else has a turn"
        self.world.produce()
        return await self.fetch(self.world.brokers[self.target], request)


def test_a_leader_that_answers_at_once_does_not_take_the_loop() -> None:
    async def story(world: ReplicaWorld) -> None:
        follower = world.brokers[2]
        follower.channel = lambda broker_id, **_: EagerChannel(world, 2, broker_id)  # type: ignore[method-assign]
        world.elect(1)
        turns = 0
        while EagerChannel.calls < 200:
            await trio.sleep(0)
            turns += 1
        assert turns >= 40

    run(story)


def test_a_partition_that_comes_to_be_followed_does_not_wait_for_a_long_poll() -> None:
    async def story(world: ReplicaWorld) -> None:
        world.elect(1, 0)
        world.elect(2, 1)
        world.produce(number=0)
        world.produce(number=1)
        await world.settled(0)
        await world.settled(1)
        await trio.sleep(1)
        # Broker 3 waits at 1, for partition 0, for up to 10 s.
        started = trio.current_time()
        world.elect(1, 1)
        end = world.produce(number=1)
        await world.until(lambda: world.leader(1).log(1).high_watermark == end)
        assert trio.current_time() - started < 0.2
        await world.settled(0)

    run(story, partitions=2, broker_config={"replica.fetch.wait.max.ms": "10000"})


def test_replicas_that_are_being_added_are_throttled() -> None:
    async def story(world: ReplicaWorld) -> None:
        world.max_bytes = 1000
        follower = world.brokers[3]
        follower.stop()
        world.elect(1, isr=(1, 2), broker_epochs=(10, 20), adding=(3,))
        for _ in range(100):
            world.produce(b"x" * 500)
        await world.until(lambda: world.leader().log().high_watermark == 100)
        started = trio.current_time()
        await follower.start()
        await world.settled()
        took_s = trio.current_time() - started
        # 57 KB at 4 KiB a second, the first second's worth at once.
        assert 10 < took_s < 16

    run(
        story,
        topic_config={"min.insync.replicas": "1"},
        broker_config={"follower.replication.throttled.rate": "4096"},
    )


def test_a_leader_that_does_not_answer_is_asked_with_pauses() -> None:
    async def story(world: ReplicaWorld) -> None:
        world.elect(1)
        world.produce()
        await world.settled()
        world.cuts = {(1, 2)}
        asked = len(world.calls)
        await trio.sleep(2)
        assert len([one for one in world.calls[asked:] if one[0] == 2]) < 110
        assert world.brokers[2].fetchers.counters.failed_requests > 10
        world.produce()
        world.cuts = set()
        await world.settled()

    run(story)


@pytest.mark.parametrize("seed", range(12))
def test_histories(seed: int) -> None:
    """Elections among those in sync, kills, power cuts, a bad network: what was below the high
    watermark is never lost, and in the end all replicas are equal, byte for byte.
    """

    async def story(world: ReplicaWorld) -> None:
        random = Random(seed)
        world.max_bytes = random.choice((0, 200, 1500))
        world.elect(1)
        safe: dict[int, bytes] = {}
        sequences: dict[int, int] = {}
        for step in range(120):
            leader = world.leader()
            match random.choice(("produce",) * 6 + ("elect", "restart", "cut", "heal", "sleep")):
                case "produce" if leader.is_up and leader.partition().is_leader:
                    values = [b"%d-%d" % (step, i) * random.randint(1, 9) for i in range(3)]
                    world.produce(*values)
                case "elect":
                    up = [b for b, one in world.brokers.items() if one.is_up]
                    world.elect(random.choice(up), tell=False)
                    for broker in world.brokers.values():
                        if broker.is_up and random.random() < 0.8:
                            broker.take_image()
                case "restart":
                    broker = world.brokers[random.choice((1, 2, 3))]
                    if broker.is_up and broker is not leader:
                        broker.stop(random.choice((None, random)))
                        await broker.start()
                case "cut":
                    world.cuts.add((random.randint(1, 3), random.randint(1, 3)))
                case "heal":
                    world.cuts.clear()
                case _:
                    await trio.sleep(random.random() * 0.3)
            await trio.sleep(random.choice((0, 0.001, 0.02)))
            leader = world.leader()
            if leader.is_up and leader.partition().is_leader:
                log = leader.log()
                high_watermark = log.high_watermark
                data = world.content(leader.broker_id)
                for known_end, known in safe.items():
                    assert data.startswith(known), f"what was safe below {known_end} is lost"
                if high_watermark not in safe:
                    safe = {high_watermark: prefix(data, high_watermark)}
        world.cuts.clear()
        world.tell()
        world.produce()
        await world.settled()
        assert_same(world)
        assert sequences == {}

    run(story, topic_config={"flush.policy": "commit", "segment.bytes": "3000"})


def prefix(data: bytes, end_offset: int) -> bytes:
    end = 0
    for header in headers(data):
        if header.next_offset <= end_offset:
            end = header.position + header.size_bytes
    return data[:end]


def test_safety_6_a_new_registration_states_every_position_anew() -> None:
    """Else a replica that stands still would never be in sync again."""

    async def story(world: ReplicaWorld) -> None:
        world.elect(1)
        world.produce()
        await world.settled()
        follower = world.brokers[2]
        follower.broker_epoch += 1
        follower.partitions.use_broker_epoch(follower.broker_epoch)
        follower.fetchers.refresh()
        isr = world.leader().partition().isr
        assert isr is not None
        await world.until(lambda: isr.epoch_of(2) == follower.broker_epoch)
        assert isr.end_of(2) == world.leader().log().log_end_offset

    run(story)
