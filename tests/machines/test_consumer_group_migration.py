"""Groups that change their protocol while their members work (KIP-848)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.machines.classic_member_support import (
    ClassicClient,
    assignment,
    subscription,
)
from tests.machines.consumer_group_support import (
    GROUP,
    SETTINGS,
    Bench,
    Client,
    FakeTopics,
    settle,
    sizes,
)
from trioq.coordinator.consumer_requests import MigrationPolicy
from trioq.coordinator.effects import Answer, Convert, Persist
from trioq.coordinator.group_phases import GroupPhase
from trioq.coordinator.group_requests import (
    GroupSettings,
    JoinResult,
    LeavingMember,
    SyncRequest,
)
from trioq.coordinator.group_state import GroupState
from trioq.coordinator.migration import upgrade
from trioq.errors import (
    FencedInstanceId,
    GroupIdNotFound,
    GroupMaxSizeReached,
    IllegalGeneration,
    InconsistentGroupProtocol,
    InvalidRequest,
    InvalidSessionTimeout,
    RebalanceInProgress,
    UnknownMemberId,
)
from trioq.metastore.group_layout import ClassicGroup, ClassicMember


def classic_member(name: str, *partitions: int, instance_id: str | None = None) -> ClassicMember:
    metadata = subscription("orders")
    return ClassicMember(
        name, instance_id, "client", "/127.0.0.1", 60_000, 30_000,
        (("cooperative-sticky", metadata), ("shared", metadata)),
        assignment(*(("orders", p) for p in partitions)),
    )  # fmt: skip


def classic_group(*members: ClassicMember, **changes: Any) -> ClassicGroup:
    return ClassicGroup(
        GROUP, "consumer", 7, "shared", members[0].member_id if members else None,
        "Stable" if members else "Empty", 0, members,
    )._replace(**changes)  # fmt: skip


def upgraded(bench: Bench, client: Client, *members: ClassicMember, **changes: Any) -> Any:
    """The answer to the first heartbeat; the bench goes on with the new machine."""
    kept = classic_group(*members, **changes)
    classic = GroupState.restore(kept, GroupSettings(), bench.now_s)
    state, effects = upgrade(
        classic, client.request(), client, bench.topics, bench.settings, bench.now_s, bench.now_ms,
        make_member_id=bench.new_id,
    )  # fmt: skip
    if state is not None:
        bench.group = state
        assert effects[-2] == Persist()
    result = effects[-1].result
    client.take(result)
    return result


def mixed(bench: Bench, *, eager: bool = False) -> tuple[Client, ClassicClient]:
    """A settled group of one member of each protocol."""
    client = Client(bench, "new", "orders")
    client.beat()
    classic = ClassicClient(bench, "", "orders", eager=eager)
    for _ in range(6):
        classic.beat()
        client.beat()
    return client, classic


# Upgrade.


def test_a_rolling_upgrade_moves_partitions_one_client_after_the_other() -> None:
    bench = Bench()
    old = [ClassicClient(bench, name, "orders") for name in ("a", "b")]
    for client, partitions in zip(old, ((0, 1, 2), (3, 4, 5)), strict=True):
        client.owned = {("orders", p) for p in partitions}
        client.generation, client.must_join = 7, False
        client.joined_protocol = "shared"
    first = Client(bench, "x", "orders")
    result = upgraded(bench, first, classic_member("a", 0, 1, 2), classic_member("b", 3, 4, 5))
    assert (result.member_epoch, result.assignment) == (8, {})
    assert isinstance(old[0].beat(), RebalanceInProgress | None)
    everyone = [first, *old]
    settle(everyone)
    assert sizes(everyone) == [2, 2, 2]
    assert {client.generation for client in old} == {8}

    bench.group.classic_leave([LeavingMember("a")], bench.now_ms)
    second = Client(bench, "y", "orders")
    settle([first, second, old[1]])
    assert sizes([first, second, old[1]]) == [2, 2, 2]
    bench.group.classic_leave([LeavingMember("b")], bench.now_ms)
    settle([first, second])
    assert sizes([first, second]) == [3, 3]


def test_who_waits_for_the_classic_group_is_told_to_join_again() -> None:
    bench = Bench()
    classic = GroupState(GROUP, GroupSettings(initial_rebalance_delay_ms=3_000), 0)
    member = ClassicClient(bench, "", "orders")
    request = member.request(requires_known_member_id=False)
    assert classic.join(request, "parked", 0.0, 0) == []
    client = Client(bench, "x", "orders")
    state, effects = upgrade(classic, client.request(), "new", bench.topics, SETTINGS, 0.0, 0)
    assert state is not None
    first, persist, last = effects
    assert isinstance(first, Answer)
    assert first.waiter == "parked"
    assert isinstance(first.result, RebalanceInProgress)
    assert persist == Persist()
    assert isinstance(last, Answer)
    assert last.waiter == "new"


def test_an_empty_classic_group_becomes_one_of_the_consumer_protocol_whatever_it_was() -> None:
    bench = Bench(settings=SETTINGS._replace(migration_policy=MigrationPolicy.DISABLED))
    client = Client(bench, "x", "orders")
    result = upgraded(bench, client, protocol_type="connect", protocol=None)
    assert result.member_epoch == 8
    assert len(client.owned) == 6


@pytest.mark.parametrize(
    ("changes", "settings"),
    [
        ({}, {"migration_policy": MigrationPolicy.DISABLED}),
        ({}, {"migration_policy": MigrationPolicy.DOWNGRADE}),
        ({"protocol_type": "connect"}, {}),
        ({}, {"max_size": 0}),
    ],
)
def test_what_cannot_be_upgraded(changes: dict[str, Any], settings: dict[str, Any]) -> None:
    bench = Bench(settings=SETTINGS._replace(**settings))
    client = Client(bench, "x", "orders")
    assert isinstance(upgraded(bench, client, classic_member("a", 0), **changes), GroupIdNotFound)
    assert bench.group.is_empty


def test_metadata_of_something_else_cannot_be_upgraded() -> None:
    bench = Bench()
    member = classic_member("a", 0)._replace(protocols=(("shared", b"\0"),))
    answer = upgraded(bench, Client(bench, "x", "orders"), member)
    assert isinstance(answer, GroupIdNotFound)
    assert "not a consumer's" in str(answer)


def test_a_refused_heartbeat_leaves_the_group_classic() -> None:
    bench = Bench()
    client = Client(bench, "x", "orders")
    client.member_id = ""
    client.epoch = 3
    assert isinstance(upgraded(bench, client, classic_member("a", 0)), UnknownMemberId)
    client.instance_id = ""
    assert isinstance(upgraded(bench, client, classic_member("a", 0)), InvalidRequest)
    assert bench.group.is_empty


def test_a_plan_that_gave_a_partition_twice_is_upgraded_to_one_owner() -> None:
    bench = Bench()
    client = Client(bench, "x", "orders")
    upgraded(bench, client, classic_member("a", 0, 1), classic_member("b", 1, 2))
    a, b, _ = bench.group.snapshot().members
    assert bench.topics.by_name(a.assigned) == {"orders": [0, 1]}
    assert bench.topics.by_name(b.assigned) == {"orders": [2]}


def test_a_static_member_changes_its_protocol_with_its_partitions() -> None:
    bench = Bench()
    client = Client(bench, "x", "orders", instance_id="one")
    result = upgraded(
        bench, client,
        classic_member("a", 0, 1, 2, instance_id="one"), classic_member("b", 3, 4, 5),
    )  # fmt: skip
    assert result.member_epoch == 7
    assert client.assignment == {"orders": [0, 1, 2]}
    assert bench.group.classic_heartbeat("b", None, 7, bench.now_s) is None
    assert isinstance(bench.group.classic_heartbeat("a", "one", 7, bench.now_s), FencedInstanceId)


# Classic members in a group of the consumer protocol.


def test_a_cooperative_member_gives_up_and_then_gets_on() -> None:
    bench = Bench()
    classic = ClassicClient(bench, "a", "orders")
    classic.owned, classic.generation = {("orders", p) for p in range(6)}, 7
    classic.joined_protocol, classic.must_join = "shared", False
    client = Client(bench, "x", "orders")
    upgraded(bench, client, classic_member("a", *range(6)))

    error = bench.group.classic_heartbeat("a", None, 7, bench.now_s)
    assert isinstance(error, RebalanceInProgress)
    result = classic.join()
    assert isinstance(result, JoinResult)
    assert (result.generation, result.leader, result.members) == (7, "", ())
    assert classic.sync().protocol == result.protocol == "cooperative-sticky"
    assert len(classic.owned) == 3
    assert classic.must_join  # to say what it gave up
    assert client.beat().assignment is None
    assert classic.join().generation == 8
    classic.sync()
    assert len(classic.owned) == 3
    assert bench.group.classic_heartbeat("a", None, 8, bench.now_s) is None
    client.beat()
    assert len(client.owned) == 3


def test_an_eager_member_gets_on_at_once() -> None:
    bench = Bench()
    client, classic = mixed(bench, eager=True)
    assert sizes([client, classic]) == [3, 3]
    other = Client(bench, "other", "orders")
    other.beat()
    assert isinstance(
        bench.group.classic_heartbeat(classic.member_id, None, classic.generation, bench.now_s),
        RebalanceInProgress,
    )
    assert classic.join().generation == bench.group.group_epoch
    classic.sync()
    assert len(classic.owned) == 2


def test_a_classic_member_joins_again_once_all_it_waits_for_is_free() -> None:
    bench = Bench()
    client = Client(bench, "x", "orders", lazy=True)
    client.beat()
    classic = ClassicClient(bench, "", "orders")
    classic.beat()
    assert classic.owned == set()
    client.beat()
    assert classic.beat() is None
    assert not classic.must_join
    client.revoke()
    client.beat()
    assert isinstance(
        bench.group.classic_heartbeat(classic.member_id, None, classic.generation, bench.now_s),
        RebalanceInProgress,
    )
    classic.beat()
    assert len(classic.owned) == 3


def test_a_new_classic_member_is_told_its_id_first() -> None:
    bench = Bench()
    Client(bench, "x", "orders").beat()
    classic = ClassicClient(bench, "", "orders")
    assert classic.join().member_id == "generated-1"
    old = ClassicClient(bench, "", "orders")
    assert old.join(requires_known_member_id=False).member_id == "generated-2"


def test_rejoining_for_no_reason_changes_nothing() -> None:
    bench = Bench()
    _, classic = mixed(bench)
    classic.join()  # with metadata that says what it owns by now
    writes, snapshot = bench.writes, bench.group.snapshot()
    classic.join()
    assert bench.writes == writes
    assert bench.group.snapshot() == snapshot


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"protocol_type": "connect"}, InconsistentGroupProtocol),
        ({"protocols": ()}, InconsistentGroupProtocol),
        ({"protocols": (("other", subscription("orders")),)}, InconsistentGroupProtocol),
        ({"protocols": (("shared", b"junk"),)}, InconsistentGroupProtocol),
        ({"session_timeout_ms": 5}, InvalidSessionTimeout),
        ({"session_timeout_ms": 10**9}, InvalidSessionTimeout),
        ({"instance_id": "who"}, UnknownMemberId),
    ],
)
def test_what_a_join_must_not_say(changes: dict[str, Any], error: type[Exception]) -> None:
    bench = Bench()
    mixed(bench)
    before = bench.group.snapshot()
    effects = ClassicClient(bench, "c", "orders").join_effects(**changes)
    (answer,) = effects
    assert isinstance(answer, Answer)
    assert isinstance(answer.result, error)
    assert bench.group.snapshot() == before


def test_a_full_group_takes_no_classic_member_either() -> None:
    bench = Bench(settings=SETTINGS._replace(max_size=2))
    mixed(bench)
    assert isinstance(ClassicClient(bench, "c", "orders").join(), GroupMaxSizeReached)


def test_what_a_sync_and_a_heartbeat_must_not_say() -> None:
    bench = Bench()
    client, classic = mixed(bench)

    def sync(**changes: Any) -> Any:
        request = SyncRequest(classic.generation, classic.member_id)._replace(**changes)
        return bench.group.classic_sync(request, 0, bench.topics, bench.now_s)[0].result

    assert sync().protocol == "cooperative-sticky"
    assert isinstance(sync(generation=99), IllegalGeneration)
    assert isinstance(sync(member_id="who"), UnknownMemberId)
    assert isinstance(sync(member_id=client.member_id), UnknownMemberId)
    assert isinstance(sync(protocol="range"), InconsistentGroupProtocol)
    assert isinstance(sync(protocol_type="connect"), InconsistentGroupProtocol)
    beat = bench.group.classic_heartbeat
    assert isinstance(beat(classic.member_id, None, 99, bench.now_s), IllegalGeneration)
    assert isinstance(beat(client.member_id, None, 1, bench.now_s), UnknownMemberId)
    check = bench.group.check_commit
    assert check(classic.member_id, None, classic.generation, bench.now_s) is None
    assert isinstance(check(classic.member_id, None, 99, bench.now_s), IllegalGeneration)


def test_a_sync_that_comes_too_late_is_told_to_join_again() -> None:
    bench = Bench()
    Client(bench, "x", "orders").beat()
    classic = ClassicClient(bench, "", "orders")
    classic.join()
    Client(bench, "y", "orders").beat()
    assert isinstance(classic.sync(), RebalanceInProgress)


@pytest.mark.parametrize("step", ["heartbeat", "join", "sync"])
def test_a_classic_member_that_does_not_go_on_is_removed(step: str) -> None:
    bench = Bench()
    client, classic = mixed(bench)
    other = Client(bench, "other", "orders")
    if step != "heartbeat":
        other.beat()
        beat = bench.group.classic_heartbeat
        assert beat(classic.member_id, None, classic.generation, bench.now_s) is not None
        if step == "sync":
            classic.join()
    waited = 0.0
    while bench.group.check_fetch(classic.member_id, classic.generation) is None:
        bench.pass_time(10)
        waited += 10
        if step != "heartbeat":
            beat(classic.member_id, None, classic.generation, bench.now_s)
        client.beat()
        assert waited <= 60
    assert waited == {"heartbeat": 30, "join": 60, "sync": 60}[step]


def test_a_classic_member_that_rejoins_without_giving_up_is_removed() -> None:
    bench = Bench()
    classic = ClassicClient(bench, "a", "orders")
    classic.owned, classic.generation = {("orders", p) for p in range(6)}, 7
    client = Client(bench, "x", "orders")
    upgraded(bench, client, classic_member("a", *range(6)))
    everything = set(classic.owned)
    for _ in range(6):
        classic.join()
        classic.sync()
        classic.owned = set(everything)
        client.beat()
        bench.pass_time(10.1)
    client.beat()
    assert len(client.owned) == 6


def test_classic_members_leave_by_id_or_by_instance_id() -> None:
    bench = Bench()
    client, classic = mixed(bench)
    static = ClassicClient(bench, "", "orders", instance_id="one")
    static.beat()
    results, effects = bench.group.classic_leave(
        [
            LeavingMember("who"),
            LeavingMember("wrong", "one"),
            LeavingMember("", "one"),
            LeavingMember(classic.member_id),
            LeavingMember("", "none"),
        ],
        bench.now_ms,
    )
    assert [type(result.error) for result in results] == [
        UnknownMemberId, FencedInstanceId, type(None), type(None), UnknownMemberId
    ]  # fmt: skip
    assert effects == [Persist()]
    settle([client])
    assert len(client.owned) == 6
    assert bench.group.classic_leave([LeavingMember("who")], bench.now_ms)[1] == []


def test_tools_remove_members_of_the_consumer_protocol_too() -> None:
    """As removeMembersFromConsumerGroup of Java's Admin does."""
    bench = Bench()
    removed = Client(bench, "x", "orders", instance_id="one")
    dynamic = Client(bench, "y", "orders")
    stays = Client(bench, "z", "orders")
    settle([removed, dynamic, stays])
    results, effects = bench.group.classic_leave(
        [LeavingMember("", "one"), LeavingMember(dynamic.member_id)], bench.now_ms
    )
    assert [result.error for result in results] == [None, None]
    assert effects == [Persist()]
    settle([stays])
    assert len(stays.owned) == 6
    assert isinstance(bench.group.check_commit("x", "one", 3, bench.now_s), UnknownMemberId)


