"""Answers that carry an error, for requests that a test wants refused."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from trioq.errors import RebootstrapRequired
from trioq.server.handlers.cluster_view import endpoints
from trioq.server.handlers.registry import Api, Kind
from trioq.wire.api_keys import APIS, ApiKey
from trioq.wire.kinds import INT32, STRING, ArrayOf, Field, Primitive, StructSchema
from trioq.wire.messages.metadata import MetadataResponse, MetadataResponseBroker
from trioq.wire.messages.produce import ProduceRequest

if TYPE_CHECKING:
    from trioq.errors import KafkaError
    from trioq.server.context import Context, Request
    from trioq.server.server import Server
    from trioq.server.slot import Slot
    from trioq.wire.schema import Message, Struct

_ERROR: Final = "error_code"

_SOURCES: Final = {
    "responses": ("topic_data", "topics", "topic_names", "resources"),
    "partition_responses": ("partition_data",),
    "results": ("topics", "resources", "groups_names"),
    "topics": ("topic_names",),
    "partitions": ("partition_indexes",),
    "coordinators": ("coordinator_keys",),
    "groups": ("groups", "group_ids"),
    "replica_election_results": ("topic_partitions",),
    "partition_result": ("partitions",),
}
"""For an array of a response, how the request may call what it answers, the same name aside."""

_ALIASES: Final = {"partition_index": ("partition", "index"), "topic": ("name",)}
"""The same for single fields."""

_IDENTITIES: Final = frozenset(
    {"name", "topic", "topic_id", "index", "partition", "partition_index", "group_id", "member_id"}
    | {"group_instance_id", "transactional_id", "resource_type", "resource_name", "key"}
    | {"partition_id"}
)
"""Fields of a response that repeat what was asked about."""

_UNASKED: Final = frozenset({(ApiKey.DESCRIBE_LOG_DIRS, "results")})
"""Arrays whose elements are no answers to elements of the request: one stands for all."""

_NESTED_FIRST: Final = frozenset({ApiKey.FETCH})
"""The error on top is about sessions: it is for requests that name no partition."""


def refuse_next(server: Server, key: ApiKey, error: type[KafkaError], times: int) -> None:
    """Have `server` refuse the next `times` requests of an API, then serve it again.

    A plain call on the loop of the server.
    """
    refusing = _RefusingApi(server, key, error, times)
    current = server.replace_api(refusing)
    if current is None:
        raise ValueError(f"the broker does not serve {key.name}")
    refusing.served = current.served if isinstance(current, _RefusingApi) else current
    refusing.is_barrier = refusing.served.is_barrier
    if times <= 0:
        server.replace_api(refusing.served)


class _RefusingApi(Api):
    """Answers with an error a number of times."""

    __slots__ = ("_error", "_left", "_server", "served")

    served: Api
    """What it stands in for."""

    def __init__(self, server: Server, key: ApiKey, error: type[KafkaError], times: int) -> None:
        super().__init__(key, Kind.INLINE, barrier=False, handler=self._refuse)
        self._server = server
        self._error = error
        self._left = times

    def _refuse(self, ctx: Context, request: Request, slot: Slot) -> Message | None:
        key = ApiKey(self.key)
        message = request.decode(APIS[key].request_class)
        response, is_refused = refusal(key, message, request.api_version, self._error)
        if key is ApiKey.METADATA and isinstance(response, MetadataResponse):
            _add_cluster(ctx, request, response)
        if not is_refused and not self.served.is_task:
            served: Message | None = self.served.load()(ctx, request, slot)
            return served
        self._left -= 1
        if self._left <= 0:
            self._server.replace_api(self.served)
        if isinstance(message, ProduceRequest) and message.acks == 0:
            slot.close(f"refused by the test: {self._error.kafka_name}")
            return None
        return response


def refusal(
    key: ApiKey, message: Message, version: int, error: type[KafkaError]
) -> tuple[Message, bool]:
    """The response to `message` with `error` in every place; False if there is none."""
    response_class = APIS[key].response_class
    mirror = _Mirror(key, version, error.code)
    response: Any = mirror.answer(response_class.SCHEMA, message, is_top=True)
    return response, mirror.places > 0


class _Mirror:
    """Builds a response along the structure of its request."""

    def __init__(self, key: ApiKey, version: int, code: int) -> None:
        self.places = 0
        self._key = key
        self._version = version
        self._code = code

    def answer(self, schema: StructSchema, asked: object, *, is_top: bool = False) -> Struct:
        """A struct of the response for one of the request, or for an element like a name."""
        values: dict[str, object] = {}
        fields = [field for field in schema.fields if field.in_version(self._version)]
        for field in fields:
            if isinstance(field.kind, ArrayOf):
                self._mirror_array(field, field.kind, asked, values)
        nests = any(values.values())
        for field in fields:
            if field.name == _ERROR:
                if not is_top or self._takes_on_top(nests=nests):
                    values[_ERROR] = self._code
                    self.places += 1
            elif field.name in _IDENTITIES:
                self._copy(field, asked, values)
        if isinstance(asked, str | int):
            _name_element(fields, asked, values)
        made: Struct = schema.cls(**values)
        return made

    def _takes_on_top(self, *, nests: bool) -> bool:
        """Whether the first level has the error; `nests` when levels below it have."""
        if self._key is ApiKey.METADATA:  # only for the one error that is not about topics
            return self._code == RebootstrapRequired.code
        return not (nests and self._key in _NESTED_FIRST)

    def _mirror_array(
        self, field: Field, kind: ArrayOf, asked: object, values: dict[str, object]
    ) -> None:
        element = kind.element
        if isinstance(element, Primitive) or not _bears_error(element):
            return
        if (self._key, field.name) in _UNASKED:
            values[field.name] = [self.answer(element, None)]
            return
        for name in (field.name, *_SOURCES.get(field.name, ())):
            elements = getattr(asked, name, None)
            if elements:
                values[field.name] = [self.answer(element, one) for one in elements]
                return

    @staticmethod
    def _copy(field: Field, asked: object, values: dict[str, object]) -> None:
        for name in (field.name, *_ALIASES.get(field.name, ())):
            if hasattr(asked, name):
                values[field.name] = getattr(asked, name)
                return


def _name_element(fields: Iterable[Field], asked: object, values: dict[str, object]) -> None:
    """An element of an array of names or numbers goes to the field that identifies the answer."""
    wanted = STRING if isinstance(asked, str) else INT32
    for field in fields:
        if field.kind == wanted and field.name in _IDENTITIES:
            values[field.name] = asked
            return


def _bears_error(schema: StructSchema) -> bool:
    """Whether an error code is in the struct or below."""
    return any(
        field.name == _ERROR
        or (
            isinstance(field.kind, ArrayOf)
            and isinstance(field.kind.element, StructSchema)
            and _bears_error(field.kind.element)
        )
        for field in schema.fields
    )


def _add_cluster(ctx: Context, request: Request, response: MetadataResponse) -> None:
    """Brokers are known also where topics are refused."""
    response.cluster_id = ctx.image.cluster_id
    response.brokers = [
        MetadataResponseBroker(
            node_id=endpoint.broker_id, host=endpoint.host, port=endpoint.port, rack=endpoint.rack
        )
        for endpoint in endpoints(ctx.image, request.connection.listener_name)
    ]
