"""What the controller must change, image by image: pure.

Every partition is looked at when a term begins and when the live brokers change, then those of
topics that change. A change is compared against the state that it was planned from, so a stale
image costs a refused write and nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from trioq.config import BrokerConfig
from trioq.config.table import TOPIC_KEYS
from trioq.controller import reassignment_state
from trioq.controller.election_state import (
    ElectionRules,
    LiveBroker,
    LogEnd,
    hand_over,
    must_ask,
    prefer,
    review,
    usable,
)
from trioq.controller.storm_state import StormState
from trioq.controller.write_chain import WRITE_BYTES
from trioq.metastore import layout, store
from trioq.metastore.image import ClusterImage, TopicImage, changed_topics
from trioq.metastore.layout import PartitionState
from trioq.types import TopicId

BATCH: Final = 100
"""Partitions of a multi (SAFETY rule 17)."""

ASK_AGAIN_S: Final = 1.0
"""Between two rounds of asking brokers for their logs' ends."""

_MIN_INSYNC: Final = "min.insync.replicas"
_UNCLEAN: Final = "unclean.leader.election.enable"

PartitionKey = tuple[TopicId, int]
LiveBrokers = Mapping[int, LiveBroker]


class PartitionChange(NamedTuple):
    """The next state of a partition, planned from `before`."""

    topic: TopicImage
    partition: int
    before: PartitionState
    after: PartitionState

    @property
    def is_election(self) -> bool:
        """Whether it brings a partition a leader, or another one."""
        return self.after.leader not in {-1, self.before.leader}

    def operation(self) -> store.Set:
        """The write, which is refused if the partition has changed since."""
        path = layout.partition_path(self.topic.topic_id, self.partition)
        return store.Set(path, self.after.encode(), self.before.partition_epoch)


class Findings(NamedTuple):
    """What a look at an image found.

    `changes` come with leaderless partitions first. `ask` are the brokers to be asked for the
    ends of logs, and `again_at_s` when to look even if nothing happens.
    """

    changes: Sequence[PartitionChange] = ()
    ask: Mapping[int, Sequence[PartitionKey]] = {}
    again_at_s: float | None = None


def live_brokers(image: ClusterImage) -> dict[int, LiveBroker]:
    """The registered brokers as elections see them."""
    return {
        broker.broker_id: LiveBroker(broker.broker_epoch, broker.clean, broker.held_since)
        for broker in image.brokers.values()
    }


def election_rules(config: BrokerConfig, topic: TopicImage) -> ElectionRules:
    """The topic's own values over those of the broker's configuration."""
    min_insync, unclean = config.min_insync_replicas, config.unclean_leader_election_enable
    if _MIN_INSYNC in topic.config:
        min_insync = int(topic.config[_MIN_INSYNC])
    if _UNCLEAN in topic.config:
        unclean = bool(TOPIC_KEYS[_UNCLEAN].parse(topic.config[_UNCLEAN]))
    return ElectionRules(min_insync, unclean)


class Batch:
    """Changes that are written as one multi."""

    __slots__ = ("changes", "operations", "size_bytes")

    def __init__(self) -> None:
        self.changes: list[PartitionChange] = []
        self.operations: list[store.Operation] = []
        self.size_bytes = 0

    def take(self, change: PartitionChange, operation: store.Operation, size_bytes: int) -> None:
        self.changes.append(change)
        self.operations.append(operation)
        self.size_bytes += size_bytes


def batches(changes: Iterable[PartitionChange]) -> Iterator[Batch]:
    """In order, at most BATCH changes and WRITE_BYTES each."""
    batch = Batch()
    for change in changes:
        operation = change.operation()
        one_bytes = store.operation_bytes(operation)
        is_full = len(batch.changes) == BATCH or batch.size_bytes + one_bytes > WRITE_BYTES
        if is_full and batch.changes:
            yield batch
            batch = Batch()
        batch.take(change, operation, one_bytes)
    if batch.changes:
        yield batch


