"""Each rule of the classic group protocol by itself."""

from __future__ import annotations

import pytest

from tests.machines.group_support import (
    AT_ONCE,
    RANGE,
    REBALANCE_MS,
    SETTINGS,
    Group,
    subscription,
)
from trioq.coordinator.effects import Persist, Remove
from trioq.coordinator.group_member import subscription_topics
from trioq.coordinator.group_phases import TRANSITIONS, GroupPhase
from trioq.coordinator.group_requests import LeavingMember
from trioq.errors import (
    BrokerBug,
    CoordinatorNotAvailable,
    FencedInstanceId,
    GroupIdNotFound,
    GroupMaxSizeReached,
    IllegalGeneration,
    InconsistentGroupProtocol,
    InvalidSessionTimeout,
    NonEmptyGroup,
    RebalanceInProgress,
    UnknownMemberId,
)

STICKY = (("sticky", b"s"),)
BOTH = (("sticky", b"s"), ("range", subscription("orders")))


def static(number: int, **changed: object) -> dict[str, object]:
    return {"instance_id": f"instance-{number}", **changed}


def stable_statics(group: Group, count: int = 2) -> list[str]:
    """A stable group of static members; their ids, the leader's first."""
    waiters = [group.join(**static(number)) for number in range(count)]
    group.pass_time(7)
    joined = [group.joined(waiter) for waiter in waiters]
    leader = joined[0].leader
    assert joined[0].member_id == leader
    ids = [result.member_id for result in joined]
    for member_id in reversed(ids):
        group.sync(member_id, {each: each.encode() for each in ids} if member_id == leader else {})
    assert group.phase == "Stable"
    return ids


# Joining.


def test_old_clients_join_without_an_id():
    group = Group()
    joined = group.joined(group.join(requires_known_member_id=False))
    assert joined.member_id.startswith("client-")
    assert group.member_ids() == {joined.member_id}


def test_a_given_id_is_good_for_a_session():
    group = Group()
    member_id = group.new_id()
    group.pass_time(9.5)
    assert group.joined(group.join(member_id)).member_id == member_id
    late = group.new_id()
    group.pass_time(10.5, member_id)
    assert isinstance(group.answers[group.join(late)], UnknownMemberId)


def test_a_rebalance_waits_for_a_member_that_has_its_id_but_not_joined():
    group = Group()
    [first] = group.stable(1)
    group.new_id()
    _, third_join = group.enter()
    first_join = group.join(first)
    assert first_join not in group.answers
    group.pass_time(11)  # the second never came
    assert group.joined(first_join).generation == group.joined(third_join).generation == 2


def test_an_unknown_id_cannot_join():
    group = Group()
    assert isinstance(group.answers[group.join("stranger")], UnknownMemberId)
    group.stable(1)
    assert isinstance(group.answers[group.join("stranger")], UnknownMemberId)
    assert group.phase == "Stable"


@pytest.mark.parametrize("session_timeout_ms", [5_999, 1_800_001, 0, -1])
def test_session_timeouts_are_bounded(session_timeout_ms):
    group = Group()
    error = group.answers[group.join(session_timeout_ms=session_timeout_ms)]
    assert isinstance(error, InvalidSessionTimeout)
    assert "group.min.session.timeout.ms" in str(error)
    assert group.state.is_idle


@pytest.mark.parametrize("changed", [{"protocol_type": ""}, {"protocols": ()}])
def test_a_member_states_what_it_speaks(changed):
    group = Group()
    assert isinstance(group.answers[group.join(**changed)], InconsistentGroupProtocol)


def test_members_speak_one_protocol_type_and_share_a_protocol():
    group = Group()
    [first] = group.stable(1)
    for changed in ({"protocol_type": "connect"}, {"protocols": STICKY}):
        assert isinstance(group.answers[group.join(**changed)], InconsistentGroupProtocol)
    assert group.heartbeat(first) is None
    assert isinstance(
        group.answers[group.join(first, protocol_type="connect")], InconsistentGroupProtocol
    )


