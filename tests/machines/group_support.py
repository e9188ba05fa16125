"""A group under test with its clock, and what clients get from it."""

from __future__ import annotations

import struct

from trioq.coordinator.effects import Answer, Effect, Persist
from trioq.coordinator.group_requests import (
    GroupSettings,
    JoinRefused,
    JoinRequest,
    JoinResult,
    LeavingMember,
    SyncRequest,
    SyncResult,
)
from trioq.coordinator.group_state import GroupState
from trioq.errors import KafkaError, MemberIdRequired
from trioq.metastore.group_layout import ClassicGroup

SESSION_MS = 10_000
REBALANCE_MS = 60_000
START_MS = 1_700_000_000_000
SETTINGS = GroupSettings(initial_rebalance_delay_ms=3_000)
AT_ONCE = SETTINGS._replace(initial_rebalance_delay_ms=0)


def subscription(*topics: str, version: int = 0, rest: bytes = b"") -> bytes:
    """A consumer's metadata."""
    names = b"".join(struct.pack(">h", len(topic)) + topic.encode() for topic in topics)
    return struct.pack(">hi", version, len(topics)) + names + rest


RANGE = (("range", subscription("orders")),)


class Group:
    """Drives one GroupState; each request is a waiter of its own, `answers` holds what came."""

    def __init__(self, settings: GroupSettings = AT_ONCE) -> None:
        self.settings = settings
        self.now_s = 100.0
        self.state = GroupState("readers", settings, START_MS)
        self.answers: dict[int, object] = {}
        self.kept: list[ClassicGroup] = []
        self._waiters = 0

    @property
    def now_ms(self) -> int:
        return START_MS + int(self.now_s * 1000)

    @property
    def phase(self) -> str:
        return self.state.phase.value

    def member_ids(self) -> set[str]:
        return {member.member_id for member in self.state.snapshot().members}

    def take(self, effects: list[Effect]) -> None:
        """Carry effects out; what was promised is kept before it is told."""
        for effect in effects:
            if isinstance(effect, Answer):
                assert effect.waiter not in self.answers, "answered twice"
                self.answers[effect.waiter] = effect.result
                if isinstance(effect.result, JoinResult | SyncResult) and self.kept:
                    assert self.kept[-1].generation == self.state.generation
            elif isinstance(effect, Persist):
                self.kept.append(self.state.snapshot())

    def join(self, member_id: str = "", **changed: object) -> int:
        """Send JoinGroup; its waiter."""
        request = JoinRequest(
            group_id="readers",
            member_id=member_id,
            instance_id=None,
            client_id="client",
            client_host="/127.0.0.1",
            protocol_type="consumer",
            protocols=RANGE,
            session_timeout_ms=SESSION_MS,
            rebalance_timeout_ms=REBALANCE_MS,
        )._replace(**changed)
        waiter = self._waiter()
        self.take(self.state.join(request, waiter, self.now_s, self.now_ms))
        return waiter

    def new_id(self, **changed: object) -> str:
        """The id that a member without one is given (KIP-394)."""
        refused = self.answers[self.join(**changed)]
        assert isinstance(refused, JoinRefused)
        assert isinstance(refused.error, MemberIdRequired)
        return refused.member_id

    def enter(self, **changed: object) -> tuple[str, int]:
        """Both steps of a new member: its id, and the waiter of the second."""
        member_id = self.new_id(**changed)
        return member_id, self.join(member_id, **changed)

    def sync(self, member_id: str, plan: dict[str, bytes] | None = None, **changed: object) -> int:
        """Send SyncGroup of the current generation; its waiter."""
        request = SyncRequest(self.state.generation, member_id, assignments=plan or {})
        waiter = self._waiter()
        self.take(self.state.sync(request._replace(**changed), waiter, self.now_s, self.now_ms))
        return waiter

    def heartbeat(
        self, member_id: str, instance_id: str | None = None, generation: int | None = None
    ) -> KafkaError | None:
        if generation is None:
            generation = self.state.generation
        return self.state.heartbeat(member_id, instance_id, generation, self.now_s)

    def leave(self, *members: LeavingMember) -> list[KafkaError | None]:
        results, effects = self.state.leave(members, self.now_s, self.now_ms)
        self.take(effects)
        assert [result[:2] for result in results] == [member[:2] for member in members]
        return [result.error for result in results]

    def commit(
        self, member_id: str = "", generation: int = -1, **more: object
    ) -> KafkaError | None:
        return self.state.check_commit(member_id, None, generation, self.now_s, **more)

    def pass_time(self, seconds: float, *living: str) -> None:
        """Time goes on, with heartbeats of the `living` each second, and all that is due."""
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s = min(self.now_s + 1.0, end_s)
            for member_id in living:
                self.heartbeat(member_id)
            if self.state.next_deadline_s() <= self.now_s:
                self.take(self.state.on_time(self.now_s, self.now_ms))

    def restart(self) -> None:
        """The broker restarts: what was kept comes back, who waited does not."""
        self.state = GroupState.restore(self.state.snapshot(), self.settings, self.now_s)

    def joined(self, waiter: int) -> JoinResult:
        result = self.answers[waiter]
        assert isinstance(result, JoinResult), result
        return result

    def part(self, waiter: int) -> bytes:
        result = self.answers[waiter]
        assert isinstance(result, SyncResult), result
        return result.assignment

    def stable(self, count: int, **changed: object) -> list[str]:
        """Make a stable group of `count` members; their ids, the leader's first."""
        ids = [self.new_id(**changed) for _ in range(count)]
        waiters = [self.join(member_id, **changed) for member_id in ids]
        if self.settings.initial_rebalance_delay_ms == 0:
            # The first went ahead alone: it comes back for the others.
            waiters[0] = self.join(ids[0], **changed)
        else:
            self.pass_time(2 * self.settings.initial_rebalance_delay_ms / 1000)
        leader = self.joined(waiters[0]).leader
        plan = {member_id: member_id.encode() for member_id in ids}
        for member_id in sorted(ids, key=leader.__eq__):
            self.sync(member_id, plan if member_id == leader else None)
        assert self.phase == "Stable"
        return sorted(ids, key=leader.__ne__)

    def _waiter(self) -> int:
        self._waiters += 1
        return self._waiters
