"""What a leader does with the fetches of followers, from their bytes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.unit.replica_fetch_support import (
    EPOCHS,
    TOPIC,
    Leader,
    fetch,
    fetch_request,
    fetched,
    partitions_of,
)
from tests.unit.storage_support import NOW_MS, batch, headers
from tests.unit.test_replication_partition import Waiter
from trioq.config import TopicConfig
from trioq.errors import (
    CorruptMessage,
    FencedLeaderEpoch,
    FetchSessionIdNotFound,
    KafkaError,
    NotEnoughReplicas,
    NotLeaderOrFollower,
    OffsetNotAvailable,
    OffsetOutOfRange,
    ReplicaNotAvailable,
    RequestTimedOut,
    StaleBrokerEpoch,
    UnknownLeaderEpoch,
)
from trioq.server.replica_fetch import HOLD_S, replica_of
from trioq.wire.api_keys import ApiKey
from trioq.wire.messages.list_offsets import (
    ListOffsetsRequest,
    ListOffsetsRequestPartition,
    ListOffsetsRequestTopic,
    ListOffsetsResponse,
)
from trioq.wire.messages.offset_for_leader_epoch import (
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochRequestPartition,
    OffsetForLeaderEpochRequestTopic,
    OffsetForLeaderEpochResponse,
)
from trioq.wire.messages.produce import (
    ProduceRequest,
    ProduceRequestPartition,
    ProduceRequestTopic,
    ProduceResponse,
)

RACK_AWARE = "org.apache.kafka.common.replica.RackAwareReplicaSelector"


@pytest.fixture
def lead() -> Iterator[Callable[..., Leader]]:
    """Makes leaders, which end with the test."""
    made: list[Leader] = []

    def make(**options: Any) -> Leader:
        made.append(Leader(**options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def leader(lead: Callable[..., Leader]) -> Leader:
    return lead()


def get(leader: Leader, replica: int, positions: dict[int, int], **options: object):
    fetch(leader, replica, positions, **options)
    return partitions_of(fetched(leader, replica, options.get("version", 16)))


def error_of(leader: Leader, replica: int, offset: int, **options: object) -> int:
    return get(leader, replica, {0: offset}, **options)[0].error_code


@pytest.mark.parametrize("version", [15, 16])
def test_followers_read_to_the_end_and_what_they_state_moves_the_high_watermark(
    leader: Leader, version: int
) -> None:
    waiter = Waiter()
    leader.append(b"a", b"b", waiter=waiter)
    answer = get(leader, 2, {0: 0}, version=version)[0]
    assert answer.error_code == 0
    assert (answer.high_watermark, headers(bytes(answer.records))[0].next_offset) == (0, 2)
    fetch(leader, 2, {0: 2}, version=version)
    assert fetched(leader, 2, version) is None
    assert waiter.told == []
    fetch(leader, 3, {0: 2}, version=version)
    assert leader.partitions[0].log.high_watermark == 2
    assert waiter.told == [(0, None)]
    assert leader.lane_took == 0


@pytest.mark.parametrize("version", range(4, 15))
def test_rule_6_a_member_that_states_no_broker_epoch_is_refused(
    leader: Leader, version: int
) -> None:
    leader.append()
    assert error_of(leader, 2, 1, version=version) == StaleBrokerEpoch.code
    assert leader.lane_took == 0


def test_a_parked_follower_is_woken_by_what_is_written_not_by_the_high_watermark(
    leader: Leader,
) -> None:
    leader.append(b"a")
    fetch(leader, 2, {0: 1})
    assert fetched(leader, 2) is None
    fetch(leader, 3, {0: 1})
    assert leader.partitions[0].log.high_watermark == 1
    assert fetched(leader, 2) is None
    leader.append(b"b")
    answer = partitions_of(fetched(leader, 2))[0]
    assert (answer.high_watermark, answer.log_start_offset) == (1, 0)
    assert headers(bytes(answer.records))[0].base_offset == 1
    assert partitions_of(fetched(leader, 3))[0].records


def test_a_parked_follower_is_woken_when_the_log_ends_again_where_it_did_in_an_earlier_term(
    leader: Leader,
) -> None:
    partition, log = leader.partitions[0], leader.partitions[0].log
    fetch(leader, 3, {0: 0}, session=(0, 0))  # its session goes on listening
    leader.append(b"never copied")
    fetched(leader, 3)
    following = leader.state._replace(leader=2, leader_epoch=6, partition_epoch=1)
    partition.apply_state(following)
    log.truncate_to(0)
    partition.apply_state(following._replace(leader=1, leader_epoch=7, partition_epoch=2))
    fetch(leader, 2, {0: 0}, session=(0, 0), leader_epoch=7)
    leader.append(b"of the new term")
    leader.end_pass()
    answer = fetched(leader, 2)
    assert answer is not None
    assert partitions_of(answer)[0].records


def test_a_parked_follower_gets_all_that_a_pass_wrote_in_one_answer(
    lead: Callable[..., Leader],
) -> None:
    leader = lead(partitions=3)
    for replica in (2, 3):
        fetch(leader, replica, {0: 0, 1: 0, 2: 0}, session=(0, 0), wait_ms=0)
        session = fetched(leader, replica).session_id
        fetch(leader, replica, {}, session=(session, 1))
    for number in (0, 2):
        leader.append(number=number, is_written=False)
    leader.end_pass()
    for replica in (2, 3):
        answer = partitions_of(fetched(leader, replica))
        assert {number for number, one in answer.items() if one.records} == {0, 2}
    leader.end_pass()


def in_session(leader: Leader, *replicas: int) -> dict[int, int]:
    """Each follows partition 0 from its start, and waits for more; the ids of their sessions."""
    sessions = {}
    for replica in replicas:
        fetch(leader, replica, {0: 0}, session=(0, 0), wait_ms=0)
        sessions[replica] = fetched(leader, replica).session_id
        fetch(leader, replica, {}, session=(sessions[replica], 1))
        assert fetched(leader, replica) is None
    return sessions


def test_followers_are_answered_when_nothing_more_is_to_be_received(leader: Leader) -> None:
    in_session(leader, 2, 3)
    assert not leader.ctx.replica_fetches.is_holding
    for _ in range(3):
        leader.append(is_written=False)
        leader.end_pass(is_last=False)
        assert leader.ctx.replica_fetches.is_holding
        assert fetched(leader, 2) is None
    leader.end_pass()
    assert not leader.ctx.replica_fetches.is_holding
    for replica in (2, 3):
        records = partitions_of(fetched(leader, replica))[0].records
        assert [one.base_offset for one in headers(bytes(records))] == [0, 1, 2]


def test_followers_are_answered_in_time_however_much_there_is_to_receive(leader: Leader) -> None:
    in_session(leader, 2)
    leader.append(is_written=False)
    leader.end_pass(is_last=False)
    leader.wait(HOLD_S / 2)
    leader.end_pass(is_last=False)
    assert fetched(leader, 2) is None
    leader.wait(HOLD_S)
    leader.end_pass(is_last=False)
    assert partitions_of(fetched(leader, 2))[0].records


def test_a_follower_that_comes_for_what_is_there_counts_at_once_and_is_answered_with_the_others(
    leader: Leader,
) -> None:
    sessions = in_session(leader, 2, 3)
    waiter = Waiter()
    leader.append(waiter=waiter, is_written=False)
    leader.end_pass()
    for replica in (2, 3):
        assert partitions_of(fetched(leader, replica))[0].records
    leader.append(is_written=False)
    leader.end_pass(is_last=False)
    for replica in (2, 3):
        fetch(leader, replica, {0: 1}, session=(sessions[replica], 2))
        assert fetched(leader, replica) is None
    assert waiter.told == [(0, None)]
    leader.end_pass()
    for replica in (2, 3):
        answer = partitions_of(fetched(leader, replica))[0]
        assert (answer.high_watermark, headers(bytes(answer.records))[0].base_offset) == (1, 1)


def test_a_parked_follower_is_answered_when_its_time_is_over(leader: Leader) -> None:
    fetch(leader, 2, {0: 0}, wait_ms=500)
    leader.wait(0.4)
    assert fetched(leader, 2) is None
    leader.wait(0.11)
    assert not partitions_of(fetched(leader, 2))[0].records


def test_a_session_tells_what_moved_and_restates_nothing_else(lead: Callable[..., Leader]) -> None:
    leader = lead(partitions=3)
    fetch(leader, 2, {0: 0, 1: 0, 2: 0}, session=(0, 0), wait_ms=0)
    first = fetched(leader, 2)
    assert set(partitions_of(first)) == {0, 1, 2}
    session = first.session_id
    assert session
    fetch(leader, 2, {}, session=(session, 1))
    leader.append(b"a", number=1)
    assert set(partitions_of(fetched(leader, 2))) == {1}
    fetch(leader, 2, {1: 1}, session=(session, 2))
    assert fetched(leader, 2) is None
    fetch(leader, 3, {1: 1}, wait_ms=0)
    fetched(leader, 3)
    # The high watermark has moved: it is told with the next answer, whatever causes that.
    assert leader.partitions[1].log.high_watermark == 1
    leader.wait(0.6)
    told = partitions_of(fetched(leader, 2))
    assert {number: one.high_watermark for number, one in told.items()} == {1: 1}
    fetch(leader, 2, {}, session=(session, 3), forget=(1,))
    leader.append(b"b", number=1)
    assert fetched(leader, 2) is None
    leader.append(b"b", number=2)
    assert set(partitions_of(fetched(leader, 2))) == {2}


def test_an_idle_follower_is_told_of_a_log_start_that_retention_moved(
    lead: Callable[..., Leader],
) -> None:
    leader = lead(partitions=2, topic_config={"segment.ms": "1", "retention.bytes": "0"})
    for value in (b"a", b"b"):
        leader.append(value)
        leader.partitions[0].log.roll()
    get(leader, 2, {0: 2}, wait_ms=0)
    get(leader, 3, {0: 2}, wait_ms=0)
    assert leader.partitions[0].log.high_watermark == 2
    fetch(leader, 2, {0: 2, 1: 0}, session=(0, 0), wait_ms=0)
    session = fetched(leader, 2).session_id
    fetch(leader, 2, {}, session=(session, 1))
    fetch(leader, 3, {0: 2})
    assert leader.partitions[0].log.delete_retired_segments(NOW_MS) == 2
    assert fetched(leader, 2) is None, "it is not worth an answer of its own"
    assert fetched(leader, 3) is None
    leader.wait(0.6)
    for replica in (2, 3):
        told = partitions_of(fetched(leader, replica))
        assert {number: one.log_start_offset for number, one in told.items()} == {0: 2}
    fetch(leader, 2, {}, session=(session, 2))
    leader.wait(0.6)
    assert not partitions_of(fetched(leader, 2)), "it is told once"


def test_who_moves_the_high_watermark_is_told_of_it_too(leader: Leader) -> None:
    leader.append()
    sessions = {}
    for replica in (2, 3):
        fetch(leader, replica, {0: 0}, session=(0, 0))
        sessions[replica] = fetched(leader, replica).session_id
    for replica in (2, 3):
        fetch(leader, replica, {0: 1}, session=(sessions[replica], 1))
        assert fetched(leader, replica) is None
    leader.wait(0.6)
    for replica in (2, 3):
        assert partitions_of(fetched(leader, replica))[0].high_watermark == 1
        fetch(leader, replica, {}, session=(sessions[replica], 2))
    leader.wait(0.6)
    for replica in (2, 3):
        assert not partitions_of(fetched(leader, replica))


def test_a_consumer_does_not_go_on_with_a_followers_session(leader: Leader) -> None:
    fetch(leader, 2, {0: 0}, session=(0, 0), wait_ms=0)
    session = fetched(leader, 2).session_id
    fetch(leader, -1, {}, session=(session, 1), wait_ms=0)
    assert fetched(leader, -1).error_code == FetchSessionIdNotFound.code


def test_a_session_that_a_follower_has_left_behind_is_closed(leader: Leader) -> None:
    """It was killed, or has another leader: it would hear of each record for ever."""
    sessions = {}
    for replica in (2, 3):
        fetch(leader, replica, {0: 0}, session=(0, 0), wait_ms=0)
        sessions[replica] = fetched(leader, replica).session_id
    leader.clock.s += 119
    fetch(leader, 3, {}, session=(sessions[3], 1), wait_ms=0)
    assert fetched(leader, 3).error_code == 0
    leader.clock.s += 2
    fetch(leader, 2, {0: 0}, session=(0, 0), wait_ms=0)  # knows nothing of the one before
    assert fetched(leader, 2).session_id != sessions[2]
    assert len(leader.ctx.fetch_sessions) == len(leader.partitions[0]._replica_listeners) == 2
    fetch(leader, 3, {}, session=(sessions[3], 2), wait_ms=0)
    assert fetched(leader, 3).error_code == 0


def test_a_followers_session_has_room_where_consumers_have_taken_all(leader: Leader) -> None:
    ids = [open_session(leader, -1) for _ in range(11)]
    assert all(ids[:10])
    assert ids[10] == 0
    assert open_session(leader, 2)
    fetch(leader, -1, {}, session=(ids[0], 1), wait_ms=0)
    assert fetched(leader, -1).error_code == FetchSessionIdNotFound.code
    fetch(leader, -1, {}, session=(ids[1], 1), wait_ms=0)
    assert fetched(leader, -1).error_code == 0
    # Followers leave each other theirs.
    assert all(open_session(leader, 2) for _ in range(9))
    assert open_session(leader, 2) == 0


def open_session(leader: Leader, replica: int) -> int:
    fetch(leader, replica, {0: 0}, session=(0, 0), wait_ms=0)
    answer = fetched(leader, replica)
    assert answer is not None
    return answer.session_id


def test_who_left_the_isr_states_its_position_anew_even_if_it_rests(leader: Leader) -> None:
    fetch(leader, 2, {0: 0}, session=(0, 0), wait_ms=0)
    session = fetched(leader, 2).session_id
    fetch(leader, 2, {}, session=(session, 1), wait_ms=0)
    assert not partitions_of(fetched(leader, 2))
    partition = leader.partitions[0]
    assert partition.isr.end_of(2) == 0
    partition.apply_state(
        leader.state._replace(isr=(1, 3), broker_epochs=(10, 30), partition_epoch=1)
    )
    assert partition.isr.end_of(2) == -1
    fetch(leader, 2, {}, session=(session, 2), wait_ms=0)
    fetched(leader, 2)
    assert partition.isr.end_of(2) == 0


def test_who_waits_comes_in_again_when_the_leader_has_more_to_lead(leader: Leader) -> None:
    for replica in (2, 3):
        fetch(leader, replica, {0: 0}, wait_ms=500)
    assert leader.ctx.replica_fetches is not None
    leader.ctx.replica_fetches.hurry()
    assert fetched(leader, 2) is None
    leader.wait(0.05)
    assert not partitions_of(fetched(leader, 2))[0].records
    assert not partitions_of(fetched(leader, 3))[0].records
    # Whose image came late has its turn then.
    fetch(leader, 2, {0: 0}, wait_ms=500)
    leader.wait(0.05)
    assert fetched(leader, 2) is not None
    fetch(leader, 2, {0: 0}, wait_ms=500)
    leader.wait(0.3)
    assert fetched(leader, 2) is None


def test_rule_6_fetches_of_an_earlier_broker_epoch_are_refused(leader: Leader) -> None:
    leader.append()
    assert error_of(leader, 2, 1, epoch=EPOCHS[2] - 1) == StaleBrokerEpoch.code
    fetch(leader, 3, {0: 1})
    # It has registered again: it may fetch, but does not count until the ISR names that epoch.
    assert error_of(leader, 2, 1, epoch=EPOCHS[2] + 1, wait_ms=0) == 0
    assert leader.partitions[0].log.high_watermark == 0
    assert error_of(leader, 2, 1) == StaleBrokerEpoch.code


def test_rule_6_nothing_is_led_by_a_state_of_an_earlier_registration(
    lead: Callable[..., Leader],
) -> None:
    leader = lead()
    partition = leader.partitions[0]
    assert partition.is_leader
    term, waiter = partition.term, Waiter()
    leader.append(waiter=waiter)
    partition.use_broker_epoch(EPOCHS[1] + 1)
    assert not partition.is_leader
    assert not partition.is_follower
    assert partition.term != term
    assert waiter.told == [(0, NotLeaderOrFollower)]
    assert error_of(leader, 2, 0) == NotLeaderOrFollower.code
    partition.apply_state(
        leader.state._replace(broker_epochs=(11, 20, 30), leader_epoch=6, partition_epoch=1)
    )
    assert partition.is_leader


@pytest.mark.parametrize(
    ("replica", "offset", "options", "error"),
    [
        (2, 2, {}, OffsetOutOfRange),
        (2, -1, {}, OffsetOutOfRange),
        (2, 1, {"leader_epoch": 4}, FencedLeaderEpoch),
        (2, 1, {"leader_epoch": 6}, UnknownLeaderEpoch),
        (9, 1, {"epoch": 90}, ReplicaNotAvailable),
    ],
    ids=["beyond the end", "below the start", "old leader epoch", "new one", "no replica"],
)
def test_what_a_follower_may_not_ask(
    leader: Leader, replica: int, offset: int, options: dict[str, int], error: type[KafkaError]
) -> None:
    leader.append()
    assert error_of(leader, replica, offset, **options) == error.code
    assert leader.partitions[0].isr.end_of(replica) == -1


def test_who_diverges_is_told_where_and_its_position_does_not_count(leader: Leader) -> None:
    leader.append(b"a")
    partition = leader.partitions[0]
    partition.apply_state(leader.state._replace(leader_epoch=8, partition_epoch=1))
    leader.append(b"b")
    answer = get(leader, 2, {0: 2}, last_epoch=6)[0]
    assert answer.diverging_epoch is not None
    assert (answer.diverging_epoch.epoch, answer.diverging_epoch.end_offset) == (5, 1)
    assert partition.isr.end_of(2) == -1
    fetch(leader, 2, {0: 2}, last_epoch=8)
    assert partition.isr.end_of(2) == 2


def test_rule_10_demotion_answers_everybody_who_waits(leader: Leader) -> None:
    waiter = Waiter()
    leader.append(waiter=waiter)
    fetch(leader, 2, {0: 1})
    assert fetched(leader, 2) is None
    partition = leader.partitions[0]
    partition.apply_state(leader.state._replace(leader=2, leader_epoch=6, partition_epoch=1))
    assert waiter.told == [(0, NotLeaderOrFollower)]
    assert partitions_of(fetched(leader, 2))[0].error_code == NotLeaderOrFollower.code
    assert partition.is_follower
    assert (partition.leader_id, partition.leader_epoch) == (2, 6)
    assert partition.log.log_end_offset == 1


def test_rule_10_a_duplicate_waits_for_the_high_watermark_like_the_first_copy(
    leader: Leader,
) -> None:
    partition, told = leader.partitions[0], []
    for _ in range(2):
        data = memoryview(batch(b"a", producer=(5, 0, 0)))
        header = partition.check_batch(data)
        appended = partition.append_as_leader(data, header, acks=-1, now_ms=NOW_MS)
        waiter = Waiter()
        told.append(waiter.told)
        partition.await_acks(appended.last_offset + 1, -1, waiter, 0)
        leader.dirs.end_pass()
        assert appended.base_offset == 0
    assert told == [[], []]
    fetch(leader, 2, {0: 1})
    fetch(leader, 3, {0: 1})
    assert told == [[(0, None)], [(0, None)]]


def test_rule_2_with_flush_policy_commit_the_leader_counts_by_what_is_synced(
    lead: Callable[..., Leader],
) -> None:
    leader = lead(topic_config={"flush.policy": "commit"})
    waiter = Waiter()
    leader.append(waiter=waiter)
    log = leader.partitions[0].log
    fetch(leader, 2, {0: 1})
    fetch(leader, 3, {0: 1})
    assert (log.written_end_offset, log.synced_end_offset, log.high_watermark) == (1, 0, 0)
    assert waiter.told == []
    assert fetched(leader, 2) is None
    assert fetched(leader, 3) is None
    assert not any(one.is_closing for one in leader.connections.values())
    (log_dir,) = leader.dirs.dirs
    while log_dir.writer.run_round():
        pass
    assert log.high_watermark == 1
    assert waiter.told == [(0, None)]
    # A sync is nothing to read.
    assert fetched(leader, 2) is None


def test_rule_9_the_high_watermark_rests_while_too_few_are_in_sync(
    lead: Callable[..., Leader],
) -> None:
    leader = lead(isr=(1,), topic_config={"min.insync.replicas": "2"})
    leader.append()
    fetch(leader, 2, {0: 1})
    partition = leader.partitions[0]
    assert partition.log.high_watermark == 0
    partition.apply_state(
        leader.state._replace(isr=(1, 2), broker_epochs=(10, 20), partition_epoch=1)
    )
    assert partition.log.high_watermark == 1


def test_rule_9_a_lower_min_insync_moves_the_high_watermark_once_nobody_else_is_electable(
    lead: Callable[..., Leader],
) -> None:
    leader = lead(isr=(1,), topic_config={"min.insync.replicas": "2"})
    partition = leader.partitions[0]
    electable = leader.state._replace(elr=(2,), elr_epochs=(20,), partition_epoch=1)
    partition.apply_state(electable)
    leader.append()
    lower = TopicConfig.of(leader.config, {"min.insync.replicas": "1"})
    partition.apply_config(lower, leader.config)
    leader.append()
    # Replica 2, which lacks both, could be elected as this is written.
    assert partition.log.high_watermark == 0
    partition.apply_state(electable._replace(elr=(), elr_epochs=(), partition_epoch=2))
    assert partition.log.high_watermark == 2


def test_a_lower_min_insync_moves_the_high_watermark_at_once(lead: Callable[..., Leader]) -> None:
    leader = lead(isr=(1,), topic_config={"min.insync.replicas": "2"})
    leader.append()
    partition = leader.partitions[0]
    assert partition.log.high_watermark == 0
    partition.apply_config(TopicConfig.of(leader.config, {}), leader.config)
    assert partition.log.high_watermark == 1


def test_rule_11_a_new_leader_does_not_tell_an_end_that_an_older_one_may_have_exceeded(
    lead: Callable[..., Leader],
) -> None:
    leader = lead()
    leader.append(b"a", b"b")
    partition = leader.partitions[0]
    partition.apply_state(leader.state._replace(leader_epoch=7, partition_epoch=1))
    with pytest.raises(OffsetNotAvailable):
        partition.latest_offset(read_committed=False)
    assert list_offset(leader, -1) == (OffsetNotAvailable.code, -1)
    assert list_offset(leader, 2) == (0, 2)
    # Between high watermark and end there is nothing to read, and nothing wrong.
    answer = get(leader, -1, {0: 1}, wait_ms=0)[0]
    assert (answer.error_code, bytes(answer.records), answer.high_watermark) == (0, b"", 0)
    fetch(leader, 2, {0: 2})
    fetch(leader, 3, {0: 2})
    assert list_offset(leader, -1) == (0, 2)


def test_rule_11_records_are_deleted_below_the_high_watermark_only(leader: Leader) -> None:
    leader.append(b"a", b"b")
    with pytest.raises(OffsetOutOfRange):
        leader.partitions[0].delete_records(1)


def list_offset(leader: Leader, replica_id: int, version: int = 8) -> tuple[int, int]:
    asked = ListOffsetsRequestPartition(partition_index=0, timestamp=-1)
    message = ListOffsetsRequest(
        replica_id=replica_id, topics=[ListOffsetsRequestTopic(name=TOPIC, partitions=[asked])]
    )
    leader.send("lister", ApiKey.LIST_OFFSETS, message, version)
    frame = leader.answer("lister")
    assert frame is not None
    response = ListOffsetsResponse.decode(memoryview(frame), 5, len(frame), version)
    found = response.topics[0].partitions[0]
    return found.error_code, found.offset


def test_a_log_that_cannot_tell_its_epochs_answers_for_itself(
    leader: Leader, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*_: object) -> tuple[int, int]:
        raise CorruptMessage("no batch where one should be")

    monkeypatch.setattr(type(leader.partitions[0].log), "epoch_end_offset", damaged)
    assert epoch_end(leader, 2, 5) == (CorruptMessage.code, -1, -1)


def epoch_end(leader: Leader, replica_id: int, epoch: int, version: int = 4):
    asked = OffsetForLeaderEpochRequestPartition(partition=0, leader_epoch=epoch)
    message = OffsetForLeaderEpochRequest(
        replica_id=replica_id,
        topics=[OffsetForLeaderEpochRequestTopic(topic=TOPIC, partitions=[asked])],
    )
    leader.send("asker", ApiKey.OFFSET_FOR_LEADER_EPOCH, message, version)
    frame = leader.answer("asker")
    assert frame is not None
    start = 5 if version >= OffsetForLeaderEpochResponse.FLEXIBLE_FROM else 4
    response = OffsetForLeaderEpochResponse.decode(memoryview(frame), start, len(frame), version)
    found = response.topics[0].partitions[0]
    return found.error_code, found.leader_epoch, found.end_offset


@pytest.mark.parametrize("leads", [True, False])
def test_any_replica_tells_how_far_its_log_reaches(leader: Leader, *, leads: bool) -> None:
    leader.append(b"a", b"b")
    partition = leader.partitions[0]
    # A term in which nothing was written is no part of the log.
    partition.apply_state(
        leader.state._replace(leader=1 if leads else 2, leader_epoch=9, partition_epoch=1)
    )
    assert epoch_end(leader, -2, 2**31 - 1) == (0, 5, 2)
    assert epoch_end(leader, -2, 5, version=3) == (0, 5, 2)
    expected = (0, 5, 2) if leads else (NotLeaderOrFollower.code, -1, -1)
    assert epoch_end(leader, -1, 5) == expected
    assert epoch_end(leader, -2, 5, version=2) == expected
    assert list_offset(leader, -2) == (0, 2)


def test_consumers_of_another_rack_are_sent_to_the_follower_there(
    lead: Callable[..., Leader],
) -> None:
    leader = lead(replica_selector_class=RACK_AWARE)
    leader.append()
    for replica in (2, 3):
        fetch(leader, replica, {0: 1}, wait_ms=0)
        fetched(leader, replica)

    def preferred(rack: str, offset: int = 0, version: int = 16) -> tuple[int, bool]:
        answer = get(leader, -1, {0: offset}, rack=rack, version=version, wait_ms=10)[0]
        return answer.preferred_read_replica, bool(answer.records)

    for version in (11, 12, 13, 16):
        assert preferred("b", version=version) == (2, False)
    assert preferred("c") == (3, False)
    assert preferred("a") == (-1, True)
    assert preferred("d") == (-1, True)
    assert preferred("") == (-1, True)
    leader.append()
    fetch(leader, 3, {0: 2})
    fetch(leader, -1, {0: 2}, rack="b")
    assert fetched(leader, -1) is None, "the follower does not have it yet"
    fetch(leader, 2, {0: 2}, log_start=1)
    assert partitions_of(fetched(leader, -1))[0].preferred_read_replica == 2
    assert preferred("b", 0) == (-1, True), "the follower does not have it any more"
    assert preferred("b", 1) == (2, False)


def test_nobody_is_sent_away_without_a_rack_aware_selector(leader: Leader) -> None:
    leader.append()
    for replica in (2, 3):
        fetch(leader, replica, {0: 1})
    answer = get(leader, -1, {0: 0}, rack="b", version=12)[0]
    assert answer.preferred_read_replica == -1
    assert answer.records


@pytest.mark.parametrize("selector", [RACK_AWARE, None])
def test_a_follower_serves_consumers_of_its_rack_up_to_its_high_watermark(
    selector: str | None, lead: Callable[..., Leader]
) -> None:
    options = {} if selector is None else {"replica_selector_class": selector}
    leader = lead(isr=(1,), **options)
    leader.append(b"a")
    partition = leader.partitions[0]
    leader.append(b"b")
    partition.apply_state(leader.state._replace(leader=2, isr=(2,), broker_epochs=(20,),
                                                leader_epoch=6, partition_epoch=1))  # fmt: skip
    assert partition.log.high_watermark == 2

    def read(offset: int, rack: str = "a", **more: int) -> tuple[int, bool]:
        answer = get(leader, -1, {0: offset}, rack=rack, wait_ms=0, **more)[0]
        return answer.error_code, bool(answer.records)

    if selector is None:
        assert read(0) == (NotLeaderOrFollower.code, False)
    else:
        assert read(0) == (0, True)
        assert read(2) == (0, False)
        assert read(3) == (OffsetNotAvailable.code, False)
        assert read(0, leader_epoch=5) == (FencedLeaderEpoch.code, False)
        assert read(0, version=11) == (0, True)
    assert read(0, rack="") == (NotLeaderOrFollower.code, False)
    assert read(0, rack="", version=12) == (NotLeaderOrFollower.code, False)
    assert leader.lane_took == 0


def test_where_followers_serve_consumers_they_hear_of_the_high_watermark_at_once(
    lead: Callable[..., Leader],
) -> None:
    leader = lead(replica_selector_class=RACK_AWARE)
    leader.append()
    fetch(leader, 2, {0: 0}, session=(0, 0))
    session = fetched(leader, 2).session_id
    fetch(leader, 2, {0: 1}, session=(session, 1))
    assert fetched(leader, 2) is None
    fetch(leader, 3, {0: 1})
    leader.end_pass()
    assert partitions_of(fetched(leader, 2))[0].high_watermark == 1


def test_replicas_that_are_being_added_get_no_more_than_the_throttled_rate(
    lead: Callable[..., Leader],
) -> None:
    leader = lead(isr=(1, 2), adding=(3,), leader_replication_throttled_rate="1024")
    for _ in range(3):
        leader.append(b"x" * 700)
    got = get(leader, 3, {0: 0}, max_bytes=800)[0]
    assert headers(bytes(got.records))[0].base_offset == 0
    got = get(leader, 3, {0: 1}, max_bytes=800)[0]
    assert got.records
    fetch(leader, 3, {0: 2}, max_bytes=800)
    assert fetched(leader, 3) is None
    assert leader.partitions[0].isr.end_of(3) == 2
    assert get(leader, 2, {0: 0})[0].records, "members of the ISR are not throttled"
    leader.wait(1.0)
    assert partitions_of(fetched(leader, 3))[0].records


def test_the_messages_say_who_fetches() -> None:
    assert replica_of(fetch_request(2, {0: 0})) == (2, 20)
    assert replica_of(fetch_request(2, {0: 0}, version=14)) == (2, -1)
    assert replica_of(fetch_request(-1, {0: 0})) is None


def produced(
    leader: Leader,
    sequence: int,
    *,
    timeout_ms: int = 1000,
    version: int = 9,
    size_bytes: int = 1,
) -> None:
    """Send a batch with acks=all."""
    records = bytes(batch(b"a" * size_bytes, producer=(5, 0, sequence)))
    data = ProduceRequestPartition(index=0, records=records)
    message = ProduceRequest(
        acks=-1,
        timeout_ms=timeout_ms,
        topic_data=[ProduceRequestTopic(name=TOPIC, partition_data=[data])],
    )
    leader.send("producer", ApiKey.PRODUCE, message, version)
    leader.dirs.end_pass()


def acknowledged(leader: Leader, version: int = 9) -> tuple[int, int] | None:
    """Error code and base offset of the oldest produce request; None while it waits."""
    frame = leader.answer("producer")
    if frame is None:
        return None
    response = ProduceResponse.decode(memoryview(frame), 5, len(frame), version)
    found = response.responses[0].partition_responses[0]
    return found.error_code, found.base_offset


def test_the_lane_takes_acks_all_that_waits_for_followers(leader: Leader) -> None:
    produced(leader, 0)  # the window of a new producer is opened the general way
    produced(leader, 1)
    assert leader.lane_took == 1
    assert acknowledged(leader) is None
    fetch(leader, 2, {0: 2})
    fetch(leader, 3, {0: 1})
    assert acknowledged(leader) == (0, 0)
    assert acknowledged(leader) is None
    fetch(leader, 3, {0: 2})
    assert acknowledged(leader) == (0, 1)


def test_acks_all_is_refused_when_its_time_is_over_also_from_the_lane(leader: Leader) -> None:
    produced(leader, 0, timeout_ms=1000)
    produced(leader, 1, timeout_ms=3000)
    produced(leader, 2, timeout_ms=2000)
    assert leader.lane_took == 2
    for _ in range(19):
        leader.wait(0.1)
    assert acknowledged(leader) == (RequestTimedOut.code, -1)
    assert acknowledged(leader) is None
    for _ in range(4):
        leader.wait(0.1)
    assert [entry.state for entry in leader.connections["producer"].ring] == [1, 0, 1]
    fetch(leader, 2, {0: 3})
    fetch(leader, 3, {0: 3})
    assert acknowledged(leader) == (0, 1)
    assert acknowledged(leader) == (RequestTimedOut.code, -1)
    for _ in range(20):
        leader.wait(0.1)
    assert len(leader.ctx.deadlines) <= 2, "of the two fetches, none of the lane"


@pytest.mark.parametrize("has_lane", [True, False])
def test_large_batches_wait_and_time_out_as_small_ones_do(leader: Leader, has_lane: bool) -> None:
    if not has_lane:
        leader.close_lane()
    for sequence in range(3):
        produced(leader, sequence, size_bytes=100_000, timeout_ms=1000 + 1000 * sequence)
    assert leader.lane_took == (2 if has_lane else 0), "all but the producer's first"
    leader.wait(1.5)
    assert acknowledged(leader) == (RequestTimedOut.code, -1)
    assert acknowledged(leader) is None
    fetch(leader, 2, {0: 2})
    fetch(leader, 3, {0: 2})
    assert acknowledged(leader) == (0, 1)
    assert acknowledged(leader) is None
    leader.partitions[0].apply_state(
        leader.state._replace(leader=2, leader_epoch=6, partition_epoch=1)
    )
    assert acknowledged(leader) == (NotLeaderOrFollower.code, -1)
    leader.wait(10)
    assert len(leader.ctx.deadlines) == 0


def test_acks_all_is_refused_by_the_lane_as_by_the_handler_while_too_few_are_in_sync(
    lead: Callable[..., Leader],
) -> None:
    leader = lead(isr=(1,), topic_config={"min.insync.replicas": "2"})
    produced(leader, 0)
    produced(leader, 0)
    assert leader.lane_took == 0
    assert acknowledged(leader) == acknowledged(leader) == (NotEnoughReplicas.code, -1)


@pytest.mark.parametrize("version", [9, 10, 11])
@pytest.mark.parametrize("was_waiting", [True, False])
def test_a_producer_is_told_who_leads_now(
    leader: Leader, version: int, *, was_waiting: bool
) -> None:
    state = leader.state._replace(leader=2, leader_epoch=6, partition_epoch=1)
    image: Any = leader.ctx.image_source.image
    image.topics[TOPIC].partitions = (state,)
    image.brokers[2] = image.brokers[2]._replace(endpoints={"INSIDE": ("there", 9)})
    if was_waiting:
        produced(leader, 0, version=version)
    leader.partitions[0].apply_state(state)
    if not was_waiting:
        produced(leader, 0, version=version)
    frame = leader.answer("producer")
    assert frame is not None
    response = ProduceResponse.decode(memoryview(frame), 5, len(frame), version)
    found = response.responses[0].partition_responses[0]
    assert (found.error_code, found.base_offset) == (NotLeaderOrFollower.code, -1)
    now = found.current_leader
    endpoints = [(one.node_id, one.host, one.port, one.rack) for one in response.node_endpoints]
    if version < 10:
        assert (now, endpoints) == (None, [])
    else:
        assert now is not None
        assert (now.leader_id, now.leader_epoch) == (2, 6)
        assert endpoints == [(2, "there", 9, "b")]
