"""`trioq.connect` and the client it gives: the owner of everything that runs in the background."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, overload

from trioq.client import forking
from trioq.client.address import parse_bootstrap
from trioq.client.cluster import Cluster
from trioq.client.producer import Producer
from trioq.client.producer_settings import Acks, Compression, Partitioner, ProducerSettings
from trioq.client.sasl import SaslMechanism
from trioq.client.settings import ClientSettings
from trioq.client.tasks import BackgroundTasks
from trioq.errors import ClientClosed, ClientError, ClientForked

if TYPE_CHECKING:
    from typing_extensions import Buffer, TypeVar, Unpack

    from trioq.client.admin import Admin
    from trioq.client.consumer import Consumer
    from trioq.client.consumer_settings import ConsumerOptions

    K = TypeVar("K", default=Buffer | None)
    V = TypeVar("V", default=Buffer | None)
    ReadKey = TypeVar("ReadKey", default=bytes | None)
    ReadValue = TypeVar("ReadValue", default=bytes | None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientStatistics:
    """A client's counts at one moment."""

    cluster_id: str | None
    brokers: int
    """Brokers that the cluster advertises."""

    topics: int
    """Topics whose metadata is kept."""

    open_connections: int
    connections_opened: int
    connections_failed: int
    requests_in_flight: int
    sent_bytes: int
    """Over the connections that are open."""

    received_bytes: int
    metadata_refreshes: int


def connect(
    bootstrap: str | Sequence[str],
    *,
    client_id: str = "trioq",
    tls: ssl.SSLContext | bool = False,
    sasl: SaslMechanism | None = None,
    rack: str | None = None,
    connect_timeout_ms: int = 10_000,
    request_timeout_ms: int = 30_000,
    call_timeout_ms: int = 60_000,
    retry_backoff_ms: int = 100,
    retry_backoff_max_ms: int = 1_000,
    metadata_max_age_ms: int = 300_000,
    unknown_topic_timeout_ms: int = 5_000,
    max_in_flight: int = 5,
) -> Client:
    """A client for `async with`; entering connects, leaving closes everything that it opened.

    Args:
        bootstrap: "host:port", several of them separated by commas, or a sequence.
        client_id: what brokers call this client in their logs and quotas.
        tls: True for TLS with the system's certificate authorities, or a context.
        sasl: SaslPlain, SaslScram or SaslOAuthBearer.
        rack: where this client is; consumers read from a replica there if there is one.
        connect_timeout_ms: for a TCP connection and its TLS handshake.
        request_timeout_ms: for a broker's answer to one request.
        call_timeout_ms: for a call with all of its retries, where it takes no timeout itself.
        retry_backoff_ms: the pause before a first retry; further ones double it.
        retry_backoff_max_ms: the longest pause between retries.
        metadata_max_age_ms: how old metadata may become without anything going wrong.
        unknown_topic_timeout_ms: how long a topic may be unknown before that is an error: in a
            cluster, not every broker knows a new topic at once.
        max_in_flight: requests under way on one connection.

    Raises ClientUsageError here; entering raises BootstrapFailed when no address answers,
    AuthenticationFailed, UnsupportedByBroker.

    """
    settings = ClientSettings(
        bootstrap=parse_bootstrap(bootstrap),
        client_id=client_id,
        tls=ssl.create_default_context() if tls is True else tls or None,
        sasl=sasl,
        rack=rack,
        connect_timeout_ms=connect_timeout_ms,
        request_timeout_ms=request_timeout_ms,
        call_timeout_ms=call_timeout_ms,
        retry_backoff_ms=retry_backoff_ms,
        retry_backoff_max_ms=retry_backoff_max_ms,
        metadata_max_age_ms=metadata_max_age_ms,
        unknown_topic_timeout_ms=unknown_topic_timeout_ms,
        max_in_flight=max_in_flight,
    )
    return Client(settings)