class ReviewState:
    """One controller term's view of what it has looked at; `now_s` is of a monotonic clock.

    For each look: `begin`, `examine` each topic that it returned, `findings`.
    """

    def __init__(self, config: BrokerConfig, *, storm_wait_s: float, can_ask: bool) -> None:
        self.config = config
        self.leaving: dict[int, int] = {}
        """Brokers that are about to stop, with their epochs: not elected if another can be."""
        self.offline: dict[TopicId, tuple[int, ...]] = {}
        """The partitions without a leader, of topics that have any."""
        self.is_waiting = True
        """Whether so many brokers are missing that nothing is decided for now."""
        self._storm = StormState(storm_wait_s)
        self._can_ask = can_ask
        self._seen = ClusterImage()
        self._is_first = True
        self._again: set[TopicId] = set()
        self._logs: dict[PartitionKey, dict[int, tuple[int, LogEnd]]] = {}
        self._asked_at_s: dict[PartitionKey, float] = {}
        self._back_since_s: dict[PartitionKey, float] = {}
        """Since when some of those wait that could lead if the others were back too."""
        self._live: LiveBrokers = {}
        self._staying: LiveBrokers = {}
        self._changes: list[PartitionChange] = []
        self._ask: dict[int, list[PartitionKey]] = {}
        self._again_at_s: float | None = None
        self._now_s = 0.0

    def look_again(self, topics: Iterable[TopicId]) -> None:
        """Look at these at the next opportunity, changed or not."""
        self._again.update(topics)

    def look_at_all(self) -> None:
        """Look at everything at the next opportunity."""
        self._is_first = True

    def answered(self, broker: int, broker_epoch: int, ends: Mapping[PartitionKey, LogEnd]) -> None:
        """Take the ends of the logs of a broker that was asked in `broker_epoch`."""
        for key, end in ends.items():
            self._logs.setdefault(key, {})[broker] = (broker_epoch, end)
            self._again.add(key[0])

    def begin(self, image: ClusterImage, now_s: float) -> list[TopicImage]:
        """The topics of `image` to examine now."""
        self._now_s = now_s
        self._changes, self._ask, self._again_at_s = [], {}, None
        if image.brokers != self._seen.brokers or self._is_first:
            self._is_first = True
            known = _replica_holders(image) | image.brokers.keys()
            acts_at_s = self._storm.acts_at_s(known, image.brokers.keys(), now_s)
            self.is_waiting = now_s < acts_at_s
            if self.is_waiting:
                self._again_at_s = acts_at_s
                return []
        if image.broker_configs != self._seen.broker_configs:
            self._is_first = True
        self._use(image)
        self._forget_deleted(image)
        if self._is_first:
            topics = list(image.topics_by_id.values())
        else:
            changed = {new.topic_id: new for _, new in changed_topics(self._seen, image) if new}
            for topic_id in self._again:
                topic = image.topics_by_id.get(topic_id)
                if topic is not None:
                    changed[topic_id] = topic
            topics = list(changed.values())
        self._again.clear()
        self._is_first = False
        self._seen = image
        return topics

    def _forget_deleted(self, image: ClusterImage) -> None:
        for gone in self.offline.keys() - image.topics_by_id.keys():
            del self.offline[gone]
        for told in (self._logs, self._asked_at_s, self._back_since_s):
            for key in [key for key in told if key[0] not in image.topics_by_id]:
                del told[key]

    def _use(self, image: ClusterImage) -> None:
        self._live = live_brokers(image)
        self.leaving = {
            broker: epoch
            for broker, epoch in self.leaving.items()
            if broker in self._live and self._live[broker].broker_epoch == epoch
        }
        self._staying = {
            broker: one for broker, one in self._live.items() if broker not in self.leaving
        }

    def examine(self, topic: TopicImage) -> None:
        """Look at the partitions of one topic; some microseconds for each."""
        rules: ElectionRules | None = None
        offline: list[int] = []
        for number, state in enumerate(topic.partitions):
            if _is_settled(state, self._live):
                continue
            if not self._seen.is_readable(topic.topic_id, number):
                # Nobody writes over what cannot be read.
                if state.leader not in self._live:
                    offline.append(number)
                continue
            if rules is None:
                rules = election_rules(self.config, topic)
            after = self._next(topic, number, state, rules)
            if after != state:
                self._changes.append(PartitionChange(topic, number, state, after))
            if after.leader == -1:
                offline.append(number)
            else:
                self._logs.pop((topic.topic_id, number), None)
                self._asked_at_s.pop((topic.topic_id, number), None)
                self._back_since_s.pop((topic.topic_id, number), None)
        if offline:
            self.offline[topic.topic_id] = tuple(offline)
        else:
            self.offline.pop(topic.topic_id, None)

    def findings(self) -> Findings:
        """What was found by examining."""
        self._changes.sort(key=lambda change: not change.is_election)
        return Findings(self._changes, self._ask, self._again_at_s)

    def handing_over(
        self, image: ClusterImage, broker: int, *, only_led: bool = False
    ) -> list[PartitionChange]:
        """What takes a broker that is about to stop out of ISRs and leaderships, where others are.

        `only_led` leaves the ISRs of what others lead alone. Others that are leaving get nothing
        while anybody else can have it. Only who is in sync gets a leadership: a last replica
        standing may lack what acks=1 acknowledged, and is in sync soon if it stays.
        """
        live = live_brokers(image)
        staying = {one: live[one] for one in live if one == broker or one not in self.leaving}
        changes: list[PartitionChange] = []
        for topic in image.topics_by_id.values():
            rules = election_rules(self.config, topic)
            for number, state in enumerate(topic.partitions):
                if broker not in state.isr or (only_led and state.leader != broker):
                    continue
                if not image.is_readable(topic.topic_id, number):
                    continue
                after = hand_over(state, broker, staying, rules)
                if state.leader == broker and (after == state or after.leader not in state.isr):
                    after = hand_over(state, broker, live, rules)
                if after != state and after.leader in state.isr:
                    changes.append(PartitionChange(topic, number, state, after))
        return changes

    def rebalancing(self, image: ClusterImage) -> list[PartitionChange]:
        """What gives brokers back the partitions of which they are the preferred leaders.

        Of those brokers of whose preferred partitions more than
        leader.imbalance.per.broker.percentage are led by others.
        """
        live = live_brokers(image)
        staying = {broker: live[broker] for broker in live if broker not in self.leaving}
        preferred: Counter[int] = Counter()
        changes: dict[int, list[PartitionChange]] = {}
        for topic in image.topics_by_id.values():
            for number, state in enumerate(topic.partitions):
                if not image.is_readable(topic.topic_id, number):
                    continue
                first = state.replicas[0]
                preferred[first] += 1
                if state.leader not in {first, -1} and first in staying:
                    after = prefer(state, live)
                    if after != state:
                        change = PartitionChange(topic, number, state, after)
                        changes.setdefault(first, []).append(change)
        most = self.config.leader_imbalance_per_broker_percentage / 100
        return [
            change
            for broker, ones in changes.items()
            if len(ones) > most * preferred[broker]
            for change in ones
        ]

    def _next(
        self, topic: TopicImage, number: int, state: PartitionState, rules: ElectionRules
    ) -> PartitionState:
        key = topic.topic_id, number
        live = self._live
        after = review(state, live, rules._replace(unclean=False))
        if after.leader == -1:
            logs = self._known_logs(key)
            waits = self._waits(key, after)
            wanted = must_ask(after, live, waits=waits)
            if not wanted and rules.unclean:
                can_lead = usable(after, live)
                wanted = tuple(broker for broker in state.replicas if broker in can_lead)
            missing = [broker for broker in wanted if broker not in logs]
            if missing and self._can_ask and self._is_to_wait_for(key, missing):
                return after
            after = review(state, live, rules, logs=logs, waits=waits)
        if after.leader in self.leaving and after.leader != state.leader:
            after = hand_over(after, after.leader, live, rules)
        return reassignment_state.advance(after, self._staying, rules)

    def _known_logs(self, key: PartitionKey) -> dict[int, LogEnd]:
        """What brokers told of their logs in the epochs in which they still are."""
        return {
            broker: end
            for broker, (epoch, end) in self._logs.get(key, {}).items()
            if broker in self._live and self._live[broker].broker_epoch == epoch
        }

    def _waits(self, key: PartitionKey, state: PartitionState) -> bool:
        """Whether all are waited for that may hold what those who are back have lost (rule 9)."""
        timeout_ms = self.config.unclean_recovery_timeout_ms
        if timeout_ms < 0:
            return True
        if not must_ask(state, self._live, waits=False):
            self._back_since_s.pop(key, None)
            return True
        since_s = self._back_since_s.setdefault(key, self._now_s)
        ends_s = since_s + timeout_ms / 1000
        if self._now_s >= ends_s:
            return False
        self._look_at(key[0], ends_s)
        return True

    def _look_at(self, topic_id: TopicId, at_s: float) -> None:
        """Look at this topic again then, if not before."""
        self._again.add(topic_id)
        self._again_at_s = at_s if self._again_at_s is None else min(self._again_at_s, at_s)

    def _is_to_wait_for(self, key: PartitionKey, brokers: Iterable[int]) -> bool:
        """Have the brokers asked if it is time; False once they had a round's time to answer."""
        asked_at_s = self._asked_at_s.get(key)
        is_time = asked_at_s is None or self._now_s >= asked_at_s + ASK_AGAIN_S
        if is_time:
            self._asked_at_s[key] = self._now_s
            for broker in brokers:
                self._ask.setdefault(broker, []).append(key)
        self._look_at(key[0], self._asked_at_s[key] + ASK_AGAIN_S)
        return asked_at_s is None or not is_time


def _is_settled(state: PartitionState, live: LiveBrokers) -> bool:
    """Whether nothing can follow from who is alive; said quickly, because it nearly always is."""
    if state.leader == -1 or state.elr or state.adding or state.removing or state.failed:
        return False
    for broker, epoch in zip(state.isr, state.broker_epochs, strict=True):
        one = live.get(broker)
        if one is None or one.broker_epoch != epoch:
            return False
    return state.leader in state.isr


def _replica_holders(image: ClusterImage) -> set[int]:
    """The brokers that hold replicas of anything, or are to."""
    holders: set[int] = set()
    for topic in image.topics_by_id.values():
        for state in topic.partitions:
            holders.update(state.replicas)
    return holders