def test_a_static_classic_member_restarts_in_its_place() -> None:
    bench = Bench()
    client = Client(bench, "x", "orders")
    client.beat()
    static = ClassicClient(bench, "", "orders", instance_id="one")
    settle([static, client])
    epoch, had = bench.group.group_epoch, set(static.owned)
    again = ClassicClient(bench, "", "orders", instance_id="one")
    again.beat()
    assert again.owned == had
    assert bench.group.group_epoch == epoch
    error = bench.group.classic_heartbeat(static.member_id, "one", epoch, bench.now_s)
    assert isinstance(error, FencedInstanceId)


def test_a_classic_member_follows_its_subscription() -> None:
    bench = Bench(FakeTopics(orders=2, payments=2))
    client, classic = mixed(bench)
    classic.names = ("payments",)
    classic.must_join = True
    settle([classic, client])
    assert classic.owned == {("payments", 0), ("payments", 1)}
    assert client.assignment == {"orders": [0, 1]}


def test_a_restart_keeps_classic_members() -> None:
    bench = Bench()
    client, classic = mixed(bench)
    bench.pass_time(20)
    bench.restart()
    assert bench.pass_time(29) == []
    assert classic.beat() is None
    client.beat()
    assert sizes([client, classic]) == [3, 3]


# Downgrade.


