"""Elections over a model of a replicated partition: no leader lacks what was committed.

Logs are lists of records; a stop that is not clean loses any tail of one. Leaders count for the
high watermark what followers fetched under the broker epoch that is in the ISR, as long as the ISR
is large enough, and change the ISR; the controller's decisions are the real ones. Something may be
lost only if, since the last commit, as many brokers stopped uncleanly as must be in sync for one
(SAFETY rule 9).
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from trioq.config import BrokerConfig
from trioq.controller import reassignment_state
from trioq.controller.election_state import LogEnd
from trioq.controller.review_state import (
    ASK_AGAIN_S,
    ReviewState,
    election_rules,
    live_brokers,
)
from trioq.errors import InvalidReplicaAssignment, NoReassignmentInProgress
from trioq.metastore.image import ClusterImage, TopicImage
from trioq.metastore.layout import BrokerRegistration, PartitionState
from trioq.replication.isr_state import with_failed_log

TOPIC = uuid.UUID(int=1000)
BROKERS = (1, 2, 3, 4)
CONFIG = BrokerConfig.from_mapping({})


@dataclass
class Replica:
    log: list[tuple[int, int]] = field(default_factory=list)
    broker_epoch: int = 0
    is_clean: bool = True
    is_alive: bool = True
    has_failed: bool = False
    """Its log directory has: it neither leads nor follows nor tells anything until a start."""

    @property
    def works(self) -> bool:
        return self.is_alive and not self.has_failed


class World:
    def __init__(self, min_insync: int) -> None:
        self.replicas = {broker: Replica() for broker in BROKERS}
        self.state = PartitionState(1, 0, (1, 2, 3), (0, 0, 0), (1, 2, 3))
        self.min_insync = min_insync
        self.committed: list[tuple[int, int]] = []
        self.positions: dict[int, int] = {}
        self.review_state = ReviewState(CONFIG, storm_wait_s=0.0, can_ask=True)
        self.now_s = 0.0
        self.written = 0
        self.unclean: set[int] = set()

    # ---- brokers

    def produce(self) -> None:
        """A record that is committed if it can be."""
        self.append()
        for broker in BROKERS:
            self.fetch(broker)

    def bounce(self, broker: int, is_clean: bool, lost: int) -> None:
        """So quickly that the controller never saw it gone."""
        self.stop(broker, is_clean, lost)
        self.start(broker)

    @property
    def leader(self) -> Replica | None:
        """The leader, if it is alive in the epoch that the state names."""
        state = self.state
        if state.leader == -1:
            return None
        replica = self.replicas[state.leader]
        named = dict(zip(state.isr, state.broker_epochs, strict=True))[state.leader]
        return replica if replica.works and replica.broker_epoch == named else None

    def append(self) -> None:
        if self.leader is not None:
            self.written += 1
            self.leader.log.append((self.state.leader_epoch, self.written))
            self.advance()

    def fetch(self, broker: int) -> None:
        """A follower copies everything, after it truncated what the leader does not have."""
        replica, leader = self.replicas[broker], self.leader
        if leader is None or not replica.works or broker not in self.state.replicas:
            return
        if broker != self.state.leader:
            replica.log = list(leader.log)
            named = dict(zip(self.state.isr, self.state.broker_epochs, strict=True))
            if named.get(broker) == replica.broker_epoch:
                self.positions[broker] = len(replica.log)
            self.advance()

    def advance(self) -> None:
        leader, state = self.leader, self.state
        if leader is None or len(state.isr) < self.min_insync:
            return
        ends = [self.positions.get(one, 0) for one in state.isr if one != state.leader]
        watermark = min([len(leader.log), *ends])
        if watermark > len(self.committed):
            assert leader.log[: len(self.committed)] == self.committed
            self.committed = leader.log[:watermark]
            self.unclean.clear()

    def join(self, broker: int) -> None:
        """The leader takes a follower that caught up into the ISR."""
        self.fetch(broker)
        replica, leader, state = self.replicas[broker], self.leader, self.state
        if leader is None or not replica.works or replica.log != leader.log:
            return
        if broker in state.replicas and broker not in state.isr:
            isr = (*state.isr, broker)
            self.positions[broker] = len(replica.log)
            self.with_isr(isr, (*state.broker_epochs, replica.broker_epoch))

    def shrink(self, broker: int) -> None:
        state = self.state
        if self.leader is None or broker == state.leader or broker not in state.isr:
            return
        epochs = dict(zip(state.isr, state.broker_epochs, strict=True))
        left = epochs.pop(broker)
        self.with_isr(tuple(epochs), tuple(epochs.values()), gone={broker: left})

    def with_isr(self, isr, epochs, gone=None) -> None:
        elr = dict(zip(self.state.elr, self.state.elr_epochs, strict=True)) | (gone or {})
        elr = {one: epoch for one, epoch in elr.items() if one not in isr}
        if len(isr) >= self.min_insync:
            elr = {}
        self.state = self.state._replace(
            isr=isr, broker_epochs=epochs, elr=tuple(elr), elr_epochs=tuple(elr.values())
        )
        self.advance()

    def fail(self, broker: int) -> None:
        """Its log directory fails, which it says."""
        replica = self.replicas[broker]
        if replica.works:
            replica.has_failed = True
            self.say_failed(broker)

    def say_failed(self, broker: int) -> None:
        replica, state = self.replicas[broker], self.state
        if replica.is_alive and replica.has_failed and broker in state.replicas:
            self.state = with_failed_log(state, broker, replica.broker_epoch)

    def lose_session(self, broker: int) -> None:
        """It registers anew, in the same process: what failed has failed still."""
        if self.replicas[broker].is_alive:
            self.replicas[broker].broker_epoch += 1
            self.replicas[broker].is_clean = True
            self.review()
            self.say_failed(broker)

    def stop(self, broker: int, is_clean: bool, lost: int) -> None:
        replica = self.replicas[broker]
        if replica.is_alive:
            is_clean = is_clean and not replica.has_failed
            replica.is_alive = replica.has_failed = False
            replica.is_clean = is_clean
            if not is_clean:
                del replica.log[len(replica.log) - min(lost, len(replica.log)) :]
                self.unclean.add(broker)

    def start(self, broker: int) -> None:
        replica = self.replicas[broker]
        if not replica.is_alive:
            replica.is_alive = True
            replica.broker_epoch += 1

    # ---- the controller

    def image(self) -> ClusterImage:
        topic = TopicImage(
            "t", TOPIC, (self.state,), {"min.insync.replicas": str(self.min_insync)}, 0
        )
        return ClusterImage(
            topics={"t": topic},
            topics_by_id={TOPIC: topic},
            brokers={
                broker: BrokerRegistration(
                    broker, one.broker_epoch, None, {}, (), "", "", one.is_clean
                )
                for broker, one in self.replicas.items()
                if one.is_alive
            },
        )

    def review(self) -> None:
        self.now_s += ASK_AGAIN_S  # so that who did not answer is asked again
        for _ in range(3):  # asked, answered, decided
            image = self.image()
            for topic in self.review_state.begin(image, self.now_s):
                self.review_state.examine(topic)
            findings = self.review_state.findings()
            for broker in findings.ask:
                replica = self.replicas[broker]
                if replica.has_failed:
                    continue
                epoch = replica.log[-1][0] if replica.log else -1
                end = {(TOPIC, 0): LogEnd(epoch, len(replica.log))}
                self.review_state.answered(broker, replica.broker_epoch, end)
            for change in findings.changes:
                self.take(change.after)
        leader = self.replicas.get(self.state.leader)
        assert leader is None or leader.works or self.is_unsaid(self.state.leader)

    def is_unsaid(self, broker: int) -> bool:
        """It has registered again, and has not said yet that its log has failed."""
        return self.state.failed_logs.get(broker, -1) < self.replicas[broker].broker_epoch

    def hand_over(self, broker: int) -> None:
        for change in self.review_state.handing_over(self.image(), broker):
            self.take(change.after)

    def balance(self) -> None:
        for change in self.review_state.rebalancing(self.image()):
            self.take(change.after)

    def reassign(self, target: tuple[int, ...] | None) -> None:
        image = self.image()
        live = live_brokers(image)
        rules = election_rules(CONFIG, image.topics["t"])
        try:
            if target is None:
                after = reassignment_state.cancel(self.state, live, rules)
            else:
                after = reassignment_state.begin(self.state, target, live, rules)
        except (InvalidReplicaAssignment, NoReassignmentInProgress):
            return
        self.take(after)

    def take(self, after: PartitionState) -> None:
        before, self.state = self.state, after
        if (after.leader, after.leader_epoch) != (before.leader, before.leader_epoch):
            self.positions = {}
            leader = self.leader
            if leader is not None and leader.log[: len(self.committed)] != self.committed:
                assert len(self.unclean) >= self.min_insync, "a leader without what was committed"
                self.committed = []
        self.advance()


ONE = st.sampled_from(BROKERS)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["append", "produce", "produce", "review", "review", "balance"])),
        st.tuples(st.sampled_from(["fetch", "join", "join", "shrink", "start", "hand_over"]), ONE),
        st.tuples(st.sampled_from(["fail", "lose_session"]), ONE),
        st.tuples(st.sampled_from(["stop", "bounce"]), ONE, st.booleans(), st.integers(0, 4)),
        st.tuples(
            st.just("reassign"),
            st.none() | st.lists(ONE, min_size=2, max_size=3, unique=True).map(tuple),
        ),
    ),
    max_size=50,
)


@settings(max_examples=800, deadline=None)
@given(steps=STEPS, min_insync=st.integers(1, 2))
def test_no_leader_lacks_what_was_committed(steps, min_insync):
    world = World(min_insync)
    for name, *arguments in steps:
        getattr(world, name)(*arguments)
    # In the end everybody is there, and the partition works.
    for broker in BROKERS:
        if world.replicas[broker].has_failed:
            world.stop(broker, is_clean=False, lost=0)
        world.start(broker)
    world.review()
    for broker in BROKERS:
        world.join(broker)
    world.review()
    assert world.leader is not None
    world.append()
    for broker in BROKERS:
        world.fetch(broker)
    if len(world.state.isr) >= min_insync:
        assert world.committed[-1] == world.leader.log[-1]
