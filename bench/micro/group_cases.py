"""What a coordinator does for consumer groups, without sockets and store.

The rebalance is a whole one: a leader that wants a new plan, every member told of it by a
heartbeat, all JoinGroups, all SyncGroups, and what is written of both, up to the operations that
would go to the metastore.
"""

from __future__ import annotations

import struct
from typing import Final

from trioq.coordinator.effects import Answer, Effect, Persist
from trioq.coordinator.group_requests import GroupSettings, JoinRequest, JoinResult, SyncRequest
from trioq.coordinator.group_state import GroupState
from trioq.coordinator.stored_group import StoredNodes
from trioq.metastore.group_layout import group_path

MEMBERS: Final = 100
PARTITIONS: Final = 1_000
TOPIC: Final = "orders"
NOW_MS: Final = 1_700_000_000_000


class GroupRebalance:
    """A stable group of `members`, and rounds of it; `partitions` are shared out evenly."""

    def __init__(self, members: int, partitions: int, *, is_stored: bool) -> None:
        self._now_s = 0.0
        settings = GroupSettings(initial_rebalance_delay_ms=0)
        self.state = GroupState("bench", settings, NOW_MS)
        self._store = StoredNodes(group_path(0, "bench")) if is_stored else None
        self._answers: dict[str, object] = {}
        owned = [list(range(number, partitions, members)) for number in range(members)]
        self._parts = [_assignment(each) for each in owned]
        self._requests = [
            _request(number, _subscription(each)) for number, each in enumerate(owned)
        ]
        self._ids: list[str] = []
        for number, request in enumerate(self._requests):
            self._carry_out(self.state.join(request, str(number), self._now_s, NOW_MS))
            if not number:
                self._ids = [self._joined("0").member_id]
                self._requests[0] = request._replace(member_id=self._ids[0])
        self._carry_out(self.state.join(self._requests[0], "0", self._now_s, NOW_MS))
        self._ids = [self._joined(str(number)).member_id for number in range(members)]
        self._requests = [
            request._replace(member_id=member_id)
            for request, member_id in zip(self._requests, self._ids, strict=True)
        ]
        self._sync()

    def run(self) -> GroupState:
        """One rebalance of all members; the group, stable again."""
        state = self.state
        self._now_s += 3.0
        generation = state.generation
        leader = state.leader
        self._join(self._ids.index(leader or ""))
        for number, member_id in enumerate(self._ids):
            if member_id != leader:
                state.heartbeat(member_id, None, generation, self._now_s)
                state.check_commit(member_id, None, generation, self._now_s)
                self._join(number)
        self._sync()
        return state

    def heartbeats(self) -> None:
        """One of every member."""
        state = self.state
        self._now_s += 0.001
        for member_id in self._ids:
            state.heartbeat(member_id, None, state.generation, self._now_s)

    def _join(self, number: int) -> None:
        self._carry_out(self.state.join(self._requests[number], str(number), self._now_s, NOW_MS))

    def _joined(self, waiter: str) -> JoinResult:
        result = self._answers[waiter]
        if not isinstance(result, JoinResult):
            raise TypeError(f"a member could not join: {result}")
        return result

    def _sync(self) -> None:
        state = self.state
        plan = dict(zip(self._ids, self._parts, strict=True))
        for number in reversed(range(len(self._ids))):
            joined = self._joined(str(number))
            leads = joined.leader == joined.member_id
            request = SyncRequest(
                joined.generation,
                joined.member_id,
                None,
                joined.protocol_type,
                joined.protocol,
                plan if leads else {},
            )
            self._carry_out(state.sync(request, f"sync {number}", self._now_s, NOW_MS))

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Answer):
                self._answers[effect.waiter] = effect.result
            elif isinstance(effect, Persist) and self._store is not None:
                plan = self._store.plan(self.state.snapshot())
                for step in plan.steps:
                    for write in step:
                        self._store.operation(write)
                        self._store.done(write)
                self._store.settle(plan.outcome)


def _request(number: int, metadata: bytes) -> JoinRequest:
    return JoinRequest(
        group_id="bench",
        member_id="",
        instance_id=None,
        client_id=f"consumer-{number}",
        client_host="/127.0.0.1",
        protocol_type="consumer",
        protocols=(("cooperative-sticky", metadata), ("range", metadata)),
        session_timeout_ms=45_000,
        rebalance_timeout_ms=300_000,
        requires_known_member_id=False,
    )


def _subscription(owned: list[int]) -> bytes:
    """A consumer's metadata of version 1, with the partitions that it owns."""
    return (
        struct.pack(">hi", 1, 1)
        + _string(TOPIC)
        + struct.pack(">i", -1)
        + struct.pack(">i", 1)
        + _topic_partitions(owned)
    )


def _assignment(partitions: list[int]) -> bytes:
    return struct.pack(">hi", 1, 1) + _topic_partitions(partitions) + struct.pack(">i", -1)


def _topic_partitions(partitions: list[int]) -> bytes:
    return _string(TOPIC) + struct.pack(f">i{len(partitions)}i", len(partitions), *partitions)


def _string(value: str) -> bytes:
    return struct.pack(">h", len(value)) + value.encode()
