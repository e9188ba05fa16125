"""Configuration keys of consumer groups: a part of the one table of keys."""

from __future__ import annotations

from typing import Final

from trioq.config.key import INT_MAX, Key, Kind, Scope
from trioq.config.rows import MINUTE_MS, choice, duration, number, size

ASSIGNORS: Final = ("uniform", "range")

GROUP_KEYS: Final = (
    number(
        "coordination.slots",
        64,
        "Number of parts that groups are divided into, each coordinated by one broker; fixed when "
        "the cluster is first started, and what is set later is not looked at.",
        minimum=1,
        maximum=10_000,
    ),
    duration(
        "group.min.session.timeout.ms",
        6_000,
        "Shortest session timeout that a member of a group may ask for.",
        minimum=1,
        maximum=INT_MAX,
    ),
    duration(
        "group.max.session.timeout.ms",
        30 * MINUTE_MS,
        "Longest session timeout that a member of a group may ask for.",
        minimum=1,
        maximum=INT_MAX,
    ),
    duration(
        "group.initial.rebalance.delay.ms",
        3_000,
        "How long an empty group waits for further members before its first rebalance.",
        maximum=INT_MAX,
    ),
    number(
        "group.max.size",
        10_000,
        "Most members of a group of the classic protocol; Kafka's default is no limit.",
        minimum=1,
        maximum=INT_MAX,
    ),
    duration(
        "group.consumer.session.timeout.ms",
        45_000,
        "How long a member of a group of the consumer protocol may be silent.",
        minimum=1,
        maximum=INT_MAX,
    ),
    duration(
        "group.consumer.min.session.timeout.ms",
        45_000,
        "Smallest value that group.consumer.session.timeout.ms may have.",
        minimum=1,
        maximum=INT_MAX,
    ),
    duration(
        "group.consumer.max.session.timeout.ms",
        60_000,
        "Greatest value that group.consumer.session.timeout.ms may have.",
        minimum=1,
        maximum=INT_MAX,
    ),
    duration(
        "group.consumer.heartbeat.interval.ms",
        5_000,
        "How often members of a group of the consumer protocol are told to send heartbeats.",
        minimum=1,
        maximum=INT_MAX,
    ),
    duration(
        "group.consumer.min.heartbeat.interval.ms",
        5_000,
        "Smallest value that group.consumer.heartbeat.interval.ms may have.",
        minimum=1,
        maximum=INT_MAX,
    ),
    duration(
        "group.consumer.max.heartbeat.interval.ms",
        15_000,
        "Greatest value that group.consumer.heartbeat.interval.ms may have.",
        minimum=1,
        maximum=INT_MAX,
    ),
    number(
        "group.consumer.max.size",
        10_000,
        "Most members of a group of the consumer protocol; Kafka's default is no limit.",
        minimum=1,
        maximum=INT_MAX,
    ),
    Key(
        Scope.BROKER,
        "group.consumer.assignors",
        Kind.LIST,
        ASSIGNORS,
        "Assignors that members of the consumer protocol may choose from; the first is taken "
        "where none is chosen.",
        choices=ASSIGNORS,
    ),
    choice(
        "group.consumer.migration.policy",
        "bidirectional",
        "Whether a group with members may change its protocol: upgrade from classic to consumer, "
        "downgrade from consumer to classic, bidirectional or disabled.",
        ("bidirectional", "upgrade", "downgrade", "disabled"),
    ),
    size(
        "offset.metadata.max.bytes",
        256,
        "Most bytes of the text that a client may commit with an offset; Kafka's default is 4096.",
        maximum=16 * 1024,
    ),
    duration(
        "offset.commit.timeout.ms",
        5_000,
        "How long a commit of offsets waits for the metastore before it fails.",
        minimum=1,
        maximum=INT_MAX,
    ),
    number(
        "offsets.retention.minutes",
        7 * 24 * 60,
        "How long committed offsets are kept after their group has become empty, or, where a "
        "consumer has no group, after the commit.",
        unit="minutes",
        minimum=1,
        maximum=INT_MAX,
    ),
    duration(
        "offsets.retention.check.interval.ms",
        10 * MINUTE_MS,
        "Time between two looks for committed offsets to forget.",
        minimum=1,
    ),
)
"""In the order of the documentation."""
