"""The list of what this broker serves: one line per API, its handler loaded at first use.

The handler of API `SOME_API` is `handle_some_api` in `trioq.server.handlers.some_api`.
Versions and names are in `trioq.wire.api_keys`; only what is listed here is served.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

from trioq.wire.api_keys import APIS, ApiKey

if TYPE_CHECKING:
    from trioq.server.context import Context, Request
    from trioq.server.slot import Slot
    from trioq.wire.schema import Message

InlineHandler = Callable[["Context", "Request", "Slot"], "Message | None"]


class Kind(Enum):
    """How a handler is called."""

    ANSWER = "answer"
    """`handle(ctx, request, message) -> response`: a plain call that answers at once."""

    INLINE = "inline"
    """`handle(ctx, request, slot) -> response | None`: a plain call; with None the handler
    has kept the slot, and finishes it at any later time by a plain call."""

    TASK = "task"
    """`async handle(ctx, request) -> response`: run in the connection's nursery, cancelled
    with it; the request owns its bytes."""


class Api:
    """One API as this broker serves it."""

    __slots__ = (
        "error_response",
        "first_version",
        "for_controller",
        "handler",
        "is_barrier",
        "is_task",
        "key",
        "kind",
        "last_version",
        "loaded",
        "owns_data",
    )

    def __init__(
        self,
        key: int,
        kind: Kind,
        *,
        barrier: bool,
        owns_data: bool = False,
        for_controller: bool = False,
        handler: Callable[..., Any] | None = None,
        error_response: Callable[[int], Message] | None = None,
    ) -> None:
        self.key = key
        self.kind = kind
        self.is_barrier = barrier
        """Runs alone on its connection: after what came before, before what comes after."""
        self.owns_data = owns_data
        """An unexpected error in the handler ends the broker: it may have changed a log."""
        self.for_controller = for_controller
        """Carried out by the cluster's controller, whoever is asked; a TASK."""
        self.first_version = APIS[key].min_version
        self.last_version = APIS[key].max_version
        self.handler = handler
        self.error_response = error_response
        """Makes the response that carries an error code, for APIs with one on top."""
        self.is_task = kind is Kind.TASK
        self.loaded: Callable[..., Any] | None = None
        """What `load` returned, once it was called."""

    def load(self) -> Callable[..., Any]:
        """The handler as the dispatcher calls it: an InlineHandler, or the task of TASK."""
        if self.loaded is None:
            handler = self.handler or _handler_of(ApiKey(self.key))
            self.loaded = _with_message(self.key, handler) if self.kind is Kind.ANSWER else handler
        return self.loaded


def _handler_of(key: ApiKey) -> Callable[..., Any]:
    name = key.name.lower()
    handler: Callable[..., Any] = getattr(
        importlib.import_module(f"trioq.server.handlers.{name}"), f"handle_{name}"
    )
    return handler


def _with_message(key: int, handler: Callable[..., Any]) -> InlineHandler:
    decode = APIS[key].request_class.decode

    def handle(ctx: Context, request: Request, _slot: Slot) -> Message:
        message = decode(request.body, request.position, request.end, request.api_version)
        response: Message = handler(ctx, request, message)
        return response

    return handle


def _top_level_error(key: ApiKey) -> Callable[[int], Message]:
    """For responses whose first level has `error_code`."""
    return lambda code: APIS[key].response_class(error_code=code)


def _reads(key: ApiKey, kind: Kind = Kind.ANSWER, **options: Any) -> Api:
    return Api(key, kind, barrier=False, **options)


def _writes(key: ApiKey, kind: Kind = Kind.TASK, **options: Any) -> Api:
    return Api(key, kind, barrier=True, **options)


def _changes(key: ApiKey, **options: Any) -> Api:
    """A change of the cluster's metadata."""
    return _writes(key, for_controller=True, **options)


