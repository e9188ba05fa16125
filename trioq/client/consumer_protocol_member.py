"""The driver of a member by the consumer protocol (KIP-848): heartbeats that say everything."""

from __future__ import annotations

from collections.abc import Mapping

import anyio

from trioq.client.consumer_membership_state import (
    ConsumerMembership,
    HeartbeatAnswer,
    as_target,
)
from trioq.client.group import GroupMember
from trioq.client.membership_steps import ConsumerHeartbeat, ResolveTopics
from trioq.errors import TrioqError
from trioq.wire.messages.consumer_group_heartbeat import (
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatRequestTopicPartitions,
    ConsumerGroupHeartbeatResponse,
)


class ConsumerProtocolMember(GroupMember[ConsumerMembership]):
    """A member by the consumer protocol (KIP-848)."""

    def metadata_changed(self, partition_counts: Mapping[str, int]) -> None:  # noqa: ARG002
        self.machine.metadata_changed()
        self.poke()

    async def run_heartbeats(self) -> None:
        while True:
            heartbeat = self.machine.next_heartbeat(anyio.current_time())
            if heartbeat is None:
                await self._heartbeat_pulse.wait(self.machine.heartbeat_at_s())
                continue
            answer = await self._heartbeat(heartbeat)
            now_s = anyio.current_time()
            if isinstance(answer, TrioqError):
                self._log.debug("heartbeat refused", reason=str(answer))
                self.machine.heartbeat_failed(answer, now_s)
            else:
                self.machine.heartbeat_answered(answer, now_s)
            self._rebalance_pulse.beat()

    async def _heartbeat(self, heartbeat: ConsumerHeartbeat) -> HeartbeatAnswer | TrioqError:
        topics = heartbeat.topics
        request = ConsumerGroupHeartbeatRequest(
            group_id=self._calls.group_id,
            member_id=heartbeat.member_id,
            member_epoch=heartbeat.member_epoch,
            instance_id=heartbeat.instance_id,
            rack_id=heartbeat.rack,
            rebalance_timeout_ms=heartbeat.rebalance_timeout_ms,
            subscribed_topic_names=None if topics is None else sorted(topics),
            server_assignor=heartbeat.server_assignor,
            topic_partitions=None
            if heartbeat.owned is None
            else [
                ConsumerGroupHeartbeatRequestTopicPartitions(
                    topic_id=topic_id, partitions=list(numbers)
                )
                for topic_id, numbers in heartbeat.owned
            ],
        )
        try:
            response = await self._calls.call(
                request,
                ConsumerGroupHeartbeatResponse,
                timeout_s=self._settings.session_timeout_ms / 1000,
            )
        except TrioqError as error:
            return error
        refusal = self._refused(response.error_code, "heartbeat")
        if refusal is not None:
            return type(refusal)(response.error_message or str(refusal))
        target = response.assignment
        return HeartbeatAnswer(
            response.member_id,
            response.member_epoch,
            response.heartbeat_interval_ms,
            None
            if target is None
            else as_target([(one.topic_id, one.partitions) for one in target.topic_partitions]),
        )

    async def _take(self, step: ResolveTopics) -> None:
        metadata = self._cluster.metadata
        names = metadata.state.topic_names
        if not step.topic_ids <= names.keys():
            try:
                await metadata.refreshed()
            except TrioqError as error:
                self._log.debug("no metadata to resolve topics with", reason=str(error))
        names = metadata.state.topic_names
        if not step.topic_ids <= names.keys():
            # Of a topic that was deleted, or is not known everywhere yet: not asked for in a hurry.
            await anyio.sleep(self._cluster.settings.retry_backoff_max_ms / 1000)
        self.machine.topics_resolved(
            {topic_id: names[topic_id] for topic_id in step.topic_ids if topic_id in names}
        )

    async def _leave(self, *, expired: bool) -> None:
        heartbeat = self.machine.poll_expired() if expired else self.machine.leave()
        if not expired:
            self._forget_owned()
        if heartbeat is None:
            return
        answer = await self._heartbeat(heartbeat)
        if isinstance(answer, TrioqError):
            self._log.warning(
                "the group was not told; it notices after the session timeout", reason=str(answer)
            )
