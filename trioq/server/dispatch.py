"""From a frame to its handler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from trioq import logs
from trioq._native.fetch_lane import FetchLane
from trioq._native.hot_request import read_head
from trioq._native.partition_head import PartitionTable
from trioq._native.produce_lane import ProduceLane
from trioq._native.request_lane import RequestLane
from trioq._native.response_ring import OPEN
from trioq.errors import BrokerBug, ProtocolViolation, UnknownServerError
from trioq.server.context import Request
from trioq.server.slot import Slot
from trioq.storage.log_dir import BACKLOG_PATIENCE_S, DiskBacklog
from trioq.wire.api_keys import APIS, ApiKey
from trioq.wire.header import decode_request_header
from trioq.wire.primitives import Part, records_length

if TYPE_CHECKING:
    from trioq._native.fetch_lane import FetchEntry
    from trioq._native.response_ring import ReadyAnswer
    from trioq.errors import KafkaError
    from trioq.replication.partition import Partition
    from trioq.server.connection import Connection
    from trioq.server.context import Context
    from trioq.server.counters import ServerCounters
    from trioq.server.handlers.registry import Api
    from trioq.server.limits import Limits

_log = logs.get_logger("trioq.server")

_FLEXIBLE_FROM: Final = {int(key): api.flexible_from for key, api in APIS.items()}

MAX_DECODED_BYTES: Final = 8 * 1024 * 1024
"""Largest request other than Produce: decoded, its smallest elements take thirty times as much."""


class Dispatcher:
    """Stage 1 of every request: header, version, order, handler. Plain calls only.

    Errors: bytes that cannot be answered raise ProtocolViolation, for the reactor to close
    the connection. An unexpected error in a read or admin handler is logged, answered with
    UNKNOWN_SERVER_ERROR where the API has a place for it, and closes the connection; in a
    handler that owns data it is raised as BrokerBug.
    """

    __slots__ = (
        "_apis",
        "_counters",
        "_ctx",
        "_limits",
        "_max_parked_bytes",
        "_max_parked_requests",
        "lane",
    )

    def __init__(
        self, ctx: Context, apis: Mapping[int, Api], limits: Limits, counters: ServerCounters
    ) -> None:
        self._ctx = ctx
        self._apis = apis
        self._counters = counters
        self._limits = limits
        self._max_parked_requests = limits.max_parked_requests
        self._max_parked_bytes = limits.max_parked_bytes
        self.lane = _open_lane(ctx, apis, limits)
        """Tried before `dispatch`, by the receiver."""

    def reopen_lane(self) -> None:
        """Make another lane: the table of APIs has changed."""
        before = self.lane
        self.lane = _open_lane(self._ctx, self._apis, self._limits)
        self.lane.requests = before.requests

    def has_room(self, connection: Connection) -> bool:
        """True if the connection's requests that wait already allow one more."""
        return (
            not connection.barrier_is_open
            and not connection.alone_count
            and connection.parked_count < self._max_parked_requests
            and connection.parked_bytes < self._max_parked_bytes
        )

    def dispatch(self, connection: Connection, view: memoryview, start: int, end: int) -> bool:
        """Handle the frame body in view[start:end].

        False if it has to wait: the caller keeps it, and what follows it, and comes back
        when requests of the connection were finished. Raises ProtocolViolation, BrokerBug.
        """
        parked = connection.parked_count
        if (parked or connection.alone_count) and not self.has_room(connection):
            return False
        request = read_head(Request, view, start, end, _FLEXIBLE_FROM)
        if request is None:
            request = Request.of(decode_request_header(view, start, end), view, end)
        request.connection = connection
        api_key, api_version = request.api_key, request.api_version
        api = self._apis.get(api_key)
        if api is None or not api.first_version <= api_version <= api.last_version:
            self._refuse(connection, request)
            return True
        size_bytes = end - start
        if size_bytes > MAX_DECODED_BYTES and api_key != ApiKey.PRODUCE:
            raise ProtocolViolation(
                f"a request of {size_bytes} bytes for API {api_key}, which takes up to "
                f"{MAX_DECODED_BYTES}"
            )
        if api.is_barrier and parked:
            connection.needs_idle = True
            return False
        slot = Slot(connection, api_key, api_version, request.correlation_id)
        connection.ring.append(slot)
        self._counters.requests += 1
        if api.is_task:
            self._start_task(api, request, slot, start)
            return True
        try:
            response = (api.loaded or api.load())(self._ctx, request, slot)
            if response is not None:
                slot.complete(response)
        except (ProtocolViolation, BrokerBug):
            raise
        except DiskBacklog as backlog:
            self._wait_for_disk(connection, backlog)
            return False
        except Exception as error:  # noqa: BLE001  the border of all handlers
            self._failed(api, connection, slot, error)
        if slot.state == OPEN:
            connection.park(slot, size_bytes)
            connection.barrier_is_open = api.is_barrier
        return True

    def _wait_for_disk(self, connection: Connection, backlog: DiskBacklog) -> None:
        """Nothing of the connection's last request was done: it is tried again later."""
        connection.ring.pop()
        self._counters.requests -= 1
        self._counters.disk_waits += 1
        go_on = connection.wait_for_disk()
        ctx = self._ctx
        deadline = ctx.deadlines.add(ctx.clock.monotonic_s() + BACKLOG_PATIENCE_S, go_on)

        def has_room() -> None:
            deadline.cancel()
            go_on()

        backlog.log_dir.call_when_room(has_room)

    def _start_task(self, api: Api, request: Request, slot: Slot, start: int) -> None:
        """Run the handler as a task of the connection, on bytes of its own."""
        body = bytes(request.body[start : request.end])
        request.move(memoryview(body), -start, len(body))
        connection = request.connection
        connection.park(slot, len(body))
        connection.barrier_is_open = api.is_barrier
        connection.spawn(self._run_task, api, connection, request, slot)

    async def _run_task(
        self, api: Api, connection: Connection, request: Request, slot: Slot
    ) -> None:
        forward = self._ctx.forward
        try:
            if api.for_controller and forward is not None:
                answer = await forward(request)
                if answer is not None:
                    slot.complete_raw([answer])
                    return
            slot.complete(await api.load()(self._ctx, request))
        except ProtocolViolation as error:
            connection.close(str(error))
        except BrokerBug:
            raise
        except Exception as error:  # noqa: BLE001  the border of all handlers
            self._failed(api, connection, slot, error)

    def _failed(self, api: Api, connection: Connection, slot: Slot, error: Exception) -> None:
        """An unexpected error of a handler: see the class."""
        name = ApiKey(api.key).name
        if api.owns_data:
            raise BrokerBug(f"the handler of {name} failed: {error!r}") from error
        self._counters.handler_failures += 1
        _log.error("handler failed", api=name, peer=connection.peer, exc_info=error)
        reason = f"the handler of {name} failed"
        if slot.state == OPEN and api.error_response is not None:
            slot.complete(api.error_response(UnknownServerError.code))
            connection.finish(reason)
        else:
            connection.close(reason)

    def _refuse(self, connection: Connection, header: Request) -> None:
        """An unknown API or version: ApiVersions is answered in version 0, all else closes."""
        if header.api_key == ApiKey.API_VERSIONS:
            from trioq.server.handlers.api_versions import unsupported_version_body  # noqa: PLC0415

            slot = Slot(connection, header.api_key, 0, header.correlation_id)
            connection.ring.append(slot)
            slot.complete_raw([unsupported_version_body()])
            return
        known = header.api_key in self._apis
        what = (
            f"version {header.api_version} of API {header.api_key}"
            if known
            else (f"API {header.api_key}")
        )
        raise ProtocolViolation(f"{what} is not served")


