"""What every part of the admin API shares: calls with retries, and errors that say where."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from trioq.client.cluster import Cluster
from trioq.client.group_calls import GroupCalls
from trioq.client.retry import is_retriable, retrying
from trioq.errors import (
    ConnectionFailed,
    NotController,
    UnknownTopicId,
    UnknownTopicOrPartition,
    error_class,
)
from trioq.types import TopicPartition
from trioq.wire.schema import Message

Result = TypeVar("Result")
Response = TypeVar("Response", bound=Message)

Partition = TopicPartition | tuple[str, int]
"""A partition as users may name it."""


def check(code: int, what: str, message: str | None = None) -> None:
    """Raise the error of a (non-zero) code, saying what was asked for."""
    if code:
        kind = error_class(code)
        raise kind(f"{what}: {kind.kafka_name}: {message or kind()}")


def is_worth_repeating(error: BaseException) -> bool:
    """As the general policy, but an unknown topic is an answer: nobody is about to create it."""
    return is_retriable(error) and not isinstance(error, (UnknownTopicOrPartition, UnknownTopicId))


class AdminCalls:
    """The base of the admin API's parts.

    `timeout_ms` of a method bounds it with all of its retries; None is the client's
    `call_timeout_ms`. What was lost on its way may have been done.
    """

    def __init__(self, cluster: Callable[[], Cluster]) -> None:
        self._get_cluster = cluster

    @property
    def _cluster(self) -> Cluster:
        return self._get_cluster()

    def _server_ms(self, timeout_ms: int | None) -> int:
        """What the broker may take, so that its answer comes before the client gives up."""
        request_ms = self._cluster.settings.request_timeout_ms
        return min(timeout_ms or request_ms, request_ms)

    async def _repeat(
        self, attempt: Callable[[], Awaitable[Result]], what: str, timeout_ms: int | None
    ) -> Result:
        cluster = self._cluster
        return await retrying(
            attempt,
            what=what,
            timeout_s=(timeout_ms or cluster.settings.call_timeout_ms) / 1000,
            backoff=cluster.backoff,
            retriable=is_worth_repeating,
        )

    async def _on_controller(
        self,
        request: Message,
        response_class: type[Response],
        read: Callable[[Response, bool], Result],
        what: str,
        timeout_ms: int | None,
    ) -> Result:
        """Have the controller do something; `read` makes the result, or raises.

        It is also told whether an earlier attempt may have been carried out.
        """
        cluster = self._cluster
        maybe_done = False

        async def attempt() -> Result:
            nonlocal maybe_done
            try:
                response = await cluster.call_controller(request, response_class)
                return read(response, maybe_done)
            except ConnectionFailed:
                maybe_done = True
                raise
            except NotController:
                await cluster.metadata.refreshed()
                raise

        return await self._repeat(attempt, what, timeout_ms)

    async def _on_any(
        self,
        request: Message,
        response_class: type[Response],
        what: str,
        timeout_ms: int | None,
        *,
        node_id: int | None = None,
    ) -> Response:
        """Ask any broker, or the one of `node_id`."""
        cluster = self._cluster

        async def attempt() -> Response:
            if node_id is None:
                return await cluster.call_any(request, response_class)
            return await cluster.call(node_id, request, response_class)

        return await self._repeat(attempt, what, timeout_ms)

    async def _on_coordinator(
        self,
        group: str,
        request: Message,
        response_class: type[Response],
        code_of: Callable[[Response], int],
        what: str,
        timeout_ms: int | None,
    ) -> Response:
        """Ask the coordinator of `group`; raises the error that `code_of` finds."""
        calls = GroupCalls(self._cluster, group)

        async def attempt() -> Response:
            response = await calls.call(request, response_class)
            code = code_of(response)
            if code:
                calls.failed(error_class(code)())
            check(code, what)
            return response

        return await self._repeat(attempt, what, timeout_ms)

    async def _on_leaders(
        self,
        partitions: list[TopicPartition],
        ask: Callable[[int, list[TopicPartition]], Awaitable[dict[TopicPartition, Result]]],
        what: str,
        timeout_ms: int | None,
    ) -> dict[TopicPartition, Result]:
        """Ask the leader of each partition; those that moved are asked for anew."""
        cluster = self._cluster
        found: dict[TopicPartition, Result] = {}

        async def attempt() -> None:
            by_node: dict[int, list[TopicPartition]] = {}
            for partition in partitions:
                if partition not in found:
                    await cluster.metadata.topic(partition.topic)
                    info = cluster.metadata.leader(*partition)
                    if info is None:
                        await cluster.metadata.refreshed()
                        info = cluster.metadata.leader(*partition)
                    if info is None:
                        raise UnknownTopicOrPartition(
                            f"{partition} does not exist, or has no leader"
                        )
                    by_node.setdefault(info.leader_id, []).append(partition)
            try:
                for node_id, asked in by_node.items():
                    found.update(await ask(node_id, asked))
            except BaseException:
                cluster.metadata.request_refresh()
                raise

        await self._repeat(attempt, what, timeout_ms)
        return found

    async def _everywhere(
        self, ask: Callable[[int], Awaitable[Result]], node_ids: list[int]
    ) -> dict[int, Result]:
        """Ask several brokers at once; raises the first error."""
        answers: dict[int, Result] = {}

        async def one(node_id: int) -> None:
            answers[node_id] = await ask(node_id)

        try:
            async with anyio.create_task_group() as tasks:
                for node_id in node_ids:
                    tasks.start_soon(one, node_id)
        except BaseExceptionGroup as group:
            raise _first(group) from None
        return answers


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