def test_an_empty_group_takes_another_protocol_type():
    group = Group()
    [first] = group.stable(1)
    group.leave(LeavingMember(first))
    group.stable(1, protocol_type="connect", protocols=STICKY)
    assert group.state.describe()[2:4] == ("connect", "sticky")
    assert group.state.subscribed_topics() is None


def test_the_only_member_may_change_its_protocols():
    group = Group()
    [first] = group.stable(1)
    assert group.joined(group.join(first, protocols=STICKY)).protocol == "sticky"


def test_protocols_are_chosen_by_votes_among_those_that_all_support():
    group = Group(SETTINGS)
    waiters = [
        group.enter(protocols=(("a", b""), ("b", b""), ("c", b"")))[1],
        group.enter(protocols=(("b", b""), ("c", b"")))[1],
        group.enter(protocols=(("c", b""), ("b", b"")))[1],
    ]
    group.pass_time(9)
    assert {group.joined(waiter).protocol for waiter in waiters} == {"b"}


def test_of_a_protocol_named_twice_the_first_counts():
    group = Group()
    doubled = (("range", b"1"), ("range", b"2"))
    [first] = group.stable(1, protocols=doubled)
    assert group.state.snapshot().members[0].protocols == (("range", b"1"),)
    group.join(first, protocols=STICKY)
    _, second = group.enter(protocols=STICKY)
    group.join(first, protocols=STICKY)
    assert group.joined(second).protocol == "sticky"


def test_the_first_rebalance_waits_longer_while_members_come():
    group = Group(SETTINGS)
    _, first = group.enter()
    for _ in range(3):
        group.pass_time(2)
        group.enter()
        assert first not in group.answers
    group.pass_time(2)
    assert first not in group.answers
    group.pass_time(4)
    assert group.joined(first).generation == 1
    assert len(group.joined(first).members) == 4


def test_the_first_rebalance_waits_no_longer_than_the_rebalance_timeout():
    group = Group(SETTINGS)
    _, first = group.enter(rebalance_timeout_ms=10_000)
    for _ in range(9):
        group.enter(rebalance_timeout_ms=10_000)
        group.pass_time(1)
    assert first not in group.answers
    group.pass_time(1)
    assert group.joined(first).generation == 1


def test_a_new_member_waits_no_longer_than_five_minutes():
    group = Group()
    [first] = group.stable(1, rebalance_timeout_ms=900_000)
    _, second_join = group.enter()
    group.pass_time(299, first)
    assert second_join not in group.answers
    group.pass_time(2, first)
    assert isinstance(group.answers[second_join], UnknownMemberId)
    assert group.member_ids() == {first}


def test_a_member_that_rejoins_waits_as_long_as_it_takes():
    group = Group()
    long = {"rebalance_timeout_ms": 900_000}
    first, second = group.stable(2, **long)
    waiter = group.join(first, **long)
    group.pass_time(600, second)
    assert waiter not in group.answers
    group.join(second, **long)
    assert group.joined(waiter).generation == group.state.generation


def test_who_does_not_rejoin_in_time_is_out():
    group = Group()
    first, second = group.stable(2)
    _, third_join = group.enter()
    second_join = group.join(second)
    group.pass_time(59, first)
    assert second_join not in group.answers
    group.pass_time(2, first)
    joined = group.joined(second_join)
    assert joined.leader == second  # the leader is out
    assert first not in {member.member_id for member in joined.members}
    assert group.joined(third_join).generation == joined.generation
    assert isinstance(group.heartbeat(first), UnknownMemberId)


def test_a_request_sent_again_takes_the_place_of_the_earlier_one():
    group = Group()
    first, second = group.stable(2)
    lost = group.join(first)
    again = group.join(first)
    assert isinstance(group.answers[lost], RebalanceInProgress)
    assert again not in group.answers
    second_join = group.join(second)
    assert group.joined(again).generation == group.joined(second_join).generation
    lost = group.sync(second)
    again = group.sync(second)
    assert isinstance(group.answers[lost], RebalanceInProgress)
    group.sync(first, {second: b"mine"})
    assert group.part(again) == b"mine"


