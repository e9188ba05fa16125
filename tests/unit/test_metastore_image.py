"""The image: applying the feed gives the same as loading from scratch."""

from __future__ import annotations

import random
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trioq.metastore import feed, layout
from trioq.metastore.image import Change, ClusterImage, changed_topics
from trioq.metastore.layout import PartitionState, TopicNode
from trioq.metastore.store import Create, Delete, Node, Set

TOPIC_IDS = [uuid.UUID(int=(number << 64) + 12345) for number in range(1, 4)]
NAMES = ["x", "y"]


def state(number: int) -> PartitionState:
    return PartitionState(number, number, (number,), (0,), (number, 5), (), number - 1)


node_writes = st.tuples(
    st.sampled_from(TOPIC_IDS),
    st.builds(
        TopicNode,
        st.sampled_from(NAMES),
        st.integers(0, 3),
        st.booleans(),
        st.dictionaries(st.sampled_from(["retention.ms", "é"]), st.text(max_size=3)),
    ),
)
state_writes = st.tuples(st.sampled_from(TOPIC_IDS), st.integers(0, 3), st.integers(0, 9))
deletions = st.tuples(st.sampled_from(TOPIC_IDS))
config_writes = st.tuples(st.just("config"), st.sampled_from(["", "1"]), st.integers(0, 9))
slot_writes = st.tuples(st.just("slot"), st.integers(0, 2), st.integers(1, 9))
elections = st.tuples(st.just("elect"), st.integers(0, 9))
writes = st.lists(
    st.one_of(node_writes, state_writes, deletions, config_writes, slot_writes, elections),
    max_size=30,
)


class Tree:
    """A store's nodes as a dict, written as the controller writes, with the feed beside."""

    def __init__(self):
        self.nodes: dict[str, Node] = {
            layout.CLUSTER: Node(b'{"id":"c"}', 0),
            layout.SLOTS: Node(layout.Slots(3).encode(), 1),
            **{layout.slot_path(n): Node(layout.SlotState(-1).encode(), 0) for n in range(3)},
        }
        self.entries: list[feed.FeedEntry] = []

    def put(self, path: str, value: bytes) -> None:
        held = self.nodes.get(path)
        operation = Create(path, value) if held is None else Set(path, value, held.version)
        self.nodes[path] = Node(value, 0 if held is None else held.version + 1)
        self.tell([operation])

    def tell(self, operations) -> None:
        *_, entry = feed.with_entry(operations)
        assert entry.sequential
        name = f"e-{len(self.entries) * 3:010d}"
        self.entries.append(feed.decode_entry(name, entry.value))

    def write(self, write) -> None:
        first, *rest = write
        if first == "config":
            self.put(layout.BrokerConfig.path(rest[0]), b'{"k":"%d"}' % rest[1])
        elif first == "slot":
            self.put(layout.slot_path(rest[0]), layout.SlotState(rest[1], rest[1]).encode())
        elif first == "elect":
            self.put(layout.CONTROLLER_EPOCH, layout.ControllerEpoch(rest[0]).encode())
        elif not rest:
            top = layout.topic_path(first)
            doomed = [path for path in self.nodes if path == top or path.startswith(top + "/")]
            if doomed:
                self.tell([Delete(p, self.nodes.pop(p).version) for p in reversed(doomed)])
        elif len(rest) == 1:
            node = rest[0]
            taken = (
                topic_id
                for topic_id in TOPIC_IDS
                if topic_id != first and self.name_of(topic_id) == node.name
            )
            if node.live and any(taken):
                return  # the name's claim would have failed
            self.put(layout.topic_path(first), node.encode())
        elif layout.topic_path(first) in self.nodes:
            self.put(layout.partition_path(first, rest[0]), state(rest[1]).encode())

    def name_of(self, topic_id) -> str | None:
        node = self.nodes.get(layout.topic_path(topic_id))
        if node is None:
            return None
        topic = TopicNode.of(layout.decode_json("", node.value))
        return topic.name if topic.live else None

    def loaded(self) -> ClusterImage:
        position = self.entries[-1].sequence if self.entries else -1
        return ClusterImage.load(self.nodes, (), {}, position)


