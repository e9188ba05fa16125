"""The cluster as this broker knows it: an immutable value, replaced as a whole.

An image is made in bulk from the metastore's tree, then each batch of feed entries gives
the next one. The cost of a batch is that of the topics in it, plus one shallow copy of
the two dicts of topics. Both ways lead to the same image (tests/unit).

A node of a topic, a partition or a configuration that cannot be read costs no more than itself:
what was last known of it stays, and `unreadable` names it. Without anything known a partition is
nobody's (layout.UNKNOWN_STATE) and a topic or configuration is missing.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple, cast

from trioq.metastore import layout
from trioq.metastore.layout import CorruptNode, PartitionState, TopicNode
from trioq.metastore.store import Node
from trioq.types import TopicId

PartitionImage = PartitionState
BrokerImage = layout.BrokerRegistration

_INTERNAL_TOPICS: Final = frozenset({"__consumer_offsets", "__transaction_state"})
_TOPIC_DEPTH: Final = 5
_PARTITION_DEPTH: Final = 6
_SLOT_DEPTH: Final = 3


class Change(NamedTuple):
    """A node as a write left it: its JSON data, or None when it was deleted.

    A deletion stands for everything below the path too.
    """

    path: str
    version: int
    data: Any


class Unreadable(NamedTuple):
    """A node's value that is not what the layout says: its version, and what is wrong with it."""

    version: int
    reason: str


class SlotImage(NamedTuple):
    """A coordination slot: its leader (-1: never had one), in which broker epoch, slot epoch."""

    leader: int = -1
    broker_epoch: int = -1
    epoch: int = -1


class FeedEntry(NamedTuple):
    """What one multi changed. With `reload`, too much to list: read everything again."""

    sequence: int
    changes: tuple[Change, ...]
    reload: bool = False


class TopicImage(NamedTuple):
    """A topic with the state of all its partitions, by number."""

    name: str
    topic_id: TopicId
    partitions: tuple[PartitionImage, ...]
    config: Mapping[str, str]
    version: int

    @property
    def internal(self) -> bool:
        return self.name in _INTERNAL_TOPICS


class _Parts:
    """The nodes of one topic, whether or not they make up a topic yet."""

    __slots__ = ("node", "states", "version")

    def __init__(self) -> None:
        self.node: TopicNode | None = None
        self.version = -1
        self.states: dict[int, PartitionState] = {}

    def image(self, topic_id: TopicId) -> TopicImage | None:
        """The topic, if it is live and all its partitions are there."""
        node, states = self.node, self.states
        if node is None or not node.live or len(states) < node.partitions:
            return None
        partitions = tuple(map(states.get, range(node.partitions)))
        if None in partitions:
            return None
        whole = cast("tuple[PartitionState, ...]", partitions)
        return TopicImage(node.name, topic_id, whole, node.config, self.version)

    def exceed(self, topic: TopicImage | None) -> bool:
        """Whether there is anything here that `topic`, the image of it, does not hold."""
        if topic is None:
            return self.node is not None or bool(self.states)
        return len(self.states) > len(topic.partitions)


