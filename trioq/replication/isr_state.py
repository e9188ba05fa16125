"""Which replicas count: the in-sync replicas of one partition and its high watermark.

Pure: no I/O, no clock; offsets and times are arguments. The rules named are SAFETY's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from trioq.errors import BrokerBug

if TYPE_CHECKING:
    from trioq.metastore.layout import PartitionState

REJOIN_S = 5.0
"""So long a replica stays out that another than the leader took out of the ISR, and that runs on in
the same broker epoch: it is about to stop."""

NEVER = -10
"""A broker epoch that no other continues."""

LAG_BY_MESSAGES_S = 5.0
"""So long on end a replica must be behind by too many messages before it counts as out of sync."""


class Follower:
    """What the leader knows of another replica, from its fetches of this term."""

    __slots__ = (
        "barred_epoch",
        "barred_until_s",
        "broker_epoch",
        "caught_up_s",
        "counted_epoch",
        "end_offset",
        "fetched_s",
        "is_harmed",
        "leader_end_offset",
        "log_start_offset",
        "over_since_s",
    )

    def __init__(self, now_s: float) -> None:
        self.broker_epoch = -1
        """That of its last fetch; -1 before the first."""
        self.counted_epoch = -1
        """That in which it is a member of the ISR, or proposed as one; -1 if it is not."""
        self.end_offset = 0
        self.caught_up_s = now_s
        """When it last held everything that the leader held then."""
        self.fetched_s = now_s
        self.leader_end_offset = -1
        """The leader's end at its last fetch."""
        self.log_start_offset = -1
        """Where its log begins, as it said last; -1 if it did not."""
        self.is_harmed = False
        """It holds nothing of what it held, as it said last."""
        self.over_since_s: float | None = None
        self.barred_epoch = -1
        """The broker epoch in which it was taken out of the ISR, and may not join before a time."""
        self.barred_until_s = 0.0

    @property
    def counted_end_offset(self) -> int:
        """How far it holds everything, as far as its fetches in the counted epoch tell."""
        return self.end_offset if self.broker_epoch == self.counted_epoch else 0


