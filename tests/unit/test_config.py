"""The table of keys, the typed configurations, and what is said about bad values."""

from __future__ import annotations

import dataclasses
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioq.config import (
    BROKER_KEYS,
    TOPIC_KEYS,
    BrokerConfig,
    Key,
    Kind,
    Source,
    TopicConfig,
    check_broker_value,
    check_topic_value,
    describe_broker,
    describe_topic,
    validate_topic_overrides,
)
from trioq.errors import ConfigError

DEFAULTS = BrokerConfig.from_mapping({})
ALL_KEYS = [*BROKER_KEYS.values(), *TOPIC_KEYS.values()]

PYTHON_TYPES = {
    Kind.BOOLEAN: bool,
    Kind.STRING: str,
    Kind.INT: int,
    Kind.LONG: int,
    Kind.DOUBLE: float,
    Kind.LIST: tuple[str, ...],
}


def values_of(key: Key) -> st.SearchStrategy[str]:
    """Texts that a key must accept."""
    if key.kind is Kind.BOOLEAN:
        return st.sampled_from(key.choices or ("true", "false", "TRUE", "False"))
    if key.kind in (Kind.INT, Kind.LONG):
        return st.integers(key.minimum, key.maximum).map(str)
    if key.kind is Kind.DOUBLE:
        return st.floats(key.minimum, key.maximum).map(str)
    if key.choices:
        return st.sampled_from(key.choices)
    return st.text("abcdefgh-_", min_size=1, max_size=20)


@pytest.mark.parametrize(
    ("keys", "config_class", "extra"),
    [(BROKER_KEYS, BrokerConfig, "settings"), (TOPIC_KEYS, TopicConfig, "overrides")],
)
def test_the_typed_attributes_are_exactly_the_table(keys, config_class, extra):
    hints = typing.get_type_hints(config_class)
    declared = [f.name for f in dataclasses.fields(config_class) if f.name != extra]
    assert declared == [key.attribute for key in keys.values()]
    for key in keys.values():
        expected = PYTHON_TYPES[key.kind]
        assert hints[key.attribute] == (expected | None if key.nullable else expected), key.name


@pytest.mark.parametrize("key", ALL_KEYS, ids=lambda key: f"{key.scope.name}:{key.name}")
def test_every_row_is_complete(key):
    assert key.doc.endswith(".")
    if key.default is not None:
        assert key.parse(key.write(key.default)) == key.default
    if key.kind in (Kind.INT, Kind.LONG):
        assert key.minimum is not None
        assert key.maximum is not None
    if key.name.endswith((".ms", ".bytes")):
        assert key.unit == key.name.rpartition(".")[2]
    for fallback in key.fallbacks:
        assert fallback.broker_key in BROKER_KEYS


def test_environment_names_are_unambiguous():
    assert len({key.environment_name for key in BROKER_KEYS.values()}) == len(BROKER_KEYS)


@given(st.data())
def test_what_is_accepted_is_written_so_that_it_reads_back(data):
    key = data.draw(st.sampled_from(ALL_KEYS))
    value = key.parse(data.draw(values_of(key)))
    assert key.parse(key.write(value)) == value


@given(st.sampled_from(ALL_KEYS), st.text(max_size=200))
def test_any_text_is_a_value_or_a_sentence_about_the_key(key, text):
    try:
        value = key.parse(text)
    except ConfigError as error:
        assert key.name in str(error)
        assert key.allowed in str(error)
        assert str(error).isprintable()
    else:
        written = key.write(value)
        assert written is None or key.parse(written) == value


def test_defaults_have_a_source():
    assert DEFAULTS.value_of("log.segment.bytes") == str(1 << 30)
    assert DEFAULTS.source_of("log.segment.bytes") is Source.DEFAULT
    assert DEFAULTS.origin_of("log.segment.bytes") == "default"
    assert DEFAULTS.value_of("broker.rack") is None


def test_given_values_are_typed_and_have_an_origin():
    config = BrokerConfig.from_mapping(
        {"num.partitions": "3", "log.dirs": "a, b"}, origins={"num.partitions": "--set"}
    )
    assert config.num_partitions == 3
    assert config.log_dirs == ("a", "b")
    assert config.source_of("num.partitions") is Source.STATIC_BROKER
    assert config.origin_of("num.partitions") == "--set"