def test_who_lost_the_answer_is_told_the_generation_again():
    group = Group()
    first, second = group.stable(2)
    group.join(first)
    group.join(second)
    generation = group.state.generation
    assert group.phase == "CompletingRebalance"
    for member_id, count in ((first, 2), (second, 0)):
        joined = group.joined(group.join(member_id))
        assert (joined.generation, len(joined.members)) == (generation, count)
    assert group.phase == "CompletingRebalance"
    changed = group.join(second, protocols=(("range", subscription("other")),))
    assert changed not in group.answers
    assert group.phase == "PreparingRebalance"


def test_a_follower_that_rejoins_a_stable_group_unchanged_starts_nothing():
    group = Group()
    leader, follower = group.stable(2)
    generation = group.state.generation
    assert group.joined(group.join(follower)).generation == generation
    assert group.part(group.sync(follower)) == follower.encode()
    assert group.phase == "Stable"
    assert group.heartbeat(leader) is None


def test_a_leader_that_rejoins_a_stable_group_wants_a_new_plan():
    group = Group()
    leader, follower = group.stable(2)
    waiter = group.join(leader, reason="cached metadata has changed")
    assert waiter not in group.answers
    assert isinstance(group.heartbeat(follower), RebalanceInProgress)
    assert "'cached metadata has changed'" in group.state.rebalance_reason


def test_a_follower_with_other_metadata_starts_a_rebalance():
    group = Group()
    _, follower = group.stable(2)
    waiter = group.join(follower, protocols=(("range", subscription("orders", "bills")),))
    assert waiter not in group.answers
    assert group.phase == "PreparingRebalance"


def test_a_group_has_a_greatest_size():
    group = Group(AT_ONCE._replace(max_size=2))
    first, second = group.stable(2)
    error = group.answers[group.join()]
    assert isinstance(error, GroupMaxSizeReached)
    assert "group.max.size" in str(error)
    assert group.phase == "Stable"
    assert group.joined(group.join(second)).generation == group.state.generation
    # While it rebalances the first to join are in, whoever they were.
    joins = [group.join(first)]
    new, new_join = group.enter()
    assert new_join not in group.answers
    assert isinstance(group.answers[group.join(second)], GroupMaxSizeReached)
    assert {group.joined(waiter).generation for waiter in (*joins, new_join)} == {3}
    assert group.member_ids() == {first, new}


def test_ids_given_out_are_bounded_too():
    group = Group(AT_ONCE._replace(max_size=3))
    for _ in range(3):
        group.new_id()
    assert isinstance(group.answers[group.join()], GroupMaxSizeReached)
    group.pass_time(11)
    group.new_id()


def test_a_static_member_comes_back_into_a_full_group():
    group = Group(SETTINGS._replace(max_size=2))
    stable_statics(group)
    assert group.joined(group.join(**static(1))).generation == 1
    assert isinstance(group.answers[group.join(**static(3))], GroupMaxSizeReached)


# Syncing.


def test_who_is_not_in_the_plan_gets_nothing_and_strangers_in_it_are_ignored():
    group = Group()
    leader, follower = group.stable(2)
    group.join(leader)
    group.join(follower)
    parts = [group.sync(follower), group.sync(leader, {"stranger": b"x", leader: b"all"})]
    assert [group.part(waiter) for waiter in parts] == [b"", b"all"]


def test_a_plan_of_an_earlier_generation_is_refused():
    group = Group()
    leader, follower = group.stable(2)
    group.join(leader)
    group.join(follower)
    old = group.state.generation - 1
    refused = group.sync(leader, {leader: b"all"}, generation=old)
    assert isinstance(group.answers[refused], IllegalGeneration)
    assert group.phase == "CompletingRebalance"


@pytest.mark.parametrize("changed", [{"protocol_type": "connect"}, {"protocol": "sticky"}])
def test_sync_names_the_groups_protocol_or_none(changed):
    group = Group()
    [first] = group.stable(1)
    assert isinstance(group.answers[group.sync(first, **changed)], InconsistentGroupProtocol)
    assert group.part(group.sync(first, protocol_type="consumer", protocol="range"))


