"""Groups over a metastore that is slow, away, or of whose writes nobody knows what became."""

from __future__ import annotations

import uuid

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.sim.group_world import (
    ORDERS,
    Reply,
    World,
    commit,
    commit_request,
    fetched,
    image_of,
    join_alone,
    join_request,
    simulated,
    slots_written,
    start_commit,
    start_join,
    start_sync,
)
from trioq.coordinator.group_requests import JoinResult, LeavingMember
from trioq.errors import (
    CoordinatorLoadInProgress,
    CoordinatorNotAvailable,
    GroupIdNotFound,
    IllegalGeneration,
    NonEmptyGroup,
    NotCoordinator,
    UnknownMemberId,
    UnknownServerError,
)
from trioq.metastore import layout, store
from trioq.metastore.session import SessionState

# ---- commits


@simulated
async def test_an_acknowledged_commit_is_read_back_after_a_restart(world):
    async with world.broker() as groups:
        assert await commit(groups, "g", {0: 5, 300: 7}) is None
        assert fetched(groups, "g") == {0: 5, 300: 7}
    async with world.broker() as groups:
        assert fetched(groups, "g") == {0: 5, 300: 7}
        assert [one.group_id for one in groups.list_groups()] == ["g"]


@simulated
async def test_commits_that_wait_share_a_write(world):
    world.store.delay_s = 1
    async with world.broker() as groups:
        replies = [start_commit(groups, "g", {0: number}) for number in range(100)]
        for reply in replies:
            assert await reply.wait() is None
        assert fetched(groups, "g") == {0: 99}
    assert len(world.store.writes) <= 2


@pytest.mark.parametrize("fate", ["unavailable", "lost", "late", "applied"])
@simulated
async def test_a_write_that_goes_wrong_is_made_good_before_it_is_acknowledged(world, fate):
    async with world.broker() as groups:
        for number in range(3):
            world.store.fates.extend([fate] * number)
            assert await commit(groups, "g", {0: number, number: number}) is None
            assert fetched(groups, "g")[0] == number
    async with world.broker() as groups:
        assert fetched(groups, "g") == {0: 2, 1: 1, 2: 2}


@simulated
async def test_commits_fail_when_the_store_is_away_for_longer_than_they_may_wait(world):
    async with world.broker() as groups:
        assert await commit(groups, "g", {0: 1}) is None
        world.store.is_down = True
        started = trio.current_time()
        first, second = start_commit(groups, "g", {0: 2}), start_commit(groups, "h", {0: 2})
        assert isinstance(await first.wait(), CoordinatorNotAvailable)
        assert isinstance(await second.wait(), CoordinatorNotAvailable)
        assert trio.current_time() - started == pytest.approx(5, abs=0.1)
        assert fetched(groups, "g") == {0: 1}, "what was acknowledged is still there"
        world.store.is_down = False
        assert await commit(groups, "g", {0: 3}) is None
        assert fetched(groups, "g") == {0: 3}


@simulated
async def test_a_commit_given_up_before_it_was_sent_is_not_made_later(world):
    world.store.delay_s = 20
    async with world.broker() as groups:
        sent = start_commit(groups, "g", {0: 1})
        await trio.sleep(1)
        waiting = start_commit(groups, "g", {1: 1})
        assert isinstance(await waiting.wait(), CoordinatorNotAvailable)
        assert sent.has_come, "the one on its way is not known yet, and its time is up too"
        await trio.sleep(100)
        assert fetched(groups, "g") == {0: 1}, "what was on its way was made"


@simulated
async def test_more_than_may_wait_is_refused_at_once(world, monkeypatch):
    monkeypatch.setattr("trioq.coordinator.slot_writer.MAX_WAITING_BYTES", 5_000)
    world.store.delay_s = 1
    async with world.broker() as groups:
        replies = [start_commit(groups, "g", {0: number}) for number in range(100)]
        refused = [reply for reply in replies if reply.has_come]
        assert refused
        assert all(isinstance(reply.answer, CoordinatorNotAvailable) for reply in refused)
        rest = [await reply.wait() for reply in replies if reply not in refused]
        assert rest == [None] * len(rest)
        assert await commit(groups, "g", {0: 1}) is None, "there is room again"