@given(writes, st.integers(1, 5))
def test_applying_the_feed_equals_loading_from_scratch(history, batch_length):
    tree = Tree()
    image = tree.loaded()
    applied = 0
    for number, write in enumerate(history):
        tree.write(write)
        if number % batch_length == 0:
            image = image.apply(tree.entries[applied:])
            applied = len(tree.entries)
            assert image == tree.loaded()
    image = image.apply(tree.entries[applied:])
    assert image == tree.loaded()
    assert {topic.topic_id: topic for topic in image.topics.values()} == image.topics_by_id


@given(writes, st.randoms(use_true_random=False))
def test_a_load_that_is_no_snapshot_comes_right_with_the_entries_after_it(history, rng):
    tree = Tree()
    torn: dict[str, Node] = {}
    half = len(history) // 2
    for write in history[:half]:
        tree.write(write)
    noted = len(tree.entries)
    before = dict(tree.nodes)
    for write in history[half:]:
        tree.write(write)
    for path in sorted(before.keys() | tree.nodes.keys()):
        node = rng.choice([before, tree.nodes]).get(path)
        if node is not None:
            torn[path] = node
    position = tree.entries[noted - 1].sequence if noted else -1
    image = ClusterImage.load(torn, tree.entries[noted:], {}, position)
    expected = tree.loaded()
    # nodes seen twice keep the newest version, whichever way it came
    assert image == expected


@settings(max_examples=30)
@given(writes, writes)
def test_changed_topics_are_those_that_differ(first, second):
    tree = Tree()
    for write in first:
        tree.write(write)
    before = tree.loaded()
    told = len(tree.entries)
    for write in second:
        tree.write(write)
    after = before.apply(tree.entries[told:])
    pairs = {(old or new).topic_id: (old, new) for old, new in changed_topics(before, after)}
    for topic_id in before.topics_by_id.keys() | after.topics_by_id.keys():
        old, new = before.topics_by_id.get(topic_id), after.topics_by_id.get(topic_id)
        if old != new:
            assert pairs[topic_id] == (old, new)


def test_replaying_old_entries_changes_nothing():
    tree, rng = Tree(), random.Random(1)
    for number in range(50):
        tree.write((TOPIC_IDS[0], TopicNode("x", rng.randrange(1, 4), config={"k": str(number)})))
        tree.write((TOPIC_IDS[0], rng.randrange(3), rng.randrange(9)))
        tree.write(("config", "1", rng.randrange(9)))
        tree.write(("elect", rng.randrange(9)))
    image = tree.loaded()
    for end in range(len(tree.entries)):
        assert image.apply(tree.entries[:end]) == image


def test_a_topic_shows_only_when_live_and_whole():
    topic_id = TOPIC_IDS[0]
    tree = Tree()
    tree.write((topic_id, TopicNode("x", 2, live=False)))
    tree.write((topic_id, 0, 1))
    tree.write((topic_id, TopicNode("x", 2, live=True)))
    assert tree.loaded().topics == {}
    tree.write((topic_id, 1, 1))
    tree.write((topic_id, 2, 1))
    image = tree.loaded()
    assert len(image.topics["x"].partitions) == 2
    tree.write((topic_id, TopicNode("x", 3, live=True)))
    grown = image.apply(tree.entries[-1:])
    assert len(grown.topics["x"].partitions) == 3
    assert len(image.topics["x"].partitions) == 2
    assert not grown.topics["x"].internal


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (layout.CLUSTER, b"{}"),
        (layout.SLOTS, b'{"number":3}'),
        (layout.slot_path(1), b"{}"),
    ],
)
def test_a_node_without_which_there_is_no_cluster_is_named(path, value):
    with pytest.raises(layout.CorruptNode, match=path):
        ClusterImage.load({path: Node(value, 0)}, (), {}, -1)


TOPIC, PARTITION = layout.topic_path(TOPIC_IDS[0]), layout.partition_path(TOPIC_IDS[0], 1)

damaged = pytest.mark.parametrize(
    ("path", "value"),
    [
        (TOPIC, b'{"name":"x"}'),
        (TOPIC, b"{"),
        (TOPIC, b"[]"),
        (TOPIC, b""),
        (PARTITION, b"7"),
        (PARTITION, b"\xff\xfe"),
        (PARTITION, b""),
        (layout.BrokerConfig.path("1"), b"[1]"),
        (layout.BrokerConfig.path(""), b"\x00"),
    ],
)


