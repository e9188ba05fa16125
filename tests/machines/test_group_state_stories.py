"""What happens when a consumer joins, leaves or crashes: the messages in their order."""

from __future__ import annotations

from tests.machines.group_support import SETTINGS, Group
from trioq.coordinator.group_requests import LeavingMember
from trioq.errors import IllegalGeneration, RebalanceInProgress, UnknownMemberId


def test_a_first_consumer_forms_the_group():
    group = Group(SETTINGS)
    first, join = group.enter()
    assert group.phase == "PreparingRebalance"
    group.pass_time(2.9)
    assert join not in group.answers  # others get the time to find the group
    group.pass_time(0.2)
    joined = group.joined(join)
    assert (joined.generation, joined.leader, joined.protocol) == (1, first, "range")
    assert [member.member_id for member in joined.members] == [first]
    assert group.phase == "CompletingRebalance"
    assert group.part(group.sync(first, {first: b"all"})) == b"all"
    assert group.phase == "Stable"
    assert group.heartbeat(first) is None
    # Both the generation and its plan were written before they were told.
    assert [(kept.generation, kept.state) for kept in group.kept] == [
        (1, "CompletingRebalance"),
        (1, "Stable"),
    ]


def test_a_second_consumer_joins():
    group = Group()
    [first] = group.stable(1)
    assert group.heartbeat(first) is None

    # It is given an id, and joins with it: its JoinGroup waits.
    second = group.new_id()
    assert group.heartbeat(first) is None
    second_join = group.join(second)
    assert second_join not in group.answers
    assert group.phase == "PreparingRebalance"

    # The first learns of it from its heartbeat, commits what it holds, and rejoins.
    assert isinstance(group.heartbeat(first), RebalanceInProgress)
    assert group.commit(first, generation=1) is None
    first_join = group.join(first)

    # All have joined: both are in the next generation, the leader is told the members.
    assert group.phase == "CompletingRebalance"
    leader, follower = group.joined(first_join), group.joined(second_join)
    assert leader.generation == follower.generation == 2
    assert leader.leader == follower.leader == first
    assert {member.member_id for member in leader.members} == {first, second}
    assert follower.members == ()

    # The follower asks for its part, and waits for the plan; the leader sends it.
    second_sync = group.sync(second)
    assert second_sync not in group.answers
    first_sync = group.sync(first, {first: b"0,1", second: b"2,3"})
    assert group.part(first_sync) == b"0,1"
    assert group.part(second_sync) == b"2,3"
    assert group.phase == "Stable"
    assert group.heartbeat(first) is None
    assert group.heartbeat(second) is None
    assert isinstance(group.heartbeat(first, generation=1), IllegalGeneration)


def test_a_consumer_leaves():
    group = Group()
    leader, follower = group.stable(2)
    generation = group.state.generation

    assert group.leave(LeavingMember(leader)) == [None]
    assert group.phase == "PreparingRebalance"
    assert isinstance(group.heartbeat(leader), UnknownMemberId)

    # The other is told at its next heartbeat, rejoins, leads, and has everything.
    assert isinstance(group.heartbeat(follower), RebalanceInProgress)
    joined = group.joined(group.join(follower))
    assert (joined.generation, joined.leader) == (generation + 1, follower)
    assert [member.member_id for member in joined.members] == [follower]
    assert group.part(group.sync(follower, {follower: b"0,1,2,3"})) == b"0,1,2,3"

    # The last one leaves: nothing remains but the generation, written down.
    assert group.leave(LeavingMember(follower)) == [None]
    assert group.phase == "Empty"
    assert group.kept[-1].state == "Empty"
    assert group.kept[-1].generation == generation + 2
    assert group.kept[-1].members == ()


def test_a_consumer_crashes():
    group = Group()
    survivor, crashed = group.stable(2)

    # It heartbeats no more; before its session ends nobody can tell.
    group.pass_time(9.5, survivor)
    assert group.phase == "Stable"
    group.pass_time(1.0, survivor)
    assert group.phase == "PreparingRebalance"
    assert crashed in group.state.rebalance_reason

    assert isinstance(group.heartbeat(survivor), RebalanceInProgress)
    joined = group.joined(group.join(survivor))
    assert [member.member_id for member in joined.members] == [survivor]
    assert group.part(group.sync(survivor, {survivor: b"all"})) == b"all"

    # Should it have been alive after all, it has to begin anew.
    assert isinstance(group.heartbeat(crashed), UnknownMemberId)
    assert isinstance(group.answers[group.join(crashed)], UnknownMemberId)
    assert isinstance(group.answers[group.sync(crashed)], UnknownMemberId)
    assert isinstance(group.commit(crashed, generation=joined.generation), UnknownMemberId)


def test_a_cooperative_group_rebalances_twice():
    """KIP-429: what is given up in the first rebalance is taken over in the second."""
    group = Group()
    [first] = group.stable(1)
    owning = (("cooperative-sticky", b"owns 0,1,2,3"), ("range", b""))
    second, second_join = group.enter(protocols=(("cooperative-sticky", b""), ("range", b"")))
    first_join = group.join(first, protocols=owning)
    assert group.joined(second_join).protocol == "cooperative-sticky"
    seen = {each.member_id: each.metadata for each in group.joined(first_join).members}
    assert seen == {first: b"owns 0,1,2,3", second: b""}
    second_sync = group.sync(second)
    group.sync(first, {first: b"0,1", second: b""})
    assert group.part(second_sync) == b""

    # The first has revoked 2 and 3, and rejoins at once.
    group.commit(first, generation=group.state.generation)
    first_join = group.join(first, protocols=(("cooperative-sticky", b"owns 0,1"),))
    assert isinstance(group.heartbeat(second), RebalanceInProgress)
    second_join = group.join(second, protocols=(("cooperative-sticky", b""),))
    assert group.joined(first_join).generation == group.joined(second_join).generation == 3
    second_sync = group.sync(second)
    group.sync(first, {first: b"0,1", second: b"2,3"})
    assert group.part(second_sync) == b"2,3"
    assert group.phase == "Stable"