def test_syncs_end_when_another_rebalance_begins():
    group = Group()
    leader, follower = group.stable(2)
    group.join(leader)
    group.join(follower)
    waiting = group.sync(follower)
    third = group.new_id()
    assert waiting not in group.answers
    group.join(third)
    assert isinstance(group.answers[waiting], RebalanceInProgress)
    assert isinstance(group.answers[group.sync(leader)], RebalanceInProgress)


def test_members_that_join_and_never_sync_are_out():
    group = Group()
    leader, follower = group.stable(2)
    group.join(leader)
    group.join(follower)
    waiting = group.sync(follower)
    group.pass_time(REBALANCE_MS / 1000 - 1, leader)  # alive, and makes no plan
    assert waiting not in group.answers
    group.pass_time(2, leader)
    assert isinstance(group.answers[waiting], RebalanceInProgress)
    assert group.member_ids() == {follower}
    assert "did not sync" in group.state.rebalance_reason


def test_a_follower_that_never_syncs_is_out_of_a_stable_group():
    group = Group()
    leader, follower = group.stable(2)
    group.join(leader)
    group.join(follower)
    group.sync(leader, {leader: b"1", follower: b"2"})
    assert group.phase == "Stable"
    group.pass_time(REBALANCE_MS / 1000 - 1, leader, follower)
    assert group.phase == "Stable"
    group.pass_time(2, leader, follower)
    assert group.member_ids() == {leader}
    assert group.phase == "PreparingRebalance"


def test_a_waiting_member_needs_no_heartbeats():
    group = Group()
    leader, follower = group.stable(2)
    waiting = group.join(follower, protocols=(("range", b"new"),))
    group.pass_time(30, leader)
    assert waiting not in group.answers
    group.join(leader, protocols=(("range", b"new"),))
    waiting = group.sync(follower)
    group.pass_time(30, leader)
    assert waiting not in group.answers
    group.sync(leader, {follower: b"mine"})
    assert group.part(waiting) == b"mine"
    group.pass_time(9, leader)
    assert group.member_ids() == {leader, follower}
    group.pass_time(2, leader)
    assert group.member_ids() == {leader}


# Heartbeats and leaving.


def test_heartbeats_are_checked():
    group = Group()
    [first] = group.stable(1)
    assert isinstance(group.heartbeat("stranger"), UnknownMemberId)
    assert isinstance(group.heartbeat(first, generation=7), IllegalGeneration)
    assert isinstance(group.heartbeat(first, instance_id="nobody"), UnknownMemberId)
    assert group.heartbeat(first) is None
    assert isinstance(Group().heartbeat("stranger", generation=0), UnknownMemberId)


def test_each_member_has_its_own_session_timeout():
    group = Group()
    ids = [group.new_id(), group.new_id(session_timeout_ms=30_000)]
    group.join(ids[0])
    group.join(ids[1], session_timeout_ms=30_000)
    group.join(ids[0])
    group.sync(ids[0])
    group.sync(ids[1])
    group.pass_time(11)
    assert group.member_ids() == {ids[1]}
    group.pass_time(20)
    assert group.member_ids() == set()
    assert group.phase == "Empty"
    assert group.state.next_deadline_s() == float("inf")


def test_many_leave_at_once():
    group = Group()
    first, second, third = group.stable(3)
    pending = group.new_id()
    errors = group.leave(
        LeavingMember("stranger"),
        LeavingMember(second),
        LeavingMember(second),
        LeavingMember(pending),
        LeavingMember(third),
    )
    assert [type(error) for error in errors] == [
        UnknownMemberId,
        type(None),
        UnknownMemberId,
        type(None),
        type(None),
    ]
    assert group.joined(group.join(first)).members[0].member_id == first


def test_who_leaves_while_it_waits_is_answered():
    group = Group()
    leader, follower = group.stable(2)
    _, join = group.enter()
    waiting = group.join(follower)
    group.leave(LeavingMember(follower))
    assert isinstance(group.answers[waiting], UnknownMemberId)
    assert group.joined(group.join(leader)).generation == group.joined(join).generation


