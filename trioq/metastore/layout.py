"""What is kept where in the metastore: one class per kind of node, with path and encoding.

    /cluster                            ClusterId, created once
    /brokers/epochs/<broker>            BrokerEpoch; the node's version is the broker epoch
    /brokers/ids/<broker>               BrokerRegistration, ephemeral
    /brokers/configs/<broker|default>   BrokerConfig
    /controller/epoch                   ControllerEpoch; the node's version is the epoch
    /controller/leader                  the controller's claim, ephemeral
    /controller/seq                     the token of the controller's last write
    /topics/names/<bucket>/<claim>      TopicClaim: a name is taken
    /topics/ids/<bucket>/<topic>        TopicNode: name, number of partitions, configs
    /topics/ids/<bucket>/<topic>/<n>    PartitionState; the version is the partition epoch
    /producer_ids                       ProducerIds: the first id of the next block
    /feed/entries/e-<sequence>          entries of the change feed (see feed.py)
    /feed/floor                         FeedFloor: what was trimmed from it
    /slots                              Slots: how many there are, and the hash to them
    /slots/<n>                          SlotState; the version is the slot epoch
    /slots/<n>/seq                      the token of the slot's last write
    /slots/<n>/groups                   the groups of this slot (see group_layout.py)

Everything about a topic hangs under its id, so a late writer who knew a deleted topic of
the same name finds no node. A name is claimed with "." written as "_", so that of two
topics whose metrics would collide only one can come to be. Buckets keep the number of
children of a node bounded. Values are JSON without spaces.
"""

from __future__ import annotations

import json
import uuid
import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeVar

from trioq.errors import MetastoreError
from trioq.types import TopicId

_BUCKETS: Final = 64

TOPICS: Final = "/topics"
TOPIC_NAMES: Final = "/topics/names"
TOPIC_IDS: Final = "/topics/ids"
BROKER_IDS: Final = "/brokers/ids"
BROKER_CONFIGS: Final = "/brokers/configs"
FEED_ENTRIES: Final = "/feed/entries"
FEED_FLOOR: Final = "/feed/floor"
CLUSTER: Final = "/cluster"
CONTROLLER_EPOCH: Final = "/controller/epoch"
CONTROLLER_LEADER: Final = "/controller/leader"
CONTROLLER_SEQ: Final = "/controller/seq"
PRODUCER_IDS: Final = "/producer_ids"
SLOTS: Final = "/slots"

SLOT_HASH: Final = "crc32"
"""The hash that new clusters record: zlib.crc32 of the id in UTF-8."""

DEFAULT_SLOTS: Final = 64

MAX_CHILDREN: Final = 10_000
"""Children that a node may have; so also the most partitions of a topic."""

NO_CONFIG: Final[Mapping[str, str]] = MappingProxyType({})

encode_json = json.JSONEncoder(separators=(",", ":")).encode


_Decoded = TypeVar("_Decoded")


class CorruptNode(MetastoreError):
    """A node's value is not what the layout says; names the path."""

    def __init__(self, path: str, reason: object) -> None:
        super().__init__(f"metastore node {path} cannot be read: {reason}")
        self.path = path


