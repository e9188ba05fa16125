"""The lane of ordinary requests against the dispatcher: the same answers, the same log."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.lane_support import (
    API_VERSIONS,
    FETCH,
    LIST_OFFSETS,
    PRODUCE,
    TOPIC,
    Asked,
    Groups,
    Rig,
    Script,
    frame,
)
from trioq._native.kept_answers import KeptAnswers
from trioq._native.response_ring import ANSWERED, OPEN, PassQueue
from trioq.errors import BrokerBug
from trioq.metastore.layout import PartitionState
from trioq.server import waiting_fetch
from trioq.server.limits import Limits
from trioq.storage import log_read
from trioq.wire.messages.heartbeat import HeartbeatRequest


def requests(key: int, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Asked]:
    return st.fixed_dictionaries(fields).map(lambda chosen: Asked(key, **chosen))


produced = requests(
    PRODUCE,
    version=st.integers(2, 12),
    number=st.sampled_from([0, 0, 0, 1, 2]),
    acks=st.sampled_from([1, 1, 1, -1, -1, 0, 2]),
    producer=st.none() | st.integers(0, 2),
    step=st.sampled_from([0, 0, 0, 0, -1, 1]),
    records=st.integers(1, 3),
    record_bytes=st.sampled_from([1] * 7 + [70_000]),
    age_ms=st.sampled_from([0, 0, 0, 10**7, -(10**8)]),
    flipped=st.sampled_from([0] * 10 + [3, 30, 60, 70, 100, 120, 60_000]),
)
listed = requests(
    LIST_OFFSETS,
    version=st.integers(1, 8),
    number=st.integers(0, 2),
    isolation=st.sampled_from([0, 0, 1]),
    epoch=st.sampled_from([-1, -1, 0, 1]),
    timestamp=st.sampled_from([-1, -1, -2]),
    flipped=st.sampled_from([0] * 8 + [12, 20, 30]),
)
fetched = requests(
    FETCH,
    version=st.integers(4, 12),
    number=st.integers(0, 2),
    isolation=st.sampled_from([0, 0, 1]),
    epoch=st.sampled_from([-1, -1, 0, 1]),
    offset=st.sampled_from([0, 0, 1, 2, 3, 5, 8, 10_000, -1]),
    max_bytes=st.sampled_from([1, 200, 1 << 20]),
    min_bytes=st.sampled_from([0, 1, 1, 300]),
    wait_ms=st.sampled_from([0, 50, 200, 200, 500, 1 << 30]),
    flipped=st.sampled_from([0] * 8 + [12, 20, 30, 45]),
)
versions = requests(API_VERSIONS, version=st.integers(0, 5))


CONFIGS = [
    {},
    {"message_timestamp_before_max_ms": "1000", "message_timestamp_after_max_ms": "1000"},
    {"message_timestamp_type": "LogAppendTime"},
    {"min_insync_replicas": "2"},
    {"flush_policy": "commit"},
    {"compression_type": "uncompressed", "segment_bytes": "1024"},
    {"max_message_bytes": "80"},
]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(produced | fetched | listed | versions, min_size=1, max_size=8), max_size=5),
    st.sampled_from(CONFIGS),
    st.sampled_from([Limits(), Limits(max_parked_requests=3)]),
    st.sampled_from([0.0, 0.15, 0.3]),
)
def test_the_lane_does_what_the_dispatcher_does(
    passes: list[list[Asked]], config: dict[str, str], limits: Limits, waits_s: float
) -> None:
    script = Script()
    rigs = [Rig(has_lane=has_lane, limits=limits, **config) for has_lane in (False, True)]
    try:
        for one in passes:
            data = b"".join(map(script.bytes_of, one))
            for rig in rigs:
                if not (rig.connection.muted or rig.connection.is_closing):
                    rig.feed(data)
            assert rigs[0].shown() == rigs[1].shown()
            for rig in rigs:
                rig.dirs.end_pass()
            assert rigs[0].shown() == rigs[1].shown()
            for rig in rigs:
                rig.wait(waits_s)
            assert rigs[0].shown() == rigs[1].shown()
        assert rigs[0].taken == 0
    finally:
        for rig in rigs:
            rig.close()


def test_the_lane_takes_what_is_ordinary() -> None:
    rig, script = Rig(has_lane=True), Script()
    first = Asked(PRODUCE, 7, producer=1)
    rig.feed(script.bytes_of(first))  # an unknown producer goes the general way
    assert rig.taken == 0
    rig.feed(b"".join(script.bytes_of(first._replace(acks=acks)) for acks in (1, -1)))
    assert rig.taken == 2
    assert rig.answers() == [None, None, None]
    rig.feed(script.bytes_of(first._replace(record_bytes=1_000_000)))
    assert rig.taken == 3
    rig.dirs.end_pass()
    assert None not in rig.answers()
    offsets, asked = Asked(LIST_OFFSETS, 4), Asked(API_VERSIONS, 3)
    for one in (offsets, asked, offsets, asked):  # first the general way
        rig.feed(script.bytes_of(one))
    assert rig.taken == 5
    assert rig.connection.client_software == ("a", "1")
    rig.close()


def test_a_batch_that_is_lost_is_refused() -> None:
    rig, script = Rig(has_lane=True), Script()
    asked = Asked(PRODUCE, 9)
    rig.feed(script.bytes_of(asked))
    assert rig.taken == 1
    partition = rig.partitions[TOPIC, 0]
    partition.apply_state(PartitionState(2, 1, (2,), (0,), (1, 2), partition_epoch=1))
    (answer,) = rig.answers()
    assert answer is not None
    assert b"\0\x06" in answer  # NOT_LEADER_OR_FOLLOWER
    rig.feed(script.bytes_of(asked))
    assert rig.taken == 1
    rig.close()


def test_a_closed_partition_is_not_remembered() -> None:
    rig, script = Rig(has_lane=True), Script()
    rig.feed(script.bytes_of(Asked(PRODUCE, 9)))
    rig.partitions.pop((TOPIC, 0)).close()
    rig.feed(script.bytes_of(Asked(PRODUCE, 9)))
    assert rig.taken == 1
    answer = rig.answers()[1]
    assert answer is not None
    assert b"\0\x03" in answer  # UNKNOWN_TOPIC_OR_PARTITION
    rig.close()


def test_an_answer_ends_with_its_connection() -> None:
    rig, script = Rig(has_lane=True), Script()
    rig.feed(script.bytes_of(Asked(PRODUCE, 9)))
    rig.connection.cancel_waiting()
    rig.dirs.end_pass()
    assert rig.connection.ring == []
    assert rig.partitions[TOPIC, 0].log.high_watermark == 1
    rig.close()


def test_kept_answers_are_of_their_source_listener_version_and_body() -> None:
    kept, source = KeptAnswers(100), object()
    kept.keep(source, "A", 1, b"body", b"answer", "note")
    found = kept.find(source, "A", 1, b"body")
    assert found is not None
    assert (found.encoded, found.note) == (b"answer", "note")
    for other in ((object(), "A", 1, b"body"), (source, "B", 1, b"body"),
                  (source, "A", 2, b"body"), (source, "A", 1, b"")):  # fmt: skip
        assert kept.find(*other) is None
    kept.keep(source, "A", 1, b"", b"x" * 95)
    assert kept.find(source, "A", 1, b"body") is None
    kept.keep(source, "A", 1, b"", b"x" * 101)
    assert kept.find(source, "A", 1, b"") is None


def test_bounds_are_checked() -> None:
    rig = Rig(has_lane=True)
    with pytest.raises(ValueError, match="outside the buffer"):
        rig.lane.take(rig.connection, memoryview(bytearray(4)), 0, 5, 1)
    assert rig.lane.take(rig.connection, memoryview(bytearray(4)), 0, 4, 1) == 0
    rig.close()


def test_small_answers_leave_by_one_call() -> None:
    rig, script = Rig(has_lane=True), Script()
    reactor: PassQueue = rig.reactor
    rig.socket.setblocking(False)
    rig.connection.interest = 1
    asked = Asked(LIST_OFFSETS, 1)
    rig.feed(script.bytes_of(asked) + script.bytes_of(Asked(PRODUCE, 9)) + script.bytes_of(asked))
    dirty, reactor._dirty = reactor._dirty, []
    first, waiting, last = rig.answers()
    assert reactor.flush_small(dirty) == []
    assert waiting is None
    assert first is not None
    assert rig._other.recv(10_000) == first
    assert [entry.state for entry in rig.connection.ring] == [OPEN, ANSWERED]
    rig.dirs.end_pass()
    second = rig.answers()[0]
    assert reactor.flush_small(reactor._dirty) == []
    assert second is not None
    assert last is not None
    assert rig._other.recv(10_000) == second + last
    assert rig.connection.ring == []
    rig.close()


def waiting_rig() -> tuple[Rig, Script, Asked]:
    """A lane that has seen a fetch of each kind: one goes the general way for what it loads."""
    rig, script = Rig(has_lane=True), Script()
    rig.feed(script.bytes_of(Asked(PRODUCE, 9, producer=1)))
    rig.dirs.end_pass()
    assert rig.taken == 0
    return rig, script, Asked(FETCH, 11, offset=1, wait_ms=500)


def test_a_fetch_waits_for_progress_or_its_time() -> None:
    rig, script, asked = waiting_rig()
    rig.feed(script.bytes_of(asked) + script.bytes_of(asked._replace(min_bytes=10_000)))
    assert rig.taken == 2
    rig.feed(script.bytes_of(Asked(PRODUCE, 9, producer=1)))
    assert rig.answers()[1:] == [None, None, None]
    rig.dirs.end_pass()
    stored, progressed, too_little, _ = rig.answers()
    assert too_little is None
    assert progressed is not None
    assert b"key" in progressed
    rig.wait(0.6)
    later = rig.answers()[2]
    assert later is not None
    assert later[8:] == progressed[8:]
    assert rig.partitions[TOPIC, 0]._listeners == {}
    assert rig.connection.parked_count == 0
    assert stored is not None
    rig.close()


def test_waits_that_end_together_share_a_deadline() -> None:
    rig, script, asked = waiting_rig()
    before = len(rig.ctx.deadlines)
    rig.feed(script.bytes_of(asked) * 50)
    assert rig.taken == 50
    assert len(rig.ctx.deadlines) == before + 1
    rig.wait(0.6)
    assert None not in rig.answers()
    rig.close()


def test_a_waiting_fetch_is_told_of_a_new_leader() -> None:
    rig, script, asked = waiting_rig()
    rig.feed(script.bytes_of(asked))
    partition = rig.partitions[TOPIC, 0]
    partition.apply_state(PartitionState(2, 1, (2,), (0,), (1, 2), partition_epoch=1))
    answer = rig.answers()[1]
    assert answer is not None
    assert b"\0\0\0\0\0\x06" in answer  # partition 0, NOT_LEADER_OR_FOLLOWER
    rig.close()


def test_a_waiting_fetch_ends_with_its_connection_and_answers_when_the_broker_stops() -> None:
    rig, script, asked = waiting_rig()
    rig.feed(script.bytes_of(asked) * 2)
    asked_to_stop = rig.connection.ring[1]
    asked_to_stop.on_drain()
    assert rig.answers()[1] is not None
    rig.connection.cancel_waiting()
    assert rig.partitions[TOPIC, 0]._listeners == {}
    rig.wait(0.6)
    rig.close()


def test_the_region_of_an_answer_that_is_not_sent_is_given_back() -> None:
    rig, script, asked = waiting_rig()
    rig.feed(script.bytes_of(asked._replace(offset=0)))
    assert rig.taken == 1
    shared = rig.partitions[TOPIC, 0].log.segments.items[0].shared
    assert shared is not None
    assert shared.is_lent
    rig.connection.cancel_waiting()
    assert not shared.is_lent
    rig.close()


@pytest.mark.parametrize("version", range(5))
@pytest.mark.parametrize("generation", [7, 8, 666])
@pytest.mark.parametrize("instance_id", [None, "an instance"])
def test_heartbeats(version: int, generation: int, instance_id: str | None) -> None:
    found = []
    for has_lane in (True, False):
        rig = Rig(has_lane=has_lane)
        groups = Groups()
        rig.ctx.groups = groups  # type: ignore[assignment]
        instance_id = instance_id if version >= 3 else None
        body = HeartbeatRequest(
            group_id="a group",
            generation_id=generation,
            member_id="ä",
            group_instance_id=instance_id,
        ).encode(version)
        rig.feed(frame(12, version, body, 5))
        assert rig.taken == (has_lane and generation == 7)
        assert set(groups.seen) == {("a group", generation, "ä", instance_id)}
        found.append(rig.answers())
        rig.close()
    assert found[0] == found[1]


class BrokenGroups:
    """Owns data, finds it broken, and would go on with it if it were asked again."""

    def __init__(self) -> None:
        self.times = 0

    def heartbeat(self, *_asked: Any) -> None:
        self.times += 1
        if self.times == 1:
            raise BrokerBug("an invariant is broken")


def test_a_bug_where_data_is_owned_is_not_asked_again() -> None:
    rig = Rig(has_lane=True)
    groups = BrokenGroups()
    rig.ctx.groups = groups  # type: ignore[assignment]
    body = HeartbeatRequest(group_id="a group", generation_id=7, member_id="m").encode(0)
    with pytest.raises(BrokerBug):
        rig.feed(frame(12, 0, body, 5))
    assert groups.times == 1
    rig.close()


@pytest.mark.trio
@pytest.mark.parametrize("thrown_out", [1, 2, 100])
async def test_a_fetch_of_what_is_not_in_memory_has_it_read_in_a_thread(
    monkeypatch: pytest.MonkeyPatch, thrown_out: int
) -> None:
    rig, script, asked = waiting_rig()
    asked = asked._replace(offset=0)
    rig.feed(script.bytes_of(asked))
    rig.partitions[TOPIC, 0].log._edges = None
    reads: list[Any] = []
    monkeypatch.setattr(waiting_fetch, "read_ahead", reads.append)
    monkeypatch.setattr(log_read.posix, "resident", lambda *_: len(reads) >= thrown_out)
    async with trio.open_nursery() as nursery:
        rig.connection._nursery = nursery
        rig.feed(script.bytes_of(asked))
        assert rig.answers()[2] is None
        assert rig.connection.parked_count == 1
    stored, hot, cold = rig.answers()
    assert stored is not None
    assert hot is not None
    assert cold is not None
    assert cold[8:] == hot[8:]
    assert len(reads) == min(thrown_out, waiting_fetch.COLD_READS)
    assert rig.connection.parked_count == 0
    rig.close()


@pytest.mark.trio
async def test_a_fetch_of_what_is_not_in_memory_may_lose_its_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig, script, asked = waiting_rig()
    rig.partitions[TOPIC, 0].log._edges = None
    monkeypatch.setattr(log_read.posix, "resident", lambda *_: False)
    async with trio.open_nursery() as nursery:
        rig.connection._nursery = nursery
        rig.feed(script.bytes_of(asked._replace(offset=0)))
        rig.connection.cancel_waiting()
    shared = rig.partitions[TOPIC, 0].log.segments.items[0].shared
    assert shared is not None
    assert not shared.is_lent
    rig.close()
