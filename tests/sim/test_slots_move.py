"""Coordination slots that move between brokers: who leads, who answers what, and no commit lost."""

from __future__ import annotations

import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.sim.group_world import (
    JoinResult,
    commit,
    fetched,
    join_alone,
    start_commit,
    start_join,
    start_sync,
)
from tests.sim.slot_world import SlotWorld, simulated
from trioq.errors import CoordinatorLoadInProgress, CoordinatorNotAvailable, NotCoordinator
from trioq.metastore import layout
from trioq.metastore.session import SessionState
from trioq.metastore.store import ANY_VERSION, MetastoreUnavailable

IDS = [f"g{number}" for number in range(20)]  # of every slot


def led(member) -> list[tuple[int, int]]:
    return sorted((slot.number, slot.epoch) for slot in member.service.slots)


@simulated
async def test_everybody_finds_the_one_broker_that_coordinates_a_group(world):
    async with world.brokers(1, 2) as members:
        for group_id in IDS:
            leaders = {member.groups.leader_of(group_id) for member in members}
            (leader,) = leaders
            for member in members:
                answer = await commit(member.groups, group_id, {0: 1})
                is_here = member.broker_id == leader
                assert answer is None if is_here else isinstance(answer, NotCoordinator)
        assert [len(led(member)) for member in members] == [2, 2]


@simulated
async def test_a_slot_that_moves_away_answers_all_that_wait_and_the_group_goes_on(world):
    async with world.brokers(1, 2) as (one, two):
        await world.assign(1)
        joined = await join_alone(one.groups, "g")
        await commit(one.groups, "g", {0: 7}, **membership(joined))
        parked = start_join(one.groups, "g")
        one.store.delay_s = 5
        pending = start_commit(one.groups, "g", {0: 8}, **membership(joined))
        await world.assign(2)
        await wait_all_tasks_blocked()
        counters = one.service.slots.counters
        assert (counters.led, counters.slots_gained, counters.slots_lost) == (0, 6, 6)
        assert isinstance(parked.answer, NotCoordinator)
        assert isinstance(pending.answer, NotCoordinator)
        assert isinstance(await commit(one.groups, "g", {0: 9}), NotCoordinator)
        assert one.groups.leader_of("g") == 2
        assert await world.fetched("g") == {0: 7}
        assert await heartbeat(world, "g", joined) is None, "it is a member as before"
        assert await commit(two.groups, "g", {0: 8}, **membership(joined)) is None
        await trio.sleep(60)
        assert await world.fetched("g") == {0: 8}, "nothing of the deposed one came later"


