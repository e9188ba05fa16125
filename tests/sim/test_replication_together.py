"""Leader and follower together: fetchers, the Fetch handler and its sessions, and the bytes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random

import pytest
import trio

from tests.sim.replica_world import Broker, ReplicaWorld, in_virtual_time, replica_world
from tests.sim.served_channel import ServedChannel, Serving
from tests.sim.test_replica_fetchers import assert_same, prefix
from tests.unit.test_replication_partition import Waiter
from trioq.errors import NotLeaderOrFollower
from trioq.wire.messages.fetch import FetchRequest


def run(
    story: Callable[[ReplicaWorld], Awaitable[None]],
    monkeypatch: pytest.MonkeyPatch,
    **options: object,
) -> None:
    lives: dict[int, Serving] = {}

    def channel(self: Broker, broker_id: int, *, max_bytes: int, kept_bytes: int) -> ServedChannel:
        assert max_bytes > kept_bytes
        return ServedChannel(self, self.world.brokers[broker_id], lives)

    monkeypatch.setattr(Broker, "channel", channel)

    async def main() -> None:
        async with replica_world(**options) as world:
            await story(world)

    try:
        in_virtual_time(main)
    finally:
        for one in lives.values():
            one.close()


def test_all_replicas_come_to_hold_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: ReplicaWorld) -> None:
        for number in range(3):
            world.elect(1 + number, number)
        for sequence in range(20):
            for number in range(3):
                world.produce(b"a", b"b", number=number, producer=(5, 0, 2 * sequence))
        for number in range(3):
            await world.settled(number)
            assert world.leader(number).log(number).high_watermark == 40
            assert_same(world, number)

    run(story, monkeypatch, partitions=3)


def test_an_append_is_acknowledged_after_one_turn_of_each_follower(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story(world: ReplicaWorld) -> None:
        world.elect(1)
        world.produce()
        await world.settled()
        waiter, started = Waiter(), trio.current_time()
        end = world.produce()
        world.leader().partition().await_acks(end, -1, waiter, 0)
        await world.until(lambda: bool(waiter.told))
        assert waiter.told == [(0, None)]
        assert trio.current_time() - started < 0.05

    run(story, monkeypatch)


def test_rest_costs_a_request_per_wait_that_names_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: ReplicaWorld) -> None:
        for number in range(8):
            world.elect(1, number)
            world.produce(number=number)
        for number in range(8):
            await world.settled(number)
        await trio.sleep(0.5)
        world.calls.clear()
        await trio.sleep(1)
        fetches = [one for _, _, one in world.calls if isinstance(one, FetchRequest)]
        assert 10 <= len(fetches) <= 24
        assert not any(one.topics for one in fetches)

    run(story, monkeypatch, partitions=8)


def test_rule_10_a_deposed_leaders_waiters_are_told_before_its_log_is_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story(world: ReplicaWorld) -> None:
        world.elect(1)
        world.produce(b"kept")
        await world.settled()
        old = world.leader()
        world.cuts |= {(1, 2), (1, 3)}
        waiter = Waiter()
        end = world.produce(b"lost")
        old.partition().await_acks(end, -1, waiter, 0)
        lengths: list[int] = []
        refused = waiter.refused

        def remember(index: int, error: type) -> None:
            lengths.append(old.log().log_end_offset)
            refused(index, error)

        waiter.refused = remember  # type: ignore[method-assign]
        world.elect(2)
        world.produce(b"other")
        world.cuts.clear()
        await world.settled()
        assert waiter.told == [(0, NotLeaderOrFollower)]
        assert lengths == [end]
        assert_same(world)
        assert b"lost" not in world.content(1)

    run(story, monkeypatch)


@pytest.mark.parametrize("seed", range(8))
def test_histories_of_leaders_and_followers(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was below a high watermark stays, and in the end all replicas are equal."""

    async def story(world: ReplicaWorld) -> None:
        random = Random(seed)
        world.elect(1)
        safe = b""
        for step in range(80):
            leader = world.leader()
            match random.choice(("produce",) * 6 + ("elect", "restart", "cut", "heal", "sleep")):
                case "produce" if leader.is_up and leader.partition().is_leader:
                    world.produce(*[b"%d-%d" % (step, i) for i in range(3)])
                case "elect":
                    up = [number for number, one in world.brokers.items() if one.is_up]
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
                data = world.content(leader.broker_id)
                assert data.startswith(safe), "what was acknowledged is lost"
                safe = max(safe, prefix(data, leader.log().high_watermark), key=len)
        world.cuts.clear()
        world.tell()
        world.produce()
        await world.settled()
        assert_same(world)

    run(story, monkeypatch, topic_config={"flush.policy": "commit", "segment.bytes": "3000"})
