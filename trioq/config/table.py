"""The one table of configuration keys.

Names, meanings and defaults are Apache Kafka's wherever Kafka has the key. Files, the
environment, command line flags, DescribeConfigs and docs/configuration.md are all served
from here; the attributes of BrokerConfig and TopicConfig repeat names and types for the
type checker and are held to this table by a test.
"""

from __future__ import annotations

from typing import Final

from trioq.config.cluster_keys import CLUSTER_KEYS, METASTORE_KEYS
from trioq.config.group_keys import GROUP_KEYS
from trioq.config.key import INT_MAX, LONG_MAX, Fallback, Key, Kind, Scope, Value
from trioq.config.rows import (
    DAY_MS,
    GIB,
    HOUR_MS,
    KIB,
    MIB,
    MINUTE_MS,
    boolean,
    choice,
    duration,
    listing,
    number,
    size,
    text,
)

_BROKER: Final = (
    # Identity and addresses
    number("node.id", 1, "Id of this broker; kept in the data directory.", maximum=INT_MAX),
    text("broker.rack", None, "Rack of this broker: replicas are spread over racks."),
    listing(
        "listeners",
        ("PLAINTEXT://127.0.0.1:9092",),
        "Addresses to listen on, as HOST:PORT or NAME://HOST:PORT; port 0 takes a free port, "
        "IPv6 addresses stand in brackets.",
    ),
    listing(
        "advertised.listeners",
        (),
        "Addresses that clients are told to connect to, in the order of listeners or by their "
        "names; needed where a listener is on a wildcard address.",
    ),
    listing("log.dirs", ("trioq-data",), "Directories that hold the data of this broker."),
    *METASTORE_KEYS,
    choice(
        "logging.level",
        "info",
        "Least severe log lines that are written to stderr.",
        ("debug", "info", "warning", "error"),
    ),
    # Topics
    number(
        "num.partitions",
        1,
        "Number of partitions of a topic that is created without stating one.",
        minimum=1,
        maximum=INT_MAX,
    ),
    number(
        "default.replication.factor",
        1,
        "Number of replicas of a topic that is created without stating one.",
        minimum=1,
        maximum=32767,
    ),
    number(
        "max.partitions.per.topic",
        10_000,
        "Greatest number of partitions that a topic may be given.",
        minimum=1,
        maximum=INT_MAX,
    ),
    boolean("auto.create.topics.enable", True, "Create a topic when a client first asks for it."),
    boolean("delete.topic.enable", True, "Allow topics to be deleted."),
    number(
        "max.request.partition.size.limit",
        2_000,
        "Most partitions in one answer to DescribeTopicPartitions.",
        minimum=1,
        maximum=INT_MAX,
    ),
    # Connections and requests
    number(
        "max.connections",
        INT_MAX,
        "Most client connections at a time; never more than the limit of file descriptors "
        "leaves room for.",
        minimum=1,
        maximum=INT_MAX,
    ),
    number(
        "max.connections.per.ip",
        INT_MAX,
        "Most client connections at a time from one address.",
        minimum=1,
        maximum=INT_MAX,
    ),
    duration("connections.max.idle.ms", 10 * MINUTE_MS, "Close a connection idle for this long."),
    duration(
        "request.receive.timeout.ms",
        30_000,
        "Close a connection whose request, once begun, has not arrived whole after this long.",
        minimum=1,
    ),
    duration(
        "response.send.timeout.ms",
        30_000,
        "Close a connection that does not take a waiting response for this long.",
        minimum=1,
    ),
    size(
        "socket.request.max.bytes",
        100 * MIB,
        "Largest request; a connection that announces a larger one is closed before any of it "
        "is kept.",
        minimum=1 * KIB,
    ),
    size(
        "queued.max.request.bytes",
        512 * MIB,
        "Memory for the requests of all connections together; at least socket.request.max.bytes.",
        minimum=1 * KIB,
        maximum=LONG_MAX,
    ),
    number(
        "connection.max.in.flight.requests",
        256,
        "Most requests of one connection that wait for their response; it is not read from "
        "while there are that many.",
        minimum=1,
        maximum=100_000,
    ),
    size(
        "connection.max.in.flight.bytes",
        100 * MIB,
        "Most bytes of waiting requests of one connection; a single request may exceed it.",
        minimum=1 * KIB,
        maximum=LONG_MAX,
    ),
    size(
        "connection.max.queued.response.bytes",
        16 * MIB,
        "A connection with more bytes of unsent responses is not read from; a single response "
        "may exceed it.",
        minimum=1 * KIB,
        maximum=LONG_MAX,
    ),
    size("fetch.max.bytes", 55 * MIB, "Most bytes of records in one Fetch response.", minimum=1024),
    number(
        "max.incremental.fetch.session.cache.slots",
        1_000,
        "Number of incremental fetch sessions that are kept.",
        maximum=INT_MAX,
    ),
    duration(
        "shutdown.drain.timeout.ms",
        10_000,
        "How long a broker that is told to stop lets connections finish.",
    ),
    # Produce
    size(
        "message.max.bytes",
        1_048_588,
        "Largest record batch that a producer may send, as it is stored.",
        dynamic=True,
    ),
    number(
        "min.insync.replicas",
        1,
        "Replicas that must be in sync for a produce request with acks=all to be accepted.",
        minimum=1,
        maximum=32767,
        dynamic=True,
    ),
    choice(
        "produce.batch.validation",
        "relaxed",
        "Whether records inside compressed batches are checked: relaxed trusts the batch's CRC, "
        "strict decompresses and walks them.",
        ("relaxed", "strict"),
        dynamic=True,
    ),
    size(
        "produce.decompressed.max.bytes",
        256 * MIB,
        "A compressed batch that holds more than this is refused where it has to be opened.",
        minimum=1 * KIB,
    ),
    number(
        "produce.decompressed.max.ratio",
        1_000,
        "A compressed batch that grows by more than this factor is refused where it has to be "
        "opened.",
        minimum=1,
        maximum=1_000_000,
    ),
    choice(
        "compression.type",
        "producer",
        "Codec in which batches are stored: producer keeps what the producer chose, any other "
        "value recompresses.",
        ("producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"),
        dynamic=True,
    ),
    number(
        "compression.gzip.level",
        -1,
        "Level of gzip where the broker compresses; -1 is the codec's own default.",
        minimum=-1,
        maximum=9,
        dynamic=True,
    ),
    number(
        "compression.lz4.level",
        9,
        "Level of lz4 where the broker compresses.",
        minimum=1,
        maximum=17,
        dynamic=True,
    ),
    number(
        "compression.zstd.level",
        3,
        "Level of zstd where the broker compresses.",
        minimum=-131072,
        maximum=22,
        dynamic=True,
    ),
    choice(
        "log.message.timestamp.type",
        "CreateTime",
        "Whether records keep the producer's timestamps or get the time of their append.",
        ("CreateTime", "LogAppendTime"),
        dynamic=True,
    ),
    duration(
        "log.message.timestamp.before.max.ms",
        LONG_MAX,
        "How far a producer's timestamp may lie before the broker's clock.",
        dynamic=True,
    ),
    duration(
        "log.message.timestamp.after.max.ms",
        HOUR_MS,
        "How far a producer's timestamp may lie after the broker's clock.",
        dynamic=True,
    ),
    duration(
        "producer.id.expiration.ms",
        DAY_MS,
        "How long the sequence numbers of an idempotent producer that is silent are remembered.",
        minimum=1,
    ),
    # Storage
    size(
        "log.segment.bytes",
        GIB,
        "Size at which a segment is closed and the next one begun.",
        minimum=1 * KIB,
        dynamic=True,
    ),
    duration("log.roll.ms", None, "Age at which a segment is closed.", minimum=1, dynamic=True),
    number(
        "log.roll.hours",
        168,
        "Age at which a segment is closed, where log.roll.ms is not set.",
        unit="hours",
        minimum=1,
        maximum=INT_MAX,
    ),
    duration(
        "log.roll.jitter.ms",
        None,
        "Greatest random time by which the age limit of a segment is shortened.",
        dynamic=True,
    ),
    number(
        "log.roll.jitter.hours",
        0,
        "Greatest random shortening of a segment's age limit, where log.roll.jitter.ms is not set.",
        unit="hours",
        maximum=INT_MAX,
    ),
    size(
        "log.index.size.max.bytes",
        10 * MIB,
        "Largest index file; a segment whose index is full is closed.",
        minimum=32,
        dynamic=True,
    ),
    size(
        "log.index.interval.bytes",
        4 * KIB,
        "Bytes of records between two entries of the offset index.",
        dynamic=True,
    ),
    Key(
        Scope.BROKER,
        "log.cleanup.policy",
        Kind.LIST,
        ("delete",),
        "What happens to old segments: delete removes them whole, compact removes records whose "
        "key has a later record; both can be asked for together.",
        choices=("delete", "compact"),
        dynamic=True,
    ),
    size(
        "log.cleaner.dedupe.buffer.size",
        128 * MIB,
        "Memory for the keys that a compaction knows at a time, 32 bytes each, shared by the log "
        "directories; a log with more new keys is compacted in several passes.",
        minimum=MIB,
        maximum=LONG_MAX,
    ),
    size(
        "log.cleaner.io.max.bytes.per.second",
        LONG_MAX,
        "Most bytes that compaction reads and writes in a second, per log directory.",
        minimum=1 * KIB,
        maximum=LONG_MAX,
    ),
    duration(
        "log.cleaner.backoff.ms",
        15_000,
        "Time between two looks for logs to compact, when there was none.",
        minimum=1,
    ),
    Key(
        Scope.BROKER,
        "log.cleaner.min.cleanable.ratio",
        Kind.DOUBLE,
        0.5,
        "A log is compacted when more than this share of its bytes came since the last time.",
        minimum=0,
        maximum=1,
        dynamic=True,
    ),
    duration(
        "log.cleaner.min.compaction.lag.ms",
        0,
        "Time for which a record is not compacted.",
        dynamic=True,
    ),
    duration(
        "log.cleaner.max.compaction.lag.ms",
        LONG_MAX,
        "Time after which a record is compacted, whatever the ratio; also an age at which a "
        "segment is closed.",
        minimum=1,
        dynamic=True,
    ),
    duration(
        "log.cleaner.delete.retention.ms",
        DAY_MS,
        "How long a record without a value (a tombstone) stays after its key was compacted: a "
        "consumer that reads a whole log in less time sees every deletion.",
        dynamic=True,
    ),
    size(
        "log.retention.bytes",
        -1,
        "Size of a partition above which its oldest segments are deleted; -1 is no limit.",
        minimum=-1,
        maximum=LONG_MAX,
        dynamic=True,
    ),
    duration(
        "log.retention.ms",
        None,
        "Age at which segments are deleted; -1 is no limit.",
        minimum=-1,
        dynamic=True,
    ),
    number(
        "log.retention.minutes",
        None,
        "Age at which segments are deleted, where log.retention.ms is not set; -1 is no limit.",
        unit="minutes",
        minimum=-1,
        maximum=INT_MAX,
    ),
    number(
        "log.retention.hours",
        168,
        "Age at which segments are deleted, where neither log.retention.ms nor "
        "log.retention.minutes is set; -1 is no limit.",
        unit="hours",
        minimum=-1,
        maximum=INT_MAX,
    ),
    duration(
        "log.retention.check.interval.ms",
        5 * MINUTE_MS,
        "Time between two looks for segments to delete.",
        minimum=1,
    ),
    duration(
        "log.segment.delete.delay.ms",
        MINUTE_MS,
        "Time from a segment's retirement to the removal of its files.",
        dynamic=True,
    ),
    choice(
        "flush.policy",
        "os",
        "When records are forced to disk: os leaves it to the operating system, interval syncs "
        "by log.flush.interval.ms and .messages, commit syncs before acknowledging.",
        ("os", "interval", "commit"),
        dynamic=True,
    ),
    duration(
        "log.flush.interval.ms",
        1_000,
        "With flush.policy=interval, longest time that a record stays unsynced.",
        minimum=1,
        dynamic=True,
    ),
    number(
        "log.flush.interval.messages",
        LONG_MAX,
        "With flush.policy=interval, number of records after which a partition is synced.",
        minimum=1,
        dynamic=True,
    ),
    duration(
        "log.flush.offset.checkpoint.interval.ms",
        MINUTE_MS,
        "Time between two checkpoints of recovery points, which bound the work after a crash.",
        minimum=1,
    ),
    boolean(
        "log.preallocate", False, "Reserve the space of a segment when it is begun.", dynamic=True
    ),
    number(
        "log.max.open.files",
        -1,
        "Most segment files held open; -1 derives it from the limit of file descriptors.",
        minimum=-1,
        maximum=INT_MAX,
    ),
    duration(
        "stray.retention.ms",
        7 * DAY_MS,
        "Time until a partition directory that belongs to no known topic is removed.",
    ),
    # Groups
    *GROUP_KEYS,
    # Clusters
    *CLUSTER_KEYS,
)