class IsrState:
    """In-sync replicas of a partition led here, with the position each has reached.

    The high watermark is the minimum position over the committed ISR and, while changes of it
    are undecided, over every proposed ISR too (rule 8). A position is what the acknowledgement
    may rest on: the written end, or the synced end with flush.policy=commit (rule 2); it counts
    only if it was stated in the broker epoch that the ISR names (rule 6).

    Lives for one term; owned by its Partition, not shared between tasks.
    """

    __slots__ = (
        "_counted",
        "_followers",
        "_open_epochs",
        "_proposed_over",
        "_sent_epochs",
        "committed",
        "is_alone",
        "least",
        "local_id",
        "start_offset",
        "state",
    )

    def __init__(
        self, local_id: int, state: PartitionState, *, start_offset: int = 0, now_s: float = 0.0
    ) -> None:
        """A term begins, with the metastore's `state`.

        Args:
            state: names `local_id` as the leader.
            start_offset: where the leader's log ended when its term began.
            now_s: the time, on the clock that later times are on.
        """
        self.local_id = local_id
        self.start_offset = start_offset
        self.least = 1
        """The high watermark rests while fewer than these are in sync (rule 9)."""
        self._open_epochs: dict[int, int] = {}
        self._sent_epochs: dict[int, int] = {}
        self._proposed_over = -1
        self._followers: dict[int, Follower] = {}
        self.committed: frozenset[int] = frozenset()
        self.decide(state, now_s)

    # ---- who counts ----

    def decide(self, state: PartitionState, now_s: float) -> None:
        """The metastore's state is known: proposals over an earlier one are decided by it."""
        if self.local_id not in state.isr:
            raise BrokerBug(f"leader {self.local_id} is not in the ISR {sorted(state.isr)}")
        joined = set(state.isr).difference(self.committed)
        for replica in self.committed.difference(state.isr):
            # It joins again by what it states from now on: one that is about to stop, and was
            # taken out by the controller, states nothing more, be it behind or not.
            follower = self._followers[replica]
            follower.end_offset = -1
            if not self._sent_epochs or replica in self._sent_epochs:
                follower.barred_epoch = follower.counted_epoch
                follower.barred_until_s = now_s + REJOIN_S
        self.state = state
        self.committed = frozenset(state.isr)
        if state.partition_epoch > self._proposed_over:
            self._open_epochs = {}
            self._sent_epochs = {}
        for replica in list(self._followers):
            if replica not in state.replicas and replica not in state.isr:
                del self._followers[replica]
        for replica in (*state.replicas, *state.isr):
            if replica != self.local_id and replica not in self._followers:
                self._followers[replica] = Follower(now_s)
        for replica in joined:
            if replica != self.local_id:
                # It may have joined far from the end: it has as long as anybody to get there.
                self._followers[replica].caught_up_s = now_s
        self._count()

    def propose(self, members: Mapping[int, int]) -> None:
        """A change of the ISR to `members`, with their broker epochs, goes to the metastore, to
        replace the state that is known; its outcome is open until a later one is decided.
        """
        self._open_epochs |= self._sent_epochs
        self._sent_epochs = dict(members)
        self._proposed_over = self.state.partition_epoch
        self._count()

    def withdraw(self) -> None:
        """What was proposed last was not, and never will be, written."""
        self._sent_epochs = {}
        self._count()

    @property
    def keeps_others_electable(self) -> bool:
        """The ELR is to be cleared: enough are in sync, as min.insync.replicas was lowered."""
        return bool(self.state.elr) and len(self.committed) >= self.least

    @property
    def is_undecided(self) -> bool:
        """A proposal's outcome is open."""
        return bool(self._open_epochs or self._sent_epochs)

    def _count(self) -> None:
        epochs = self._open_epochs | self._sent_epochs
        # Who is in both is in it by what is committed.
        epochs.update(zip(self.state.isr, self.state.broker_epochs, strict=True))
        counted = []
        for replica, follower in self._followers.items():
            follower.counted_epoch = epochs.get(replica, -1)
            if replica in epochs:
                counted.append(follower)
        self._counted = tuple(counted)
        self.is_alone = not counted

    # ---- positions ----

    def record_fetch(
        self,
        replica_id: int,
        broker_epoch: int,
        end_offset: int,
        *,
        leader_end_offset: int,
        now_s: float,
    ) -> bool:
        """A follower stated, by fetching from `end_offset`, that it holds all below it.

        Args:
            replica_id: one of the replicas.
            broker_epoch: in which it fetches, not below what `epoch_of` says.
            leader_end_offset: what it could have.

        Returns:
            True if the high watermark may have moved.
        """
        follower = self._followers[replica_id]
        if broker_epoch != follower.broker_epoch:
            follower.broker_epoch = broker_epoch
            follower.leader_end_offset = -1
            follower.end_offset = -1
            follower.log_start_offset = -1
        if end_offset >= leader_end_offset:
            follower.caught_up_s = now_s
        elif 0 <= follower.leader_end_offset <= end_offset:
            follower.caught_up_s = max(follower.caught_up_s, follower.fetched_s)
        follower.leader_end_offset = leader_end_offset
        follower.fetched_s = now_s
        moved = end_offset != follower.end_offset
        follower.end_offset = end_offset
        return moved and follower.counted_epoch == broker_epoch

    def record_start(self, replica_id: int, log_start_offset: int, *, is_harmed: bool) -> None:
        """A follower stated, with the fetch just recorded, where its log begins, and whether it
        lacks what it held.
        """
        follower = self._followers[replica_id]
        follower.log_start_offset = log_start_offset
        follower.is_harmed = is_harmed

    def start_reached(self, offset: int) -> bool:
        """Whether the log of every follower that counts begins at `offset` or above."""
        return all(
            follower.log_start_offset >= offset and follower.broker_epoch == follower.counted_epoch
            for follower in self._counted
        )

    def is_replica(self, replica_id: int) -> bool:
        """Whether it may fetch as a follower."""
        return replica_id in self._followers

    def epoch_of(self, replica_id: int) -> int:
        """The latest broker epoch known of a replica; fetches of an earlier one are stale."""
        follower = self._followers[replica_id]
        return max(follower.broker_epoch, follower.counted_epoch)

    def end_of(self, replica_id: int) -> int:
        """The end offset that a replica stated last; -1 if none is known."""
        follower = self._followers.get(replica_id)
        if follower is None or follower.broker_epoch < 0:
            return -1
        return follower.end_offset

    def start_of(self, replica_id: int) -> int:
        """Where a replica's log begins, as it stated last; -1 if it did not."""
        follower = self._followers.get(replica_id)
        return -1 if follower is None else follower.log_start_offset

    def is_in_sync(self, replica_id: int) -> bool:
        """Whether it is a committed member that fetches in the epoch of its membership."""
        follower = self._followers.get(replica_id)
        return (
            follower is not None
            and replica_id in self.committed
            and follower.broker_epoch == follower.counted_epoch
        )

    def high_watermark(self, local_end_offset: int) -> int:
        """The greatest offset below which every replica that counts holds everything.

        -1 while it must not move: fewer than `least` are in sync, or others are still electable
        because fewer than were asked for then were.
        """
        if len(self.committed) < self.least or self.state.elr:
            return -1
        end_offset = local_end_offset
        for follower in self._counted:
            if follower.broker_epoch != follower.counted_epoch:
                return 0
            if follower.end_offset < end_offset:  # noqa: PLR1730  no call: it runs for every fetch
                end_offset = follower.end_offset
        return end_offset

    # ---- who should join or leave ----

    def counts_on(self, replica_id: int, broker_epoch: int) -> bool:
        """Whether a replica is in the ISR, or may be once a proposal is decided, or is electable
        beside it as one that holds everything: then it must not drop what it holds.
        """
        state = self.state
        if (
            replica_id in self.committed
            or replica_id in self._sent_epochs
            or replica_id in self._open_epochs
        ):
            return True
        electable = dict(zip(state.elr, state.elr_epochs, strict=True))
        return electable.get(replica_id, NEVER) >= broker_epoch - 1

    def harmed(self) -> set[int]:
        """The replicas that say that they lack what they held, and are counted on."""
        return {
            replica
            for replica, follower in self._followers.items()
            if follower.is_harmed and self.counts_on(replica, follower.broker_epoch)
        }

    def may_join(self, replica_id: int, high_watermark: int, now_s: float) -> bool:
        """Whether a replica outside the ISR has reached all that is committed, and the start of
        this term (rule 8), and was not taken out just now; its log has not failed since.
        """
        follower = self._followers[replica_id]
        return (
            replica_id not in self.committed
            and replica_id in self.state.replicas
            and follower.broker_epoch >= 0
            and not follower.is_harmed
            and not self._has_failed(replica_id, follower.broker_epoch)
            and follower.end_offset >= max(high_watermark, self.start_offset)
            and (follower.broker_epoch != follower.barred_epoch or now_s >= follower.barred_until_s)
        )

    def _has_failed(self, replica_id: int, broker_epoch: int) -> bool:
        state = self.state
        return bool(state.failed) and state.failed_logs.get(replica_id, -1) >= broker_epoch

    def failed(self) -> set[int]:
        """The members of the ISR whose logs have failed, as their brokers said."""
        epochs = self.state.failed_logs
        return {
            replica
            for replica, epoch in zip(self.state.isr, self.state.broker_epochs, strict=True)
            if replica != self.local_id and epochs.get(replica, -1) >= epoch
        }

    def joiners(self, high_watermark: int, now_s: float) -> dict[int, int]:
        """The replicas that `may_join`, with the broker epochs of their fetches."""
        return {
            replica: follower.broker_epoch
            for replica, follower in self._followers.items()
            if self.may_join(replica, high_watermark, now_s)
        }

    def laggards(
        self,
        leader_end_offset: int,
        now_s: float,
        *,
        max_lag_s: float,
        max_lag_messages: int,
        heard_since_s: float = 0.0,
    ) -> set[int]:
        """The members of the ISR that are out of sync; to be asked every second or so.

        Args:
            max_lag_s: who has not held everything for longer than this is out of sync; but
                never who holds all that there is now.
            max_lag_messages: who has been behind by more for LAG_BY_MESSAGES_S too; 0 for no
                such limit.
            heard_since_s: what was behind before is not held against anybody, as the leader
                itself heard nobody then.
        """
        found = set()
        for replica, follower in self._followers.items():
            if replica not in self.committed:
                continue
            end_offset = follower.counted_end_offset
            if end_offset >= leader_end_offset:
                follower.caught_up_s = now_s
                follower.over_since_s = None
                continue
            if now_s - max(follower.caught_up_s, heard_since_s) > max_lag_s:
                found.add(replica)
            if not max_lag_messages or leader_end_offset - end_offset <= max_lag_messages:
                follower.over_since_s = None
            elif follower.over_since_s is None or follower.over_since_s < heard_since_s:
                follower.over_since_s = now_s
            elif now_s - follower.over_since_s >= LAG_BY_MESSAGES_S:
                found.add(replica)
        return found