def _open_lane(ctx: Context, apis: Mapping[int, Api], limits: Limits) -> RequestLane:
    """The way of ordinary requests, for the APIs that are served by their own handlers."""

    def is_open(key: ApiKey) -> bool:
        return key in apis and apis[key].handler is None

    table = None
    if any(map(is_open, (ApiKey.PRODUCE, ApiKey.FETCH, ApiKey.LIST_OFFSETS))):
        table = PartitionTable(partial(_find_partition, ctx))
    produce = None
    if table is not None and is_open(ApiKey.PRODUCE):
        produce = ProduceLane(table, partial(_refuse_produced, ctx), ctx)
    fetch = None
    if table is not None and is_open(ApiKey.FETCH):
        fetch = FetchLane(table, ctx, partial(_answer_fetched, ctx))
    return RequestLane(
        ctx.clock,
        max_frame_bytes=limits.max_frame_bytes,
        max_parked_requests=limits.max_parked_requests,
        max_parked_bytes=limits.max_parked_bytes,
        produce=produce,
        fetch=fetch,
        offsets=table if is_open(ApiKey.LIST_OFFSETS) else None,
        metadata=ctx.kept_metadata if is_open(ApiKey.METADATA) else None,
        image_source=ctx.image_source,
        versions=ctx.kept_versions if is_open(ApiKey.API_VERSIONS) else None,
        groups_of=ctx if is_open(ApiKey.HEARTBEAT) else None,
    )


def _find_partition(ctx: Context, topic: str, number: int) -> Partition | None:
    return ctx.partitions.find(topic, number)


def _answer_fetched(ctx: Context, fetch: FetchEntry) -> tuple[Sequence[Part], int]:
    from trioq.server.handlers.fetch import answer_waited  # noqa: PLC0415

    parts = answer_waited(ctx, fetch)
    return parts, records_length(parts)


def _refuse_produced(
    ctx: Context, answer: ReadyAnswer, partition: Partition, error: type[KafkaError]
) -> None:
    from trioq.server.handlers.produce import refused_frame  # noqa: PLC0415

    answer.complete_frame(refused_frame(ctx, answer, partition, error()))