BROKER_KEYS: Final[dict[str, Key]] = {key.name: key for key in _BROKER}
"""Every broker key by name, in the order of the documentation."""


def _topic(name: str, *broker_keys: str | tuple[str, int]) -> Key:
    """A topic key with the type, limits and meaning of the first of its broker keys."""
    fallbacks = tuple(
        Fallback(broker_key) if isinstance(broker_key, str) else Fallback(*broker_key)
        for broker_key in broker_keys
    )
    model = BROKER_KEYS[fallbacks[0].broker_key]
    return Key(
        Scope.TOPIC,
        name,
        model.kind,
        _fallback_default(fallbacks),
        model.doc,
        unit=model.unit,
        minimum=model.minimum,
        maximum=model.maximum,
        choices=model.choices,
        dynamic=True,
        fallbacks=fallbacks,
        note=model.note,
    )


def _fallback_default(fallbacks: tuple[Fallback, ...]) -> Value:
    for fallback in fallbacks:
        default = BROKER_KEYS[fallback.broker_key].default
        if default is not None:
            return scaled(default, fallback.factor)
    return None


def scaled(value: Value, factor: int) -> Value:
    """A broker key's value in the topic key's unit; a negative number means "no limit"."""
    if factor == 1 or not isinstance(value, int):
        return value
    return value if value < 0 else value * factor


