"""The rules of the consumer protocol (KIP-848), one at a time."""

from __future__ import annotations

from typing import Any

import pytest

from tests.machines.consumer_group_support import (
    GROUP,
    SETTINGS,
    Bench,
    Client,
    FakeTopics,
    as_assignment,
    pairs,
    settle,
    sizes,
)
from trioq.coordinator.consumer_group_state import ConsumerGroupState
from trioq.coordinator.consumer_requests import ConsumerGroupPhase, ConsumerHeartbeat
from trioq.coordinator.effects import Persist
from trioq.errors import (
    FencedInstanceId,
    FencedMemberEpoch,
    GroupMaxSizeReached,
    InvalidRegularExpression,
    InvalidRequest,
    StaleMemberEpoch,
    UnknownMemberId,
    UnreleasedInstanceId,
    UnsupportedAssignor,
)


def joined(bench: Bench, *member_ids: str, **options: Any) -> list[Client]:
    clients = [Client(bench, member_id, "orders", **options) for member_id in member_ids]
    for client in clients:
        client.beat()
    settle(clients)
    return clients


# Joining.


def test_the_first_member_gets_everything_at_epoch_one() -> None:
    bench = Bench()
    client = Client(bench, "a", "orders")
    result = client.beat()
    assert (result.member_id, result.member_epoch) == ("a", 1)
    assert result.heartbeat_interval_ms == 5_000
    assert client.assignment == {"orders": [0, 1, 2, 3, 4, 5]}
    assert bench.group.phase is ConsumerGroupPhase.STABLE
    assert bench.writes == 1


def test_a_member_without_an_id_is_given_one() -> None:
    bench = Bench()
    client = Client(bench, "", "orders")
    assert client.beat().member_id == "generated-1"
    assert client.beat().member_epoch == 1


def test_a_group_of_members_without_topics_is_a_group() -> None:
    bench = Bench()
    client = Client(bench, "a")
    assert client.beat().member_epoch == 1
    assert client.owned == set()


@pytest.mark.parametrize(
    "changes",
    [
        {"rebalance_timeout_ms": -1},
        {"owned": None},
        {"owned": {FakeTopics(orders=1).id_of("orders"): frozenset({0})}},
        {"subscribed_names": None, "subscribed_regex": None},
        {"instance_id": ""},
        {"rack_id": ""},
        {"member_id": "", "requires_member_id": True},
        {"member_id": "", "member_epoch": 3},
        {"member_epoch": -3},
        {"member_epoch": -2, "instance_id": None},
    ],
)
def test_what_a_request_must_not_say(changes: dict[str, Any]) -> None:
    bench = Bench()
    answer = bench.send(Client(bench, "a", "orders").request(**changes))
    assert isinstance(answer, InvalidRequest)
    assert bench.writes == 0
    assert bench.group.is_empty


def test_an_unknown_assignor_is_refused() -> None:
    bench = Bench()
    answer = Client(bench, "a", "orders", assignor="magic").beat()
    assert isinstance(answer, UnsupportedAssignor)
    assert "uniform, range" in str(answer)


def test_a_full_group_takes_no_more_but_knows_its_own() -> None:
    bench = Bench(settings=SETTINGS._replace(max_size=2))
    clients = joined(bench, "a", "b")
    assert isinstance(Client(bench, "c", "orders").beat(), GroupMaxSizeReached)
    settle(clients)
    assert sizes(clients) == [3, 3]
    static = Client(bench, "d", "orders", instance_id="one")
    clients[0].leave()
    static.beat()
    static.leave(-2)
    again = Client(bench, "e", "orders", instance_id="one")
    assert again.beat().member_epoch > 0


def test_the_assignor_that_most_ask_for_is_taken() -> None:
    bench = Bench(FakeTopics(orders=4, payments=4))
    a = Client(bench, "a", "orders", "payments", assignor="range")
    b = Client(bench, "b", "orders", "payments", assignor="range")
    c = Client(bench, "c", "orders", "payments", assignor="uniform")
    for client in (c, a, b):
        client.beat()
    settle((a, b, c))
    assert bench.group.assignor == "range"
    assert a.assignment == {"orders": [0, 1], "payments": [0, 1]}
    b.assignor = "uniform"
    b.says_all = True
    settle((a, b, c))
    assert bench.group.assignor == "uniform"


# Heartbeats.


def test_a_heartbeat_that_changes_nothing_writes_and_tells_nothing() -> None:
    bench = Bench()
    (client,) = joined(bench, "a")
    writes = bench.writes
    result = client.beat()
    assert result.assignment is None
    assert result.member_epoch == 1
    assert bench.writes == writes