def test_an_id_given_up_holds_nobody():
    group = Group()
    [first] = group.stable(1)
    pending = group.new_id()
    assert group.leave(LeavingMember(pending)) == [None]
    assert group.phase == "Stable"
    assert group.heartbeat(first) is None


# Static members (KIP-345, KIP-814).


def test_a_static_member_restarts_without_a_rebalance():
    group = Group(SETTINGS)
    leader, follower = stable_statics(group)
    written = len(group.kept)
    joined = group.joined(group.join(**static(1)))
    assert joined.generation == 1
    assert (joined.leader, joined.skip_assignment, joined.members) == (leader, False, ())
    assert joined.member_id not in {leader, follower}
    # Its new id was written before it was told.
    assert len(group.kept) == written + 1
    assert joined.member_id in {member.member_id for member in group.kept[-1].members}
    # It has what it had; its earlier self is fenced.
    assert group.part(group.sync(joined.member_id, instance_id="instance-1")) == follower.encode()
    assert group.phase == "Stable"
    assert group.heartbeat(leader, "instance-0") is None
    assert group.heartbeat(joined.member_id, "instance-1") is None
    assert isinstance(group.heartbeat(follower, "instance-1"), FencedInstanceId)
    assert isinstance(group.heartbeat(follower), UnknownMemberId)
    assert isinstance(group.answers[group.join(follower, **static(1))], FencedInstanceId)
    late = group.sync(follower, instance_id="instance-1")
    assert isinstance(group.answers[late], FencedInstanceId)
    [error] = group.leave(LeavingMember(follower, "instance-1"))
    assert isinstance(error, FencedInstanceId)


def test_a_static_leader_is_told_that_its_plan_holds():
    group = Group(SETTINGS)
    stable_statics(group)
    joined = group.joined(group.join(**static(0)))
    assert joined.skip_assignment
    assert joined.leader == joined.member_id == group.state.leader
    assert len(joined.members) == 2


def test_an_older_static_leader_takes_itself_for_a_follower():
    group = Group(SETTINGS)
    leader, _ = stable_statics(group)
    joined = group.joined(group.join(**static(0, supports_skip_assignment=False)))
    assert (joined.skip_assignment, joined.leader, joined.members) == (False, leader, ())
    assert group.part(group.sync(joined.member_id)) == leader.encode()


def test_a_static_member_that_subscribes_to_other_topics_starts_a_rebalance():
    group = Group(SETTINGS)
    leader, _ = stable_statics(group)
    same = (("range", subscription("orders", version=1, rest=b"owned partitions")),)
    assert group.joined(group.join(**static(1, protocols=same))).generation == 1
    other = (("range", subscription("orders", "bills")),)
    waiter = group.join(**static(1, protocols=other))
    assert waiter not in group.answers
    assert isinstance(group.heartbeat(leader), RebalanceInProgress)
    assert "instance-1 came back" in group.state.rebalance_reason


def test_a_static_member_that_changes_the_protocol_starts_a_rebalance():
    group = Group(SETTINGS)
    waiters = [group.join(**static(number, protocols=BOTH)) for number in range(2)]
    group.pass_time(9)
    ids = [group.joined(waiter).member_id for waiter in waiters]
    assert group.state.protocol == "sticky"
    for member_id in reversed(ids):
        group.sync(member_id)
    waiter = group.join(**static(1, protocols=RANGE))
    assert waiter not in group.answers
    assert group.phase == "PreparingRebalance"
    group.join(ids[0], **static(0, protocols=BOTH))
    assert group.joined(waiter).protocol == "range"


def test_two_members_with_one_instance_id_fence_each_other():
    group = Group(SETTINGS)
    first = group.join(**static(0))
    second = group.join(**static(0))
    assert isinstance(group.answers[first], FencedInstanceId)
    group.pass_time(7)
    assert group.joined(second).generation == 1
    third = group.join(**static(0))  # while the second makes its plan
    assert group.joined(third).generation == 2
    stale = group.sync(group.joined(second).member_id, instance_id="instance-0")
    assert isinstance(group.answers[stale], FencedInstanceId)


