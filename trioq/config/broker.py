"""BrokerConfig: the configuration of one broker, checked and typed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from trioq.config.cluster_keys import EMBEDDED, ZOOKEEPER_SCHEME, check_cluster
from trioq.config.key import Key, Scope, Source, Value, unknown_key
from trioq.config.listeners import Listener, parse_listeners
from trioq.config.table import BROKER_KEYS
from trioq.errors import ConfigError


class Setting(NamedTuple):
    """One value of a key and where it was set."""

    value: Value
    source: Source
    origin: str
    """For people: "--set", "environment variable TRIOQ_NODE_ID", "file broker.toml"."""


@dataclass(frozen=True, slots=True)
class BrokerConfig:
    """Every broker key as an attribute: dots are underscores, units are the table's.

    Immutable. Made by `from_mapping` (or `trioq.config.loading`) and changed by `replace`,
    which both check every value; constructing it directly checks nothing.
    """

    node_id: int
    broker_rack: str | None
    listeners: tuple[str, ...]
    advertised_listeners: tuple[str, ...]
    log_dirs: tuple[str, ...]
    metastore: str
    zookeeper_connect: str | None
    zookeeper_session_timeout_ms: int
    zookeeper_connection_timeout_ms: int | None
    zookeeper_user: str | None
    zookeeper_password: str | None = field(repr=False)
    zookeeper_password_file: str | None
    zookeeper_ssl_client_enable: bool
    zookeeper_ssl_ca_location: str | None
    zookeeper_ssl_certificate_location: str | None
    zookeeper_ssl_key_location: str | None
    logging_level: str
    num_partitions: int
    default_replication_factor: int
    max_partitions_per_topic: int
    auto_create_topics_enable: bool
    delete_topic_enable: bool
    max_request_partition_size_limit: int
    max_connections: int
    max_connections_per_ip: int
    connections_max_idle_ms: int
    request_receive_timeout_ms: int
    response_send_timeout_ms: int
    socket_request_max_bytes: int
    queued_max_request_bytes: int
    connection_max_in_flight_requests: int
    connection_max_in_flight_bytes: int
    connection_max_queued_response_bytes: int
    fetch_max_bytes: int
    max_incremental_fetch_session_cache_slots: int
    shutdown_drain_timeout_ms: int
    message_max_bytes: int
    min_insync_replicas: int
    produce_batch_validation: str
    produce_decompressed_max_bytes: int
    produce_decompressed_max_ratio: int
    compression_type: str
    compression_gzip_level: int
    compression_lz4_level: int
    compression_zstd_level: int
    log_message_timestamp_type: str
    log_message_timestamp_before_max_ms: int
    log_message_timestamp_after_max_ms: int
    producer_id_expiration_ms: int
    log_segment_bytes: int
    log_roll_ms: int | None
    log_roll_hours: int
    log_roll_jitter_ms: int | None
    log_roll_jitter_hours: int
    log_index_size_max_bytes: int
    log_index_interval_bytes: int
    log_cleanup_policy: tuple[str, ...]
    log_cleaner_dedupe_buffer_size: int
    log_cleaner_io_max_bytes_per_second: int
    log_cleaner_backoff_ms: int
    log_cleaner_min_cleanable_ratio: float
    log_cleaner_min_compaction_lag_ms: int
    log_cleaner_max_compaction_lag_ms: int
    log_cleaner_delete_retention_ms: int
    log_retention_bytes: int
    log_retention_ms: int | None
    log_retention_minutes: int | None
    log_retention_hours: int
    log_retention_check_interval_ms: int
    log_segment_delete_delay_ms: int
    flush_policy: str
    log_flush_interval_ms: int
    log_flush_interval_messages: int
    log_flush_offset_checkpoint_interval_ms: int
    log_preallocate: bool
    log_max_open_files: int
    stray_retention_ms: int
    coordination_slots: int
    group_min_session_timeout_ms: int
    group_max_session_timeout_ms: int
    group_initial_rebalance_delay_ms: int
    group_max_size: int
    group_consumer_session_timeout_ms: int
    group_consumer_min_session_timeout_ms: int
    group_consumer_max_session_timeout_ms: int
    group_consumer_heartbeat_interval_ms: int
    group_consumer_min_heartbeat_interval_ms: int
    group_consumer_max_heartbeat_interval_ms: int
    group_consumer_max_size: int
    group_consumer_assignors: tuple[str, ...]
    group_consumer_migration_policy: str
    offset_metadata_max_bytes: int
    offset_commit_timeout_ms: int
    offsets_retention_minutes: int
    offsets_retention_check_interval_ms: int
    inter_broker_listener_name: str | None
    replica_lag_time_max_ms: int
    replica_lag_max_messages: int
    replica_fetch_max_bytes: int
    replica_fetch_response_max_bytes: int
    replica_fetch_min_bytes: int
    replica_fetch_wait_max_ms: int
    replica_fetch_backoff_ms: int
    num_replica_fetchers: int
    replica_selector_class: str | None
    leader_replication_throttled_rate: int
    follower_replication_throttled_rate: int
    unclean_leader_election_enable: bool
    unclean_recovery_timeout_ms: int
    auto_leader_rebalance_enable: bool
    leader_imbalance_check_interval_seconds: int
    leader_imbalance_per_broker_percentage: int
    controlled_shutdown_enable: bool
    controlled_shutdown_max_wait_ms: int
    settings: Mapping[str, tuple[Setting, ...]] = field(repr=False, compare=False)
    """For each key that was set, what was set, the effective value first."""

    @classmethod
    def from_mapping(
        cls,
        values: Mapping[str, str],
        *,
        source: Source = Source.STATIC_BROKER,
        origins: Mapping[str, str] | None = None,
    ) -> BrokerConfig:
        """The defaults with `values` (texts by key name) over them.

        `origins` says for people where each value was set. Raises ConfigError for an unknown
        key, a bad value, or values that do not fit together.
        """
        origins = origins or {}
        settings = {
            name: (_setting(name, text, source, origins.get(name, "")),)
            for name, text in values.items()
        }
        return cls._built(settings)

    @classmethod
    def _built(cls, settings: Mapping[str, tuple[Setting, ...]]) -> BrokerConfig:
        settings = _with_metastore(settings)
        values: dict[str, Any] = {
            key.attribute: settings[name][0].value if name in settings else key.default
            for name, key in BROKER_KEYS.items()
        }
        config = cls(settings=settings, **values)
        config._check_together()
        return config

    def replace(
        self, overrides: Mapping[str, str], *, source: Source = Source.DYNAMIC_BROKER
    ) -> BrokerConfig:
        """Lay dynamic `overrides` over this configuration; the receiver is unchanged.

        Raises ConfigError also for a key that cannot be changed while the broker runs.
        """
        settings = dict(self.settings)
        for name, text in overrides.items():
            setting = _setting(name, text, source, "")
            if not BROKER_KEYS[name].dynamic:
                raise ConfigError(
                    f"{name} cannot be changed while the broker runs: set it in the configuration "
                    "and restart"
                )
            settings[name] = (setting, *settings.get(name, ()))
        return self._built(settings)

    @property
    def is_clustered(self) -> bool:
        """Whether this is a broker of a cluster, with a metastore outside the process."""
        return self.metastore != EMBEDDED

    @property
    def inter_broker_listener(self) -> str:
        """Name of the listener by which brokers reach each other."""
        return self.inter_broker_listener_name or self.endpoints()[0].name

    def value_of(self, name: str) -> str | None:
        """The effective value of a key as text; None where it is unset."""
        key = broker_key(name)
        value: Value = getattr(self, key.attribute)
        return key.write(value)

    def source_of(self, name: str) -> Source:
        """Where the effective value of a key comes from."""
        broker_key(name)
        layers = self.settings.get(name)
        return layers[0].source if layers else Source.DEFAULT

    def origin_of(self, name: str) -> str:
        """The same for people, such as "environment variable TRIOQ_NODE_ID"."""
        broker_key(name)
        layers = self.settings.get(name)
        return layers[0].origin if layers else "default"

    def endpoints(self) -> tuple[Listener, ...]:
        """The listeners, parsed, each with the address that clients are told."""
        return parse_listeners(self.listeners, self.advertised_listeners)

    def _check_together(self) -> None:
        if self.queued_max_request_bytes < self.socket_request_max_bytes:
            raise ConfigError(
                f"queued.max.request.bytes={self.queued_max_request_bytes} is not valid: it must "
                f"hold one whole request, socket.request.max.bytes={self.socket_request_max_bytes}"
            )
        if self.message_max_bytes > self.socket_request_max_bytes:
            raise ConfigError(
                f"message.max.bytes={self.message_max_bytes} is not valid: it must fit into a "
                f"request, socket.request.max.bytes={self.socket_request_max_bytes}"
            )
        if len(set(self.log_dirs)) != len(self.log_dirs):
            raise ConfigError(
                f"log.dirs={','.join(self.log_dirs)} is not valid: a directory is named twice"
            )
        self._check_groups()
        check_cluster(self)

    def _check_groups(self) -> None:
        for name in ("session.timeout.ms", "heartbeat.interval.ms"):
            minimum, value, maximum = (
                getattr(self, f"group.consumer.{bound}{name}".replace(".", "_"))
                for bound in ("min.", "", "max.")
            )
            if not minimum <= value <= maximum:
                raise ConfigError(
                    f"group.consumer.{name}={value} is not valid: it must be from "
                    f"group.consumer.min.{name}={minimum} to group.consumer.max.{name}={maximum}"
                )
        if self.group_consumer_heartbeat_interval_ms >= self.group_consumer_session_timeout_ms:
            raise ConfigError(
                f"group.consumer.heartbeat.interval.ms={self.group_consumer_heartbeat_interval_ms} "
                "is not valid: it must be less than group.consumer.session.timeout.ms="
                f"{self.group_consumer_session_timeout_ms}"
            )
        if self.group_min_session_timeout_ms > self.group_max_session_timeout_ms:
            raise ConfigError(
                f"group.min.session.timeout.ms={self.group_min_session_timeout_ms} is not valid: "
                "it must not exceed group.max.session.timeout.ms="
                f"{self.group_max_session_timeout_ms}"
            )


def broker_key(name: str) -> Key:
    """The row of a broker key; raises ConfigError with the nearest known one."""
    key = BROKER_KEYS.get(name)
    if key is None:
        raise unknown_key(name, Scope.BROKER, BROKER_KEYS)
    return key


def check_broker_value(name: str, text: str | None) -> str | None:
    """`text` as a broker key keeps it (None: unset); raises ConfigError."""
    key = broker_key(name)
    if text is None:
        raise ConfigError(f"{name} needs a value: allowed is {key.allowed}")
    return key.write(key.parse(text))


def _setting(name: str, text: str, source: Source, origin: str) -> Setting:
    try:
        return Setting(broker_key(name).parse(text), source, origin)
    except ConfigError as error:
        if not origin:
            raise
        raise ConfigError(f"{error} (set by {origin})") from None


def _with_metastore(
    settings: Mapping[str, tuple[Setting, ...]],
) -> Mapping[str, tuple[Setting, ...]]:
    """`zookeeper.connect` is another way to set `metastore`."""
    connect = settings.get("zookeeper.connect")
    if connect is None or connect[0].value is None or "metastore" in settings:
        return settings
    url = f"{ZOOKEEPER_SCHEME}{connect[0].value}"
    return {**settings, "metastore": (connect[0]._replace(value=url),)}
