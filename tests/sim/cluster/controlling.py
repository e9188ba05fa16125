"""A broker's candidacy for the controller, and what it does while it is the one."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from tests.sim.cluster.metastore import TOPIC_ID, Expired, Refused, Unknown
from trioq.controller import reassignment_state
from trioq.controller.election_state import LogEnd, hand_over, prefer
from trioq.controller.review_state import PartitionChange, ReviewState, election_rules, live_brokers
from trioq.errors import KafkaError

if TYPE_CHECKING:
    from tests.sim.cluster.process import Process


class Controlling:
    def __init__(self, process: Process) -> None:
        self._process = process
        self._world = process.world
        self._epoch = -1
        self._position = 0
        self._review: ReviewState | None = None
        self._is_busy = False
        self._is_standing = False
        self._timer_ms = -1.0

    def __repr__(self) -> str:
        return (
            f"<epoch {self._epoch}, active {self.is_active}, busy {self._is_busy}, "
            f"standing {self._is_standing}, position {self._position}>"
        )

    def lost(self) -> None:
        """The session is over, or the term is: stand again when there is reason to."""
        self._review = None
        self._epoch = -1
        self._is_busy = False

    @property
    def is_active(self) -> bool:
        return self._review is not None and self._process.lease_holds

    # ---- standing -----------------------------------------------------------------------

    def look(self) -> None:
        """The image has changed, or time has passed."""
        if self._process.broker_epoch < 0:
            return
        if self._review is None:
            self._stand()
        elif self._process.image.controller_epoch > self._epoch:
            self.lost()
            self._stand()
        else:
            self._act()

    def _stand(self) -> None:
        metastore, process = self._world.metastore, self._process
        session, expected = process.session, metastore.controller_epoch
        # What is read here comes by a watch on the ephemeral; a claim of its own may be unknown.
        if self._is_standing or metastore.controller not in {None, session}:
            return
        self._is_standing = True
        broker_epoch = process.broker_epoch

        def answered(result: Any) -> None:
            self._is_standing = False
            if isinstance(result, Unknown | Expired | Refused) or session is not process.session:
                return
            self._epoch, self._position = result
            self._world.note(f"{process.broker_id} is the controller, epoch {self._epoch}")
            self._review = ReviewState(
                process.config,
                storm_wait_s=self._world.settings.session_ms / 1000,
                can_ask=True,
            )
            self._act()

        self._world.call(
            process,
            lambda: metastore.claim_controller(session, expected, broker_epoch),
            answered,
        )

    # ---- acting -------------------------------------------------------------------------

    def _act(self) -> None:
        review, process = self._review, self._process
        if review is None or self._is_busy or process.image.position < self._position:
            return
        if not process.lease_holds:
            return
        for topic in review.begin(process.image, process.clock.monotonic_s()):
            review.examine(topic)
        findings = review.findings()
        for broker in findings.ask:
            self._ask(broker, review)
        if findings.changes:
            self._write(findings.changes[0])
        elif findings.again_at_s is not None:
            self._look_at(findings.again_at_s * 1000)

    def _look_at(self, at_ms: float) -> None:
        if self._timer_ms <= self._world.now_ms or at_ms < self._timer_ms:
            self._timer_ms = at_ms
            self._world.later(
                self._process, max(at_ms - self._world.now_ms, 0.01) + 0.01, self.look
            )

    def _write(self, change: PartitionChange) -> None:
        self._is_busy = True
        epoch, review = self._epoch, self._review

        def answered(result: Any) -> None:
            if review is not self._review:
                return
            self._is_busy = False
            if isinstance(result, Unknown | Expired) or result == Refused():
                # The chain ends: another term, whose claim comes after what is unknown.
                self._resign()
                return
            if isinstance(result, Refused):
                assert review is not None
                review.look_again([TOPIC_ID])
                self._world.later(self._process, 10, self.look)
                return
            self._process.see_state(result)

        self._world.call(
            self._process,
            partial(self._world.metastore.set_state, change.before, change.after, epoch),
            answered,
        )

    def _resign(self) -> None:
        """Give the role back, to stand for it again."""
        session, metastore = self._process.session, self._world.metastore
        self.lost()

        def release() -> None:
            if metastore.controller is session:
                metastore.controller = None

        self._world.call(self._process, release, lambda _result: self.look())

    def _ask(self, broker: int, review: ReviewState) -> None:
        """How far a broker's log reaches, in the epoch in which it is asked."""
        process, world = self._process, self._world
        registered = process.image.brokers.get(broker)
        if registered is None:
            return
        key = TOPIC_ID, 0

        def asked(other: Process) -> None:
            if other.log.failed:
                return
            end = LogEnd(other.log.epochs.latest_epoch, other.log.log_end_offset)
            world.send(broker, process.broker_id, lambda back: answered(back, end))

        def answered(back: Process, end: LogEnd) -> None:
            if back is process and review is self._review:
                review.answered(broker, registered.broker_epoch, {key: end})
                self.look()

        world.send(process.broker_id, broker, asked)

    # ---- what an administrator asks for ---------------------------------------------------

    def reassign(self, target: tuple[int, ...]) -> None:
        self._change(
            lambda state, live, rules: reassignment_state.begin(state, target, live, rules)
        )

    def cancel_reassignment(self) -> None:
        self._change(reassignment_state.cancel)

    def prefer(self) -> None:
        self._change(lambda state, live, _rules: prefer(state, live))

    def hand_over(self, leaving: int) -> None:
        """`leaving` is about to stop."""
        review = self._review
        registered = self._process.image.brokers.get(leaving)
        if review is not None and registered is not None:
            review.leaving[leaving] = registered.broker_epoch
        self._change(lambda state, live, rules: hand_over(state, leaving, live, rules))

    def _change(self, decide: Any) -> None:
        image = self._process.image
        if not self.is_active or self._is_busy or image.position < self._position:
            return
        topic = image.topics_by_id[TOPIC_ID]
        before = topic.partitions[0]
        rules = election_rules(self._process.config, topic)
        try:
            after = decide(before, live_brokers(image), rules)
        except KafkaError:
            return
        if after != before:
            self._write(PartitionChange(topic, 0, before, after))