@simulated
async def test_who_may_commit(world):
    async with world.broker() as groups:
        unknown = await commit(groups, "g", {0: 1}, generation=3, member_id="m")
        assert isinstance(unknown, IllegalGeneration)
        assert groups.list_groups() == []
        joined = await join_alone(groups, "g")
        member = {"generation": joined.generation, "member_id": joined.member_id}
        assert await commit(groups, "g", {0: 1}, **member) is None
        assert isinstance(await commit(groups, "g", {0: 1}), UnknownMemberId)
        member["generation"] += 1
        assert isinstance(await commit(groups, "g", {0: 1}, **member), IllegalGeneration)


@simulated
async def test_a_commit_of_ten_thousand_partitions_takes_several_writes(world):
    world.image = image_of(**{f"t{number}": 1 for number in range(2_000)})
    async with world.broker() as groups:
        reply = Reply()
        from trioq.coordinator.offset_requests import CommitRequest, NewOffset

        offsets = [NewOffset(topic_id, 0, 1) for topic_id in world.image.topics_by_id]
        groups.commit_offsets(CommitRequest("g", -1, "", None, offsets), reply)
        assert await reply.wait() is None
    async with world.broker() as groups:
        found = groups.fetch_offsets("g", None, -1, None, require_stable=False)
        assert len(found) == 2_000


# ---- members


@simulated
async def test_a_restart_keeps_members_without_a_rebalance(world):
    async with world.broker() as groups:
        joined = await join_alone(groups, "g")
        described = groups.describe_group("g")
    await trio.sleep(3_600)
    async with world.broker() as groups:
        assert groups.describe_group("g") == described
        for _ in range(20):
            await trio.sleep(9)
            assert groups.heartbeat("g", joined.generation, joined.member_id, None) is None
        await trio.sleep(11)
        error = groups.heartbeat("g", joined.generation, joined.member_id, None)
        assert isinstance(error, UnknownMemberId), "its session ran on"


@simulated
async def test_safety_15_a_generation_and_its_plan_are_durable_before_anyone_hears(world):
    async with world.broker() as groups:
        await join_alone(groups, "warm-up")
        world.store.is_down = True
        joining = start_join(groups, "g")
        await trio.sleep(4)
        assert not joining.has_come
        world.store.is_down = False
        joined = await joining.wait()
        assert isinstance(joined, JoinResult)
        world.store.is_down = True
        leader = start_sync(groups, "g", joined, {joined.member_id: b"all"})
        again = start_sync(groups, "g", joined, {})
        await trio.sleep(4)
        assert not leader.has_come or leader.answer.code, "no plan before it is durable"
        assert not again.has_come
        world.store.is_down = False
        assert (await again.wait()).assignment == b"all"
        world.crashes = True
    async with world.broker() as groups:
        assert groups.describe_group("g").members[0].assignment == b"all"


@simulated
async def test_members_that_wait_for_the_store_are_told_when_it_takes_too_long(world):
    async with world.broker() as groups:
        await join_alone(groups, "warm-up")
        world.store.is_down = True
        first = await start_join(groups, "g").wait()
        assert isinstance(first, CoordinatorNotAvailable)
        world.store.is_down = False
        joined = await join_alone(groups, "h")
        assert joined.generation == 1


@simulated
async def test_a_crash_at_any_moment_leaves_the_group_before_or_after(world):
    """The broker dies after each number of scheduler steps of a rebalance."""
    world.store.delay_s = 0.01
    async with world.broker() as groups:
        await join_alone(groups, "g", instance_id="one")
    for steps in range(12):
        async with world.broker() as groups:
            member_id = groups.describe_group("g").members[0].member_id
            start_join(groups, "g", member_id, instance_id="one", metadata=bytes([steps]))
            for _ in range(steps):
                await trio.sleep(0.002)
            world.crashes = True
        async with world.broker() as groups:
            after = groups.describe_group("g")
            assert after.state in {"Stable", "CompletingRebalance"}
            assert [one.instance_id for one in after.members] == ["one"]
            assert (after.members[0].assignment == b"all") == (after.state == "Stable")


@simulated
async def test_thousands_of_groups(world):
    async with world.broker() as groups:
        replies = [start_commit(groups, f"g{number}", {0: number}) for number in range(3_000)]
        for reply in replies:
            assert await reply.wait() is None
        joined = [start_join(groups, f"m{number}") for number in range(300)]
        for reply in joined:
            assert isinstance(await reply.wait(), JoinResult)
    async with world.broker() as groups:
        assert len(groups.list_groups()) == 3_300
        assert fetched(groups, "g2999") == {0: 2_999}
        assert len(groups.describe_group("m299").members) == 1