@dataclass(frozen=True, slots=True)
class ClusterImage:
    """Topics, partitions, brokers, configs and slots at feed position `position`.

    `broker_configs` is by resource name; "" holds what applies to all brokers. `slots` are
    the coordination slots by number.
    `controller_id` is -1 while there never was a controller.
    """

    cluster_id: str = ""
    controller_id: int = -1
    controller_epoch: int = -1
    topics: Mapping[str, TopicImage] = field(default_factory=dict)
    topics_by_id: Mapping[TopicId, TopicImage] = field(default_factory=dict)
    brokers: Mapping[int, BrokerImage] = field(default_factory=dict)
    broker_configs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    slots: tuple[SlotImage, ...] = ()
    position: int = -1
    unreadable: Mapping[str, Unreadable] = field(default_factory=dict)
    _drafts: Mapping[TopicId, _Parts] = field(default_factory=dict, compare=False)
    _config_versions: Mapping[str, int] = field(default_factory=dict, compare=False)

    @staticmethod
    def load(
        tree: Mapping[str, Node],
        entries: Iterable[FeedEntry],
        brokers: Mapping[int, BrokerImage],
        position: int,
        known: ClusterImage | None = None,
    ) -> ClusterImage:
        """The image of nodes read in bulk, and of the entries written since `position`.

        `tree` need not be a snapshot: `entries` are all those after `position`, which was
        noted before the reading began. `known` is what was known before, for nodes that cannot be
        read. Raises CorruptNode for one without which there is no cluster.
        """
        builder = _Builder(ClusterImage(brokers=brokers, position=position), known)
        for path, node in tree.items():
            if is_in_image(path) and (node.value or path.startswith(layout.TOPIC_IDS)):
                builder.put_node(path, node)
        builder.put_entries(entries)
        return builder.finish()

    def apply(self, entries: Iterable[FeedEntry]) -> ClusterImage:
        """The image after `entries`, given in order of their sequence.

        A version older than the one held is ignored. Raises CorruptNode as `load`.
        """
        builder = _Builder(self, self)
        builder.put_entries(entries)
        return builder.finish()

    def unfinished_topics(self) -> tuple[TopicId, ...]:
        """The topics that are being created, grown or deleted in several steps."""
        return tuple(self._drafts.keys() - self.unreadable_topics())

    def unreadable_topics(self) -> frozenset[TopicId]:
        """The topics of which some node cannot be read."""
        return frozenset(filter(None, map(_topic_of, self.unreadable)))

    def last_known(self, path: str) -> str:
        """The value of the topic's, partition's or configuration's node; "" where unknown."""
        topic_id = _topic_of(path)
        if topic_id is None:
            if not path.startswith(layout.BROKER_CONFIGS):
                return ""
            config = self.broker_configs.get(_config_name(path))
            return "" if config is None else layout.BrokerConfig(config).encode().decode()
        topic = self.topics_by_id.get(topic_id)
        if topic is None:
            return ""
        number = path.removeprefix(layout.topic_path(topic_id)).removeprefix("/")
        if not number:
            node = TopicNode(topic.name, len(topic.partitions), config=topic.config)
            return node.encode().decode()
        if not number.isdecimal() or int(number) >= len(topic.partitions):
            return ""
        state = topic.partitions[int(number)]
        return "" if state is layout.UNKNOWN_STATE else state.encode().decode()

    def is_readable(self, topic_id: TopicId, partition: int) -> bool:
        """Whether the partition's state is what the metastore says; else nobody writes it."""
        return (
            not self.unreadable or layout.partition_path(topic_id, partition) not in self.unreadable
        )

    def broker_config_version(self, name: str) -> int | None:
        """The version of the node that holds `broker_configs[name]`; None if there is none."""
        return self._config_versions.get(name)

    def with_brokers(self, brokers: Mapping[int, BrokerImage]) -> ClusterImage:
        """The same image with another set of live brokers."""
        return replace(self, brokers=brokers)


def changed_topics(
    before: ClusterImage, after: ClusterImage
) -> Iterator[tuple[TopicImage | None, TopicImage | None]]:
    """Pairs of a topic's image before and after, by topic id, where they are not the same.

    A pointer comparison per topic; a created topic has None before, a deleted one after.
    """
    if before.topics_by_id is after.topics_by_id:
        return
    for topic_id, old in before.topics_by_id.items():
        new = after.topics_by_id.get(topic_id)
        if new is not old:
            yield old, new
    for topic_id, new in after.topics_by_id.items():
        if topic_id not in before.topics_by_id:
            yield None, new


def is_in_image(path: str) -> bool:
    """Whether the node at `path` is part of the image, so that its changes go to the feed."""
    if path.startswith(layout.TOPIC_IDS):
        return path.count("/") >= _TOPIC_DEPTH - 1
    if path.startswith(layout.SLOTS):
        return path.count("/") < _SLOT_DEPTH
    return path in {layout.CLUSTER, layout.CONTROLLER_EPOCH} or path.startswith(
        layout.BROKER_CONFIGS + "/"
    )