def test_a_static_member_that_waits_for_the_plan_is_fenced():
    group = Group(SETTINGS)
    waiters = [group.join(**static(number)) for number in range(2)]
    group.pass_time(9)
    follower = group.joined(waiters[1]).member_id
    waiting = group.sync(follower)
    back = group.join(**static(1))
    assert isinstance(group.answers[waiting], FencedInstanceId)
    assert back not in group.answers
    assert group.phase == "PreparingRebalance"


def test_a_static_member_keeps_its_place_through_a_rebalance_it_misses():
    group = Group(SETTINGS)
    session = {"session_timeout_ms": 600_000}
    waiters = [group.join(**static(number, **session)) for number in range(2)]
    group.pass_time(9)
    ids = [group.joined(waiter).member_id for waiter in waiters]
    for member_id in reversed(ids):
        group.sync(member_id)
    third, _ = group.enter(**session)
    join = group.join(ids[1], **static(1, **session))
    group.pass_time(61)  # the leader is away
    joined = group.joined(join)
    assert joined.leader == ids[1]
    assert {member.member_id for member in joined.members} == {*ids, third}
    # It did not join, so it need not sync; it comes back in time and has its part.
    group.sync(third)
    group.sync(ids[1], {ids[0]: b"kept"})
    group.pass_time(120, ids[1], third)
    assert group.phase == "Stable"
    back = group.joined(group.join(**static(0, **session)))
    assert group.part(group.sync(back.member_id)) == b"kept"


def test_a_group_of_absent_static_members_waits_for_their_sessions():
    group = Group(SETTINGS)
    ids = stable_statics(group)
    group.take(group.state.rebalance("test", group.now_s, group.now_ms))
    group.pass_time(61, *ids)
    assert group.phase == "PreparingRebalance"
    assert group.member_ids() == set(ids)
    group.pass_time(11)
    assert group.phase == "Empty"


def test_of_absent_static_members_one_that_comes_goes_on_in_time():
    group = Group(SETTINGS)
    session = {"session_timeout_ms": 900_000}
    waiters = [group.join(**static(number, **session)) for number in range(2)]
    group.pass_time(9)
    ids = [group.joined(waiter).member_id for waiter in waiters]
    group.take(group.state.rebalance("test", group.now_s, group.now_ms))
    group.pass_time(70)  # nobody rejoins: the preparation goes on
    assert group.phase == "PreparingRebalance"
    waiter = group.join(ids[1], **static(1, **session))
    group.pass_time(49)
    assert waiter not in group.answers
    group.pass_time(2)
    assert group.joined(waiter).leader == ids[1]
    assert group.member_ids() == set(ids)


def test_who_rejoins_while_its_sync_waits_is_answered_and_stays():
    group = Group()
    leader, follower = group.stable(2)
    group.join(leader)
    group.join(follower)
    waiting = group.sync(follower)
    join = group.join(follower, protocols=(("range", b"other"),))
    assert isinstance(group.answers[waiting], RebalanceInProgress)
    group.pass_time(30, leader)
    group.join(leader)
    assert group.joined(join).generation == group.state.generation


def test_an_admin_removes_a_static_member_by_its_instance_id():
    group = Group(SETTINGS)
    leader, _ = stable_statics(group)
    errors = group.leave(LeavingMember("", "instance-1"), LeavingMember("", "instance-7"))
    assert errors[0] is None
    assert isinstance(errors[1], UnknownMemberId)
    assert group.member_ids() == {leader}
    assert group.phase == "PreparingRebalance"


# Commits.