@simulated
async def test_a_slot_takes_a_bounded_number_of_groups(world, monkeypatch):
    monkeypatch.setattr("trioq.coordinator.registry.MAX_GROUPS_PER_SLOT", 3)
    async with world.broker() as groups:
        outcomes = [await commit(groups, f"g{number}", {0: 1}) for number in range(40)]
        assert sum(one is None for one in outcomes) == 12
        assert isinstance(outcomes[-1], CoordinatorNotAvailable)
        taken = next(f"g{number}" for number, one in enumerate(outcomes) if one is None)
        assert await groups.delete_groups([taken]) == {taken: None}
        assert await commit(groups, taken, {0: 1}) is None


@simulated
async def test_requests_that_found_no_group_leave_none(world):
    async with world.broker() as groups:
        for number in range(50):
            reply = Reply()
            groups.join_group(join_request(f"g{number}", "unknown"), reply)
            assert isinstance(await reply.wait(), UnknownMemberId)
        assert len(list(groups.groups)) == 0


@simulated
async def test_a_stop_answers_those_who_wait_and_writes_what_is_left(world):
    world.store.delay_s = 0.5
    async with world.broker() as groups:
        joined = await join_alone(groups, "g")
        second = start_join(groups, "g")
        await trio.sleep(2)
        assert not second.has_come, "it waits for the first to join again"
        start_commit(groups, "h", {0: 4})
    assert isinstance(second.answer, CoordinatorNotAvailable)
    refused = start_join(groups, "g", joined.member_id)
    assert isinstance(refused.answer, CoordinatorNotAvailable)
    async with world.broker() as groups:
        assert fetched(groups, "h") == {0: 4}


# ---- admin


@simulated
async def test_groups_are_deleted_with_their_offsets(world):
    async with world.broker() as groups:
        joined = await join_alone(groups, "busy")
        await commit(groups, "idle", {0: 1})
        errors = await groups.delete_groups(["idle", "busy", "none", "idle"])
        assert errors["idle"] is None
        assert isinstance(errors["busy"], NonEmptyGroup)
        assert isinstance(errors["none"], GroupIdNotFound)
        assert fetched(groups, "idle") == {}
        assert await commit(groups, "idle", {1: 2}) is None
        reply = Reply()
        groups.leave_group("busy", [LeavingMember(joined.member_id)], reply)
        assert (await reply.wait())[0].error is None
        assert await groups.delete_groups(["busy"]) == {"busy": None}
    async with world.broker() as groups:
        assert [one.group_id for one in groups.list_groups()] == ["idle"]
        assert fetched(groups, "idle") == {1: 2}


@simulated
async def test_a_group_may_be_made_again_while_it_is_being_deleted(world):
    world.store.delay_s = 1
    async with world.broker() as groups:
        await commit(groups, "g", {0: 1})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(groups.delete_groups, ["g"])
            await trio.sleep(0.2)
            assert isinstance((await groups.delete_groups(["g"]))["g"], GroupIdNotFound)
            again = start_commit(groups, "g", {5: 5})
            assert await again.wait() is None
        assert fetched(groups, "g") == {5: 5}
    async with world.broker() as groups:
        assert fetched(groups, "g") == {5: 5}


@simulated
async def test_offsets_are_deleted_of_topics_that_nobody_consumes(world):
    payments = uuid.UUID(int=2)
    async with world.broker() as groups:
        with pytest.raises(GroupIdNotFound):
            await groups.delete_offsets("g", {ORDERS: [0]})
        joined = await join_alone(groups, "g")
        member = {"generation": joined.generation, "member_id": joined.member_id}
        await commit(groups, "g", {0: 1}, **member)
        await commit(groups, "g", {0: 1, 1: 1}, topic_id=payments, **member)
        kept = await groups.delete_offsets("g", {ORDERS: [0], payments: [0]})
        assert list(kept) == [ORDERS]
        assert fetched(groups, "g") == {0: 1}
        assert fetched(groups, "g", payments) == {1: 1}


# ---- time and topics


