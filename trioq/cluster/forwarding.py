"""What only the controller may change, asked of any broker of the cluster.

A client's request that is for the controller is passed on as it is, and the controller's answer
passed back (KIP-590 in Kafka). So is the creation of topics on first use. A request that was passed
on already is not passed on again: it waits a while for the controller's role to come here, then it
is answered NOT_CONTROLLER.
"""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Protocol, TypeVar, cast

import trio

from trioq import logs
from trioq.controller.config_admin import ConfigResult
from trioq.controller.topics import (
    DEFAULT_TIMEOUT_S,
    CreatedTopic,
    DeletedTopic,
    GrownTopic,
    TopicAdmin,
)
from trioq.errors import (
    BY_CODE,
    KafkaError,
    MetastoreError,
    NotController,
    PeerUnreachable,
    RequestTimedOut,
    UnknownServerError,
)
from trioq.types import ZERO_TOPIC_ID
from trioq.wire.api_keys import APIS, ApiKey
from trioq.wire.header import response_body_position
from trioq.wire.messages.create_topics import (
    CreateTopicsRequest,
    CreateTopicsRequestTopic,
    CreateTopicsResponse,
)

if TYPE_CHECKING:
    from trioq.config import BrokerConfig
    from trioq.controller.config_changes import ConfigChange, ConfigResource
    from trioq.controller.partition_admin import PartitionResult, Reassignment
    from trioq.controller.topic_rules import NewPartitions, NewTopic
    from trioq.metastore.feed import ImageFollower
    from trioq.metastore.image import TopicImage
    from trioq.net.peer import Peers
    from trioq.server.context import Request
    from trioq.types import TopicId, TopicPartition
    from trioq.wire.schema import Message

_log = logs.get_logger("trioq.cluster")

FORWARDED_BY: Final = "trioq-forwarded-by-"
"""What the client id of a request that was passed on begins with."""

PATIENCE_S: Final = 20.0
"""How long a request waits for a controller that answers: less than clients wait."""

LOOK_PATIENCE_S: Final = 2.0
"""How long one does that changes nothing: this broker's image is nearly as good an answer."""

ROLE_PATIENCE_S: Final = 2.0
"""How long a request that was passed on waits for the controller's role to come here."""

_PAUSE_S: Final = 0.05
_FOLLOW_PATIENCE_S: Final = 1.0
_CREATE_TOPICS_VERSION: Final = 7
_FIXED: Final = struct.Struct(">hhih")
T = TypeVar("T")

_NOBODY = NotController(
    "No controller answers at present: try again, and see in the brokers' logs whether they reach "
    "ZooKeeper."
)


class ControllerRole(Protocol):
    """What is asked of this broker's own controller."""

    @property
    def admin(self) -> TopicAdmin | None:
        """Carries out changes while this broker is the controller, else None."""


class Forwarder:
    """Finds the controller and passes requests on to it; for tasks of the broker's loop."""

    def __init__(
        self, broker_id: int, role: ControllerRole, peers: Peers, follower: ImageFollower
    ) -> None:
        self._broker_id = broker_id
        self._role = role
        self._peers = peers
        self._follower = follower

    async def forward(self, request: Request) -> bytes | None:
        """The body of the controller's answer, or None: this broker is to answer itself.

        None also where no controller answered within PATIENCE_S, or LOOK_PATIENCE_S: this broker
        then says so, or what it knows.
        Cancelled: the request may be carried out all the same.
        """
        if self._role.admin is not None:
            return None
        if (request.client_id or "").startswith(FORWARDED_BY):
            await self._wait_for_role()
            return None
        frame = forwarded_frame(request, self._broker_id)
        answer: bytes | None = None
        is_look = request.api_key == ApiKey.LIST_PARTITION_REASSIGNMENTS
        with trio.move_on_after(LOOK_PATIENCE_S if is_look else PATIENCE_S):
            answer = await self._ask(
                lambda controller_id: self._peers.forward(
                    controller_id, frame, timeout_s=PATIENCE_S
                )
            )
        if answer is None:
            return None
        position = response_body_position(
            request.api_key, request.api_version, memoryview(answer), 0, len(answer)
        )
        await self._follow()
        return answer[position:]

    async def create_topics(
        self, topics: Sequence[NewTopic], *, validate_only: bool, timeout_s: float
    ) -> list[CreatedTopic]:
        """Have the controller create `topics` with its defaults; errors by topic, as it answers."""
        request = CreateTopicsRequest(
            topics=[
                CreateTopicsRequestTopic(
                    name=topic.name,
                    num_partitions=topic.partitions,
                    replication_factor=topic.replication_factor,
                )
                for topic in topics
            ],
            timeout_ms=int(timeout_s * 1000),
            validate_only=validate_only,
        )
        response: Message | None = None
        with trio.move_on_after(timeout_s):
            response = await self._ask(
                lambda controller_id: self._peers.call(
                    controller_id,
                    request,
                    api_version=_CREATE_TOPICS_VERSION,
                    timeout_s=timeout_s,
                )
            )
        if response is None:
            late = RequestTimedOut(str(_NOBODY))
            return [CreatedTopic(topic.name, error=late) for topic in topics]
        await self._follow()
        return [
            CreatedTopic(
                answer.name,
                answer.topic_id,
                answer.num_partitions,
                answer.replication_factor,
                error=_error_of(answer.error_code, answer.error_message),
            )
            for answer in cast("CreateTopicsResponse", response).topics
        ]

    async def _ask(self, ask: Callable[[int], Awaitable[T]]) -> T | None:
        """What `ask(controller's id)` returns, once there is one that answers.

        None when the role has come here meanwhile.
        """
        is_told = False
        while self._role.admin is None:
            image = self._follower.image
            controller_id = image.controller_id
            if controller_id != self._broker_id and controller_id in image.brokers:
                try:
                    return await ask(controller_id)
                except PeerUnreachable as error:
                    if not is_told:
                        _log.info("the controller does not answer", reason=str(error))
                    is_told = True
            await trio.sleep(_PAUSE_S)
        return None

    async def _wait_for_role(self) -> None:
        with trio.move_on_after(ROLE_PATIENCE_S):
            while True:
                if self._role.admin is not None or not self._is_expected():
                    return
                await trio.sleep(_PAUSE_S)

    def _is_expected(self) -> bool:
        """Whether nobody else is known to be the controller."""
        image = self._follower.image
        return image.controller_id == self._broker_id or image.controller_id not in image.brokers

    async def _follow(self) -> None:
        """Have this broker's image show what the controller has just done, if that is quick."""
        try:
            with trio.move_on_after(_FOLLOW_PATIENCE_S):
                await self._follower.catch_up()
        except MetastoreError as error:
            _log.debug("the image is not brought up to date now", reason=str(error))