_TOPIC: Final = (
    _topic("cleanup.policy", "log.cleanup.policy"),
    _topic("compression.gzip.level", "compression.gzip.level"),
    _topic("compression.lz4.level", "compression.lz4.level"),
    _topic("compression.type", "compression.type"),
    _topic("compression.zstd.level", "compression.zstd.level"),
    _topic("delete.retention.ms", "log.cleaner.delete.retention.ms"),
    _topic("file.delete.delay.ms", "log.segment.delete.delay.ms"),
    _topic("flush.messages", "log.flush.interval.messages"),
    _topic("flush.ms", "log.flush.interval.ms"),
    _topic("flush.policy", "flush.policy"),
    _topic("index.interval.bytes", "log.index.interval.bytes"),
    _topic("max.compaction.lag.ms", "log.cleaner.max.compaction.lag.ms"),
    _topic("max.message.bytes", "message.max.bytes"),
    _topic("message.timestamp.after.max.ms", "log.message.timestamp.after.max.ms"),
    _topic("message.timestamp.before.max.ms", "log.message.timestamp.before.max.ms"),
    _topic("message.timestamp.type", "log.message.timestamp.type"),
    _topic("min.cleanable.dirty.ratio", "log.cleaner.min.cleanable.ratio"),
    _topic("min.compaction.lag.ms", "log.cleaner.min.compaction.lag.ms"),
    _topic("min.insync.replicas", "min.insync.replicas"),
    _topic("preallocate", "log.preallocate"),
    _topic("produce.batch.validation", "produce.batch.validation"),
    _topic("retention.bytes", "log.retention.bytes"),
    _topic(
        "retention.ms",
        "log.retention.ms",
        ("log.retention.minutes", MINUTE_MS),
        ("log.retention.hours", HOUR_MS),
    ),
    _topic("segment.bytes", "log.segment.bytes"),
    _topic("segment.index.bytes", "log.index.size.max.bytes"),
    _topic("segment.jitter.ms", "log.roll.jitter.ms", ("log.roll.jitter.hours", HOUR_MS)),
    _topic("segment.ms", "log.roll.ms", ("log.roll.hours", HOUR_MS)),
    _topic("unclean.leader.election.enable", "unclean.leader.election.enable"),
)

TOPIC_KEYS: Final[dict[str, Key]] = {key.name: key for key in _TOPIC}
"""Every topic key by name, in the order of the documentation."""