@simulated
async def test_offsets_of_an_empty_group_expire_and_the_group_goes(world):
    world.use_config({"offsets.retention.minutes": "60"})
    async with world.broker() as groups:
        await commit(groups, "simple", {0: 1})
        await commit(groups, "short", {0: 1}, retention_ms=20 * 60_000)
        joined = await join_alone(groups, "busy")
        member = {"generation": joined.generation, "member_id": joined.member_id}
        await commit(groups, "busy", {0: 1}, **member)
        for _ in range(5 * 60):
            assert groups.heartbeat("busy", *member.values(), None) is None
            await trio.sleep(9)
        assert fetched(groups, "short") == {}
        assert fetched(groups, "simple") == {0: 1}
        for _ in range(5 * 60):
            assert groups.heartbeat("busy", *member.values(), None) is None
            await trio.sleep(9)
        assert fetched(groups, "simple") == {}
        assert fetched(groups, "busy") == {0: 1}, "it has members that are subscribed"
        await trio.sleep(5_000)
        assert groups.list_groups() == []
        assert list(groups.groups) == []
    async with world.broker() as groups:
        assert groups.list_groups() == []


@simulated
async def test_offsets_of_a_deleted_topic_are_forgotten(world):
    async with world.broker() as groups:
        await commit(groups, "g", {0: 1})
        await commit(groups, "g", {0: 1}, topic_id=uuid.UUID(int=2))
        world.swap(image_of(orders=600))
        await trio.sleep(1)
        assert fetched(groups, "g", uuid.UUID(int=2)) == {}
        assert fetched(groups, "g") == {0: 1}
    async with world.broker() as groups:
        assert fetched(groups, "g", uuid.UUID(int=2)) == {}


@simulated
async def test_safety_4_an_unclean_start_clamps_offsets_before_anything_is_served(world):
    async with world.broker() as groups:
        await commit(groups, "g", {0: 100, 1: 100})
        await commit(groups, "h", {0: 5})
    ends = {0: 40, 1: 200}
    world.store.delay_s = 3

    async with world.broker(log_end=lambda topic_id, number: ends.get(number)) as groups:
        assert fetched(groups, "g") == {0: 40, 1: 100}
        assert fetched(groups, "h") == {0: 5}
        world.crashes = True
    async with world.broker() as groups:
        assert fetched(groups, "g") == {0: 40, 1: 100}, "it was durable"


# ---- leading


@simulated
async def test_safety_7_a_deposed_slot_writes_nothing_and_says_so(world):
    async with world.broker() as groups:
        await commit(groups, "g", {0: 1})
        joined = await join_alone(groups, "m")
        parked = start_join(groups, "m")
        for slot in range(4):
            await world.store.set(layout.slot_path(slot), b'{"leader":2}', store.ANY_VERSION)
        assert isinstance(await commit(groups, "g", {0: 2}), NotCoordinator)
        assert isinstance(await commit(groups, "m", {0: 2}), Exception)
        groups.heartbeat("m", joined.generation, joined.member_id, None)
        await trio.sleep(60)
        assert isinstance(parked.answer, NotCoordinator)
        assert isinstance(
            groups.fetch_offsets("g", None, -1, None, require_stable=False), NotCoordinator
        )
        assert groups.leader_of("g") is None
    async with world.broker() as groups:
        assert fetched(groups, "g") == {0: 1}


@simulated
async def test_a_lost_session_ends_all_coordination(world):
    async with world.broker() as groups:
        await commit(groups, "g", {0: 1})
        world.store.fates.append("gone")
        replies = [start_commit(groups, f"g{number}", {0: 2}) for number in range(10)]
        for reply in replies:
            assert isinstance(await reply.wait(), NotCoordinator)
        assert isinstance(await start_join(groups, "x").wait(), NotCoordinator)
        assert isinstance(groups.list_groups(), CoordinatorNotAvailable)
    async with world.broker() as groups:
        assert fetched(groups, "g") == {0: 1}


@simulated
async def test_safety_12_past_the_lease_nothing_is_answered_but_that_it_is_past(world):
    async with world.broker() as groups:
        joined = await join_alone(groups, "g")
        world.store.delay_s = 2
        late = start_commit(
            groups, "g", {0: 1}, generation=joined.generation, member_id=joined.member_id
        )
        world.store.session.lease_end_s = trio.current_time() + 1
        assert isinstance(await late.wait(), NotCoordinator), "it waited beyond the lease"
        assert isinstance(await start_join(groups, "g").wait(), NotCoordinator)
        error = groups.heartbeat("g", joined.generation, joined.member_id, None)
        assert isinstance(error, NotCoordinator)
        world.store.session.lease_end_s = trio.current_time() + 1_000
        assert groups.heartbeat("g", joined.generation, joined.member_id, None) is None