def test_a_full_heartbeat_is_told_the_assignment_without_a_write() -> None:
    bench = Bench()
    (client,) = joined(bench, "a")
    writes = bench.writes
    client.says_all = True
    assert pairs(client.beat().assignment) == client.owned
    assert bench.writes == writes


def test_a_lost_join_answer_is_given_again() -> None:
    bench = Bench()
    client = Client(bench, "a", "orders")
    assert client.lose().member_epoch == 1
    assert client.beat().member_epoch == 1
    assert client.assignment == {"orders": [0, 1, 2, 3, 4, 5]}
    assert bench.group.group_epoch == 1


def test_the_epoch_before_is_right_with_a_part_of_what_was_assigned() -> None:
    bench = Bench()
    (a,) = joined(bench, "a")
    b = Client(bench, "b", "orders")
    b.beat()
    a.beat()  # told to revoke
    assert a.lose().member_epoch == 2
    assert a.epoch == 1
    result = a.beat()
    assert result.member_epoch == 2
    assert len(pairs(result.assignment)) == 3


def test_the_epoch_before_with_more_than_was_assigned_is_fenced() -> None:
    bench = Bench()
    (a,) = joined(bench, "a")
    everything = set(a.owned)
    Client(bench, "b", "orders").beat()
    a.beat()
    a.lose()
    answer = bench.send(a.request(owned=as_assignment(everything)))
    assert isinstance(answer, FencedMemberEpoch)
    assert isinstance(bench.send(a.request(owned=None)), FencedMemberEpoch)


@pytest.mark.parametrize("epoch", [1, 7])
def test_another_epoch_is_fenced_and_epoch_zero_begins_anew(epoch: int) -> None:
    bench = Bench()
    clients = joined(bench, "a", "b", "c")
    a = clients[0]
    a.epoch = epoch
    assert isinstance(a.beat(), FencedMemberEpoch)
    assert a.epoch == 0
    assert a.beat().member_epoch == bench.group.assignment_epoch
    settle(clients)
    assert sizes(clients) == [2, 2, 2]


def test_an_unknown_member_is_told_so() -> None:
    bench = Bench()
    joined(bench, "a")
    request = ConsumerHeartbeat(GROUP, "b", 1)
    assert isinstance(bench.send(request), UnknownMemberId)
    assert isinstance(bench.send(request._replace(member_epoch=-1)), UnknownMemberId)
    assert isinstance(bench.send(request._replace(instance_id="i")), UnknownMemberId)


def test_a_refused_request_changes_nothing() -> None:
    bench = Bench()
    (client,) = joined(bench, "a")
    before = bench.group.snapshot()
    client.beat(subscribed_regex="(", subscribed_names=frozenset({"other"}))
    assert bench.group.snapshot() == before


# Sessions and revocations in time.


def test_a_silent_member_is_removed_and_its_partitions_go_to_the_others() -> None:
    bench = Bench()
    a, b = joined(bench, "a", "b")
    bench.pass_time(40)
    a.beat()
    effects = bench.pass_time(5.1)
    assert effects == [Persist()]
    a.beat()
    assert len(a.owned) == 6
    assert isinstance(b.beat(), UnknownMemberId)


def test_heartbeats_keep_a_session_alive() -> None:
    bench = Bench()
    (client,) = joined(bench, "a")
    for _ in range(20):
        assert bench.pass_time(40) == []
        client.beat()
    assert client.epoch == 1


def test_a_member_that_does_not_revoke_in_time_is_removed() -> None:
    bench = Bench()
    (a,) = joined(bench, "a")
    a.lazy = True
    b = Client(bench, "b", "orders")
    b.beat()
    assert a.beat().member_epoch == 1
    for _ in range(5):
        assert bench.pass_time(11) == []
        a.beat()
        b.beat()
        assert b.owned == set()
    assert bench.pass_time(11) == [Persist()]
    b.beat()
    assert len(b.owned) == 6
    assert isinstance(a.beat(), UnknownMemberId)


def test_after_a_restart_members_have_a_whole_session_left() -> None:
    bench = Bench()
    a, b = joined(bench, "a", "b")
    bench.pass_time(40)
    bench.restart()
    assert bench.pass_time(40) == []
    epoch = bench.group.group_epoch
    a.beat()
    b.beat()
    assert bench.group.group_epoch == epoch
    assert bench.pass_time(44) == []
    a.beat()
    assert bench.pass_time(2) == [Persist()]


def test_after_a_restart_a_revocation_still_has_its_time() -> None:
    bench = Bench()
    (a,) = joined(bench, "a")
    a.lazy = True
    Client(bench, "b", "orders").beat()
    a.beat()
    bench.restart()
    for _ in range(2):
        assert bench.pass_time(29) == []
        a.beat()
        bench.send(ConsumerHeartbeat(GROUP, "b", 2))
    bench.pass_time(3)
    assert isinstance(a.beat(), UnknownMemberId)


