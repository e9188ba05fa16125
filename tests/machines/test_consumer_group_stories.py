"""What happens in a consumer group, step by step, with each message in its order (KIP-848)."""

from __future__ import annotations

from tests.machines.consumer_group_support import Bench, Client, FakeTopics, settle, sizes
from trioq.coordinator.consumer_requests import ConsumerGroupPhase
from trioq.coordinator.effects import Persist
from trioq.errors import UnknownMemberId


def test_a_second_member_joins_and_gets_partitions_only_after_their_revocation() -> None:
    bench = Bench(FakeTopics(orders=4))
    a = Client(bench, "a", "orders", lazy=True)
    a.beat()
    assert a.assignment == {"orders": [0, 1, 2, 3]}

    b = Client(bench, "b", "orders")
    result = b.beat()  # at the new epoch at once, but with nothing yet
    assert (result.member_epoch, result.assignment) == (2, {})
    assert bench.group.phase is ConsumerGroupPhase.RECONCILING

    result = a.beat()  # told at its old epoch what it may keep
    assert result.member_epoch == 1
    kept = {p for numbers in result.assignment.values() for p in numbers}
    assert len(kept) == 2
    assert b.beat().assignment is None
    assert a.beat().assignment is None  # still busy; says nothing of what it owns

    a.revoke()
    assert b.beat().assignment is None  # a has not said so yet
    result = a.beat()
    assert (result.member_epoch, result.assignment) == (2, None)
    result = b.beat()
    assert result.member_epoch == 2
    assert {p for numbers in result.assignment.values() for p in numbers} == {0, 1, 2, 3} - kept
    assert bench.group.phase is ConsumerGroupPhase.STABLE


def test_a_member_leaves() -> None:
    bench = Bench()
    clients = a, b, c = [Client(bench, name, "orders") for name in "abc"]
    settle(clients)
    epoch = bench.group.group_epoch
    kept = set(b.owned)
    assert a.leave().member_epoch == -1
    result = b.beat()
    assert result.member_epoch == epoch + 1
    assert kept < b.owned
    c.beat()
    assert sizes((b, c)) == [3, 3]
    assert bench.group.phase is ConsumerGroupPhase.STABLE


def test_a_member_crashes_and_comes_back() -> None:
    bench = Bench()
    a, b = clients = [Client(bench, name, "orders") for name in "ab"]
    settle(clients)
    for _ in range(8):
        bench.pass_time(5)
        b.beat()
    assert len(b.owned) == 3
    assert bench.pass_time(5) == [Persist()]
    b.beat()
    assert len(b.owned) == 6
    assert isinstance(a.beat(), UnknownMemberId)
    a.beat()
    settle(clients)
    assert sizes(clients) == [3, 3]


def test_static_members_restart_one_after_the_other_without_a_rebalance() -> None:
    bench = Bench()
    clients = [Client(bench, f"{i}-1", "orders", instance_id=f"i{i}") for i in range(3)]
    settle(clients)
    epoch = bench.group.group_epoch
    had = {client.instance_id: set(client.owned) for client in clients}
    for index, client in enumerate(clients):
        client.leave(-2)
        bench.pass_time(20)
        for other in clients[:index] + clients[index + 1 :]:
            assert other.beat().assignment is None
        clients[index] = Client(bench, f"{index}-2", "orders", instance_id=client.instance_id)
        clients[index].beat()
    assert {client.instance_id: client.owned for client in clients} == had
    assert bench.group.group_epoch == epoch


def test_the_target_changes_while_a_member_is_still_revoking() -> None:
    bench = Bench(FakeTopics(orders=6))
    a = Client(bench, "a", "orders", lazy=True)
    a.beat()
    b, c = Client(bench, "b", "orders"), Client(bench, "c", "orders")
    b.beat()
    a.beat()
    c.beat()
    a.beat()
    assert len(a.owned - a.to_revoke) == 3
    a.revoke()
    assert a.beat().member_epoch == 2  # one epoch on, with more to give up
    assert len(a.owned - a.to_revoke) == 2
    b.beat()
    c.beat()
    assert len(b.owned) + len(c.owned) == 3
    a.revoke()
    settle((a, b, c))
    assert sizes((a, b, c)) == [2, 2, 2]
    assert {client.epoch for client in (a, b, c)} == {3}


def test_the_broker_restarts_in_the_middle_of_a_rebalance() -> None:
    bench = Bench()
    a = Client(bench, "a", "orders", lazy=True)
    a.beat()
    b = Client(bench, "b", "orders")
    b.beat()
    a.beat()
    bench.restart()
    assert b.beat().assignment is None
    a.revoke()
    bench.restart()
    a.beat()
    bench.restart()
    settle((a, b))
    assert sizes((a, b)) == [3, 3]
    assert bench.group.group_epoch == 2
