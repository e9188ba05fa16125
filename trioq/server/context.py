"""What handlers work with: the broker's parts, handed down once, and the request at hand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from trioq._native.hot_request import RequestHead
from trioq._native.kept_answers import KeptAnswers
from trioq.server.byte_budget import ByteBudget

if TYPE_CHECKING:
    from trioq.clock import Clock
    from trioq.config import BrokerConfig
    from trioq.controller.controller import Controller
    from trioq.controller.producer_ids import ProducerIds
    from trioq.controller.topics import TopicAdmin
    from trioq.coordinator.coordinator import GroupCoordinator
    from trioq.metastore.image import ClusterImage
    from trioq.metastore.store import Metastore
    from trioq.metrics import Metrics
    from trioq.replication.partitions import Partitions
    from trioq.server.connection import Connection
    from trioq.server.deadlines import Deadlines
    from trioq.server.fetch_sessions import FetchSessions
    from trioq.server.replica_fetch import ReplicaFetches
    from trioq.storage.log_dirs import LogDirs
    from trioq.wire.header import RequestHeader
    from trioq.wire.schema import Message


MAX_KEPT_BYTES: Final = 16 * 1024 * 1024
"""Of encoded answers to Metadata, with the requests that they belong to."""

RequestMessage = TypeVar("RequestMessage", bound="Message")


class Request(RequestHead):
    """One request: its header, and its body still undecoded.

    `body` is borrowed. In a handler that is a plain call it is (part of) the reactor's
    receive buffer, valid until the handler returns, and for records handed to a log until
    the end of the pass (see `Context.end_of_pass`). A task's request owns its bytes.

    Made by the dispatcher, which sets `connection`.
    """

    __slots__ = ("connection",)

    connection: Connection

    @classmethod
    def of(cls, header: RequestHeader, body: memoryview, end: int) -> Request:
        """A request whose header was read the general way."""
        made = cls.__new__(cls)
        made.api_key, made.api_version, made.correlation_id, made.client_id, made.position = header
        made.body = body
        made.end = end
        return made

    def decode(self, message_type: type[RequestMessage]) -> RequestMessage:
        """The body as a message of this request's version.

        Raises ProtocolViolation, which a handler lets pass: the connection is closed.
        """
        return message_type.decode(self.body, self.position, self.end, self.api_version)

    def start_task(self, task: Callable[[], Awaitable[object]]) -> None:
        """Go on with this request in `await task()`, within the life of its connection.

        From now on the request is a barrier: later requests of the connection wait until
        the task is over. The task must own the bytes it works on; what it raises ends the
        broker. It never runs if the connection is ending already.
        """
        self.connection.start_alone(task)


class ImageSource(Protocol):
    """Whoever holds the cluster image of the moment (the feed's follower)."""

    @property
    def image(self) -> ClusterImage: ...


class Gate(Protocol):
    """Keeps the reactor from serving while this broker does not know what it may serve."""

    def is_shut(self, now_s: float) -> bool:
        """Whether nothing may be served now, `now_s` on the broker's monotonic clock."""

    async def opened(self) -> None:
        """Wait until something may."""


@dataclass(slots=True)
class Context:
    """The parts of one broker that its handlers use; one object per broker.

    `config` is replaced as a whole when a dynamic value changes; everything else stays.
    """

    config: BrokerConfig
    clock: Clock
    metrics: Metrics
    deadlines: Deadlines
    log_dirs: LogDirs
    partitions: Partitions
    metastore: Metastore
    producer_ids: ProducerIds
    fetch_sessions: FetchSessions
    image_source: ImageSource
    topic_admin: TopicAdmin = field(init=False)
    """Set as soon as the controller's role is taken, before anything is served."""

    controller: Controller | None = None
    """This broker's candidate for the controller's role; None where it is the only broker."""

    groups: GroupCoordinator = field(init=False)
    """Set as `topic_admin`."""

    forward: Callable[[Request], Awaitable[bytes | None]] | None = None
    """In a cluster: the body of the controller's answer to a request that is for it; None where
    this broker is to answer itself."""

    gate: Gate | None = None
    """In a cluster: asked before each pass of the reactor."""

    added_replicas_budget: ByteBudget = field(default_factory=ByteBudget)
    """What may be sent to replicas that are being added (leader.replication.throttled.rate)."""

    replica_fetches: ReplicaFetches | None = None
    """Fetches of followers that wait; made when the first does."""

    kept_metadata: KeptAnswers = field(default_factory=lambda: KeptAnswers(MAX_KEPT_BYTES))
    """Encoded answers to Metadata, of the cluster's image."""

    kept_versions: KeptAnswers = field(default_factory=lambda: KeptAnswers(MAX_KEPT_BYTES // 16))
    """Encoded answers to ApiVersions, with the client's software as note."""

    end_of_pass: list[Callable[[], bool]] = field(default_factory=list)
    """Called once at the end of each pass of the reactor. Each returns True when nothing
    that was received is borrowed any longer; otherwise the reactor leaves the receive
    buffer of this pass to the borrower and takes a new one."""

    @property
    def image(self) -> ClusterImage:
        """The cluster as this broker knows it now; immutable, so take it once per request."""
        return self.image_source.image