def test_the_last_new_member_leaves_and_the_classic_ones_go_on_as_a_classic_group() -> None:
    bench = Bench()
    client, classic = mixed(bench)
    effects = bench.group.heartbeat(
        client.request(member_epoch=-1), "w", bench.topics, bench.now_s, bench.now_ms
    )
    convert, persist, answer = effects
    assert isinstance(convert, Convert)
    assert persist == Persist()
    assert isinstance(answer, Answer)
    assert answer.result.member_epoch == -1

    group = GroupState.restore(convert.group, GroupSettings(), bench.now_s)
    assert group.phase is GroupPhase.PREPARING_REBALANCE
    member_id = classic.member_id
    assert isinstance(
        group.heartbeat(member_id, None, group.generation, bench.now_s), RebalanceInProgress
    )
    effects = group.join(classic.request(), "w", bench.now_s, bench.now_ms)
    result = effects[-1].result
    assert isinstance(result, JoinResult)
    assert result.generation == group.generation > classic.generation
    assert result.leader == member_id
    plan = {member_id: assignment(("orders", 0))}
    sync = SyncRequest(result.generation, member_id, assignments=plan)
    effects = group.sync(sync, "w", bench.now_s, bench.now_ms)
    assert effects[-1].result.assignment == plan[member_id]
    assert group.phase is GroupPhase.STABLE