def decode_json(path: str, value: bytes) -> Any:
    """The JSON in a node's value. Raises CorruptNode."""
    try:
        return json.loads(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise CorruptNode(path, error) from error


def decode_node(path: str, value: bytes, of: Callable[[Any], _Decoded]) -> _Decoded:
    """What `of`, of the node's class, makes of the JSON in a node's value. Raises CorruptNode."""
    try:
        return of(decode_json(path, value))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CorruptNode(path, error) from error


def bucket_names() -> list[str]:
    """The buckets that exist below TOPIC_NAMES and TOPIC_IDS from the beginning."""
    return [f"{number:02x}" for number in range(_BUCKETS)]


def topic_path(topic_id: TopicId) -> str:
    """Where the topic's TopicNode is, with its partitions below."""
    return f"{TOPIC_IDS}/{topic_id.int % _BUCKETS:02x}/{topic_id.hex}"


def partition_path(topic_id: TopicId, partition: int) -> str:
    """Where the partition's state is."""
    return f"{topic_path(topic_id)}/{partition}"


class ClusterId(NamedTuple):
    """The cluster's identity, 22 characters of base64url; never changes."""

    cluster_id: str

    def encode(self) -> bytes:
        return encode_json({"id": self.cluster_id}).encode()

    @classmethod
    def of(cls, data: Any) -> ClusterId:
        return cls(data["id"])


class BrokerEpoch(NamedTuple):
    """Who registered last under a broker id; this node's version is that broker's epoch.

    `held_since` as in BrokerRegistration.
    """

    incarnation: str
    directory_ids: tuple[str, ...]
    clean: bool
    held_since: int = -1

    @staticmethod
    def path(broker_id: int) -> str:
        return f"/brokers/epochs/{broker_id}"

    def encode(self) -> bytes:
        return encode_json(self._asdict()).encode()

    @classmethod
    def of(cls, data: Any) -> BrokerEpoch:
        return cls(
            data["incarnation"],
            tuple(data["directory_ids"]),
            data["clean"],
            data.get("held_since", -1),
        )


class BrokerRegistration(NamedTuple):
    """A live broker. `endpoints` maps a listener's name to its advertised host and port.

    `clean` tells whether the stop before this start was clean; `incarnation` is random
    per registration; `directory_ids` are those of its log directories. `held_since` is the
    broker epoch since which nothing that its logs held can be missing, over clean stops and lost
    sessions; -1: that is not known, and `clean` tells of the epoch before only.
    """

    broker_id: int
    broker_epoch: int
    rack: str | None
    endpoints: Mapping[str, tuple[str, int]]
    directory_ids: tuple[str, ...]
    host: str
    incarnation: str
    clean: bool
    held_since: int = -1

    def path(self) -> str:
        return f"{BROKER_IDS}/{self.broker_id}"

    def encode(self) -> bytes:
        return encode_json(self._asdict()).encode()

    @classmethod
    def of(cls, data: Any) -> BrokerRegistration:
        fields = dict(data)
        fields["endpoints"] = {
            name: (host, port) for name, (host, port) in data["endpoints"].items()
        }
        fields["directory_ids"] = tuple(data["directory_ids"])
        return cls(**fields)


class ControllerEpoch(NamedTuple):
    """Who won the last election; this node's version is the controller epoch."""

    controller_id: int

    def encode(self) -> bytes:
        return encode_json({"controller": self.controller_id}).encode()

    @classmethod
    def of(cls, data: Any) -> ControllerEpoch:
        return cls(data["controller"])


class TopicClaim(NamedTuple):
    """A topic's name is taken, by the topic with this id."""

    name: str
    topic_id: TopicId

    @staticmethod
    def path(name: str) -> str:
        """Where the claim for `name` is: the same for names that would collide."""
        claim = name.replace(".", "_")
        return f"{TOPIC_NAMES}/{zlib.crc32(claim.encode()) % _BUCKETS:02x}/{claim}"

    def encode(self) -> bytes:
        return encode_json({"name": self.name, "id": self.topic_id.hex}).encode()

    @classmethod
    def of(cls, data: Any) -> TopicClaim:
        return cls(data["name"], uuid.UUID(data["id"]))


class TopicNode(NamedTuple):
    """A topic. It has partitions 0 .. `partitions`-1; states beyond are being added.

    Only a `live` topic exists for clients: one that is not is still being created, or
    already being removed, because its partitions do not fit into one multi.
    """

    name: str
    partitions: int
    live: bool = True
    config: Mapping[str, str] = NO_CONFIG

    def encode(self) -> bytes:
        data = self._asdict()
        data["config"] = dict(self.config)
        return encode_json(data).encode()

    @classmethod
    def of(cls, data: Any) -> TopicNode:
        return cls(data["name"], data["partitions"], data["live"], data["config"])


class PartitionState(NamedTuple):
    """Who leads and who holds a partition.

    `leader` is -1 while there is none. `broker_epochs` are those of the members of `isr`,
    in the same order (a leader is always a member). `elr` are the replicas that stay
    electable outside the ISR (KIP-966), `elr_epochs` the broker epochs in which they held all that
    was committed;
    `last_leader` is who led when leader became -1. `failed` are the replicas whose logs cannot be
    used, as their brokers said in the broker epochs `failed_epochs`: they neither lead nor count.
    `partition_epoch` is the node's version: not part of the value, and what a change is
    compared against.
    """

    leader: int
    leader_epoch: int
    isr: tuple[int, ...]
    broker_epochs: tuple[int, ...]
    replicas: tuple[int, ...]
    elr: tuple[int, ...] = ()
    last_leader: int = -1
    adding: tuple[int, ...] = ()
    removing: tuple[int, ...] = ()
    partition_epoch: int = 0
    elr_epochs: tuple[int, ...] = ()
    failed: tuple[int, ...] = ()
    failed_epochs: tuple[int, ...] = ()

    @property
    def failed_logs(self) -> dict[int, int]:
        """The replicas whose logs have failed, with the broker epochs in which that was said."""
        return dict(zip(self.failed, self.failed_epochs, strict=True))

    @property
    def leader_broker_epoch(self) -> int:
        """The broker epoch in which the leader leads; -1 while there is none."""
        if self.leader not in self.isr:
            return -1
        return self.broker_epochs[self.isr.index(self.leader)]

    def with_failed(self, failed: Mapping[int, int]) -> PartitionState:
        """The state with these as `failed_logs`."""
        return self._replace(failed=tuple(failed), failed_epochs=tuple(failed.values()))

    def encode(self) -> bytes:
        data: dict[str, Any] = {
            "leader": self.leader,
            "leader_epoch": self.leader_epoch,
            "isr": self.isr,
            "broker_epochs": self.broker_epochs,
            "replicas": self.replicas,
        }
        if self.elr:
            data["elr"] = self.elr
            data["elr_epochs"] = self.elr_epochs
        if self.last_leader != -1:
            data["last_leader"] = self.last_leader
        if self.adding or self.removing:
            data["adding"] = self.adding
            data["removing"] = self.removing
        if self.failed:
            data["failed"] = self.failed
            data["failed_epochs"] = self.failed_epochs
        return encode_json(data).encode()

    @classmethod
    def of(cls, data: Any, version: int) -> PartitionState:
        return cls(
            data["leader"],
            data["leader_epoch"],
            tuple(data["isr"]),
            tuple(data["broker_epochs"]),
            tuple(data["replicas"]),
            tuple(data.get("elr", ())),
            data.get("last_leader", -1),
            tuple(data.get("adding", ())),
            tuple(data.get("removing", ())),
            version,
            tuple(data.get("elr_epochs", ())),
            tuple(data.get("failed", ())),
            tuple(data.get("failed_epochs", ())),
        )


NO_VERSION: Final = 2**31 - 1
"""A version that no node gets to: what is compared against it is refused."""

UNKNOWN_STATE: Final = PartitionState(-1, -1, (), (), (), partition_epoch=NO_VERSION)
"""Of a partition whose node cannot be read and never could: nobody's, until it can."""


class BrokerConfig(NamedTuple):
    """Configuration set at run time for one broker, or for all that set nothing else ("")."""

    config: Mapping[str, str]

    @staticmethod
    def path(resource_name: str) -> str:
        return f"{BROKER_CONFIGS}/{resource_name or 'default'}"

    def encode(self) -> bytes:
        return encode_json(dict(self.config)).encode()

    @classmethod
    def of(cls, data: Any) -> BrokerConfig:
        return cls(dict(data))


class NextProducerIds(NamedTuple):
    """The first producer id that no block handed out contains."""

    next_id: int

    def encode(self) -> bytes:
        return encode_json({"next": self.next_id}).encode()

    @classmethod
    def of(cls, data: Any) -> NextProducerIds:
        return cls(data["next"])


class Slots(NamedTuple):
    """The coordination slots of a cluster, 0 .. `number`-1; fixed when they are created."""

    number: int
    hash_name: str = SLOT_HASH

    def slot_of(self, coordinated_id: str) -> int:
        """The slot of a group id or transactional id."""
        return zlib.crc32(coordinated_id.encode("utf-8", "surrogatepass")) % self.number

    def encode(self) -> bytes:
        return encode_json({"number": self.number, "hash": self.hash_name}).encode()

    @classmethod
    def of(cls, data: Any) -> Slots:
        number, hash_name = data["number"], data["hash"]
        if type(number) is not int or not 1 <= number <= MAX_CHILDREN:
            raise ValueError(f"{number!r} slots")
        if hash_name != SLOT_HASH:
            raise ValueError(f"the hash {hash_name!r} is not known to this version of trioq")
        return cls(number, hash_name)


class SlotState(NamedTuple):
    """Who leads a slot; -1 before anybody did. This node's version is the slot epoch.

    `broker_epoch` is that of the leader: a broker leads only by a state that names the epoch
    in which it is registered (SAFETY rule 6). States of earlier versions of trioq have none.
    """

    leader: int
    broker_epoch: int = -1

    def encode(self) -> bytes:
        return encode_json(self._asdict()).encode()

    @classmethod
    def of(cls, data: Any) -> SlotState:
        return cls(data["leader"], data.get("broker_epoch", -1))


def slot_path(slot: int) -> str:
    """Where the slot's SlotState is."""
    return f"{SLOTS}/{slot}"


def slot_seq_path(slot: int) -> str:
    """Where the token of the slot's last write is."""
    return f"{SLOTS}/{slot}/seq"


def slot_groups_path(slot: int) -> str:
    """The node below which the slot's groups are."""
    return f"{SLOTS}/{slot}/groups"


class FeedFloor(NamedTuple):
    """The greatest sequence number trimmed from the feed; -1 before the first trim."""

    trimmed_sequence: int

    def encode(self) -> bytes:
        return encode_json({"trimmed": self.trimmed_sequence}).encode()

    @classmethod
    def of(cls, data: Any) -> FeedFloor:
        return cls(data["trimmed"])