# Leaving, and static members.


def test_leaving_sets_partitions_free_at_once() -> None:
    bench = Bench()
    a, b = joined(bench, "a", "b")
    result = a.leave()
    assert (result.member_id, result.member_epoch) == ("a", -1)
    assert bench.group.phase is ConsumerGroupPhase.ASSIGNING
    b.beat()
    assert len(b.owned) == 6


def test_the_last_member_leaves_an_empty_group_with_its_epoch() -> None:
    bench = Bench()
    (a,) = joined(bench, "a")
    bench.pass_time(7)
    a.leave()
    assert bench.group.phase is ConsumerGroupPhase.EMPTY
    assert bench.group.state_since_ms == bench.now_ms
    assert Client(bench, "b", "orders").beat().member_epoch == 3


def test_a_static_member_that_left_for_now_is_replaced_without_a_rebalance() -> None:
    bench = Bench()
    (a,) = joined(bench, "a", instance_id="one")
    (b,) = joined(bench, "b", instance_id="two")
    settle((a, b))
    had, epoch = set(a.owned), bench.group.group_epoch
    assert a.leave(-2).member_epoch == -2
    assert b.beat().assignment is None
    again = Client(bench, "c", "orders", instance_id="one")
    result = again.beat()
    assert result.member_epoch == epoch
    assert again.owned == had
    assert bench.group.group_epoch == epoch
    assert isinstance(bench.send(a.request(member_epoch=epoch)), FencedInstanceId)


def test_a_static_member_that_stays_away_loses_its_partitions() -> None:
    bench = Bench()
    (a,) = joined(bench, "a", instance_id="one")
    (b,) = joined(bench, "b", instance_id="two")
    settle((a, b))
    a.leave(-2)
    bench.pass_time(44)
    b.beat()
    assert len(b.owned) == 3
    bench.pass_time(2)
    b.beat()
    assert len(b.owned) == 6


def test_an_instance_id_in_use_is_not_given_away() -> None:
    bench = Bench()
    (a,) = joined(bench, "a", instance_id="one")
    other = Client(bench, "b", "orders", instance_id="one")
    assert isinstance(other.beat(), UnreleasedInstanceId)
    assert a.beat().member_epoch == 1


def test_a_static_member_that_repeats_its_join_is_itself() -> None:
    bench = Bench()
    client = Client(bench, "a", "orders", instance_id="one")
    client.lose()
    assert client.beat().member_epoch == 1
    assert len(client.owned) == 6


def test_a_static_member_may_leave_for_good() -> None:
    bench = Bench()
    (a,) = joined(bench, "a", instance_id="one")
    wrong = a.request(member_id="x", member_epoch=-1)
    assert isinstance(bench.send(wrong), FencedInstanceId)
    assert a.leave().member_epoch == -1
    assert bench.group.is_empty


def test_leaving_for_now_gives_up_what_was_to_be_revoked() -> None:
    bench = Bench()
    (a,) = joined(bench, "a", instance_id="one")
    a.lazy = True
    b = Client(bench, "b", "orders")
    b.beat()
    a.beat()
    a.leave(-2)
    b.beat()
    assert len(b.owned) == 3


def test_a_dynamic_member_that_takes_over_an_instance_id_is_one_member() -> None:
    bench = Bench()
    (a,) = joined(bench, "a", instance_id="one")
    (b,) = joined(bench, "b")
    settle((a, b))
    a.leave(-2)
    b.instance_id = "one"
    b.epoch, b.says_all = 0, True
    b.owned.clear()
    b.beat()
    settle([b])
    assert [m.member_id for m in bench.group.snapshot().members] == ["b"]
    assert len(b.owned) == 6


# Subscriptions and topics.


def test_a_changed_subscription_moves_partitions() -> None:
    bench = Bench(FakeTopics(orders=2, payments=2))
    (a,) = joined(bench, "a")
    a.names = frozenset({"payments"})
    a.says_all = True
    settle([a])
    assert a.assignment == {"payments": [0, 1]}


def test_topics_that_appear_grow_and_disappear() -> None:
    bench = Bench(FakeTopics())
    (a,) = joined(bench, "a")
    assert a.owned == set()
    bench.topics.create("orders", 2)
    settle([a])
    assert a.assignment == {"orders": [0, 1]}
    bench.topics.grow("orders", 3)
    settle([a])
    assert a.assignment == {"orders": [0, 1, 2]}
    bench.topics.delete("orders")
    settle([a])
    assert a.owned == set()
    bench.topics.create("orders", 1)
    settle([a])
    assert a.assignment == {"orders": [0]}


