"""Finding out where to read: committed offsets, resets, and validation after a leader changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import anyio

from trioq import logs
from trioq.client.cluster import Cluster
from trioq.client.fetch_response import STALE_LEADER
from trioq.client.group_calls import GroupCalls, MemberIdentity, OffsetAndMetadata
from trioq.client.list_offsets import (
    EpochQuery,
    OffsetAndTimestamp,
    TimestampQuery,
    epoch_ends,
    list_offsets,
)
from trioq.client.position_state import OffsetQuery, PositionState
from trioq.client.pulse import Pulse
from trioq.errors import KafkaError, TrioqError, UnsupportedByBroker
from trioq.types import TopicPartition

_log = logs.get_logger(__name__)


class Positions:
    """Looks up what the state waits for; `run` belongs into the consumer's task group.

    `on_found` is called when partitions may be fetched, or failed. `identity` tells as whom to ask
    for committed offsets: of the consumer protocol, only members in good standing are answered.
    """

    def __init__(
        self,
        cluster: Cluster,
        state: PositionState,
        group: GroupCalls | None,
        *,
        identity: Callable[[], MemberIdentity | None],
        on_found: Callable[[], None],
    ) -> None:
        self._cluster = cluster
        self._state = state
        self._group = group
        self._identity = identity
        self._on_found = on_found
        self._pulse = Pulse()

    def poke(self) -> None:
        """Look again: partitions were assigned, reset, or have another leader."""
        self._pulse.beat()

    async def run(self) -> None:
        """Look up whatever is waited for, until cancelled."""
        while True:
            now_s = anyio.current_time()
            async with anyio.create_task_group() as lookups:
                if self._group is not None:
                    partitions = self._state.awaiting_committed(now_s)
                    if partitions:
                        lookups.start_soon(self._look_up_committed, self._group, partitions)
                for node_id, queries in _by_node(self._state.awaiting_offsets(now_s)).items():
                    lookups.start_soon(self._look_up_offsets, node_id, queries)
                for node_id, queries in _by_node(self._state.awaiting_validation(now_s)).items():
                    lookups.start_soon(self._validate, node_id, queries)
            if not self._is_anything_due():
                await self._pulse.wait(self._state.wake_at_s(anyio.current_time()))

    def _is_anything_due(self) -> bool:
        now_s = anyio.current_time()
        return bool(
            (self._group is not None and self._state.awaiting_committed(now_s))
            or self._state.awaiting_offsets(now_s)
            or self._state.awaiting_validation(now_s)
        )

    async def _look_up_committed(
        self, group: GroupCalls, partitions: Sequence[TopicPartition]
    ) -> None:
        incarnations = {
            partition: self._state.partitions[partition].incarnation for partition in partitions
        }
        identity = self._identity()
        found: dict[TopicPartition, OffsetAndMetadata | KafkaError]
        try:
            found = await group.committed(
                partitions,
                require_stable=self._state.settings.read_committed,
                member_id=identity.member_id if identity is not None else None,
                member_epoch=identity.generation if identity is not None else -1,
            )
        except TrioqError as error:
            _log.debug("committed offsets not found", reason=str(error))
            self._all_failed(incarnations, error)
            return
        for partition, incarnation in incarnations.items():
            answer = found.get(partition)
            if isinstance(answer, KafkaError):
                self._failed(partition, incarnation, answer)
            elif answer is None:
                self._state.committed(partition, None, -1)
            else:
                self._state.committed(partition, answer.offset, answer.leader_epoch)
        self._on_found()

    async def _look_up_offsets(self, node_id: int, queries: Sequence[OffsetQuery]) -> None:
        asked = {one.partition: TimestampQuery(one.timestamp, one.leader_epoch) for one in queries}
        try:
            found = await list_offsets(
                self._cluster,
                node_id,
                asked,
                read_committed=self._state.settings.read_committed,
            )
        except TrioqError as error:
            _log.debug("offsets not found", node=node_id, reason=str(error))
            self._all_failed({one.partition: one.incarnation for one in queries}, error)
            return
        for query in queries:
            answer = found.get(query.partition)
            if isinstance(answer, OffsetAndTimestamp):
                self._state.offset_found(query, answer.offset, answer.leader_epoch)
            elif answer is not None:
                self._failed(query.partition, query.incarnation, answer)
        self._on_found()

    async def _validate(self, node_id: int, queries: Sequence[OffsetQuery]) -> None:
        asked = {one.partition: EpochQuery(one.epoch, one.leader_epoch) for one in queries}
        try:
            found = await epoch_ends(self._cluster, node_id, asked)
        except UnsupportedByBroker:
            for query in queries:
                self._state.validation_unsupported(query)
            self._on_found()
            return
        except TrioqError as error:
            _log.debug("positions not validated", node=node_id, reason=str(error))
            self._all_failed({one.partition: one.incarnation for one in queries}, error)
            return
        for query in queries:
            answer = found.get(query.partition)
            if isinstance(answer, KafkaError):
                self._failed(query.partition, query.incarnation, answer)
            elif answer is not None:
                self._state.epoch_end_found(query, answer.end_offset, answer.epoch)
        self._on_found()

    def _all_failed(self, incarnations: dict[TopicPartition, int], error: TrioqError) -> None:
        for partition, incarnation in incarnations.items():
            self._failed(partition, incarnation, error)

    def _failed(self, partition: TopicPartition, incarnation: int, error: TrioqError) -> None:
        if isinstance(error, STALE_LEADER):
            self._cluster.metadata.request_refresh()
        self._state.query_failed(partition, incarnation, error, anyio.current_time())
        self._on_found()


def _by_node(queries: Sequence[OffsetQuery]) -> dict[int, list[OffsetQuery]]:
    by_node: dict[int, list[OffsetQuery]] = defaultdict(list)
    for query in queries:
        by_node[query.node_id].append(query)
    return by_node