@simulated
async def test_members_of_a_group_go_on_at_the_new_coordinator(world):
    """Nobody has to join again; who was joining when its coordinator died does so at the next."""
    async with world.brokers(1, 2) as (one, _):
        await world.assign(1)
        first = await join_alone(one.groups, "g")
        second = start_join(one.groups, "g")
        world.lose_session(1)
        await world.control()
        assert isinstance(await second.wait(), NotCoordinator)
        assert await heartbeat(world, "g", first) is None
        joined: list[JoinResult] = []

        async def join_as(member_id: str) -> None:
            joined.append(await world.ask("g", lambda groups: start_join(groups, "g", member_id)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(join_as, "")
            await trio.sleep(1)
            nursery.start_soon(join_as, first.member_id)
        assert {one.generation for one in joined} == {first.generation + 1}
        (leader,) = [one for one in joined if one.member_id == one.leader]
        plan = {one.member_id: one.member_id.encode() for one in joined}
        for member in sorted(joined, key=lambda one: one is not leader):
            synced = await world.ask(
                "g", lambda groups, member=member: start_sync(groups, "g", member, plan)
            )
            assert synced.assignment == member.member_id.encode()


@simulated
async def test_groups_are_listed_when_all_of_them_are_coordinated(world):
    """A list without those that nobody leads at the moment would pass for the whole."""
    async with world.brokers(1, 2) as (one, two):
        for group_id in IDS:
            await world.commit(group_id, {0: 1})

        def listed() -> set[str]:
            return {
                group.group_id for member in (one, two) for group in member.groups.list_groups()
            }

        assert listed() == set(IDS)
        world.lose_session(1)
        await world.publish()
        assert isinstance(two.groups.list_groups(), CoordinatorLoadInProgress)
        assert isinstance(one.groups.list_groups(), CoordinatorNotAvailable)
        world.reconnect(1)
        await world.publish()
        assert isinstance(one.groups.list_groups(), CoordinatorLoadInProgress)
        await world.control()
        await wait_all_tasks_blocked()
        assert listed() == set(IDS)


@simulated
async def test_safety_7_a_deposed_coordinator_that_has_heard_nothing_writes_nothing(world):
    async with world.brokers(1, 2) as (one, two):
        await world.assign(1)
        await commit(one.groups, "g", {0: 5})
        one.is_cut_off = True
        await world.assign(2)
        assert await commit(two.groups, "g", {0: 6}) is None
        assert isinstance(await commit(one.groups, "g", {0: 1}), NotCoordinator)
        assert fetched(two.groups, "g") == {0: 6}
        await world.assign(1)
        one.is_cut_off = False
        await world.publish()
        assert await world.fetched("g") == {0: 6}


@simulated
async def test_safety_6_a_state_of_an_earlier_registration_makes_nobody_leader(world):
    async with world.brokers(1, 2) as (one, _):
        await world.assign(1)
        before = led(one)
        world.register(1)
        assert led(one) == []
        assert isinstance(await commit(one.groups, "g", {0: 1}), NotCoordinator)
        await world.publish()
        assert led(one) == []
        assert world.leader_of("g") is None
        await world.control()
        assert led(one) == [
            (number, epoch + 1) for number, epoch in before if number in dict(led(one))
        ]
        assert led(one)


@simulated
async def test_a_lost_session_demotes_all_and_a_newer_state_leads_again(world):
    async with world.brokers(1, 2) as (one, two):
        await world.assign(1)
        joined = await join_alone(one.groups, "g")
        parked = start_join(one.groups, "g")
        world.lose_session(1)
        assert isinstance(await parked.wait(), NotCoordinator)
        assert led(one) == []
        one.store.session.move(SessionState.CONNECTED)
        await world.publish()
        await wait_all_tasks_blocked()
        assert led(one) == [], "another session: not before it is registered again"
        assert isinstance(
            one.groups.heartbeat("g", joined.generation, joined.member_id, None), NotCoordinator
        )
        world.register(1)
        await world.publish()
        assert led(one) == []
        assert two.groups.leader_of("g") is None
        await world.assign(1)
        assert await heartbeat(world, "g", joined) is None
        assert len(led(one)) == 4


@simulated
async def test_a_registration_of_a_session_that_has_ended_leads_nothing(world):
    async with world.brokers(1) as (one,):
        generation = one.store.session.generation
        world.lose_session(1)
        one.store.session.move(SessionState.CONNECTED)
        world.epochs[1] = 50
        one.service.use_broker_epoch(50, generation=generation)
        await world.control()
        await wait_all_tasks_blocked()
        assert led(one) == []
        assert isinstance(await commit(one.groups, "g", {0: 1}), NotCoordinator)


@simulated
async def test_safety_12_when_the_lease_ends_all_that_wait_are_answered_and_nobody_expires(world):
    """A coordinator that cannot hear its members' heartbeats does not throw them out."""
    async with world.brokers(1) as (one,):
        joined = await join_alone(one.groups, "g")
        await commit(one.groups, "g", {0: 7}, **membership(joined))
        parked = start_join(one.groups, "g")
        session = one.store.session
        session.move(SessionState.SUSPENDED)
        session.lease_end_s = trio.current_time() + 2
        await trio.sleep(1.9)
        assert not parked.has_come, "perhaps the store is back before the lease ends"
        assert len(led(one)) == 4
        await trio.sleep(0.2)
        assert isinstance(parked.answer, NotCoordinator)
        assert led(one) == []
        assert one.groups.leader_of("g") is None
        await trio.sleep(3600)
        session.move(SessionState.CONNECTED)
        await trio.sleep(5)
        assert led(one) == [], "the store has not answered anything since"
        session.lease_end_s = trio.current_time() + 3600
        await trio.sleep(1)
        assert len(led(one)) == 4
        assert await heartbeat(world, "g", joined) is None
        assert await world.fetched("g") == {0: 7}


@simulated
async def test_a_write_that_was_under_way_when_the_lease_ended_does_not_come_later(world):
    """Else what is read anew would miss what is then written behind its back."""
    async with world.brokers(1) as (one,):
        await world.commit("g", {0: 1})
        one.store.fates.append("late")
        late = start_commit(one.groups, "g", {0: 2})
        await wait_all_tasks_blocked()
        one.store.session.lease_end_s = trio.current_time()
        assert isinstance(await late.wait(), NotCoordinator)
        await trio.sleep(10)
        one.store.session.lease_end_s = trio.current_time() + 3600
        await world.commit("g", {1: 1})
        seen = await world.fetched("g")
        one.store.land_late()
        world.register(1)
        await world.control()
        assert await world.fetched("g") == seen


@simulated
async def test_safety_15_what_comes_is_read_although_the_store_is_out_of_reach_at_first(world):
    async with world.brokers(1, 2) as (_, two):
        await world.assign(1)
        await world.commit("g", {0: 3})
        two.store.is_down = True
        await world.assign(2)
        await trio.sleep(20)
        assert two.groups.leader_of("g") == 2
        assert (await start_commit(two.groups, "g", {0: 4}).wait()).retriable
        two.store.is_down = False
        assert await world.fetched("g") == {0: 3}


@simulated
async def test_a_slot_that_goes_while_it_is_read_is_not_served(world):
    async with world.brokers(1, 2) as (_, two):
        await world.assign(1)
        for group_id in IDS:
            await world.commit(group_id, {0: 3})
        two.store.read_delay_s = 5
        await world.assign(2)
        await trio.sleep(1)
        await world.assign(1)
        await trio.sleep(30)
        assert led(two) == []
        for group_id in IDS:
            assert isinstance(await commit(two.groups, group_id, {0: 4}), NotCoordinator)
            assert await world.fetched(group_id) == {0: 3}


@simulated
async def test_slots_that_cannot_be_read_do_not_keep_the_others(world):
    async with world.brokers(1, 2) as (_, two):
        await world.assign(1)
        for group_id in IDS:
            await world.commit(group_id, {0: 3})
        read_tree = two.store.read_tree

        async def forbidden(path: str):
            if path in {layout.slot_groups_path(0), layout.slot_groups_path(1)}:
                raise MetastoreUnavailable("no right to read it")
            return await read_tree(path)

        two.store.read_tree = forbidden
        await world.assign(2)
        await trio.sleep(1)
        for group_id in IDS:
            answer = await commit(two.groups, group_id, {0: 4})
            is_readable = layout.Slots(4).slot_of(group_id) > 1
            assert answer is None if is_readable else answer.retriable
        two.store.read_tree = read_tree
        for group_id in IDS:
            assert await world.fetched(group_id) in ({0: 3}, {0: 4})


@simulated
async def test_a_damaged_slot_is_refused_and_the_others_are_served(world):
    async with world.brokers(1, 2) as (_, two):
        await world.assign(1)
        for group_id in IDS:
            await world.commit(group_id, {0: 3})
        await world.store.delete(layout.slot_seq_path(2), ANY_VERSION)
        await world.assign(2)
        await trio.sleep(1)
        refused = [
            group_id
            for group_id in IDS
            if isinstance(await commit(two.groups, group_id, {0: 4}), CoordinatorNotAvailable)
        ]
        assert 0 < len(refused) < len(IDS)
        assert {layout.Slots(4).slot_of(one) for one in refused} == {2}


@simulated
async def test_a_broker_that_is_registered_before_it_has_an_image_leads_by_the_first_one(world):
    async with world.brokers(1) as (one,):
        one.swap(type(one.image)())
        world.register(1)
        await world.control()
        await wait_all_tasks_blocked()
        assert len(led(one)) == 4
        await world.commit("g", {0: 1})


def membership(joined: JoinResult) -> dict:
    return {"generation": joined.generation, "member_id": joined.member_id}


async def heartbeat(world: SlotWorld, group_id: str, joined: JoinResult):
    """As a client: the answer of the group's coordinator, once there is one that has it."""
    while True:
        member = world.leader_of(group_id)
        if member is not None:
            error = member.groups.heartbeat(group_id, joined.generation, joined.member_id, None)
            if error is None or not error.retriable:
                return error
        await trio.sleep(0.1)


# ---- histories

steps = st.lists(
    st.one_of(
        st.tuples(st.just("commit"), st.sampled_from(IDS[:3])),
        st.tuples(st.just("commit"), st.sampled_from(IDS[:3])),
        st.tuples(st.just("assign"), st.sampled_from([1, 2])),
        st.tuples(st.just("cut off"), st.sampled_from([1, 2])),
        st.tuples(st.just("bounce"), st.sampled_from([1, 2])),
        st.tuples(st.just("lease"), st.sampled_from([1, 2])),
        st.tuples(
            st.sampled_from(["late", "lost", "applied", "unavailable", "gone"]),
            st.sampled_from([1, 2]),
        ),
    ),
    max_size=25,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps)
def test_safety_19_no_acknowledged_commit_is_lost_however_the_slots_move(history):
    """Offsets of a group only grow, so what is stored in the end is at least what was acked."""
    trio.run(_live, SlotWorld(), history, clock=MockClock(autojump_threshold=0))


async def _live(world: SlotWorld, history) -> None:
    acknowledged = dict.fromkeys(IDS[:3], 0)
    offsets = dict.fromkeys(IDS[:3], 0)

    async def commit_next(group_id: str) -> None:
        offsets[group_id] = offset = offsets[group_id] + 1
        with trio.move_on_after(2):
            await world.commit(group_id, {0: offset})
            acknowledged[group_id] = max(acknowledged[group_id], offset)

    async with world.brokers(1, 2) as members:
        for step, subject in history:
            if step == "commit":
                await commit_next(subject)
            elif step == "assign":
                if subject in world.epochs:
                    await world.assign(subject)
            elif step == "cut off":
                world.members[subject].is_cut_off ^= True
                await world.publish()
            elif step == "bounce":
                world.lose_session(subject)
                await world.control()
                world.reconnect(subject)
                await world.control()
            elif step == "lease":
                session = world.members[subject].store.session
                is_over = session.lease_end_s <= trio.current_time()
                session.lease_end_s = trio.current_time() + (3600 if is_over else 0)
            else:
                world.members[subject].store.fates.append(step)
            for group_id in acknowledged:
                leader = world.leader_of(group_id)
                if leader is None or leader.is_cut_off:
                    continue  # it may have led before, and serve what it knew then
                with trio.move_on_after(0.3):
                    found = await world.fetched(group_id)
                    assert found.get(0, 0) >= acknowledged[group_id], "where it is coordinated"
        for member in members:
            member.is_cut_off = False
            member.store.fates.clear()
            member.store.land_late()
            member.store.session.lease_end_s = float("inf")
            if member.store.session.state is SessionState.LOST:
                world.epochs.pop(member.broker_id, None)
                world.reconnect(member.broker_id)
        await world.control()
        await world.assign(2)
        for group_id, offset in acknowledged.items():
            found = await world.fetched(group_id)
            assert offset <= found.get(0, 0) <= offsets[group_id]
