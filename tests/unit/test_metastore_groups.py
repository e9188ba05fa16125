"""What is kept of groups: names, round trips, damage."""

from __future__ import annotations

import json
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioq.metastore import group_encoding as encoding
from trioq.metastore import group_layout as groups
from trioq.metastore.layout import CorruptNode, Slots
from trioq.metastore.store import check_path

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
numbers = st.integers(-2, 2**31 - 1)
wide_numbers = st.integers(-1, 2**63 - 1)
topic_ids = st.integers(1, 2**128 - 1).map(lambda value: uuid.UUID(int=value))
assignments = st.dictionaries(topic_ids, st.frozensets(st.integers(0, 999), min_size=1), max_size=3)
protocols = st.lists(st.tuples(texts, st.binary(max_size=20)), max_size=3).map(tuple)
classic_members = st.builds(
    groups.ClassicMember,
    member_id=texts,
    instance_id=st.none() | texts,
    client_id=texts,
    client_host=texts,
    rebalance_timeout_ms=numbers,
    session_timeout_ms=numbers,
    protocols=protocols,
    assignment=st.binary(max_size=30),
)
consumer_members = st.builds(
    groups.ConsumerMember,
    member_id=texts,
    instance_id=st.none() | texts,
    rack_id=st.none() | texts,
    client_id=texts,
    client_host=texts,
    rebalance_timeout_ms=numbers,
    member_epoch=numbers,
    previous_member_epoch=numbers,
    state=texts,
    subscribed_names=st.frozensets(texts, max_size=3),
    subscribed_regex=st.none() | texts,
    server_assignor=st.none() | texts,
    assigned=assignments,
    pending_revocation=assignments,
    target=assignments,
    classic_session_timeout_ms=st.none() | numbers,
    classic_protocols=protocols,
)
classic_groups = st.builds(
    groups.ClassicGroup,
    group_id=texts,
    protocol_type=st.none() | texts,
    generation=numbers,
    protocol=st.none() | texts,
    leader=st.none() | texts,
    state=texts,
    state_since_ms=wide_numbers,
    members=st.just(()),
)
consumer_groups = st.builds(
    groups.ConsumerGroup,
    group_id=texts,
    group_epoch=numbers,
    assignment_epoch=numbers,
    assignor=texts,
    state_since_ms=wide_numbers,
    members=st.just(()),
)
offsets = st.builds(
    groups.CommittedOffset,
    offset=wide_numbers,
    leader_epoch=numbers,
    metadata=texts,
    commit_ms=wide_numbers,
    expire_ms=st.none() | wide_numbers,
)
group_ids = st.text(min_size=1, max_size=30)


@given(group_ids)
def test_any_group_id_is_a_legal_name_and_comes_back(group_id):
    name = groups.group_node_name(group_id)
    check_path(f"/slots/1/groups/{name}/m0-0")
    assert "/" not in name
    assert groups.group_id_of("/x", name) == group_id


@pytest.mark.parametrize("group_id", [".", "..", "...", "a.b", "%", "%41", "a/b", "ü", "\0", " "])
def test_odd_group_ids_have_names_of_their_own(group_id):
    name = groups.group_node_name(group_id)
    assert name not in {".", ".."}
    assert name.isascii()
    assert groups.group_id_of("/x", name) == group_id


@pytest.mark.parametrize("name", ["%4", "%zz", "%41", "%ff", "%FF", "a%2", "a b%20"])
def test_a_name_that_nobody_wrote_is_corrupt(name):
    with pytest.raises(CorruptNode, match="/x"):
        groups.group_id_of("/x", name)


@given(classic_groups | consumer_groups, st.integers(0, 1), st.lists(st.integers(0, 99)).map(tuple))
def test_heads_come_back(group, bank, shards):
    head = groups.StoredHead(group, bank, shards)
    assert encoding.decode_head("/x", group.group_id, encoding.encode_head(head)) == head


def test_a_group_being_removed_is_no_group():
    head = groups.StoredHead(None)
    assert encoding.decode_head("/x", "g", encoding.encode_head(head)) == head


