"""Groups of the consumer protocol, and groups that change their protocol, with their store."""

from __future__ import annotations

import struct
import uuid

import trio

from tests.sim.group_world import (
    ORDERS,
    Reply,
    commit,
    fetched,
    image_of,
    join_alone,
    simulated,
    start_join,
)
from trioq.coordinator.consumer_requests import (
    ConsumerGroupPhase,
    ConsumerHeartbeat,
    ConsumerHeartbeatResult,
)
from trioq.coordinator.group_requests import JoinResult, SyncRequest
from trioq.errors import (
    CoordinatorNotAvailable,
    GroupIdNotFound,
    NonEmptyGroup,
    RebalanceInProgress,
    StaleMemberEpoch,
    UnknownMemberId,
)

PAYMENTS = uuid.UUID(int=2)
ALL_PAYMENTS = {PAYMENTS: frozenset({0, 1, 2})}


def start_heartbeat(groups, member_id, epoch=0, *, group_id="g", **fields) -> Reply:
    if epoch == 0:
        fields = {
            "subscribed_names": frozenset({"payments"}),
            "owned": {},
            "rebalance_timeout_ms": 60_000,
            **fields,
        }
    reply = Reply()
    groups.consumer_heartbeat(
        ConsumerHeartbeat(group_id, member_id, epoch, client_id="c", client_host="/h", **fields),
        reply,
    )
    return reply


async def beat(groups, member_id, epoch=0, **fields) -> ConsumerHeartbeatResult:
    result = await start_heartbeat(groups, member_id, epoch, **fields).wait()
    assert isinstance(result, ConsumerHeartbeatResult), result
    return result


@simulated
async def test_a_member_of_the_consumer_protocol_outlives_a_restart(world):
    async with world.broker() as groups:
        joined = await beat(groups, "m1")
        assert joined.assignment == ALL_PAYMENTS
        await beat(groups, "m1", joined.member_epoch, owned=ALL_PAYMENTS)
        assert (
            await commit(groups, "g", {0: 3}, generation=joined.member_epoch, member_id="m1")
            is None
        )
        described = groups.describe_consumer_group("g")
        assert described.phase is ConsumerGroupPhase.STABLE
    await trio.sleep(3_600)
    async with world.broker() as groups:
        assert groups.describe_consumer_group("g") == described
        (overview,) = groups.list_groups()
        assert overview == ("g", "consumer", "Stable", "consumer")
        for _ in range(5):
            await trio.sleep(30)
            kept = await beat(groups, "m1", joined.member_epoch)
            assert (kept.member_epoch, kept.assignment) == (joined.member_epoch, None)
        assert fetched(groups, "g") == {0: 3}
        stale = groups.fetch_offsets("g", "m1", 99, None, require_stable=False)
        assert isinstance(stale, StaleMemberEpoch)
        assert isinstance((await groups.delete_groups(["g"]))["g"], NonEmptyGroup)
        assert isinstance(groups.describe_group("g"), GroupIdNotFound)


@simulated
async def test_safety_15_a_target_is_durable_before_a_member_hears_of_it(world):
    async with world.broker() as groups:
        first = await beat(groups, "m1")
        world.store.is_down = True
        joining = start_heartbeat(groups, "m2")
        quiet = start_heartbeat(groups, "m1", first.member_epoch, owned=ALL_PAYMENTS)
        await trio.sleep(3)
        assert not joining.has_come
        assert not quiet.has_come, "what it is to give up is not durable yet"
        world.store.is_down = False
        assert isinstance(await joining.wait(), ConsumerHeartbeatResult)
        assert len((await quiet.wait()).assignment[PAYMENTS]) < 3
        world.store.is_down = True
        late = start_heartbeat(groups, "m3")
        assert isinstance(await late.wait(), CoordinatorNotAvailable)
        world.store.is_down = False


@simulated
async def test_a_silent_member_is_removed_and_that_is_stored(world):
    async with world.broker() as groups:
        await beat(groups, "m1")
        await trio.sleep(60)
        assert groups.describe_consumer_group("g").phase is ConsumerGroupPhase.EMPTY
        refused = await start_heartbeat(groups, "m1", 1).wait()
        assert isinstance(refused, UnknownMemberId)
    async with world.broker() as groups:
        assert groups.describe_consumer_group("g").group.members == ()
        assert await groups.delete_groups(["g"]) == {"g": None}