def _groups() -> Iterable[Api]:
    """The APIs of groups.

    While JoinGroup or SyncGroup wait, and while members leave, nothing else of the connection
    is handled, as in Kafka. OffsetFetch comes after the commits that were sent before it;
    these need not wait for each other, so that one write can carry many.
    """
    for key in (ApiKey.JOIN_GROUP, ApiKey.SYNC_GROUP, ApiKey.LEAVE_GROUP):
        yield Api(key, Kind.INLINE, barrier=True, error_response=_top_level_error(key))
    yield _reads(ApiKey.HEARTBEAT, Kind.INLINE, error_response=_top_level_error(ApiKey.HEARTBEAT))
    yield _reads(ApiKey.OFFSET_COMMIT, Kind.INLINE)
    yield Api(ApiKey.OFFSET_FETCH, Kind.ANSWER, barrier=True)
    yield _reads(ApiKey.LIST_GROUPS, error_response=_top_level_error(ApiKey.LIST_GROUPS))
    yield _reads(ApiKey.DESCRIBE_GROUPS)
    yield _writes(ApiKey.DELETE_GROUPS)
    yield _writes(ApiKey.OFFSET_DELETE, error_response=_top_level_error(ApiKey.OFFSET_DELETE))
    yield _reads(
        ApiKey.CONSUMER_GROUP_HEARTBEAT,
        Kind.INLINE,
        error_response=_top_level_error(ApiKey.CONSUMER_GROUP_HEARTBEAT),
    )
    yield _reads(ApiKey.CONSUMER_GROUP_DESCRIBE)


def _placement() -> Iterable[Api]:
    """Who leads partitions, and who holds them."""
    yield _changes(ApiKey.ELECT_LEADERS)
    for key in (
        ApiKey.CONTROLLED_SHUTDOWN,
        ApiKey.ALTER_PARTITION_REASSIGNMENTS,
        ApiKey.LIST_PARTITION_REASSIGNMENTS,
    ):
        yield _changes(key, error_response=_top_level_error(key))


def served_apis() -> Mapping[int, Api]:
    """The explicit list, by key."""
    return by_key(
        [
            Api(ApiKey.PRODUCE, Kind.INLINE, barrier=False, owns_data=True),
            _reads(ApiKey.FETCH, Kind.INLINE, error_response=_top_level_error(ApiKey.FETCH)),
            _reads(ApiKey.LIST_OFFSETS),
            _reads(ApiKey.METADATA, Kind.INLINE),
            _reads(ApiKey.FIND_COORDINATOR),
            *_groups(),
            _reads(
                ApiKey.API_VERSIONS,
                Kind.INLINE,
                error_response=_top_level_error(ApiKey.API_VERSIONS),
            ),
            _reads(ApiKey.OFFSET_FOR_LEADER_EPOCH),
            _reads(ApiKey.DESCRIBE_CONFIGS),
            _reads(
                ApiKey.DESCRIBE_CLUSTER,
                error_response=_top_level_error(ApiKey.DESCRIBE_CLUSTER),
            ),
            _reads(ApiKey.DESCRIBE_LOG_DIRS),
            _reads(ApiKey.DESCRIBE_PRODUCERS),
            _reads(ApiKey.DESCRIBE_TOPIC_PARTITIONS),
            _changes(ApiKey.CREATE_TOPICS),
            _changes(ApiKey.DELETE_TOPICS),
            _changes(ApiKey.CREATE_PARTITIONS),
            _writes(ApiKey.DELETE_RECORDS, owns_data=True),
            _changes(ApiKey.ALTER_CONFIGS),
            _changes(ApiKey.INCREMENTAL_ALTER_CONFIGS),
            *_placement(),
            _writes(
                ApiKey.INIT_PRODUCER_ID, error_response=_top_level_error(ApiKey.INIT_PRODUCER_ID)
            ),
        ]
    )


def preload() -> None:
    """Import what nearly every client asks for, in a thread: at first use the loop would wait.

    That is longest beside a busy Python thread, which may take the interpreter lock at every look
    at the file system.
    """
    for key in (
        ApiKey.API_VERSIONS,
        ApiKey.METADATA,
        ApiKey.PRODUCE,
        ApiKey.FETCH,
        ApiKey.LIST_OFFSETS,
        ApiKey.INIT_PRODUCER_ID,
        ApiKey.FIND_COORDINATOR,
    ):
        importlib.import_module(f"trioq.server.handlers.{key.name.lower()}")
        importlib.import_module(f"trioq.wire.messages.{key.name.lower()}")


def by_key(apis: Iterable[Api]) -> Mapping[int, Api]:
    """A table for the dispatcher."""
    return {api.key: api for api in apis}
