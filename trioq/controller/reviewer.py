"""The controller's main work: look at each new image, write what must change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import trio

from trioq import logs
from trioq.clock import Clock
from trioq.controller.controller_counters import ControllerCounters
from trioq.controller.election_state import LogEnd, usable
from trioq.controller.log_ends import ASK_TIMEOUT_S, AskLogEnds
from trioq.controller.review_state import (
    Batch,
    Findings,
    PartitionChange,
    PartitionKey,
    ReviewState,
    batches,
    live_brokers,
)
from trioq.controller.slot_plan import plan_slots, slot_writes
from trioq.controller.topic_plan import chunks
from trioq.controller.write_chain import WriteChain
from trioq.errors import StaleBrokerEpoch
from trioq.metastore.feed import ImageFollower
from trioq.metastore.image import ClusterImage
from trioq.metastore.store import NodeError
from trioq.types import TopicPartition

_log = logs.get_logger("trioq.controller")

_PARTITIONS_PER_CHECKPOINT: Final = 1_000
_ATTEMPTS: Final = 5
_ANY_EPOCH: Final = -1


class Reviewer:
    """Follows the image for one controller term."""

    def __init__(
        self,
        chain: WriteChain,
        follower: ImageFollower,
        state: ReviewState,
        *,
        clock: Clock,
        counters: ControllerCounters,
        ask_log_ends: AskLogEnds | None = None,
    ) -> None:
        self.state = state
        self._chain = chain
        self._follower = follower
        self._clock = clock
        self._counters = counters
        self._ask_log_ends = ask_log_ends
        self._woken = trio.Event()
        self._deciding = trio.Lock()
        """Held from looking at an image until what was decided is seen in a later one."""

    def wake(self) -> None:
        """Look again now, as something of `state` was changed."""
        self._woken.set()

    async def run(self) -> None:
        """Review until cancelled. Raises as WriteChain.write_all, and CorruptNode."""
        async with trio.open_nursery() as review_nursery:
            review_nursery.start_soon(self._watch_image)
            while True:
                self._woken = trio.Event()
                async with self._deciding:
                    findings = await self._look()
                    for broker, keys in findings.ask.items():
                        review_nursery.start_soon(self._ask, broker, keys)
                    await self._write(findings.changes)
                    await self._write_slots(even_out=False)
                if not findings.changes:
                    await self._wait(findings.again_at_s)

    async def hand_over(self, broker: int, broker_epoch: int) -> list[TopicPartition]:
        """Give to others what a broker that is about to stop leads; what it leads still.

        Only partitions that another broker could lead yet are named: those with another live
        replica. The broker also leaves the ISRs of what others lead, once. Raises
        StaleBrokerEpoch, and as WriteChain.write_all.
        """
        registered = self._follower.image.brokers.get(broker)
        if registered is None or broker_epoch not in {registered.broker_epoch, _ANY_EPOCH}:
            raise StaleBrokerEpoch(f"Broker {broker} is not registered in epoch {broker_epoch}.")
        async with self._deciding:
            leaving = self.state.leaving
            is_told_again = leaving.get(broker) == registered.broker_epoch
            leaving[broker] = registered.broker_epoch
            for _ in range(_ATTEMPTS):
                image = self._follower.image
                changes = self.state.handing_over(image, broker, only_led=is_told_again)
                if not changes:
                    break
                await self._write(changes)
            for _ in range(_ATTEMPTS):
                if await self._write_slots(even_out=False):
                    break
        image = self._follower.image
        others = {one: of for one, of in live_brokers(image).items() if one not in leaving}
        return [
            TopicPartition(topic.name, number)
            for topic in image.topics_by_id.values()
            for number, state in enumerate(topic.partitions)
            if state.leader == broker
            and not usable(state, others).keys().isdisjoint(state.replicas)
        ]

    async def balance(self, *, partitions: bool) -> None:
        """Spread slots evenly, and have preferred replicas lead. Raises as write_all."""
        async with self._deciding:
            if partitions and not self.state.is_waiting:
                await self._write(self.state.rebalancing(self._follower.image))
            await self._write_slots(even_out=True)

    async def _watch_image(self) -> None:
        image = self._follower.image
        while True:
            image = await self._follower.wait_for_swap(image)
            self._woken.set()

    async def _wait(self, until_s: float | None) -> None:
        if until_s is None:
            await self._woken.wait()
            return
        with trio.move_on_after(max(0.0, until_s - self._clock.monotonic_s())):
            await self._woken.wait()

    async def _look(self) -> Findings:
        since_checkpoint = 0
        for topic in self.state.begin(self._follower.image, self._clock.monotonic_s()):
            self.state.examine(topic)
            since_checkpoint += len(topic.partitions)
            if since_checkpoint >= _PARTITIONS_PER_CHECKPOINT:
                since_checkpoint = 0
                await trio.lowlevel.checkpoint()
        self._counters.offline_partitions = sum(map(len, self.state.offline.values()))
        return self.state.findings()

    async def _write(self, changes: Sequence[PartitionChange]) -> None:
        """Write all changes but those that a change of somebody else overtook."""
        left = list(batches(changes))
        while left:
            written = await self._chain.write_all([batch.operations for batch in left])
            self._count(
                [
                    change
                    for place, batch in enumerate(left)
                    if place not in written.refused
                    for change in batch.changes
                ]
            )
            if not written.refused:
                await self._follower.wait_for(written.position)
                return
            await self._follower.catch_up()
            if any(self._is_unexplained(left[at], one) for at, one in written.refused.items()):
                await self._follower.load()
            left = list(batches(self._without_losers(left, written.refused)))

    def _is_unexplained(self, batch: Batch, refusal: NodeError) -> bool:
        """Whether the feed does not tell of the change that was in the way.

        Then the node was changed behind the brokers' backs, and would be in the way for ever.
        """
        return refusal.index < len(batch.changes) and not _is_overtaken(
            batch.changes[refusal.index], self._follower.image
        )

    def _without_losers(
        self, left: Sequence[Batch], refused: Mapping[int, NodeError]
    ) -> Iterator[PartitionChange]:
        """The refused changes but those that somebody else's overtook; these are looked at anew."""
        for place, error in refused.items():
            for index, change in enumerate(left[place].changes):
                if index == error.index or _is_overtaken(change, self._follower.image):
                    self.state.look_again([change.topic.topic_id])
                else:
                    yield change

    async def _write_slots(self, *, even_out: bool) -> bool:
        """Give every coordination slot a live leader; False: somebody else's change came first."""
        if self.state.is_waiting:
            return True
        image = self._follower.image
        live = {broker.broker_id: broker.broker_epoch for broker in image.brokers.values()}
        plan = plan_slots(image.slots, live, leaving=self.state.leaving.keys(), even_out=even_out)
        if not plan:
            return True
        written = await self._chain.write_all(list(chunks(slot_writes(image.slots, plan))))
        _log.info("coordination slots have new leaders", slots=len(plan))
        if written.refused:
            await self._follower.catch_up()
            self.wake()
        await self._follower.wait_for(written.position)
        return not written.refused

    def _count(self, changes: Sequence[PartitionChange]) -> None:
        elected = sum(change.is_election for change in changes)
        offline = sum(change.after.leader == -1 for change in changes)
        self._counters.elections += elected
        self._counters.partition_changes += len(changes)
        if changes:
            _log.info(
                "partition states written",
                partitions=len(changes),
                elected=elected,
                without_leader=offline,
            )

    async def _ask(self, broker: int, keys: Sequence[PartitionKey]) -> None:
        """Ask one broker how far its logs reach; the answer is looked at with the next image."""
        image = self._follower.image
        registered = image.brokers.get(broker)
        if registered is None or self._ask_log_ends is None:
            return
        names: dict[TopicPartition, PartitionKey] = {}
        for topic_id, number in keys:
            topic = image.topics_by_id.get(topic_id)
            if topic is not None:
                names[TopicPartition(topic.name, number)] = topic_id, number
        ends: Mapping[TopicPartition, LogEnd] = {}
        with trio.move_on_after(ASK_TIMEOUT_S):
            ends = await self._ask_log_ends(broker, list(names))
        if ends:
            self.state.answered(
                broker,
                registered.broker_epoch,
                {names[name]: end for name, end in ends.items() if name in names},
            )
            self.wake()


def _is_overtaken(change: PartitionChange, image: ClusterImage) -> bool:
    """Whether the partition is another than the change was planned from."""
    topic = image.topics_by_id.get(change.topic.topic_id)
    return (
        topic is None
        or change.partition >= len(topic.partitions)
        or topic.partitions[change.partition].partition_epoch != change.before.partition_epoch
    )