@simulated
async def test_new_partitions_reach_the_members_of_a_group(world):
    async with world.broker() as groups:
        epoch = (await beat(groups, "m1")).member_epoch
        await beat(groups, "m1", epoch, owned=ALL_PAYMENTS)
        world.swap(image_of(orders=600, payments=5))
        await trio.sleep(1)
        assert groups.describe_consumer_group("g").phase is ConsumerGroupPhase.ASSIGNING
        told = await beat(groups, "m1", epoch)
        assert told.assignment == {PAYMENTS: frozenset(range(5))}
        assert told.member_epoch > epoch


def plan_of(topic: str, partitions: int) -> bytes:
    """A member's part of a leader's plan."""
    name = struct.pack(">h", len(topic)) + topic.encode()
    numbers = struct.pack(f">i{partitions}i", partitions, *range(partitions))
    return struct.pack(">hi", 0, 1) + name + numbers + struct.pack(">i", -1)


async def sync(groups, joined: JoinResult):
    reply = Reply()
    groups.sync_group("g", SyncRequest(joined.generation, joined.member_id), reply)
    return await reply.wait()


@simulated
async def test_a_group_is_upgraded_and_downgraded_and_both_outlive_a_restart(world):
    async with world.broker() as groups:
        classic = await join_alone(groups, "g", plan=plan_of("orders", 600))
        member = {"generation": classic.generation, "member_id": classic.member_id}
        assert await commit(groups, "g", {5: 50}, **member) is None
        joined = await beat(groups, "new", subscribed_names=frozenset({"orders"}))
        assert groups.list_groups()[0].group_type == "consumer"
        error = groups.heartbeat("g", *member.values(), None)
        assert isinstance(error, RebalanceInProgress), "it has to give up half of its partitions"
    async with world.broker() as groups:
        described = groups.describe_consumer_group("g")
        assert {one.member_id for one in described.group.members} == {"new", classic.member_id}
        again = await start_join(groups, "g", classic.member_id).wait()
        assert isinstance(again, JoinResult)
        assert (await sync(groups, again)).assignment
        kept = await beat(groups, "new", joined.member_epoch, owned={})
        assert fetched(groups, "g") == {5: 50}
        left = await beat(groups, "new", -1)
        assert left.member_epoch == -1
        assert kept.member_epoch > 0
        assert groups.list_groups()[0].group_type == "classic", "only classic members are left"
    async with world.broker() as groups:
        assert groups.list_groups()[0].group_type == "classic"
        rejoined = await join_alone(groups, "g", classic.member_id)
        assert rejoined.member_id == classic.member_id
        assert fetched(groups, "g") == {5: 50}


@simulated
async def test_an_empty_group_takes_either_protocol_and_keeps_its_offsets(world):
    async with world.broker() as groups:
        assert await commit(groups, "g", {0: 7}) is None
        epoch = (await beat(groups, "m1")).member_epoch
        assert fetched(groups, "g") == {0: 7}
        await beat(groups, "m1", -1)
        assert epoch > 0
        joined = await join_alone(groups, "g")
        assert fetched(groups, "g") == {0: 7}
        member = {"generation": joined.generation, "member_id": joined.member_id}
        assert await commit(groups, "g", {0: 8}, **member) is None
    async with world.broker() as groups:
        assert fetched(groups, "g") == {0: 8}
        assert len(groups.describe_group("g").members) == 1


@simulated
async def test_offsets_of_a_consumer_group_go_with_what_it_subscribes_to(world):
    world.use_config({"offsets.retention.minutes": "30"})
    async with world.broker() as groups:
        epoch = (await beat(groups, "m1")).member_epoch
        member = {"generation": epoch, "member_id": "m1"}
        await beat(groups, "m1", epoch, owned=ALL_PAYMENTS)
        await commit(groups, "g", {0: 1}, topic_id=PAYMENTS, **member)
        await commit(groups, "g", {0: 1}, topic_id=ORDERS, **member)
        for _ in range(100):
            await beat(groups, "m1", epoch)
            await trio.sleep(30)
        assert fetched(groups, "g") == {}
        assert fetched(groups, "g", PAYMENTS) == {0: 1}
        kept = await groups.delete_offsets("g", {PAYMENTS: [0], ORDERS: [0]})
        assert list(kept) == [PAYMENTS]
