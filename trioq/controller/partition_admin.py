"""Who leads and who holds partitions, as the administrator's requests change it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from trioq.config import BrokerConfig
from trioq.controller import reassignment_state
from trioq.controller.admin_writes import AdminWrites, Planner
from trioq.controller.election_state import (
    ElectionRules,
    LiveBroker,
    LogEnd,
    has_live_leader,
    prefer,
    review,
    usable,
)
from trioq.controller.log_ends import ASK_TIMEOUT_S, AskLogEnds, gather_log_ends
from trioq.controller.review_state import election_rules, live_brokers
from trioq.controller.topic_plan import Plan
from trioq.errors import (
    ElectionNotNeeded,
    EligibleLeadersNotAvailable,
    InvalidRequest,
    KafkaError,
    KafkaStorageError,
    PreferredLeaderNotAvailable,
    UnknownTopicOrPartition,
)
from trioq.metastore import layout, store
from trioq.metastore.image import ClusterImage, TopicImage
from trioq.metastore.layout import PartitionState
from trioq.types import TopicPartition

LiveBrokers = Mapping[int, LiveBroker]
NextState = Callable[[TopicPartition, PartitionState, LiveBrokers, ElectionRules], PartitionState]


class Reassignment(NamedTuple):
    """The replicas that a partition is to have, preferred leader first; None cancels."""

    partition: TopicPartition
    replicas: tuple[int, ...] | None


class PartitionResult(NamedTuple):
    """What became of one partition's change."""

    partition: TopicPartition
    error: KafkaError | None = None


def reassignments_in(
    image: ClusterImage, asked: Sequence[TopicPartition] | None = None
) -> Iterator[tuple[TopicPartition, PartitionState]]:
    """The partitions that are being moved, of those asked for (None: of all)."""
    for partition in _all_partitions(image) if asked is None else asked:
        found = _find(image, partition)
        if found is not None and reassignment_state.is_reassigning(found[1]):
            yield partition, found[1]


class PartitionAdmin:
    """The part of TopicAdmin about leaders and replicas, which hands it the writes."""

    def __init__(self, writes: AdminWrites, config: BrokerConfig) -> None:
        self.config = config
        self._writes = writes

    async def elect_leaders(
        self,
        asked: Sequence[TopicPartition] | None,
        *,
        unclean: bool,
        timeout_s: float,
        ask_log_ends: AskLogEnds | None,
    ) -> list[PartitionResult]:
        """Elect preferred leaders, or with `unclean` any live replica where there is no leader.

        Errors of an item: ElectionNotNeeded, PreferredLeaderNotAvailable,
        EligibleLeadersNotAvailable, UnknownTopicOrPartition, InvalidRequest (a partition twice),
        RequestTimedOut, and the metastore's.
        """
        image = self._writes.follower.image
        partitions = list(_all_partitions(image)) if asked is None else list(asked)
        ends: Mapping[TopicPartition, Mapping[int, LogEnd]] = {}
        if unclean and ask_log_ends is not None:
            ends = await gather_log_ends(
                ask_log_ends,
                _askable(image, partitions),
                timeout_s=min(ASK_TIMEOUT_S, timeout_s / 2),
            )

        def elected(
            partition: TopicPartition,
            state: PartitionState,
            live: LiveBrokers,
            rules: ElectionRules,
        ) -> PartitionState:
            if unclean:
                return _any_leader(state, live, rules, ends.get(partition, {}))
            return _preferred_leader(state, live)

        return await self._change(partitions, elected, timeout_s)

    async def alter_reassignments(
        self, asked: Sequence[Reassignment], *, timeout_s: float
    ) -> list[PartitionResult]:
        """Begin to move replicas, or cancel that; returns when it is begun.

        Errors of an item: UnknownTopicOrPartition, InvalidReplicaAssignment,
        NoReassignmentInProgress, InvalidRequest (a partition twice), RequestTimedOut, and the
        metastore's.
        """
        targets = dict(asked)

        def reassigned(
            partition: TopicPartition,
            state: PartitionState,
            live: LiveBrokers,
            rules: ElectionRules,
        ) -> PartitionState:
            replicas = targets[partition]
            if replicas is None:
                return reassignment_state.cancel(state, live, rules)
            return reassignment_state.begin(state, replicas, live, rules)

        return await self._change([one.partition for one in asked], reassigned, timeout_s)

    async def _change(
        self, partitions: Sequence[TopicPartition], next_state: NextState, timeout_s: float
    ) -> list[PartitionResult]:
        counts = Counter(partitions)

        def plan_with(image: ClusterImage) -> Planner:
            live = live_brokers(image)

            def plan(number: int) -> Plan:
                partition = partitions[number]
                if counts[partition] > 1:
                    raise InvalidRequest("The partition is named more than once in the request.")
                found = _find(image, partition)
                if found is None:
                    raise UnknownTopicOrPartition
                topic, state = found
                if not image.is_readable(topic.topic_id, partition.partition):
                    path = layout.partition_path(topic.topic_id, partition.partition)
                    raise KafkaStorageError(
                        f"The metastore node {path} cannot be read: repair it first, as the log of "
                        "any broker says."
                    )
                after = next_state(partition, state, live, election_rules(self.config, topic))
                if after == state:
                    return Plan([[]], None)
                path = layout.partition_path(topic.topic_id, partition.partition)
                return Plan([[store.Set(path, after.encode(), state.partition_epoch)]], None)

            return plan

        errors = await self._writes.carry_out(
            range(len(partitions)), plan_with, timeout_s=timeout_s
        )
        return [
            PartitionResult(partition, errors.get(number))
            for number, partition in enumerate(partitions)
        ]