def test_who_may_commit():
    group = Group()
    assert group.commit() is None  # no member, and nobody is in the group
    leader, follower = group.stable(2)
    generation = group.state.generation
    assert isinstance(group.commit(), UnknownMemberId)
    assert group.commit(transactional=True) is None
    assert group.commit(leader, generation) is None
    assert isinstance(group.commit("stranger", generation), UnknownMemberId)
    assert isinstance(group.commit(leader, generation - 1), IllegalGeneration)
    assert isinstance(group.commit(leader, -1), IllegalGeneration)
    # Members commit what they are about to give up,
    group.join(leader)
    assert group.commit(follower, generation) is None
    group.join(follower)
    # but not what they got: they have it only after the sync.
    assert isinstance(group.commit(follower, generation), IllegalGeneration)
    assert isinstance(group.commit(follower, generation + 1), RebalanceInProgress)
    assert group.commit(follower, generation + 1, transactional=True) is None


def test_a_commit_is_a_sign_of_life():
    group = Group()
    [first] = group.stable(1)
    for _ in range(4):
        group.pass_time(9)
        assert group.commit(first, 1) is None
    group.pass_time(11)
    assert group.phase == "Empty"


# Its end, and what is kept.


def test_only_an_empty_group_is_deleted():
    group = Group()
    [first] = group.stable(1)
    error, effects = group.state.delete(group.now_ms)
    assert isinstance(error, NonEmptyGroup)
    assert effects == []
    group.leave(LeavingMember(first))
    pending = group.new_id()
    assert not group.state.is_idle
    assert group.state.delete(group.now_ms) == (None, [Remove()])
    assert group.state.next_deadline_s() == float("inf")
    for answer in (
        group.answers[group.join()],
        group.answers[group.join(pending)],
        group.answers[group.sync(first)],
        group.heartbeat(first),
        group.commit(),
        group.leave(LeavingMember(first))[0],
    ):
        assert isinstance(answer, CoordinatorNotAvailable)
    assert isinstance(group.state.delete(group.now_ms)[0], GroupIdNotFound)


def test_other_steps_than_the_tables_are_bugs():
    group = Group()
    for phase in GroupPhase:
        for following in set(GroupPhase) - set(TRANSITIONS[phase]):
            group.state.phase = phase
            with pytest.raises(BrokerBug):
                group.state._enter(following, group.now_ms)
    assert set(TRANSITIONS) == set(GroupPhase)


def test_a_restart_is_not_noticed_by_who_heartbeats():
    group = Group()
    leader, follower = group.stable(2)
    before = group.state.snapshot()
    group.restart()
    assert group.state.snapshot() == before
    group.pass_time(9, leader)
    assert group.heartbeat(leader) is None
    assert group.part(group.sync(follower)) == follower.encode()
    group.pass_time(11, leader)
    assert group.member_ids() == {leader}


def test_a_restart_between_join_and_sync():
    group = Group()
    leader, follower = group.stable(2)
    group.join(leader)
    group.join(follower)
    group.restart()
    waiting = group.sync(follower)
    group.sync(leader, {follower: b"mine"})
    assert group.part(waiting) == b"mine"
    # Of whom nothing comes after it, nothing is left.
    group.join(leader)
    group.join(follower)
    group.restart()
    waiting = group.sync(follower)
    group.pass_time(61, leader)
    assert isinstance(group.answers[waiting], RebalanceInProgress)
    assert group.member_ids() == {follower}


def test_a_restart_while_members_join():
    group = Group()
    leader, follower = group.stable(2)
    group.join(leader)
    group.restart()
    assert isinstance(group.heartbeat(follower), RebalanceInProgress)
    waiters = [group.join(leader), group.join(follower)]
    assert {group.joined(waiter).generation for waiter in waiters} == {3}


def test_all_waiters_are_answered_when_the_broker_stops():
    group = Group()
    leader, follower = group.stable(2)
    join = group.join(leader)
    group.take(group.state.abandon(CoordinatorNotAvailable(), group.now_s))
    assert isinstance(group.answers[join], CoordinatorNotAvailable)
    joins = [group.join(leader), group.join(follower)]
    assert {group.joined(waiter).generation for waiter in joins} == {3}
    sync = group.sync(follower)
    group.take(group.state.abandon(CoordinatorNotAvailable(), group.now_s))
    assert isinstance(group.answers[sync], CoordinatorNotAvailable)
    group.pass_time(11, leader)
    assert group.member_ids() == {leader}


