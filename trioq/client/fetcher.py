"""Fetching: one task per broker that has something to read, each with one request under way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import anyio

from trioq import logs
from trioq.client.address import HostPort
from trioq.client.cluster import Cluster
from trioq.client.cluster_state import Node
from trioq.client.fetch_response import Outcome, apply_response, fetch_failed
from trioq.client.fetcher_state import FetcherState, FetchPlan
from trioq.client.position_state import Leader
from trioq.client.pulse import Pulse
from trioq.client.tasks import BackgroundTasks
from trioq.errors import TrioqError
from trioq.types import TopicPartition
from trioq.wire.messages.fetch import FetchResponse

_log = logs.get_logger(__name__)

FETCH_LANE: Final = "fetch"
"""Fetches wait at the broker for data: nothing else must wait behind them."""

_LAST_BY_NAME: Final = 12
"""The last version that names topics; later ones have ids."""

_TASK_IDLE_S: Final = 60.0


class Fetcher:
    """Keeps the state's buffer filled; `on_filled` is called when there may be more in it.

    `run` belongs into the consumer's task group; the tasks per broker are started from there.
    """

    def __init__(
        self,
        cluster: Cluster,
        state: FetcherState,
        tasks: BackgroundTasks,
        *,
        lane: str,
        on_filled: Callable[[], None],
    ) -> None:
        self.fetches = 0
        self.failed_fetches = 0
        self._cluster = cluster
        self._state = state
        self._tasks = tasks
        self._lane = lane
        self._on_filled = on_filled
        self._pulse = Pulse()
        self._node_pulses: dict[int, Pulse] = {}

    def poke(self) -> None:
        """Look again: there is room, or another assignment, position or leader."""
        self._pulse.beat()
        for pulse in self._node_pulses.values():
            pulse.beat()

    def room_made(self) -> None:
        """There is room in the buffer where there was none."""
        for pulse in self._node_pulses.values():
            pulse.beat()

    def update_leaders(self) -> None:
        """Take up what the metadata has now."""
        self._state.update_leaders(self._leader)
        self.poke()

    def _leader(self, partition: TopicPartition) -> Leader | None:
        metadata = self._cluster.metadata
        info = metadata.leader(partition.topic, partition.partition)
        if info is None:
            return None
        topic_id = metadata.state.topics[partition.topic].topic_id
        return Leader(info.leader_id, info.leader_epoch, topic_id)

    async def run(self) -> None:
        """Have a task for each broker that is read from."""
        while True:
            for node_id in self._state.nodes(anyio.current_time()):
                if node_id not in self._node_pulses:
                    self._node_pulses[node_id] = Pulse()
                    self._tasks.start_soon(self._run_node, node_id)
            await self._pulse.wait()

    async def _run_node(self, node_id: int) -> None:
        """Fetch from one broker; ends after a time without anything to fetch from it."""
        pulse = self._node_pulses[node_id]
        idle_since_s = anyio.current_time()
        try:
            while True:
                now_s = anyio.current_time()
                plan = self._state.plan(node_id, now_s)
                if plan is not None:
                    await self._fetch(plan)
                    idle_since_s = anyio.current_time()
                    continue
                if now_s - idle_since_s >= _TASK_IDLE_S:
                    return
                until_s = min(self._state.wake_at_s(now_s), idle_since_s + _TASK_IDLE_S)
                await pulse.wait(until_s)
        finally:
            del self._node_pulses[node_id]
            self._pulse.beat()

    async def _fetch(self, plan: FetchPlan) -> None:
        self.fetches += 1
        wait_s = plan.request.max_wait_ms / 1000
        answered = False
        try:
            response = await self._cluster.call(
                plan.node_id,
                plan.request,
                FetchResponse,
                timeout_s=self._cluster.settings.request_timeout_s + wait_s,
                lane=self._lane,
                at_most=None if plan.session.uses_topic_ids else _LAST_BY_NAME,
            )
            answered = True
        except TrioqError as error:
            self.failed_fetches += 1
            _log.debug("fetch failed", node=plan.node_id, reason=str(error))
            fetch_failed(self._state, plan, error, anyio.current_time())
            answered = True
            self._on_filled()
            return
        finally:
            if not answered:  # cancelled
                self._state.release(plan)
                self._state.session(plan.node_id).lost()
        outcome = apply_response(self._state, plan, response, anyio.current_time())
        if outcome.hints or outcome.refresh_metadata:
            self._follow(outcome, response)
        if outcome.has_new_node:
            self._pulse.beat()
        if outcome.has_data:
            self._on_filled()

    def _follow(self, outcome: Outcome, response: FetchResponse) -> None:
        """Pass on what the answer says about leaders."""
        metadata = self._cluster.metadata
        nodes = {
            one.node_id: Node(one.node_id, HostPort(one.host, one.port), one.rack)
            for one in response.node_endpoints
        }
        moved = [
            metadata.leader_moved(
                hint.partition.topic,
                hint.partition.partition,
                hint.leader_id,
                hint.leader_epoch,
                nodes.get(hint.leader_id),
            )
            for hint in outcome.hints
        ]
        if any(moved):
            self.update_leaders()
        if outcome.refresh_metadata:
            metadata.request_refresh()