@given(st.lists(classic_members, max_size=3) | st.lists(consumer_members, max_size=3))
def test_members_come_back(members):
    value = encoding.encode_members(map(encoding.encode_member, members))
    member_class = type(members[0]) if members else groups.ClassicMember
    assert encoding.decode_members("/x", value, member_class) == tuple(members)


@given(st.integers(0, 39), st.dictionaries(st.integers(0, 255), offsets, max_size=5))
def test_offsets_come_back(shard, by_place):
    by_partition = {shard * 256 + place: offset for place, offset in by_place.items()}
    value = encoding.encode_offsets(
        encoding.encode_offset(*entry) for entry in by_partition.items()
    )
    assert encoding.decode_offsets("/x", value, shard) == by_partition
    json.loads(value)


@given(topic_ids, st.integers(0, 9_999_999))
def test_offsets_keys_come_back(topic_id, shard):
    key = groups.OffsetsKey(topic_id, shard)
    assert groups.OffsetsKey.of(key.node_name) == key


@pytest.mark.parametrize("name", ["m0-1", "o-12-1", f"o-{'0' * 32}-01", f"o-{'G' * 32}-1", "o-"])
def test_other_names_are_no_offsets(name):
    assert groups.OffsetsKey.of(name) is None


def _samples():
    member = groups.ClassicMember("m", None, "c", "h", 1, 2, (("range", b"x"),), b"plan")
    consumer = groups.ConsumerMember(
        "m", None, None, "c", "h", 1, 2, 3, "Stable", assigned={uuid.UUID(int=5): frozenset({1})}
    )
    group = groups.ClassicGroup("g", "consumer", 3, "range", "m", "Stable", 5)
    offset = groups.CommittedOffset(1, 2, "meta", 3, 4)
    yield (
        encoding.encode_head(groups.StoredHead(group, 0, (0,))),
        lambda value: encoding.decode_head("/x", "g", value),
    )
    for one in (member, consumer):
        yield (
            encoding.encode_members([encoding.encode_member(one)]),
            lambda value, one=one: encoding.decode_members("/x", value, type(one)),
        )
    yield (
        encoding.encode_offsets([encoding.encode_offset(7, offset)]),
        lambda value: encoding.decode_offsets("/x", value, 0),
    )


@pytest.mark.parametrize(("value", "decode"), list(_samples()))
def test_damage_is_corrupt_or_another_value_but_nothing_else(value, decode):
    """Every byte lost, doubled or replaced; every JSON value replaced by one of another type."""
    decode(value)
    for at in range(len(value)):
        for damaged in (
            value[:at],
            value[:at] + value[at + 1 :],
            value[:at] + b"\xff" + value[at + 1 :],
            value[:at] + b"0" + value[at + 1 :],
            value[: at + 1] + value[at:],
        ):
            _decode_or_corrupt(decode, damaged)
    data = json.loads(value)
    for damaged in _replaced(data):
        _decode_or_corrupt(decode, json.dumps(damaged).encode())


def _decode_or_corrupt(decode, value):
    try:
        decode(value)
    except CorruptNode as error:
        assert error.path == "/x"


def _replaced(data):
    for other in (None, 1, -1.5, True, "text", "\ud800", [], {}, [[]], {"": 1}):
        yield other
    if isinstance(data, dict):
        for key in data:
            yield {name: value for name, value in data.items() if name != key}
            for other in _replaced(data[key]):
                yield {**data, key: other}
    elif isinstance(data, list):
        for index in range(len(data)):
            for other in _replaced(data[index]):
                yield [*data[:index], other, *data[index + 1 :]]


@pytest.mark.parametrize("other", [None, 1.5, True, [], {}, "\ud800"])
def test_fields_of_another_type_are_corrupt(other):
    member = json.loads(
        encoding.encode_member(groups.ClassicMember("m", None, "c", "h", 1, 2, (), b""))
    )
    value = json.dumps({"members": [{**member, "member_id": other}]}).encode()
    with pytest.raises(CorruptNode):
        encoding.decode_members("/x", value, groups.ClassicMember)


def test_the_slot_of_a_group_does_not_change():
    """Groups are found by it in every cluster that exists."""
    slots = Slots(64)
    assert [slots.slot_of(name) for name in ("orders", "payments", "ü", "")] == [46, 50, 21, 0]