def test_when_a_group_became_empty_is_kept():
    group = Group()
    [first] = group.stable(1)
    group.pass_time(5, first)
    group.leave(LeavingMember(first))
    assert group.kept[-1].state_since_ms == group.now_ms
    assert group.kept[-1].protocol_type == "consumer"
    assert group.kept[-1].protocol is None


def test_a_group_that_never_came_to_be_keeps_nothing():
    group = Group()
    group.new_id()
    group.pass_time(11)
    assert group.kept == []
    assert group.state.is_idle


# What admins see.


def test_metadata_and_assignments_are_described_of_stable_groups():
    group = Group()
    leader, follower = group.stable(2)
    described = group.state.describe()
    assert described[:4] == ("readers", "Stable", "consumer", "range")
    assert {member.member_id: member.assignment for member in described.members} == {
        leader: leader.encode(),
        follower: follower.encode(),
    }
    assert {member.metadata for member in described.members} == {RANGE[0][1]}
    group.join(leader)
    described = group.state.describe()
    assert described[1:4] == ("PreparingRebalance", "consumer", "")
    assert {member.assignment for member in described.members} == {b""}
    assert {member.client_host for member in described.members} == {"/127.0.0.1"}


def test_the_topics_of_a_group():
    group = Group()
    assert group.state.subscribed_topics() is None
    [first] = group.stable(1)
    assert group.state.subscribed_topics() == {"orders"}
    _, second = group.enter(protocols=(("range", subscription("bills", "orders")),))
    group.join(first)
    assert group.joined(second)
    assert group.state.subscribed_topics() == {"bills", "orders"}
    group.enter(protocols=(("range", b"?"),))
    group.join(first)
    group.pass_time(11)
    assert group.phase == "CompletingRebalance"
    assert group.state.subscribed_topics() is None


@pytest.mark.parametrize(
    ("metadata", "topics"),
    [
        (subscription(), set()),
        (subscription("a", "b", version=3, rest=b"\xff" * 9), {"a", "b"}),
        (b"", None),
        (subscription("a")[:-1], None),
        (subscription("a")[:8], None),
        (b"\xff\xff" + subscription("a")[2:], None),
        (b"\0\0\xff\xff\xff\xff", None),
        (b"\0\0\x7f\xff\xff\xff", None),
        (b"\0\0\0\0\0\1\xff\xff", None),
        (b"\0\0\0\0\0\1\0\1\xff", None),
    ],
)
def test_topics_of_a_subscription(metadata, topics):
    assert subscription_topics(metadata) == topics


# Cost.


def test_a_heartbeat_leaves_the_watch_alone():
    group = Group()
    [first] = group.stable(1)
    before = group.state.next_deadline_s()
    for _ in range(5):
        group.now_s += 1
        group.heartbeat(first)
    assert group.state.next_deadline_s() == before
    group.now_s = before
    assert group.state.on_time(group.now_s, group.now_ms) == []
    assert (
        group.state.next_deadline_s() == group.now_s + 5 or group.state.next_deadline_s() > before
    )


def test_churn_leaves_nothing_behind():
    group = Group()
    group.stable(1)
    for _ in range(2_000):
        group.leave(LeavingMember(group.new_id()))
    assert len(group.state._sessions._heap) < 100


def test_a_large_group_costs_a_write_for_each_step():
    group = Group(SETTINGS)
    waiters = [group.join(requires_known_member_id=False) for _ in range(1_000)]
    group.pass_time(7)
    joined = [group.joined(waiter) for waiter in waiters]
    assert len(joined[0].members) == 1_000
    assert sum(len(result.members) for result in joined) == 1_000
    for result in joined[1:]:
        group.sync(result.member_id)
    group.sync(joined[0].member_id, {})
    assert len(group.kept) == 2
    effects = group.state.rebalance("test", group.now_s, group.now_ms)
    assert Persist() not in effects