@simulated
async def test_safety_12_past_the_lease_no_member_is_expelled(world):
    """Their heartbeats are refused meanwhile."""
    async with world.broker() as groups:
        await join_alone(groups, "g")
        written = len(world.store.writes)
        world.store.session.lease_end_s = trio.current_time()
        await trio.sleep(600)
        assert len(world.store.writes) == written
        world.store.session.lease_end_s = float("inf")
        await trio.sleep(600)
        assert len(world.store.writes) > written


@simulated
async def test_nothing_is_submitted_while_the_session_is_suspended(world):
    async with world.broker() as groups:
        await commit(groups, "g", {0: 1})
        before = len(world.store.writes)
        slow = start_commit(groups, "g", {0: 2})
        world.store.session.move(SessionState.SUSPENDED)
        await trio.sleep(1)
        assert isinstance(await commit(groups, "g", {0: 3}), NotCoordinator)
        assert len(world.store.writes) == before
        world.store.session.move(SessionState.CONNECTED)
        assert await slow.wait() is None
        assert fetched(groups, "g") == {0: 2}


@simulated
async def test_safety_18_slots_are_written_one_by_one_in_bounded_multis(world):
    async with world.broker() as groups:
        replies = [start_commit(groups, f"g{n}", dict.fromkeys(range(600), n)) for n in range(200)]
        for reply in replies:
            assert await reply.wait() is None
    for operations in world.store.writes:
        slots = {one.path.split("/")[2] for one in operations if one.path.startswith("/slots/")}
        assert len(slots) <= 1
        store.check_multi(operations)
    assert slots_written(world.store) == {"0", "1", "2", "3"}


# ---- damage


@pytest.mark.parametrize("node", ["", "/m0-0", f"/o-{ORDERS.hex}-0"])
@simulated
async def test_a_damaged_group_is_refused_and_can_be_deleted(world, node):
    async with world.broker() as groups:
        await join_alone(groups, "bad")
        joined = groups.describe_group("bad").members[0].member_id
        await commit(groups, "bad", {0: 1}, generation=1, member_id=joined)
        await commit(groups, "good", {0: 1})
    slots = layout.Slots(4)
    path = f"{layout.slot_groups_path(slots.slot_of('bad'))}/bad{node}"
    await world.store.set(path, b'{"half', store.ANY_VERSION)
    async with world.broker() as groups:
        assert fetched(groups, "good") == {0: 1}
        refusals = [
            groups.fetch_offsets("bad", None, -1, None, require_stable=False),
            await commit(groups, "bad", {0: 2}),
            await start_join(groups, "bad").wait(),
            groups.describe_group("bad"),
        ]
        assert {type(one) for one in refusals} == {UnknownServerError}
        assert [one.group_id for one in groups.list_groups()] == ["good"]
        assert await groups.delete_groups(["bad"]) == {"bad": None}
        assert await commit(groups, "bad", {0: 2}) is None
    async with world.broker() as groups:
        assert fetched(groups, "bad") == {0: 2}


@simulated
async def test_a_damaged_slot_leaves_the_others_at_work(world):
    async with world.broker() as groups:
        await commit(groups, "g", {0: 1})
    slots = layout.Slots(4)
    top = layout.slot_groups_path(slots.slot_of("g"))
    tree = await world.store.read_tree(top)
    for path in sorted(tree, key=len, reverse=True):
        await world.store.delete(path, store.ANY_VERSION)
    other = next(name for name in "abcdef" if slots.slot_of(name) != slots.slot_of("g"))
    async with world.broker() as groups:
        assert isinstance(await commit(groups, "g", {0: 2}), CoordinatorNotAvailable)
        assert await commit(groups, other, {0: 2}) is None


@simulated
async def test_a_removal_that_was_cut_off_is_finished(world):
    async with world.broker() as groups:
        await commit(groups, "g", {0: 1})
    path = f"{layout.slot_groups_path(layout.Slots(4).slot_of('g'))}/g"
    await world.store.set(path, b'{"kind":"removing"}', store.ANY_VERSION)
    async with world.broker() as groups:
        assert fetched(groups, "g") == {}
        await trio.sleep(1)
    assert await world.store.get_many([path]) == [None]