def changed_isr(
    state: PartitionState,
    *,
    joining: Mapping[int, int],
    leaving: Collection[int],
    min_insync: int,
    harmed: Collection[int] = (),
) -> PartitionState:
    """The state with other members in the ISR, as the leader may write it.

    `joining` are replicas with their broker epochs. Who leaves when fewer than `min_insync`
    remain stays electable, and so does who was, until they are enough again (rule 9, KIP-966):
    while they are too few the high watermark rests, so these hold all that is committed. Those
    that are `harmed` do not, and leave: they stay known, but under a broker epoch of which their
    present one is no continuation. Of those that join it is forgotten that their logs had failed.
    """
    epochs = dict(zip(state.isr, state.broker_epochs, strict=True))
    elr = dict(zip(state.elr, state.elr_epochs, strict=True))
    for replica in {*leaving, *harmed}:
        epoch = epochs.pop(replica, None)
        if epoch is not None:
            elr[replica] = epoch
    for replica in elr.keys() & set(harmed):
        elr[replica] -= 2
    for replica, epoch in joining.items():
        epochs[replica] = epoch
        elr.pop(replica, None)
    if len(epochs) >= min(min_insync, len(state.replicas)):
        elr.clear()
    failed = {one: epoch for one, epoch in state.failed_logs.items() if one not in joining}
    return state.with_failed(failed)._replace(
        isr=tuple(epochs),
        broker_epochs=tuple(epochs.values()),
        elr=tuple(elr),
        elr_epochs=tuple(elr.values()),
    )


def with_failed_log(state: PartitionState, broker: int, broker_epoch: int) -> PartitionState:
    """The state in which `broker` says, in `broker_epoch`, that its replica's log has failed.

    It says nothing else: that it leads no more and is in sync no more, where others are, is the
    controller's to write, and the leader's; who it is that is left is theirs to judge.
    """
    return state.with_failed({**state.failed_logs, broker: broker_epoch})