class Client:
    """A connected client; made by `trioq.connect`. Works under trio, asyncio and uvloop alike.

    Its tasks live in the `async with` block and end with it; what they cannot do themselves
    (reconnect, retry) comes out where the user awaits. It is for one event loop, and in a child
    process after fork() it raises ClientForked.
    """

    def __init__(self, settings: ClientSettings) -> None:
        self.settings = settings
        self._exit: AsyncExitStack | None = None
        self._cluster: Cluster | None = None
        self._refusal: ClientError | None = ClientClosed(
            "the client is not open: use it inside of `async with trioq.connect(...) as client:`"
        )

    async def __aenter__(self) -> Self:
        if self._exit is not None:
            raise ClientClosed("a client is entered once; call trioq.connect again for another")
        async with AsyncExitStack() as stack:
            tasks = await stack.enter_async_context(BackgroundTasks())
            self._cluster = Cluster(self.settings, tasks)
            tasks.start_soon(self._cluster.metadata.run)
            await self._cluster.metadata.refreshed()
            self._exit = stack.pop_all()
        self._refusal = None
        forking.guard(self)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        forking.release(self)
        self._refusal = ClientClosed("the client was closed when its `async with` block ended")
        assert self._exit is not None
        return await self._exit.__aexit__(kind, error, traceback)

    @property
    def cluster(self) -> Cluster:
        """What producers, consumers and the admin API are built on; raises outside of the block."""
        if self._refusal is not None:
            raise self._refusal
        assert self._cluster is not None
        return self._cluster

    @overload
    def consumer(
        self,
        *topics: str,
        pattern: str | re.Pattern[str] | None = None,
        key_deserializer: None = None,
        value_deserializer: None = None,
        **options: Unpack[ConsumerOptions],
    ) -> Consumer: ...
    @overload
    def consumer(
        self,
        *topics: str,
        pattern: str | re.Pattern[str] | None = None,
        key_deserializer: Callable[[bytes], ReadKey],
        value_deserializer: None = None,
        **options: Unpack[ConsumerOptions],
    ) -> Consumer[ReadKey]: ...
    @overload
    def consumer(
        self,
        *topics: str,
        pattern: str | re.Pattern[str] | None = None,
        key_deserializer: None = None,
        value_deserializer: Callable[[bytes], ReadValue],
        **options: Unpack[ConsumerOptions],
    ) -> Consumer[bytes | None, ReadValue]: ...
    @overload
    def consumer(
        self,
        *topics: str,
        pattern: str | re.Pattern[str] | None = None,
        key_deserializer: Callable[[bytes], ReadKey],
        value_deserializer: Callable[[bytes], ReadValue],
        **options: Unpack[ConsumerOptions],
    ) -> Consumer[ReadKey, ReadValue]: ...
    def consumer(
        self,
        *topics: str,
        pattern: str | re.Pattern[str] | None = None,
        key_deserializer: Callable[[bytes], Any] | None = None,
        value_deserializer: Callable[[bytes], Any] | None = None,
        **options: Unpack[ConsumerOptions],
    ) -> Consumer[Any, Any]:
        """A consumer of `topics`, or of those that `pattern` matches, for `async with`.

        Deserializers are called with keys and values that are not null, when they are touched.
        The other options are those of ConsumerSettings. Raises ClientUsageError.
        """
        from trioq.client.consumer import Consumer  # noqa: PLC0415 - not every client consumes
        from trioq.client.consumer_settings import ConsumerSettings  # noqa: PLC0415

        return Consumer(
            lambda: self.cluster,
            topics,
            pattern,
            settings=ConsumerSettings(**options),
            key_deserializer=key_deserializer,
            value_deserializer=value_deserializer,
        )

    @property
    def admin(self) -> Admin:
        """Topics, partitions, configuration, groups, offsets, brokers."""
        from trioq.client.admin import Admin  # noqa: PLC0415 - few clients administrate

        return Admin(lambda: self.cluster)

    def statistics(self) -> ClientStatistics:
        """Counts as of now."""
        cluster = self.cluster
        state = cluster.metadata.state
        open_connections = list(cluster.connections.open_connections())
        return ClientStatistics(
            cluster_id=state.cluster_id,
            brokers=len(state.nodes),
            topics=len(state.topics),
            open_connections=len(open_connections),
            connections_opened=cluster.connections.opened,
            connections_failed=cluster.connections.failed,
            requests_in_flight=sum(connection.in_flight for connection in open_connections),
            sent_bytes=sum(connection.sent_bytes for connection in open_connections),
            received_bytes=sum(connection.received_bytes for connection in open_connections),
            metadata_refreshes=cluster.metadata.refreshes,
        )

    def producer(
        self,
        *,
        acks: Acks = "all",
        idempotent: bool | None = None,
        compression: Compression = "none",
        compression_level: int | None = None,
        linger_ms: float = 5.0,
        batch_bytes: int = 1_000_000,
        buffer_bytes: int = 64 * 1024 * 1024,
        max_request_bytes: int = 1024 * 1024,
        delivery_timeout_ms: int = 120_000,
        max_block_ms: int = 60_000,
        max_in_flight: int = 5,
        partitioner: Partitioner | None = None,
        key_serializer: Callable[[K], Buffer | None] | None = None,
        value_serializer: Callable[[V], Buffer | None] | None = None,
    ) -> Producer[K, V]:
        """A producer for `async with`; leaving the block sends what is queued.

        Args:
            acks: "all" waits for every in-sync replica, 1 for the leader, 0 for nobody.
            idempotent: retries write nothing twice; by default with acks="all".
            compression: none, gzip, snappy, lz4 or zstd.
            compression_level: on the codec's own scale; None is its default.
            linger_ms: how long a batch waits for more records while nobody waits for it.
            batch_bytes: at which size a batch is sent at once.
            buffer_bytes: memory for records that are not acknowledged; then `send` waits.
            max_request_bytes: the largest record, and the largest request of several batches.
            delivery_timeout_ms: for the acknowledgement, with all retries. A request that is
                under way then is not interrupted: it takes up to `request_timeout_ms` more.
            max_block_ms: how long `send` and `send_many` wait for room in the buffer.
            max_in_flight: batches of one partition under way.
            partitioner: (topic, key, value, number of partitions) to a partition, or None.
                By default keyed records go by murmur2, as with Java's client, and others to one
                partition until its batch is full.
            key_serializer: makes bytes of what is given as key; not called for None.
            value_serializer: likewise for values.

        Raises ClientUsageError for settings that contradict, ClientClosed, ClientForked.

        """
        settings = ProducerSettings(
            acks=acks,
            idempotent=idempotent,
            compression=compression,
            compression_level=compression_level,
            linger_ms=linger_ms,
            batch_bytes=batch_bytes,
            buffer_bytes=buffer_bytes,
            max_request_bytes=max_request_bytes,
            delivery_timeout_ms=delivery_timeout_ms,
            max_block_ms=max_block_ms,
            max_in_flight=max_in_flight,
            partitioner=partitioner,
        )
        return Producer(
            self.cluster,
            settings,
            key_serializer=key_serializer,
            value_serializer=value_serializer,
        )

    def refuse_from_now_on(self, error: ClientForked) -> None:
        """For a child process: every later use raises `error`."""
        self._refusal = error