def populated() -> Tree:
    tree = Tree()
    for topic_id, name in zip(TOPIC_IDS, NAMES, strict=False):
        tree.put(layout.topic_path(topic_id), TopicNode(name, 2).encode())
        for number in range(2):
            tree.put(layout.partition_path(topic_id, number), state(number).encode())
    for name in ("", "1"):
        tree.put(layout.BrokerConfig.path(name), b'{"k":"v"}')
    return tree


@damaged
def test_a_damaged_node_leaves_what_was_known_and_nobody_finishes_its_topic(path, value):
    tree = populated()
    known = tree.loaded()
    good = tree.nodes[path]
    tree.nodes[path] = Node(value, good.version + 1)
    image = ClusterImage.load(tree.nodes, (), {}, known.position, known)
    assert list(image.unreadable) == [path]
    assert path in image.unreadable[path].reason
    assert image.topics == known.topics
    assert image.broker_configs == known.broker_configs
    assert image.unfinished_topics() == ()
    assert image.last_known(path) == good.value.decode()
    tree.nodes[path] = Node(good.value, good.version + 2)
    repaired = ClusterImage.load(tree.nodes, (), {}, known.position, image)
    assert repaired == tree.loaded()
    assert not repaired.unreadable


@damaged
def test_a_damaged_node_of_which_nothing_is_known_costs_no_other(path, value):
    tree = populated()
    whole = tree.loaded()
    tree.nodes[path] = Node(value, 1)
    image = tree.loaded()
    assert list(image.unreadable) == [path]
    assert image.topics["y"] == whole.topics["y"]
    assert image.unfinished_topics() == ()
    assert image.last_known(path) == ""
    is_topics = path.startswith(TOPIC)
    assert image.unreadable_topics() == ({TOPIC_IDS[0]} if is_topics else frozenset())
    if path == PARTITION:
        assert image.topics["x"].partitions == (state(0), layout.UNKNOWN_STATE)
        assert not image.is_readable(TOPIC_IDS[0], 1)
        assert image.is_readable(TOPIC_IDS[0], 0)
    elif is_topics:
        assert set(image.topics) == {"y"}
    else:
        assert len(image.broker_configs) == 1


@damaged
def test_damage_that_the_feed_brings_lasts_until_the_next_good_value(path, value):
    tree = populated()
    known = tree.loaded()
    version = tree.nodes[path].version
    try:
        data = layout.decode_json(path, value)
    except layout.CorruptNode:
        data = 7
    bad = feed.FeedEntry(1_000, (Change(path, version + 1, data),))
    image = known.apply([bad])
    assert list(image.unreadable) == [path]
    assert image.topics == known.topics
    assert image.broker_configs == known.broker_configs
    late = Change(path, version, layout.decode_json(path, tree.nodes[path].value))
    assert list(image.apply([feed.FeedEntry(1_001, (late,))]).unreadable) == [path]
    good = late._replace(version=version + 2)
    assert not image.apply([feed.FeedEntry(1_002, (good,))]).unreadable
    gone = Change(TOPIC, version + 2, None)
    gone_image = image.apply([feed.FeedEntry(1_003, (gone,))])
    assert bool(gone_image.unreadable) is not path.startswith(TOPIC)


def test_a_partition_known_to_nobody_is_taken_from_the_first_good_entry():
    tree = populated()
    good = layout.decode_json(PARTITION, tree.nodes[PARTITION].value)
    tree.nodes[PARTITION] = Node(b"?", 4)
    image = tree.loaded()
    healed = image.apply([feed.FeedEntry(1_000, (Change(PARTITION, 5, good),))])
    assert healed.topics["x"].partitions[1] == state(1)._replace(partition_epoch=5)
    assert not healed.unreadable


@pytest.mark.parametrize("path", [f"{layout.TOPIC_IDS}/00/nothex", f"{TOPIC}/half"])
def test_a_node_with_a_name_of_none_of_ours_is_noted(path):
    tree = populated()
    whole = tree.loaded()
    tree.nodes[path] = Node(b"{}", 0)
    image = tree.loaded()
    assert list(image.unreadable) == [path]
    assert image.topics == whole.topics
    assert image.last_known(path) == ""