class RoutedAdmin(TopicAdmin):
    """TopicAdmin on a broker of a cluster: its own while it is the controller.

    While it is not, topics are created through the controller, and everything else is refused
    with NotController: such requests are passed on before a handler sees them.
    """

    def __init__(self, role: ControllerRole, forwarder: Forwarder) -> None:
        self._role = role
        self._forwarder = forwarder

    def use_config(self, config: BrokerConfig) -> None:
        if (admin := self._role.admin) is not None:
            admin.use_config(config)

    async def create_topics(
        self,
        topics: Sequence[NewTopic],
        *,
        validate_only: bool = False,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> list[CreatedTopic]:
        admin = self._role.admin
        if admin is not None:
            return await admin.create_topics(
                topics, validate_only=validate_only, timeout_s=timeout_s
            )
        return await self._forwarder.create_topics(
            topics, validate_only=validate_only, timeout_s=timeout_s
        )

    async def auto_create(self, name: str, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> TopicImage:
        return await self._own().auto_create(name, timeout_s=timeout_s)

    async def delete_topics(
        self, topics: Sequence[str | TopicId], *, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> list[DeletedTopic]:
        admin = self._role.admin
        if admin is not None:
            return await admin.delete_topics(topics, timeout_s=timeout_s)
        return [
            DeletedTopic(topic, ZERO_TOPIC_ID, _NOBODY)
            if isinstance(topic, str)
            else DeletedTopic(None, topic, _NOBODY)
            for topic in topics
        ]

    async def create_partitions(
        self,
        requests: Sequence[NewPartitions],
        *,
        validate_only: bool = False,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> list[GrownTopic]:
        admin = self._role.admin
        if admin is not None:
            return await admin.create_partitions(
                requests, validate_only=validate_only, timeout_s=timeout_s
            )
        return [GrownTopic(request.name, _NOBODY) for request in requests]

    async def alter_configs(
        self,
        resources: Sequence[tuple[ConfigResource, Mapping[str, str | None]]],
        *,
        validate_only: bool = False,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> list[ConfigResult]:
        admin = self._role.admin
        if admin is not None:
            return await admin.alter_configs(
                resources, validate_only=validate_only, timeout_s=timeout_s
            )
        return [ConfigResult(resource, _NOBODY) for resource, _ in resources]

    async def incremental_alter_configs(
        self,
        resources: Sequence[tuple[ConfigResource, Sequence[ConfigChange]]],
        *,
        validate_only: bool = False,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> list[ConfigResult]:
        admin = self._role.admin
        if admin is not None:
            return await admin.incremental_alter_configs(
                resources, validate_only=validate_only, timeout_s=timeout_s
            )
        return [ConfigResult(resource, _NOBODY) for resource, _ in resources]

    async def elect_leaders(
        self,
        partitions: Sequence[TopicPartition] | None,
        *,
        unclean: bool = False,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> list[PartitionResult]:
        return await self._own().elect_leaders(partitions, unclean=unclean, timeout_s=timeout_s)

    async def alter_reassignments(
        self, reassignments: Sequence[Reassignment], *, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> list[PartitionResult]:
        return await self._own().alter_reassignments(reassignments, timeout_s=timeout_s)

    def _own(self) -> TopicAdmin:
        admin = self._role.admin
        if admin is None:
            raise _NOBODY
        return admin


def forwarded_frame(request: Request, broker_id: int) -> bytes:
    """The request's frame again, its client id saying who passed it on."""
    client_id = f"{FORWARDED_BY}{broker_id}".encode()
    head = _FIXED.pack(request.api_key, request.api_version, request.correlation_id, len(client_id))
    tags = b"\0" if request.api_version >= APIS[request.api_key].flexible_from else b""
    body = request.body[request.position : request.end]
    return b"".join((head, client_id, tags, body))


def _error_of(code: int, message: str | None) -> KafkaError | None:
    if not code:
        return None
    return BY_CODE.get(code, UnknownServerError)(message or "")