@simulated
async def test_while_groups_are_read_they_are_refused(world):
    async with world.broker() as groups:
        await commit(groups, "g", {0: 1})
    world.store.read_delay_s = 30
    async with world.broker() as groups:
        refusals = [
            groups.fetch_offsets("g", None, -1, None, require_stable=False),
            groups.list_groups(),
            await commit(groups, "g", {0: 2}),
            await start_join(groups, "g").wait(),
        ]
        assert {type(one) for one in refusals} == {CoordinatorLoadInProgress}
        assert groups.heartbeat("g", 1, "m", None) is None, "clients expect no error for that here"
        await trio.sleep(60)
        assert isinstance(groups.heartbeat("g", 1, "m", None), UnknownMemberId)
        assert fetched(groups, "g") == {0: 1}


@simulated
async def test_reading_groups_is_tried_again(world):
    async with world.broker() as groups:
        await commit(groups, "g", {0: 1})
    world.store.read_delay_s = 10
    async with world.broker() as groups:
        world.store.is_down = True
        await trio.sleep(100)
        assert isinstance(await commit(groups, "g", {0: 2}), CoordinatorLoadInProgress)
        world.store.is_down = False
        await trio.sleep(100)
        assert fetched(groups, "g") == {0: 1}


# ---- any history


events = st.one_of(
    st.tuples(
        st.just("commit"), st.sampled_from(["a", "b"]), st.sets(st.integers(0, 3), min_size=1)
    ),
    st.tuples(
        st.just("fault"), st.sampled_from(["unavailable", "lost", "late", "applied", "down", "up"])
    ),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.01, 1.0, 6.0])),
    st.tuples(st.just("restart"), st.booleans()),
    st.tuples(st.just("delete"), st.sampled_from(["a", "b"])),
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(events, max_size=40))
def test_an_acknowledged_commit_is_always_read_back(history):
    """Whatever fails, and whenever the broker ends, in order or not."""
    trio.run(_live_through, history, clock=MockClock(autojump_threshold=0))


class Expected:
    """What each partition of each group may hold: the last acknowledged, or what came after."""

    def __init__(self) -> None:
        self._possible: dict[tuple[str, int], list[tuple[int, int | None]]] = {}
        self._next = 0

    def begin(self, group_id, partitions, *, is_deletion=False) -> int:
        self._next += 1
        for partition in partitions:
            value = None if is_deletion else self._next
            self._of(group_id, partition).append((self._next, value))
        return self._next

    def acknowledged(self, number: int) -> None:
        for key, possible in self._possible.items():
            if any(one == number for one, _ in possible):
                self._possible[key] = [entry for entry in possible if entry[0] >= number]

    def refused(self, number: int) -> None:
        """Nothing was asked of the store at all."""
        for key, possible in self._possible.items():
            self._possible[key] = [entry for entry in possible if entry[0] != number]

    def check(self, groups, *, is_settled=False) -> None:
        for group_id in ("a", "b"):
            found = fetched(groups, group_id)
            for partition in range(4):
                value = found.get(partition)
                possible = self._of(group_id, partition)
                assert value in [one for _, one in possible]
                if is_settled:
                    possible[:] = [(0, value)]

    def _of(self, group_id, partition):
        return self._possible.setdefault((group_id, partition), [(0, None)])


async def _live_through(history) -> None:
    world, expected = World(), Expected()
    world.store.delay_s = 0.01
    lives = [[]]
    for event in [*history, ("restart", False)]:
        if event[0] == "restart":
            lives[-1].append(event)
            lives.append([])
        else:
            lives[-1].append(event)
    for life in lives:
        world.store.is_down = False
        world.store.fates.clear()
        async with world.broker() as groups:
            expected.check(groups, is_settled=True)
            for event in life:
                await _happen(world, groups, expected, event)
                expected.check(groups)


async def _happen(world, groups, expected, event) -> None:
    match event:
        case "commit", group_id, partitions:
            number = expected.begin(group_id, partitions)

            def reply(error, number=number):
                if error is None:
                    expected.acknowledged(number)

            offsets = dict.fromkeys(partitions, number)
            groups.commit_offsets(commit_request(group_id, offsets), reply)
        case "delete", group_id:
            number = expected.begin(group_id, range(4), is_deletion=True)
            error = (await groups.delete_groups([group_id]))[group_id]
            if error is None:
                expected.acknowledged(number)
            elif isinstance(error, GroupIdNotFound):
                expected.refused(number)
        case "fault", "down" | "up" as how:
            world.store.is_down = how == "down"
        case "fault", fate:
            world.store.fates.append(fate)
        case "wait", seconds:
            await trio.sleep(seconds)
        case "restart", crashes:
            world.crashes = crashes
