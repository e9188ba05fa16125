"""Fetches of followers: they read up to what is written, and say what they hold.

As fetches of consumers, but for five things: each states the follower's position
(Partition.read_as_replica), they wait for the log's end and not for the high watermark, what else
has moved is told with the next answer without waking who waits for data (a high watermark, unless
followers serve consumers, and a log start), fetch.max.bytes does not bound them, as followers bound
themselves, and replicas that are being added get no more than leader.replication.throttled.rate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from trioq.errors import KafkaError
from trioq.server.fetch_answer import FetchAnswer
from trioq.server.fetch_sessions import FetchSession
from trioq.server.nearby_fetch import followers_serve
from trioq.server.waiting_fetch import WaitingFetch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trioq.replication.partition import Partition
    from trioq.replication.replica import ReadResult, Replica
    from trioq.server.context import Context, Request
    from trioq.server.fetch_sessions import FollowedPartition
    from trioq.wire.messages.fetch import FetchRequest

HOLD_S = 0.002
"""How long answers to followers wait at most while there is more to receive and to write."""

HURRY_S = (0.03, 0.09)
"""When followers have the image by which this broker has begun to lead: soon, and surely."""


def replica_of(message: FetchRequest) -> tuple[int, int] | None:
    """Id and broker epoch (-1: not stated) of the follower that fetches; None for consumers."""
    state = message.replica_state
    if state is not None and state.replica_id >= 0:
        return state.replica_id, state.replica_epoch
    return None if message.replica_id < 0 else (message.replica_id, -1)


class ReplicaAnswer(FetchAnswer):
    """The answer to a follower."""

    __slots__ = ("_broker_epoch", "_now_s", "_replica_id", "tells_at_once")

    def __init__(
        self,
        ctx: Context,
        request: Request,
        message: FetchRequest,
        *,
        session_id: int,
        is_incremental: bool,
    ) -> None:
        super().__init__(
            ctx,
            request,
            session_id=session_id,
            max_bytes=message.max_bytes,
            read_committed=False,
            is_incremental=is_incremental,
        )
        self._replica_id, self._broker_epoch = replica_of(message) or (-1, -1)
        self._now_s = ctx.clock.monotonic_s()
        self.tells_at_once = followers_serve(ctx.config)

    def state(self, followed: FollowedPartition) -> ReadResult | None:
        """Have the partition note where the follower stands; nothing is read.

        Returns:
            Where the partition stands; None where that is not all that there is to say.
        """
        partition = followed.partition
        if partition is None or partition.is_closed or self._is_being_added(partition):
            return None
        try:
            found = self._read(partition, followed, 0, min_one_batch=False)
        except KafkaError:
            return None
        return found if found.diverging is None else None

    def read(self, followed: FollowedPartition) -> bool:
        again = super().read(followed)
        if self.tells_at_once and self._told:
            self.is_final = True
        return again

    def _find(self, partition: Partition, followed: FollowedPartition) -> ReadResult:
        max_bytes, min_one_batch = followed.max_bytes, self.total_bytes == 0
        is_added = self._is_being_added(partition)
        if is_added and not self._ctx.added_replicas_budget.has_some(
            self._ctx.config.leader_replication_throttled_rate, self._now_s
        ):
            max_bytes, min_one_batch = 0, False
        found = self._read(
            partition, followed, min(max_bytes, self._left_bytes), min_one_batch=min_one_batch
        )
        if is_added and found.region is not None:
            self._ctx.added_replicas_budget.spend(found.region.length)
        return found

    def _read(
        self,
        partition: Partition,
        followed: FollowedPartition,
        max_bytes: int,
        *,
        min_one_batch: bool,
    ) -> ReadResult:
        return partition.read_as_replica(
            self._replica_id,
            self._broker_epoch,
            followed.fetch_offset,
            max_bytes,
            min_one_batch=min_one_batch,
            current_leader_epoch=followed.current_leader_epoch,
            last_fetched_epoch=followed.last_fetched_epoch,
            now_s=self._now_s,
            log_start_offset=followed.log_start_offset,
        )

    def _is_being_added(self, partition: Partition) -> bool:
        state = partition.state
        return (
            state is not None
            and self._replica_id in state.adding
            and self._replica_id not in state.isr
        )


class ReplicaSession(FetchSession):
    """What one fetcher of a follower follows. A ReplicaListener."""

    __slots__ = ()

    gives_way: ClassVar[bool] = False

    def high_watermark_moved(self, partition: Replica) -> None:
        """See trioq.replication.waiters.ReplicaListener."""
        if self._is_ready(partition) and isinstance(self.parked, ReplicaFetch):
            self.parked.high_watermark_moved(partition)

    def log_start_moved(self, partition: Replica) -> None:
        """See trioq.replication.waiters.ReplicaListener."""
        self._is_ready(partition)

    def _listen(self, partition: Partition) -> None:
        partition.add_replica_listener(self)

    def _leave(self, partition: Partition) -> None:
        partition.remove_replica_listener(self)


class ReplicaFetches:
    """Followers' fetches that wait here.

    Those with something to get are answered at the end of the reactor's pass (it writes one log
    after the other, and who was answered with the first would come again for each of the
    others), of the first with which nothing more is there to be received, or that ends HOLD_S
    later: what an answer costs on both sides hardly depends on its size. And all are when this
    broker has begun to lead something (`hurry`): a follower cannot ask for more partitions
    before what it has asked is answered.
    """

    __slots__ = ("_ctx", "_held_until_s", "_is_due", "_parked", "_woken")

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._parked: dict[ReplicaFetch, None] = {}
        self._woken: dict[ReplicaFetch, None] = {}
        self._held_until_s = 0.0
        self._is_due = False
        ctx.end_of_pass.append(self.answer_woken)

    def parked(self, fetch: ReplicaFetch) -> None:
        """It begins to wait."""
        self._parked[fetch] = None

    def left(self, fetch: ReplicaFetch) -> None:
        """It waits no more."""
        self._parked.pop(fetch, None)
        self._woken.pop(fetch, None)

    def wake(self, fetch: ReplicaFetch) -> None:
        """Answer `fetch` at the end of this pass or one soon after, if it still waits then."""
        if not self._woken:
            self._held_until_s = self._ctx.clock.monotonic_s() + HOLD_S
        self._woken[fetch] = None

    @property
    def is_holding(self) -> bool:
        """Whether some are to be answered that are not yet."""
        return bool(self._woken)

    def hold_no_longer(self) -> None:
        """There is nothing more to be received: the next pass's end answers all who are woken."""
        self._is_due = True

    def answer_woken(self) -> bool:
        """Called once per pass, after the logs were written; see Context.end_of_pass."""
        is_due, self._is_due = self._is_due, False
        if self._woken and (is_due or self._ctx.clock.monotonic_s() >= self._held_until_s):
            for fetch in tuple(self._woken):
                fetch.answer()
        return True

    def hurry(self) -> None:
        """Followers learn of new leaders about now: have those who wait come in again then."""
        now_s = self._ctx.clock.monotonic_s()
        for delay_s in HURRY_S:
            self._ctx.deadlines.add(now_s + delay_s, self._answer_parked)

    def _answer_parked(self) -> None:
        for fetch in tuple(self._parked):
            fetch.answer()