def test_configurations_are_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        DEFAULTS.num_partitions = 2


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("num.partitions", "0", "num.partitions=0 is not valid: allowed is an integer from 1"),
        ("num.partitions", "1.5", "allowed is an integer"),
        ("num.partitions", "", "allowed is an integer"),
        ("num.partitions", "9" * 400, "..."),
        ("flush.policy", "never", "one of os, interval, commit"),
        ("auto.create.topics.enable", "yes", "true or false"),
        ("log.cleanup.policy", "squeeze", "a list of delete, compact"),
        ("log.dirs", "", "log.dirs"),
        ("log.dirs", "a,,b", "log.dirs"),
        ("log.dirs", "a,a", "named twice"),
        ("metastore", "etcd", "allowed is embedded or zookeeper://HOST:PORT"),
        ("zookeeper.user", "trioq", "needs zookeeper.password.file"),
        ("zookeeper.password", "secret", "zookeeper.user needs"),
        ("zookeeper.ssl.key.location", "k.pem", "go together"),
        ("zookeeper.ssl.ca.location", "ca.pem", "set zookeeper.ssl.client.enable=true"),
        ("inter.broker.listener.name", "INTERN", "no listener is named so; there is PLAINTEXT"),
        ("replica.lag.time.max.ms", "499", "must not exceed replica.lag.time.max.ms=499"),
        ("replica.selector.class", "Rack", "one of org.apache.kafka.common.replica"),
        ("queued.max.request.bytes", "1024", "socket.request.max.bytes"),
        ("message.max.bytes", "2000000000", "socket.request.max.bytes"),
        ("group.min.session.timeout.ms", "1800001", "must not exceed group.max.session"),
        ("group.consumer.session.timeout.ms", "44999", "group.consumer.min.session.timeout.ms"),
        ("group.consumer.heartbeat.interval.ms", "15001", "group.consumer.max.heartbeat"),
        ("group.consumer.assignors", "sticky", "a list of uniform, range"),
        ("group.consumer.migration.policy", "both", "one of bidirectional, upgrade"),
        ("log.segmnt.bytes", "1", "did you mean log.segment.bytes?"),
        ("ssl.keystore.location", "/k", "without encryption, authentication and authorization"),
        ("authorizer.class.name", "A", "a firewall or a private network"),
        ("nothing like it at all", "1", "is not a broker configuration key"),
        ("retention.ms", "1", "is not a broker configuration key"),
    ],
)
def test_errors_name_key_value_and_what_is_allowed(name, text, expected):
    with pytest.raises(ConfigError) as caught:
        BrokerConfig.from_mapping({name: text})
    assert expected in str(caught.value)


def test_members_send_heartbeats_before_their_session_ends():
    values = {
        "group.consumer.min.session.timeout.ms": "1000",
        "group.consumer.session.timeout.ms": "5000",
    }
    with pytest.raises(ConfigError, match="must be less than group.consumer.session.timeout.ms"):
        BrokerConfig.from_mapping(values)
    values["group.consumer.session.timeout.ms"] = "5001"
    assert BrokerConfig.from_mapping(values).group_consumer_session_timeout_ms == 5001


def test_zookeeper_connect_is_another_way_to_name_the_metastore():
    config = BrokerConfig.from_mapping(
        {"zookeeper.connect": "a:1,b:2/trioq"}, origins={"zookeeper.connect": "--set"}
    )
    assert config.metastore == "zookeeper://a:1,b:2/trioq"
    assert config.is_clustered
    assert config.origin_of("metastore") == "--set"
    both = {"zookeeper.connect": "a:1", "metastore": "zookeeper://a:1"}
    assert BrokerConfig.from_mapping(both).metastore == "zookeeper://a:1"
    with pytest.raises(ConfigError, match="says another place; set one of the two"):
        BrokerConfig.from_mapping(both | {"metastore": "embedded"})
    assert not DEFAULTS.is_clustered


def test_a_password_is_in_one_place_only_and_never_shown():
    values = {"zookeeper.user": "trioq", "zookeeper.password": "hush"}
    config = BrokerConfig.from_mapping(values)
    assert "hush" not in repr(config)
    (row,) = describe_broker(config, ["zookeeper.password"])
    assert row.sensitive
    assert row.value is None
    with pytest.raises(ConfigError, match="both set: keep one") as caught:
        BrokerConfig.from_mapping(values | {"zookeeper.password.file": "f"})
    assert "hush" not in str(caught.value)


def test_brokers_reach_each_other_by_the_first_listener_or_the_one_named():
    values = {"listeners": "OUT://127.0.0.1:1,IN://127.0.0.1:2"}
    assert BrokerConfig.from_mapping(values).inter_broker_listener == "OUT"
    named = values | {"inter.broker.listener.name": "IN"}
    assert BrokerConfig.from_mapping(named).inter_broker_listener == "IN"


def test_an_error_says_where_the_value_was_set():
    with pytest.raises(ConfigError, match=r"set by file broker\.toml"):
        BrokerConfig.from_mapping(
            {"num.partitions": "none"}, origins={"num.partitions": "file broker.toml"}
        )


