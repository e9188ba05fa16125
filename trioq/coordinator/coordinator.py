"""The coordinator of the groups whose slots are led here: what handlers call.

Plain calls on the loop's thread unless `async`. A `reply` is called exactly once, now or later.
What is refused here: a group whose slot is led elsewhere (NOT_COORDINATOR), is still being read
(COORDINATOR_LOAD_IN_PROGRESS), or whose stored state is damaged (UNKNOWN_SERVER_ERROR: trying
again does not help; the log names the node, and deleting the group makes a new start).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import trio

from trioq.clock import Clock
from trioq.config import BrokerConfig
from trioq.coordinator import group_admin
from trioq.coordinator.group import Group
from trioq.coordinator.group_requests import (
    GroupDescription,
    JoinRefused,
    JoinRequest,
    JoinResult,
    LeaveResult,
    LeavingMember,
    SyncRequest,
    SyncResult,
)
from trioq.coordinator.group_state import GroupState
from trioq.coordinator.image_topics import ImageTopics
from trioq.coordinator.offset_requests import (
    CommitRequest,
    FetchedOffsets,
    GroupOverview,
    PartitionsByTopic,
)
from trioq.coordinator.offsets import changes_of
from trioq.coordinator.registry import GroupRegistry
from trioq.coordinator.restoring import restore_classic, restore_consumer
from trioq.coordinator.settings import classic_settings, consumer_settings
from trioq.coordinator.slot_writer import Deadlines
from trioq.coordinator.slots import LedSlots
from trioq.coordinator.write_batch import OffsetChange
from trioq.errors import (
    CoordinatorLoadInProgress,
    CoordinatorNotAvailable,
    IllegalGeneration,
    InvalidCommitOffsetSize,
    KafkaError,
    UnknownMemberId,
)
from trioq.metastore.group_layout import ClassicGroup, StoredGroup
from trioq.metastore.image import ClusterImage
from trioq.types import TopicId

if TYPE_CHECKING:
    from trioq.coordinator.consumer_group_state import ConsumerGroupState
    from trioq.coordinator.consumer_requests import (
        ConsumerGroupDescription,
        ConsumerGroupSettings,
        ConsumerHeartbeat,
        ConsumerHeartbeatResult,
    )
    from trioq.coordinator.subscriptions import TopicPatterns

MAX_OFFSET_SHARDS: Final = 9_000
"""Nodes of offsets that a group may have: topics, counting each 256 partitions of one."""

_UNKNOWN_MEMBER: Final = UnknownMemberId("The group has no such member.")
_STOPPING: Final = CoordinatorNotAvailable("The broker stops.")


class GroupCoordinator:
    """See the module. Built by the broker's group service, which loads what is stored."""

    def __init__(
        self,
        *,
        config: BrokerConfig,
        clock: Clock,
        deadlines: Deadlines,
        slots: LedSlots,
        nursery: trio.Nursery,
        image: Callable[[], ClusterImage],
    ) -> None:
        self.topics = ImageTopics(image)
        self.groups = GroupRegistry(
            nursery,
            slots,
            clock,
            deadlines,
            self.restored,
            config.offset_commit_timeout_ms / 1000,
        )
        self.clock = clock
        self._stopping: KafkaError | None = None
        self._slots = slots
        self._config = config
        self._classic_settings = classic_settings(config)
        self._consumer_settings: ConsumerGroupSettings | None = None
        self._patterns: TopicPatterns | None = None

    def leader_of(self, group_id: str) -> int | None:
        """The id of the broker that coordinates the group; None while nobody does."""
        return self._slots.leader_of(group_id)

    # ---- the classic protocol

    def join_group(
        self, request: JoinRequest, reply: Callable[[JoinResult | JoinRefused | KafkaError], None]
    ) -> None:
        """JoinGroup: answered when the rebalance has got so far."""
        group = self._stopping or self.groups.find_or_make(request.group_id)
        if isinstance(group, KafkaError):
            reply(group)
            return
        machine = group.machine
        if machine is None:
            group.machine = machine = self.new_classic(group.group_id)
        now_s, now_ms = self.clock.monotonic_s(), self.clock.now_ms()
        if isinstance(machine, GroupState):
            group.carry_out(machine.join(request, reply, now_s, now_ms))
        else:
            group.carry_out(machine.classic_join(request, reply, self.topics, now_s, now_ms))

    def sync_group(
        self, group_id: str, request: SyncRequest, reply: Callable[[SyncResult | KafkaError], None]
    ) -> None:
        """SyncGroup: answered when the leader's plan is there and durable."""
        group = self._stopping or self.groups.find(group_id)
        if not isinstance(group, Group):
            reply(group or _UNKNOWN_MEMBER)
            return
        machine = group.machine
        now_s, now_ms = self.clock.monotonic_s(), self.clock.now_ms()
        if isinstance(machine, GroupState):
            group.carry_out(machine.sync(request, reply, now_s, now_ms))
        elif machine is not None:
            group.carry_out(machine.classic_sync(request, reply, self.topics, now_s))
        else:
            reply(_UNKNOWN_MEMBER)

    def heartbeat(
        self, group_id: str, generation: int, member_id: str, instance_id: str | None
    ) -> KafkaError | None:
        """Heartbeat: None, or what the member has to hear.

        None too while the group is being read: sessions begin anew then, and clients take any
        error that they do not expect here, as aiokafka does this one, for their end.
        """
        group = self.groups.find(group_id)
        if isinstance(group, CoordinatorLoadInProgress):
            return None
        if not isinstance(group, Group):
            return group or _UNKNOWN_MEMBER
        machine = group.machine
        now_s = self.clock.monotonic_s()
        if isinstance(machine, GroupState):
            return machine.heartbeat(member_id, instance_id, generation, now_s)
        if machine is None:
            return _UNKNOWN_MEMBER
        error = machine.classic_heartbeat(member_id, instance_id, generation, now_s)
        group.carry_out(())  # it may have set a time to rejoin by
        return error

    def leave_group(
        self,
        group_id: str,
        members: Sequence[LeavingMember],
        reply: Callable[[Sequence[LeaveResult] | KafkaError], None],
    ) -> None:
        """LeaveGroup: what became of each member; answered when it is durable."""
        group = self.groups.find(group_id)
        if isinstance(group, KafkaError):
            reply(group)
            return
        machine = None if group is None else group.machine
        if group is None or machine is None:
            reply([LeaveResult(one.member_id, one.instance_id, _UNKNOWN_MEMBER) for one in members])
            return
        now_s, now_ms = self.clock.monotonic_s(), self.clock.now_ms()
        if isinstance(machine, GroupState):
            results, effects = machine.leave(members, now_s, now_ms)
        else:
            results, effects = machine.classic_leave(members, now_ms)
        group.carry_out(effects)
        group.answer(reply, results)

    # ---- the consumer protocol

    def consumer_heartbeat(
        self,
        request: ConsumerHeartbeat,
        reply: Callable[[ConsumerHeartbeatResult | KafkaError], None],
    ) -> None:
        """ConsumerGroupHeartbeat: answered at once, or when what it changed is durable."""
        group = self.groups.find_or_make(request.group_id)
        if isinstance(group, KafkaError):
            reply(group)
            return
        machine = group.machine
        now_s, now_ms = self.clock.monotonic_s(), self.clock.now_ms()
        if isinstance(machine, GroupState):
            self._upgrade(group, machine, request, reply, now_s, now_ms)
            return
        if machine is None:
            group.machine = machine = self.new_consumer(group.group_id)
        group.carry_out(machine.heartbeat(request, reply, self.topics, now_s, now_ms))

    def _upgrade(
        self,
        group: Group,
        classic: GroupState,
        request: ConsumerHeartbeat,
        reply: Callable[[ConsumerHeartbeatResult | KafkaError], None],
        now_s: float,
        now_ms: int,
    ) -> None:
        """A group of the classic protocol is asked to go on in the consumer protocol."""
        from trioq.coordinator.migration import upgrade  # noqa: PLC0415  rare

        settings, patterns = self._consumer_parts()
        machine, effects = upgrade(
            classic, request, reply, self.topics, settings, now_s, now_ms, patterns=patterns
        )
        if machine is not None:
            group.stop()
            group.machine = machine
        group.carry_out(effects)

    def topics_changed(self, group: Group) -> None:
        """Topics came, went or grew: let a group that subscribes to them know."""
        machine = group.machine
        if machine is not None and not isinstance(machine, GroupState):
            group.carry_out(machine.topics_changed(self.topics))

    # ---- committed offsets

    def commit_offsets(
        self, request: CommitRequest, reply: Callable[[KafkaError | None], None]
    ) -> None:
        """OffsetCommit: None when the offsets are durable; retriable where the metastore is slow.

        A commit that is refused for time may still be made; one that is acknowledged is kept.
        """
        is_member = request.generation >= 0 or request.member_id or request.instance_id is not None
        found = self.groups.find(request.group_id)
        if found is None and is_member:
            reply(IllegalGeneration("There is no such group."))
            return
        group = self.groups.find_or_make(request.group_id)
        if isinstance(group, KafkaError):
            reply(group)
            return
        machine = group.machine
        if machine is None:
            group.machine = machine = self.new_classic(group.group_id)
        error = machine.check_commit(
            request.member_id, request.instance_id, request.generation, self.clock.monotonic_s()
        )
        now_ms = self.clock.now_ms()
        expire_ms = None if request.retention_ms is None else now_ms + request.retention_ms
        changes = {} if error is not None else changes_of(request.offsets, now_ms, expire_ms)
        if group.offsets.shard_count + len(changes) > MAX_OFFSET_SHARDS:
            error = InvalidCommitOffsetSize(f"The group has offsets of {MAX_OFFSET_SHARDS} topics.")
        if error is not None:
            reply(error)
            group.carry_out(())
            return
        group.submit(OffsetChange(group, changes), reply)

    def fetch_offsets(
        self,
        group_id: str,
        member_id: str | None,
        member_epoch: int,
        partitions: PartitionsByTopic | None,
        *,
        require_stable: bool,  # noqa: ARG002  nothing is pending before there are transactions
    ) -> FetchedOffsets | KafkaError:
        """OffsetFetch: what is durable of `partitions`, or of all."""
        group = self.groups.find(group_id)
        if not isinstance(group, KafkaError):
            group = self._slots.present_refusal() or group
        if not isinstance(group, Group):
            return group or {}
        machine = group.machine
        if machine is not None and not isinstance(machine, GroupState):
            error = machine.check_fetch(member_id, member_epoch)
            if error is not None:
                return error
        return group.offsets.fetch(partitions)

    # ---- admin

    def list_groups(self) -> list[GroupOverview] | KafkaError:
        """The groups coordinated here; COORDINATOR_LOAD_IN_PROGRESS while some are being read."""
        return group_admin.list_groups(self.groups)

    def describe_group(self, group_id: str) -> GroupDescription | KafkaError:
        """A group of the classic protocol; GROUP_ID_NOT_FOUND."""
        return group_admin.describe_classic(self.groups, group_id)

    def describe_consumer_group(self, group_id: str) -> ConsumerGroupDescription | KafkaError:
        """A group of the consumer protocol; GROUP_ID_NOT_FOUND."""
        return group_admin.describe_consumer(self.groups, group_id)

    async def delete_groups(self, group_ids: Sequence[str]) -> dict[str, KafkaError | None]:
        """Delete groups without members, with their offsets. Cancelled: each is deleted or not."""
        return await group_admin.delete_groups(self.groups, group_ids, self.clock.now_ms())

    async def delete_offsets(
        self, group_id: str, partitions: PartitionsByTopic
    ) -> Mapping[TopicId, KafkaError]:
        """Forget committed offsets; the topics whose offsets stay, with the reason.

        Raises the group's KafkaError. Cancelled: all are forgotten, or none.
        """
        return await group_admin.delete_offsets(self.groups, self.topics, group_id, partitions)

    # ---- its end

    def begin_stop(self) -> None:
        """The broker is about to stop: whoever waits is answered, and nobody waits any more.

        Commits and heartbeats are served as before.
        """
        self._stopping = _STOPPING
        self.groups.abandon(_STOPPING, self.clock.monotonic_s())

    # ---- machines

    def new_classic(self, group_id: str) -> GroupState:
        """The machine of an empty group of the classic protocol."""
        return GroupState(group_id, self._classic_settings, self.clock.now_ms())

    def new_consumer(self, group_id: str) -> ConsumerGroupState:
        """The machine of an empty group of the consumer protocol."""
        from trioq.coordinator.consumer_group_state import (  # noqa: PLC0415  not every broker's
            ConsumerGroupState,
        )

        settings, patterns = self._consumer_parts()
        return ConsumerGroupState(group_id, settings, self.clock.now_ms(), patterns=patterns)

    def restored(self, stored: StoredGroup) -> GroupState | ConsumerGroupState:
        """The machine of a stored group; its members' sessions begin now. Raises Damaged."""
        now_s = self.clock.monotonic_s()
        if isinstance(stored, ClassicGroup):
            return restore_classic(stored, self._classic_settings, now_s)
        settings, patterns = self._consumer_parts()
        return restore_consumer(stored, settings, now_s, patterns)

    def _consumer_parts(self) -> tuple[ConsumerGroupSettings, TopicPatterns]:
        from trioq.coordinator.subscriptions import TopicPatterns  # noqa: PLC0415  likewise

        if self._consumer_settings is None or self._patterns is None:
            self._consumer_settings = consumer_settings(self._config)
            self._patterns = TopicPatterns()
        return self._consumer_settings, self._patterns