def _preferred_leader(state: PartitionState, live: LiveBrokers) -> PartitionState:
    """The state led by the first of the replicas. Raises what `elect_leaders` answers."""
    if state.leader == state.replicas[0] and has_live_leader(state, live):
        raise ElectionNotNeeded("The preferred replica leads already.")
    after = prefer(state, live)
    if after == state:
        raise PreferredLeaderNotAvailable(
            f"The preferred replica, broker {state.replicas[0]}, is not in sync or not alive."
        )
    return after


def _any_leader(
    state: PartitionState, live: LiveBrokers, rules: ElectionRules, ends: Mapping[int, LogEnd]
) -> PartitionState:
    """The state with a leader, whatever is lost by it. Raises what `elect_leaders` answers."""
    if has_live_leader(state, live):
        raise ElectionNotNeeded("The partition has a leader.")
    after = review(state, live, rules._replace(unclean=True), logs=ends)
    if after.leader == -1:
        raise EligibleLeadersNotAvailable("None of the replicas is alive and has its log.")
    return after


def _find(
    image: ClusterImage, partition: TopicPartition
) -> tuple[TopicImage, PartitionState] | None:
    topic = image.topics.get(partition.topic)
    if topic is None or not 0 <= partition.partition < len(topic.partitions):
        return None
    return topic, topic.partitions[partition.partition]


def _all_partitions(image: ClusterImage) -> Iterator[TopicPartition]:
    for name, topic in image.topics.items():
        for number in range(len(topic.partitions)):
            yield TopicPartition(name, number)


def _askable(
    image: ClusterImage, partitions: Sequence[TopicPartition]
) -> dict[int, list[TopicPartition]]:
    """The live replicas of partitions without a leader, by broker."""
    live = live_brokers(image)
    wanted: dict[int, list[TopicPartition]] = {}
    for partition in partitions:
        found = _find(image, partition)
        if found is None or has_live_leader(found[1], live):
            continue
        can_lead = usable(found[1], live)
        for broker in found[1].replicas:
            if broker in can_lead:
                wanted.setdefault(broker, []).append(partition)
    return wanted