def test_dynamic_changes_are_laid_over_static_ones():
    static = BrokerConfig.from_mapping({"log.retention.ms": "1000"})
    changed = static.replace(
        {"log.retention.ms": "2000"}, source=Source.DYNAMIC_DEFAULT_BROKER
    ).replace({"log.retention.ms": "3000"})
    assert (static.log_retention_ms, changed.log_retention_ms) == (1000, 3000)
    (row,) = describe_broker(changed, ["log.retention.ms"])
    assert [(s.value, s.source) for s in row.synonyms] == [
        ("3000", Source.DYNAMIC_BROKER),
        ("2000", Source.DYNAMIC_DEFAULT_BROKER),
        ("1000", Source.STATIC_BROKER),
    ]
    assert row.value == "3000"
    assert not row.is_default


def test_a_static_key_cannot_be_changed_at_run_time():
    with pytest.raises(ConfigError, match="node.id cannot be changed while the broker runs"):
        DEFAULTS.replace({"node.id": "2"})
    with pytest.raises(ConfigError, match="is not valid"):
        DEFAULTS.replace({"flush.policy": "x"})


@pytest.mark.parametrize(
    ("broker", "expected_ms"),
    [
        ({}, 168 * 3_600_000),
        ({"log.retention.hours": "2"}, 7_200_000),
        ({"log.retention.hours": "2", "log.retention.minutes": "3"}, 180_000),
        ({"log.retention.minutes": "3", "log.retention.ms": "4"}, 4),
        ({"log.retention.minutes": "-1"}, -1),
        ({"log.retention.ms": "-1"}, -1),
    ],
)
def test_topics_fall_back_to_the_broker_in_its_units(broker, expected_ms):
    config = BrokerConfig.from_mapping(broker)
    assert TopicConfig.of(config, {}).retention_ms == expected_ms
    (row,) = describe_topic(config, {}, ["retention.ms"])
    assert row.value == str(expected_ms)
    assert TopicConfig.of(config, {"retention.ms": "7"}).retention_ms == 7


def test_a_topics_own_value_wins_and_shows_what_it_hides():
    config = BrokerConfig.from_mapping({"message.max.bytes": "2000"})
    overrides = {"max.message.bytes": "1000"}
    topic = TopicConfig.of(config, overrides)
    assert topic.max_message_bytes == 1000
    assert topic.overrides == overrides
    assert topic.value_of("max.message.bytes") == "1000"
    (row,) = describe_topic(config, overrides, ["max.message.bytes", "unknown.key"])
    assert row.source is Source.TOPIC
    assert [(s.name, s.value, s.source) for s in row.synonyms] == [
        ("max.message.bytes", "1000", Source.TOPIC),
        ("message.max.bytes", "2000", Source.STATIC_BROKER),
        ("message.max.bytes", "1048588", Source.DEFAULT),
    ]


def test_topic_values_are_kept_in_one_form():
    assert check_topic_value("preallocate", " TRUE ") == "true"
    assert check_topic_value("retention.ms", "+07") == "7"
    assert validate_topic_overrides({"flush.ms": "5", "cleanup.policy": "delete"}) == {
        "flush.ms": "5",
        "cleanup.policy": "delete",
    }


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("retention.mss", "1", "did you mean retention.ms?"),
        ("retention.ms", None, "retention.ms needs a value"),
        ("retention.ms", "soon", "allowed is an integer (ms) from -1"),
        ("cleanup.policy", "compact,remove", "a list of delete, compact"),
        ("unclean.leader.election.enable", "yes", "true or false"),
        ("min.insync.replicas", "0", "from 1"),
        ("num.partitions", "1", "is not a topic configuration key"),
    ],
)
def test_bad_topic_values_are_refused(name, text, expected):
    with pytest.raises(ConfigError) as caught:
        validate_topic_overrides({name: text})
    assert expected in str(caught.value)


def test_broker_values_are_checked_alone():
    assert check_broker_value("log.retention.ms", "5") == "5"
    with pytest.raises(ConfigError, match="needs a value"):
        check_broker_value("log.retention.ms", None)


def test_every_default_is_described_with_its_value():
    rows = {row.name: row for row in describe_broker(DEFAULTS)}
    assert list(rows) == list(BROKER_KEYS)
    assert all(row.is_default for row in rows.values())
    assert rows["node.id"].read_only
    assert not rows["message.max.bytes"].read_only
    topics = list(describe_topic(DEFAULTS, {}))
    assert [row.name for row in topics] == list(TOPIC_KEYS)
    assert all(row.synonyms[0].value == row.value and not row.read_only for row in topics)
