"""A coordinator that remembers what it is asked, for tests of the handlers of groups."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import trio

from trioq.config import BrokerConfig
from trioq.server.slot import Slot
from trioq.types import TopicId
from trioq.wire.api_keys import APIS, ApiKey
from trioq.wire.framing import LENGTH_BYTES

ORDERS = TopicId(int=7)
GONE = TopicId(int=8)


class ScriptedGroups:
    """Stands for GroupCoordinator: `asked` has every call; answers are the test's.

    `answers` are by the name of the method, given at once; where there is none, the `reply` of a
    call stays in `replies` for the test to call.
    """

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[tuple[Any, ...]] = []
        self.replies: list[Callable[[Any], None]] = []

    def _later(self, name: str, *arguments: Any) -> None:
        *arguments, reply = arguments  # type: ignore[assignment]
        self.asked.append((name, *arguments))
        if name in self.answers:
            reply(self.answers[name])
        else:
            self.replies.append(reply)

    def _now(self, name: str, *arguments: Any, **options: Any) -> Any:
        self.asked.append((name, *arguments, *options.values()))
        answer = self.answers[name]
        return answer(*arguments) if callable(answer) else answer

    async def _soon(self, name: str, *arguments: Any) -> Any:
        await trio.lowlevel.checkpoint()
        answer = self._now(name, *arguments)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def __getattr__(self, name: str) -> Any:
        kind = {
            "join_group": self._later,
            "sync_group": self._later,
            "leave_group": self._later,
            "consumer_heartbeat": self._later,
            "commit_offsets": self._later,
            "delete_groups": self._soon,
            "delete_offsets": self._soon,
        }.get(name, self._now)
        return lambda *arguments, **options: kind(name, *arguments, **options)


def group_context(groups: ScriptedGroups, **config: str) -> Any:
    """A context with the topic "orders" of 3 partitions, and this broker on PLAINTEXT."""
    orders = SimpleNamespace(name="orders", topic_id=ORDERS, partitions=[None] * 3)
    broker = SimpleNamespace(endpoints={"PLAINTEXT": ("localhost", 9092)}, rack=None)
    image = SimpleNamespace(
        topics={"orders": orders}, topics_by_id={ORDERS: orders}, brokers={1: broker}
    )
    return SimpleNamespace(
        groups=groups, image=image, config=BrokerConfig.from_mapping({"node.id": "1", **config})
    )


class Exchange:
    """One request to a handler, and its answer once there is one."""

    def __init__(self, key: ApiKey, version: int, message: Any) -> None:
        body = memoryview(message.encode(version))
        self.finished: list[Slot] = []
        self.connection: Any = SimpleNamespace(
            peer="127.0.0.1:5",
            peer_host="127.0.0.1",
            listener_name="PLAINTEXT",
            slot_finished=self.finished.append,
        )
        self.request: Any = SimpleNamespace(
            api_key=key,
            api_version=version,
            correlation_id=77,
            client_id="client",
            body=body,
            position=0,
            end=len(body),
            decode=lambda cls: cls.decode(body, 0, len(body), version),
            connection=self.connection,
        )
        self.slot = Slot(self.connection, key, version, 77)
        self._key = key
        self._version = version

    def handle(self, handler: Any, ctx: Any) -> Any:
        """Call an inline handler as the dispatcher does; the answer if there is one already."""
        response = handler(ctx, self.request, self.slot)
        if response is not None:
            self.slot.complete(response)
        return self.answer()

    def answer(self) -> Any:
        """The response as the client decodes it; None while the slot is open."""
        if not self.slot.parts:
            return None
        frame = memoryview(b"".join(self.slot.parts))  # type: ignore[arg-type]
        assert self.finished == [self.slot]
        assert int.from_bytes(frame[:LENGTH_BYTES]) == len(frame) - LENGTH_BYTES
        assert int.from_bytes(frame[4:8]) == 77
        api = APIS[self._key]
        start = 9 if api.is_flexible(self._version) else 8
        return api.response_class.decode(frame, start, len(frame), self._version)


def answered(key: ApiKey, version: int, message: Any, handler: Any, ctx: Any) -> Any:
    """The answer of a handler that answers at once, inline or plain or as a task."""
    exchange = Exchange(key, version, message)
    exchange.slot.complete(handler(ctx, exchange.request, message))
    return exchange.answer()


def answered_by_task(key: ApiKey, version: int, message: Any, handler: Any, ctx: Any) -> Any:
    """The answer of a handler that is a task."""
    exchange = Exchange(key, version, message)
    exchange.slot.complete(trio.run(handler, ctx, exchange.request))
    return exchange.answer()
