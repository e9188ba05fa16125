"""The driver of a member by the classic protocol: joins, syncs, heartbeats, the leader's plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import anyio

from trioq.client.group import GroupMember
from trioq.client.membership_state import ClassicMembership, JoinedGroup
from trioq.client.membership_steps import Heartbeat, Join, Plan, Sync
from trioq.errors import TrioqError
from trioq.wire.messages.consumer_protocol import PROTOCOL_TYPE
from trioq.wire.messages.heartbeat import HeartbeatRequest, HeartbeatResponse
from trioq.wire.messages.join_group import (
    JoinGroupRequest,
    JoinGroupRequestProtocol,
    JoinGroupResponse,
)
from trioq.wire.messages.leave_group import (
    LeaveGroupRequest,
    LeaveGroupRequestMember,
    LeaveGroupResponse,
)
from trioq.wire.messages.sync_group import (
    SyncGroupRequest,
    SyncGroupRequestAssignment,
    SyncGroupResponse,
)
from trioq.wire.schema import Message

_ANSWER_MARGIN_S: Final = 5.0
"""What a coordinator may take beyond the rebalance timeout until it answers a join."""

_STATIC_FROM: Final[Mapping[type[Message], int]] = {
    JoinGroupRequest: 5,
    SyncGroupRequest: 3,
    HeartbeatRequest: 3,
}
"""First versions that know static members."""

_LEAVE_MANY_FROM: Final = 3


class ClassicMember(GroupMember[ClassicMembership]):
    """A member by the classic protocol."""

    @property
    def watched_topics(self) -> frozenset[str]:
        return self.machine.watched_topics

    def metadata_changed(self, partition_counts: Mapping[str, int]) -> None:
        self.machine.partitions_changed(partition_counts)
        self.poke()

    async def run_heartbeats(self) -> None:
        while True:
            heartbeat = self.machine.next_heartbeat(anyio.current_time())
            if heartbeat is None:
                await self._heartbeat_pulse.wait(self.machine.heartbeat_at_s())
                continue
            error = await self._heartbeat(heartbeat)
            if error is not None:
                self._log.debug("heartbeat refused", reason=str(error))
                self.machine.heartbeat_answered(heartbeat, error)
                self._rebalance_pulse.beat()

    async def _heartbeat(self, heartbeat: Heartbeat) -> TrioqError | None:
        instance_id = self._settings.instance_id
        request = HeartbeatRequest(
            group_id=self._calls.group_id,
            generation_id=heartbeat.generation,
            member_id=heartbeat.member_id,
            group_instance_id=instance_id,
        )
        try:
            response = await self._calls.call(
                request,
                HeartbeatResponse,
                timeout_s=self._settings.session_timeout_ms / 1000,
                at_least=_STATIC_FROM[HeartbeatRequest] if instance_id else 0,
            )
        except TrioqError as error:
            return error
        return self._refused(response.error_code, "heartbeat")

    async def _take(self, step: Join | Plan | Sync) -> None:
        match step:
            case Join():
                await self._join(step)
            case Plan(topics):
                await self._plan(topics)
            case Sync():
                await self._sync(step)

    async def _join(self, step: Join) -> None:
        settings = self._settings
        self.machine.joining()
        request = JoinGroupRequest(
            group_id=self._calls.group_id,
            session_timeout_ms=settings.session_timeout_ms,
            rebalance_timeout_ms=settings.max_poll_interval_ms,
            member_id=step.member_id,
            group_instance_id=settings.instance_id,
            protocol_type=PROTOCOL_TYPE,
            protocols=[
                JoinGroupRequestProtocol(name=name, metadata=metadata)
                for name, metadata in step.protocols
            ],
            reason=step.reason[:255],
        )
        try:
            response = await self._calls.call(
                request,
                JoinGroupResponse,
                lane=self._calls.join_lane,
                timeout_s=max(settings.max_poll_interval_ms, settings.session_timeout_ms) / 1000
                + _ANSWER_MARGIN_S,
                at_least=_STATIC_FROM[JoinGroupRequest] if settings.instance_id else 0,
            )
        except TrioqError as error:
            self._log.debug("join failed", reason=str(error))
            self.machine.join_failed(error, anyio.current_time())
            return
        refusal = self._refused(response.error_code, "joining")
        now_s = anyio.current_time()
        if refusal is not None:
            self._log.debug("join refused", reason=str(refusal))
            self.machine.join_failed(refusal, now_s, response.member_id)
            return
        self.machine.joined(
            JoinedGroup(
                response.generation_id,
                response.protocol_name or "",
                response.leader,
                response.member_id,
                [(one.member_id, one.group_instance_id, one.metadata) for one in response.members],
                response.skip_assignment,
            ),
            now_s,
        )

    async def _plan(self, topics: frozenset[str]) -> None:
        metadata = self._cluster.metadata
        for topic in topics:
            metadata.want(topic)
        try:
            await metadata.refreshed()
        except TrioqError as error:
            self._log.debug("no metadata to plan with", reason=str(error))
            await anyio.sleep(self._cluster.settings.retry_backoff_ms / 1000)
            return
        known = metadata.state.topics
        self.machine.plan(
            {
                topic: len(known[topic].partitions)
                for topic in topics
                if topic in known and not known[topic].error_code
            }
        )
        for member_id in self.machine.unreadable_members:
            self._log.warning("a member's subscription cannot be read", member=member_id)

    async def _sync(self, step: Sync) -> None:
        instance_id = self._settings.instance_id
        request = SyncGroupRequest(
            group_id=self._calls.group_id,
            generation_id=step.generation,
            member_id=step.member_id,
            group_instance_id=instance_id,
            protocol_type=PROTOCOL_TYPE,
            protocol_name=step.protocol,
            assignments=[
                SyncGroupRequestAssignment(member_id=member_id, assignment=assignment)
                for member_id, assignment in step.assignments.items()
            ],
        )
        try:
            response = await self._calls.call(
                request,
                SyncGroupResponse,
                lane=self._calls.join_lane,
                timeout_s=self._settings.max_poll_interval_ms / 1000 + _ANSWER_MARGIN_S,
                at_least=_STATIC_FROM[SyncGroupRequest] if instance_id else 0,
            )
        except TrioqError as error:
            self._log.debug("sync failed", reason=str(error))
            self.machine.sync_failed(error, anyio.current_time())
            return
        refusal = self._refused(response.error_code, "syncing")
        if refusal is not None:
            self._log.debug("sync refused", reason=str(refusal))
            self.machine.sync_failed(refusal, anyio.current_time())
        else:
            self.machine.synced(response.assignment)

    async def _leave(self, *, expired: bool) -> None:
        member_id = self.machine.member_id
        if expired:
            tell = self.machine.poll_expired() is not None
        else:
            tell = self.machine.leave()
            self._forget_owned()
        if not tell:
            return
        reason = "max_poll_interval_ms exceeded" if expired else "the consumer is closed"
        try:
            node_id = await self._calls.coordinator()
            connection = await self._cluster.connection(node_id)
            if connection.version_of(LeaveGroupRequest) >= _LEAVE_MANY_FROM:
                member = LeaveGroupRequestMember(member_id=member_id, reason=reason)
                request = LeaveGroupRequest(group_id=self._calls.group_id, members=[member])
            else:
                request = LeaveGroupRequest(group_id=self._calls.group_id, member_id=member_id)
            await self._calls.call(request, LeaveGroupResponse)
        except TrioqError as error:
            self._log.warning(
                "the group was not told; it notices after the session timeout", reason=str(error)
            )