def _config_name(path: str) -> str:
    """Whose configuration the node at `path` is, by resource name; see BrokerConfig.path."""
    name = path.rpartition("/")[2]
    return "" if name == "default" else name


def _topic_of(path: str) -> TopicId | None:
    """The topic that the node at `path` belongs to."""
    if not path.startswith(layout.TOPIC_IDS):
        return None
    try:
        return uuid.UUID(path.split("/")[_TOPIC_DEPTH - 1])
    except ValueError:
        return None


class _Builder:
    """One step from an image to the next; used once."""

    def __init__(self, image: ClusterImage, known: ClusterImage | None) -> None:
        """`known` is where what cannot be read is taken from."""
        self._image = image
        self._known = known or image
        self._unreadable = dict(image.unreadable)
        self._touched: dict[TopicId, _Parts] = {}
        self._position = image.position
        self._other: dict[str, Any] = {}
        self._slots: dict[int, SlotImage] = {}
        self._slot_count = len(image.slots)

    def put_entries(self, entries: Iterable[FeedEntry]) -> None:
        for entry in entries:
            for change in entry.changes:
                self.put(change)
            self._position = max(self._position, entry.sequence)

    def put_node(self, path: str, node: Node) -> None:
        """Take a node as it was read; path is one of those `is_in_image` names."""
        try:
            data = layout.decode_json(path, node.value)
        except CorruptNode as error:
            self._put_unreadable(path, node.version, error)
        else:
            self.put(Change(path, node.version, data))

    def put(self, change: Change) -> None:
        """Take one node's new content; path is one of those `is_in_image` names."""
        try:
            self._put(change)
        except CorruptNode as error:
            self._put_unreadable(change.path, change.version, error)
        else:
            self._forget_unreadable(change)

    def _forget_unreadable(self, change: Change) -> None:
        if not self._unreadable:
            return
        noted = self._unreadable.get(change.path)
        if change.data is None:
            for path in [one for one in self._unreadable if one.startswith(change.path + "/")]:
                del self._unreadable[path]
        if noted is not None and (change.data is None or change.version > noted.version):
            del self._unreadable[change.path]

    def _put_unreadable(self, path: str, version: int, error: CorruptNode) -> None:
        """Leave what the node is about as it was known. Raises `error` if all rests on it."""
        if not path.startswith((layout.TOPIC_IDS, layout.BROKER_CONFIGS)):
            raise error
        self._unreadable[path] = Unreadable(version, str(error))
        topic_id = _topic_of(path)
        if topic_id is not None:
            self._keep_known(path, topic_id)
        elif path.startswith(layout.BROKER_CONFIGS):
            name = _config_name(path)
            if name in self._known.broker_configs:
                self._configs()[name] = self._known.broker_configs[name]

    def _keep_known(self, path: str, topic_id: TopicId) -> None:
        parts, topic = self._parts(topic_id), self._known.topics_by_id.get(topic_id)
        names = path.split("/")
        if len(names) == _TOPIC_DEPTH:
            if parts.node is None and topic is not None:
                parts.node = TopicNode(topic.name, len(topic.partitions), config=topic.config)
                parts.version = topic.version
        elif names[_PARTITION_DEPTH - 1].isdecimal():
            number = int(names[_PARTITION_DEPTH - 1])
            held = layout.UNKNOWN_STATE
            if topic is not None and number < len(topic.partitions):
                held = topic.partitions[number]
            parts.states.setdefault(number, held)

    def _put(self, change: Change) -> None:
        try:
            if change.path.startswith(layout.TOPIC_IDS):
                self._put_topic(change)
            elif change.path.startswith(layout.BROKER_CONFIGS):
                self._put_broker_config(change)
            elif change.path == layout.CONTROLLER_EPOCH:
                if change.version >= self._image.controller_epoch:
                    elected = layout.ControllerEpoch.of(change.data)
                    self._other["controller_id"] = elected.controller_id
                    self._other["controller_epoch"] = change.version
            elif change.path.startswith(layout.SLOTS):
                self._put_slot(change)
            elif change.path == layout.CLUSTER:
                self._other["cluster_id"] = layout.ClusterId.of(change.data).cluster_id
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CorruptNode(change.path, error) from error

    def _put_topic(self, change: Change) -> None:
        names = change.path.split("/")
        parts = self._parts(uuid.UUID(names[4]))
        if len(names) == _TOPIC_DEPTH:
            if change.data is None:
                parts.node, parts.version = None, -1
                parts.states.clear()
            elif change.version >= parts.version:
                parts.node = TopicNode.of(change.data)
                parts.version = change.version
            return
        assert len(names) == _PARTITION_DEPTH
        number = int(names[5])
        if change.data is None:
            parts.states.pop(number, None)
            return
        held = parts.states.get(number, layout.UNKNOWN_STATE)
        if held is layout.UNKNOWN_STATE or change.version >= held.partition_epoch:
            parts.states[number] = PartitionState.of(change.data, change.version)

    def _put_broker_config(self, change: Change) -> None:
        versions = self._other.setdefault(
            "_config_versions",
            dict(self._image._config_versions),  # noqa: SLF001
        )
        configs = self._configs()
        name = _config_name(change.path)
        if change.version >= versions.get(name, -1):
            versions[name] = change.version
            configs[name] = layout.BrokerConfig.of(change.data).config

    def _configs(self) -> dict[str, Mapping[str, str]]:
        """The configurations of brokers, to be changed."""
        configs: dict[str, Mapping[str, str]] = self._other.setdefault(
            "broker_configs", dict(self._image.broker_configs)
        )
        return configs

    def _put_slot(self, change: Change) -> None:
        if change.path == layout.SLOTS:
            self._slot_count = layout.Slots.of(change.data).number
            return
        number = int(change.path.rpartition("/")[2])
        held = self._slots.get(number)
        if held is None and number < len(self._image.slots):
            held = self._image.slots[number]
        if held is None or change.version >= held.epoch:
            self._slots[number] = SlotImage(*layout.SlotState.of(change.data), change.version)

    def _parts(self, topic_id: TopicId) -> _Parts:
        parts = self._touched.get(topic_id)
        if parts is None:
            parts = self._touched[topic_id] = _Parts()
            draft = self._image._drafts.get(topic_id)  # noqa: SLF001
            topic = self._image.topics_by_id.get(topic_id)
            if draft is not None:
                parts.node, parts.version = draft.node, draft.version
                parts.states.update(draft.states)
            elif topic is not None:
                parts.node = TopicNode(topic.name, len(topic.partitions), config=topic.config)
                parts.version = topic.version
                parts.states.update(enumerate(topic.partitions))
        return parts

    def finish(self) -> ClusterImage:
        """The next image."""
        image = self._image
        if self._touched:
            topics, by_id = dict(image.topics), dict(image.topics_by_id)
            drafts = dict(image._drafts)  # noqa: SLF001
            for topic_id in self._touched:
                old = by_id.pop(topic_id, None)
                if old is not None and topics.get(old.name) is old:
                    del topics[old.name]
            for topic_id, parts in self._touched.items():
                topic = parts.image(topic_id)
                if topic is not None:
                    topics[topic.name] = by_id[topic_id] = topic
                if parts.exceed(topic):
                    drafts[topic_id] = parts
                else:
                    drafts.pop(topic_id, None)
            self._other |= {"topics": topics, "topics_by_id": by_id, "_drafts": drafts}
        if self._slots:
            slots = dict(enumerate(image.slots)) | self._slots
            self._other["slots"] = tuple(
                slots.get(number, SlotImage()) for number in range(self._slot_count)
            )
        return replace(image, position=self._position, unreadable=self._unreadable, **self._other)
