"""Configuration keys of clusters: a part of the one table of keys, and how they fit together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trioq.config.key import INT_MAX, LONG_MAX, Key, Kind, Scope
from trioq.config.rows import KIB, MIB, boolean, duration, number, size, text
from trioq.errors import ConfigError

if TYPE_CHECKING:
    from trioq.config.broker import BrokerConfig

EMBEDDED: Final = "embedded"
ZOOKEEPER_SCHEME: Final = "zookeeper://"

LEADER_SELECTOR: Final = "org.apache.kafka.common.replica.LeaderSelector"
RACK_AWARE_SELECTOR: Final = "org.apache.kafka.common.replica.RackAwareReplicaSelector"

METASTORE_KEYS: Final = (
    text(
        "metastore",
        EMBEDDED,
        "Where metadata lives: embedded, in the first data directory, for a single broker; "
        "zookeeper://HOST:PORT,HOST:PORT/PATH for a broker of a cluster.",
    ),
    text(
        "zookeeper.connect",
        None,
        "HOST:PORT,HOST:PORT/PATH: the same as metastore=zookeeper://HOST:PORT,HOST:PORT/PATH.",
    ),
    duration(
        "zookeeper.session.timeout.ms",
        18_000,
        "How long a broker may be silent before ZooKeeper takes it for dead and its leaderships "
        "move; the servers' own limits (2 to 20 of their ticks) apply.",
        minimum=500,
        maximum=INT_MAX,
    ),
    duration(
        "zookeeper.connection.timeout.ms",
        None,
        "How long a broker that starts waits for ZooKeeper to answer before it gives up; "
        "zookeeper.session.timeout.ms where it is not set.",
        minimum=1,
        maximum=INT_MAX,
    ),
    text("zookeeper.user", None, "User to authenticate as to ZooKeeper, by SASL DIGEST-MD5."),
    Key(
        Scope.BROKER,
        "zookeeper.password",
        Kind.STRING,
        None,
        "Password of zookeeper.user; better kept in zookeeper.password.file.",
        sensitive=True,
    ),
    text(
        "zookeeper.password.file",
        None,
        "File that holds the password of zookeeper.user, in its first line.",
    ),
    boolean("zookeeper.ssl.client.enable", False, "Use TLS to ZooKeeper."),
    text(
        "zookeeper.ssl.ca.location",
        None,
        "PEM file with the authorities that sign the certificates of ZooKeeper's servers; the "
        "system's where it is not set.",
    ),
    text(
        "zookeeper.ssl.certificate.location",
        None,
        "PEM file with the certificate that this broker shows to ZooKeeper.",
    ),
    text(
        "zookeeper.ssl.key.location",
        None,
        "PEM file with the private key of zookeeper.ssl.certificate.location.",
    ),
)
"""In the order of the documentation."""

CLUSTER_KEYS: Final = (
    text(
        "inter.broker.listener.name",
        None,
        "Name of the listener by which brokers reach each other; the first listener where it is "
        "not set.",
    ),
    duration(
        "replica.lag.time.max.ms",
        30_000,
        "A replica that has not reached the end of its leader's log for this long leaves the "
        "replicas in sync.",
        minimum=1,
        maximum=INT_MAX,
    ),
    number(
        "replica.lag.max.messages",
        0,
        "A replica that has been this many messages behind its leader for 5 seconds on end leaves "
        "the replicas in sync; 0 is no limit.",
    ),
    size(
        "replica.fetch.max.bytes",
        1 * MIB,
        "Bytes that a follower asks for per partition in one fetch; a larger batch comes whole.",
        minimum=1 * KIB,
    ),
    size(
        "replica.fetch.response.max.bytes",
        10 * MIB,
        "Bytes that a follower asks for in one fetch of all partitions.",
        minimum=1 * KIB,
    ),
    size(
        "replica.fetch.min.bytes",
        1,
        "Bytes that a leader waits for before it answers a follower's fetch.",
        minimum=1,
    ),
    duration(
        "replica.fetch.wait.max.ms",
        500,
        "Longest time that a leader keeps a follower's fetch when there is nothing new; at most "
        "replica.lag.time.max.ms.",
        maximum=INT_MAX,
    ),
    duration(
        "replica.fetch.backoff.ms",
        100,
        "First pause after a failed fetch of a follower; it grows while fetches fail.",
        minimum=1,
        maximum=INT_MAX,
    ),
    number(
        "num.replica.fetchers",
        1,
        "Connections by which this broker follows each leader.",
        minimum=1,
        maximum=64,
    ),
    Key(
        Scope.BROKER,
        "replica.selector.class",
        Kind.STRING,
        None,
        "Whom consumers read from: their partition's leader where it is not set, a replica in "
        "their own rack with RackAwareReplicaSelector.",
        choices=(LEADER_SELECTOR, RACK_AWARE_SELECTOR),
    ),
    size(
        "leader.replication.throttled.rate",
        LONG_MAX,
        "Most bytes that this broker sends in a second to replicas that are being added.",
        minimum=1 * KIB,
        maximum=LONG_MAX,
        dynamic=True,
    ),
    size(
        "follower.replication.throttled.rate",
        LONG_MAX,
        "Most bytes that this broker fetches in a second for replicas that are being added.",
        minimum=1 * KIB,
        maximum=LONG_MAX,
        dynamic=True,
    ),
    boolean(
        "unclean.leader.election.enable",
        False,
        "Whether a replica that is not in sync may become leader when no other is left, which "
        "loses what was acknowledged and only others held.",
        dynamic=True,
    ),
    duration(
        "unclean.recovery.timeout.ms",
        -1,
        "How long those replicas of a partition without a leader wait for the others that held all "
        "that was acknowledged, if each that is back may have lost the end of its log: then the "
        "one of them whose log reaches furthest leads, and what only the others have is lost. -1: "
        "for ever, or until an operator decides (trioq cluster elect-leaders --unclean).",
        minimum=-1,
        dynamic=True,
    ),
    boolean(
        "auto.leader.rebalance.enable",
        True,
        "Give leadership back to the first replica of a partition when it is in sync again.",
    ),
    number(
        "leader.imbalance.check.interval.seconds",
        300,
        "Time between two looks for leaderships to give back.",
        unit="seconds",
        minimum=1,
        maximum=INT_MAX,
    ),
    number(
        "leader.imbalance.per.broker.percentage",
        10,
        "Leaderships are given back once this share of those that a broker should have are with "
        "others.",
        unit="percent",
        maximum=100,
    ),
    boolean(
        "controlled.shutdown.enable",
        True,
        "Hand over leaderships before stopping.",
    ),
    duration(
        "controlled.shutdown.max.wait.ms",
        5_000,
        "How long a broker that is told to stop waits for its leaderships to be handed over.",
        maximum=INT_MAX,
    ),
)
"""In the order of the documentation."""


def check_cluster(config: BrokerConfig) -> None:
    """The values of these keys against each other; raises ConfigError."""
    _check_metastore(config)
    names = [one.name for one in config.endpoints()]
    between = config.inter_broker_listener_name
    if between is not None and between not in names:
        raise ConfigError(
            f"inter.broker.listener.name={between} is not valid: no listener is named so; there is "
            f"{', '.join(names)}"
        )
    if config.replica_fetch_wait_max_ms > config.replica_lag_time_max_ms:
        raise ConfigError(
            f"replica.fetch.wait.max.ms={config.replica_fetch_wait_max_ms} is not valid: it must "
            f"not exceed replica.lag.time.max.ms={config.replica_lag_time_max_ms}"
        )


def _check_metastore(config: BrokerConfig) -> None:
    if config.metastore != EMBEDDED and not config.metastore.startswith(ZOOKEEPER_SCHEME):
        raise ConfigError(
            f"metastore={config.metastore} is not valid: allowed is {EMBEDDED} or "
            f"{ZOOKEEPER_SCHEME}HOST:PORT,HOST:PORT/PATH"
        )
    connect = config.zookeeper_connect
    if connect is not None and config.metastore != ZOOKEEPER_SCHEME + connect:
        raise ConfigError(
            f"zookeeper.connect={connect} is not valid: metastore={config.metastore} says another "
            "place; set one of the two"
        )
    passwords = (config.zookeeper_password, config.zookeeper_password_file)
    if all(passwords):
        raise ConfigError("zookeeper.password and zookeeper.password.file are both set: keep one")
    if any(passwords) != (config.zookeeper_user is not None):
        raise ConfigError(
            "zookeeper.user needs zookeeper.password.file (or zookeeper.password), and they need it"
        )
    certificate, key = config.zookeeper_ssl_certificate_location, config.zookeeper_ssl_key_location
    if (certificate is None) != (key is None):
        raise ConfigError(
            "zookeeper.ssl.certificate.location and zookeeper.ssl.key.location go together: set "
            "both or none"
        )
    is_tls_set_up = certificate is not None or config.zookeeper_ssl_ca_location is not None
    if is_tls_set_up and not config.zookeeper_ssl_client_enable:
        raise ConfigError(
            "zookeeper.ssl.* files are set but TLS is off: set zookeeper.ssl.client.enable=true"
        )