class ReplicaFetch(WaitingFetch):
    """One fetch of a follower. A ReplicaListener while it waits without a session."""

    __slots__ = ()

    def is_put_off(self) -> bool:
        """See WaitingFetch: most fetches of a session have their positions noted, which may
        answer producers, and are read when they are answered.
        """
        message, session = self._message, self._session
        if session is None or self._is_full or message.min_bytes > 1 or message.max_wait_ms <= 0:
            return False
        answer = self._new_answer()
        has_some = False
        for followed in tuple(session.ready):
            found = answer.state(followed)
            if found is None:
                return False
            has_more = followed.fetch_offset < found.end_offset
            has_news = followed.has_news(found.high_watermark, found.log_start_offset)
            has_some |= has_more or (has_news and answer.tells_at_once)
            if not (has_more or has_news):
                session.looked_at(followed, again=False)
        if not session.followed:
            return False
        self._still_needed_bytes = 1
        self._begin_wait(())
        if has_some:
            self._answer_soon()
        return True

    def progressed(self, partition: Replica, new_bytes: int) -> None:  # noqa: ARG002
        """See trioq.replication.waiters.ProgressListener."""
        self._still_needed_bytes -= new_bytes
        if self._still_needed_bytes <= 0 or new_bytes == 0:
            self._answer_soon()

    def _answer_soon(self) -> None:
        ctx = self._ctx
        if not self._slot.connection.is_in_pass:
            self.answer()
            return
        assert ctx.replica_fetches is not None
        ctx.replica_fetches.wake(self)

    def _begin_wait(self, untold: Iterable[FollowedPartition]) -> None:
        ctx = self._ctx
        if ctx.replica_fetches is None:
            ctx.replica_fetches = ReplicaFetches(ctx)
        ctx.replica_fetches.parked(self)
        super()._begin_wait(untold)

    def _leave(self) -> None:
        super()._leave()
        if self._ctx.replica_fetches is not None:
            self._ctx.replica_fetches.left(self)

    def high_watermark_moved(self, partition: Replica) -> None:  # noqa: ARG002
        """See trioq.replication.waiters.ReplicaListener."""
        if followers_serve(self._ctx.config):
            self._answer_soon()

    def log_start_moved(self, partition: Replica) -> None:
        """See trioq.replication.waiters.ReplicaListener: without a session all is told anyway."""

    def _new_answer(self) -> ReplicaAnswer:
        session = self._session
        return ReplicaAnswer(
            self._ctx,
            self._request,
            self._message,
            session_id=0 if session is None else session.session_id,
            is_incremental=not self._is_full,
        )

    def _listen(self, partition: Partition) -> None:
        partition.add_replica_listener(self)

    def _stop_listening(self, partition: Partition) -> None:
        partition.remove_replica_listener(self)