def test_topics_of_others_change_nothing() -> None:
    bench = Bench()
    (a,) = joined(bench, "a")
    bench.topics.create("payments", 2)
    writes = bench.writes
    assert bench.group.topics_changed(bench.topics) == []
    a.beat()
    assert bench.group.group_epoch == 1
    assert bench.writes == writes


def test_a_group_is_told_of_changed_topics_without_a_heartbeat() -> None:
    bench = Bench()
    joined(bench, "a")
    bench.topics.grow("orders", 7)
    assert bench.group.topics_changed(bench.topics) == [Persist()]
    assert bench.group.phase is ConsumerGroupPhase.ASSIGNING
    assert bench.group.topics_changed(bench.topics) == []


def test_topics_that_changed_while_the_broker_was_down_are_noticed() -> None:
    bench = Bench()
    (a,) = joined(bench, "a")
    bench.topics.grow("orders", 8)
    bench.restart()
    settle([a])
    assert len(a.owned) == 8


def test_a_regular_expression_matches_whole_names_as_they_come() -> None:
    bench = Bench(FakeTopics(orders=1, orders_eu=1, old_orders=1))
    client = Client(bench, "a", regex="orders.*")
    client.beat()
    assert client.assignment == {"orders": [0], "orders_eu": [0]}
    bench.topics.create("orders_us", 1)
    bench.topics.delete("orders_eu")
    settle([client])
    assert client.assignment == {"orders": [0], "orders_us": [0]}
    assert bench.group.subscribed_topics(bench.topics) == {"orders", "orders_us"}
    client.regex, client.names, client.says_all = "", frozenset({"old_orders"}), True
    settle([client])
    assert client.assignment == {"old_orders": [0]}


@pytest.mark.parametrize("regex", ["(", "(?=a)b", r"(a)\1", "*", "(a{1000}){1000}"])
def test_a_bad_regular_expression_is_refused(regex: str, capfd: pytest.CaptureFixture[str]) -> None:
    bench = Bench()
    answer = Client(bench, "a", regex=regex).beat()
    assert isinstance(answer, InvalidRegularExpression)
    assert repr(regex) in str(answer)
    assert capfd.readouterr().err == ""


# Commits.


def test_commits_come_at_the_members_epoch() -> None:
    bench = Bench()
    check = bench.group.check_commit
    assert check("", None, -1, bench.now_s) is None
    (a,) = joined(bench, "a", instance_id="one")
    assert check("a", None, a.epoch, bench.now_s) is None
    assert isinstance(check("a", None, 7, bench.now_s), StaleMemberEpoch)
    assert isinstance(check("b", None, a.epoch, bench.now_s), UnknownMemberId)
    assert isinstance(check("", None, -1, bench.now_s), UnknownMemberId)
    assert isinstance(check("b", "one", a.epoch, bench.now_s), FencedInstanceId)


def test_offsets_are_read_by_anyone_who_claims_nothing() -> None:
    bench = Bench()
    (a,) = joined(bench, "a")
    assert bench.group.check_fetch(None, -1) is None
    assert bench.group.check_fetch("a", a.epoch) is None
    assert isinstance(bench.group.check_fetch("a", 7), StaleMemberEpoch)
    assert isinstance(bench.group.check_fetch("b", 1), UnknownMemberId)


# What is kept.


def test_a_snapshot_repeats_members_that_did_not_change() -> None:
    bench = Bench()
    a = joined(bench, "a", "b")[0]
    first = bench.group.snapshot()
    a.beat(rack_id="r1")
    second = bench.group.snapshot()
    assert second.members[1] is first.members[1]
    assert second.members[0] == first.members[0]._replace(rack_id="r1")


def test_describe_shows_what_each_owns_and_is_to_own() -> None:
    bench = Bench()
    (a,) = joined(bench, "a")
    b = Client(bench, "b", "orders")
    b.beat()
    phase, group = bench.group.describe()
    assert phase is ConsumerGroupPhase.RECONCILING
    assert [len(pairs(m.assigned)) for m in group.members] == [6, 0]
    assert [len(pairs(m.target)) for m in group.members] == [3, 3]
    assert a.epoch == 1


def test_member_ids_that_the_broker_makes_differ() -> None:
    bench = Bench()
    group = ConsumerGroupState(GROUP, SETTINGS, 0)
    request = Client(bench, "", "orders").request()
    ids = {group.heartbeat(request, 0, bench.topics, 0.0, 0)[-1].result.member_id for _ in "abc"}
    assert len(ids) == 3
    assert all(len(member_id) == 22 for member_id in ids)