def test_the_last_new_member_is_silent_for_too_long() -> None:
    bench = Bench()
    _, classic = mixed(bench)
    bench.pass_time(20)
    assert classic.beat() is None
    bench.pass_time(24)
    assert classic.beat() is None
    effects = bench.pass_time(2)
    assert isinstance(effects[0], Convert)
    assert [m.member_id for m in effects[0].group.members] == [classic.member_id]


@pytest.mark.parametrize(
    "settings",
    [
        {"migration_policy": MigrationPolicy.UPGRADE},
        {"migration_policy": MigrationPolicy.DISABLED},
        {"classic_max_size": 0},
    ],
)
def test_what_is_not_downgraded(settings: dict[str, Any]) -> None:
    bench = Bench(settings=SETTINGS._replace(**settings))
    client, classic = mixed(bench)
    client.leave()
    settle([classic])
    assert len(classic.owned) == 6


def test_a_group_with_another_new_member_is_not_downgraded() -> None:
    bench = Bench()
    client, classic = mixed(bench)
    other = Client(bench, "other", "orders")
    settle([other, client, classic])
    client.leave()
    settle([other, classic])
    assert sizes([other, classic]) == [3, 3]


def test_a_classic_member_takes_the_place_of_the_last_new_one() -> None:
    bench = Bench()
    client, classic = mixed(bench)
    static = Client(bench, "s", "orders", instance_id="one")
    settle([static, classic, client])
    client.leave()
    settle([static, classic])
    again = ClassicClient(bench, "", "orders", instance_id="one")
    convert, persist = again.join_effects()
    assert isinstance(convert, Convert)
    assert persist == Persist()
    assert convert.join is not None
    request, waiter = convert.join
    assert waiter is again
    group = GroupState.restore(convert.group, GroupSettings(), bench.now_s)
    assert group.join(request, waiter, bench.now_s, bench.now_ms) == []
    effects = group.join(classic.request(), "w", bench.now_s, bench.now_ms)
    assert {effect.waiter for effect in effects if isinstance(effect, Answer)} == {again, "w"}


def test_a_group_without_members_takes_the_protocol_of_who_comes() -> None:
    bench = Bench()
    client = Client(bench, "x", "orders")
    client.beat()
    client.leave()
    classic = ClassicClient(bench, "", "orders")
    (convert,) = classic.join_effects()
    assert isinstance(convert, Convert)
    assert convert.group == ClassicGroup(
        GROUP, None, 2, None, None, "Empty", bench.group.state_since_ms
    )
    assert convert.join == (classic.request(), classic)
