"""The controller: one broker of the cluster, elected, who decides for all.

    Controller.run                  stands for election; on every broker, for one registration
    └ term                          inside the session's lease; cut when it leaves CONNECTED
      ├ Reviewer                    elections, ISRs of dead brokers, reassignments
      ├ feed trimming
      └ balance                     preferred leaders, coordination slots

Winning is one multi: the ephemeral is created and the epoch's node set at its expected version
(SAFETY rule 7). That version is the term; every write of it checks it. The ephemeral only tells
the others that somebody is there. What was written before the claim is read before anything is
decided: the claim has its own entry in the feed, and the image is waited for up to there.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Awaitable, Callable
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Final

import trio

from trioq import logs
from trioq.clock import Clock
from trioq.config import BrokerConfig
from trioq.controller.admin_writes import as_kafka_error, tidy
from trioq.controller.controller_counters import ControllerCounters
from trioq.controller.log_ends import AskLogEnds
from trioq.controller.review_state import ReviewState
from trioq.controller.reviewer import Reviewer
from trioq.controller.topics import TopicAdmin
from trioq.controller.write_chain import WriteChain
from trioq.errors import MetastoreError, NotController
from trioq.metastore import feed, layout, store
from trioq.metastore.feed import ImageFollower
from trioq.metastore.image import ClusterImage
from trioq.metastore.layout import CorruptNode
from trioq.metastore.session import Lease, SessionState
from trioq.types import TopicPartition

_log = logs.get_logger("trioq.controller")

_STAND_AGAIN_S: Final = 0.1
_UNREADABLE_PAUSE_S: Final = 5.0
_TRIM_CHECK_S: Final = 5.0
_TRIM_AFTER: Final = 100
"""Feed entries, of whomever, after which trimming is worth a look."""


class _Term:
    """What exists while this broker is the controller."""

    def __init__(self, chain: WriteChain, admin: TopicAdmin, reviewer: Reviewer) -> None:
        self.chain = chain
        self.admin = admin
        self.reviewer = reviewer


class Controller:
    """One broker's candidate; `run` is its life under one registration.

    `session_timeout_s` is the metastore's; `ask_log_ends` (see log_ends.py) is needed to elect
    among replicas of which each may have lost something. Leaders and slots are balanced when no
    broker came or went for `settled_after_s`.
    """

    def __init__(
        self,
        metastore: store.Metastore,
        follower: ImageFollower,
        *,
        config: BrokerConfig,
        clock: Clock,
        broker_id: int,
        session_timeout_s: float,
        ask_log_ends: AskLogEnds | None = None,
        settled_after_s: float = 5.0,
    ) -> None:
        self.counters = ControllerCounters()
        self._metastore = metastore
        self._follower = follower
        self._config = config
        self._clock = clock
        self._broker_id = broker_id
        self._session_timeout_s = session_timeout_s
        self._ask_log_ends = ask_log_ends
        self._settled_after_s = settled_after_s
        self._incarnation = secrets.token_hex(8)
        self._term: _Term | None = None
        self._lease: Lease | None = None

    @property
    def is_active(self) -> bool:
        """Whether this broker is the controller and may act now (SAFETY rule 12)."""
        return self._term is not None and self._is_held()

    @property
    def admin(self) -> TopicAdmin | None:
        """Where topics and configurations are changed, while this broker is the controller."""
        return self._term.admin if self._term is not None and self._is_held() else None

    @property
    def epoch(self) -> int:
        """The controller epoch of the term; -1 while this broker is not the controller."""
        return self._term.chain.controller_epoch if self._term is not None else -1

    @property
    def offline_partitions(self) -> list[TopicPartition]:
        """The partitions without a leader, as this broker saw them as the controller."""
        if self._term is None:
            return []
        topics = self._follower.image.topics_by_id
        return [
            TopicPartition(topics[topic_id].name, number)
            for topic_id, numbers in self._term.reviewer.state.offline.items()
            if topic_id in topics
            for number in numbers
        ]

    def use_config(self, config: BrokerConfig) -> None:
        """Take changed broker defaults."""
        self._config = config
        if self._term is not None:
            self._term.admin.use_config(config)
            self._term.reviewer.state.config = config
            self._term.reviewer.state.look_at_all()
            self._term.reviewer.wake()

    async def hand_over(self, broker_id: int, broker_epoch: int) -> list[TopicPartition]:
        """Give to others what a broker that is about to stop leads (controlled shutdown).

        Returns the partitions that it leads still, although another replica is alive: none in sync.
        -1 as epoch stands for any. Raises NotController, StaleBrokerEpoch, and what a metastore's
        failure becomes. Cancelled: some is handed over.
        """
        term = self._term
        if term is None or not self._is_held():
            raise NotController("This broker is not the controller.")
        try:
            return await term.reviewer.hand_over(broker_id, broker_epoch)
        except MetastoreError as error:
            raise as_kafka_error(error) from error

    async def run(self, broker_epoch: int) -> None:
        """Stand for election and act, again and again, while the registration lasts.

        Returns when the session is lost, or somebody registered this broker's id in another
        epoch than `broker_epoch`: register, then call again. A node on which the role rests and
        that cannot be read ends the term, not the broker, and is tried again. Raises what is a
        bug. Cancelled: the role ends with the session, or goes on if this is called again.
        """
        session = self._metastore.session
        generation = session.generation
        while session.generation == generation and session.state is not SessionState.LOST:
            try:
                with session.lease() as lease:
                    self._lease = lease
                    claim = await self._stand(broker_epoch)
                    if claim is None:
                        return
                    await self._act(broker_epoch, *claim)
            except store.SessionLost:
                return
            except CorruptNode as error:
                _log.error(
                    "the controller cannot act",
                    reason=str(error),
                    consequence="brokers serve what they lead; nothing is elected or changed",
                    what_to_do="restore that node from a backup of ZooKeeper; it is tried again",
                )
                await trio.sleep(_UNREADABLE_PAUSE_S)
            except (MetastoreError, NotController) as error:
                _log.warning("the controller's term ended", reason=str(error))
                await trio.sleep(_STAND_AGAIN_S)
            if session.state is SessionState.SUSPENDED:
                await session.changed_from(SessionState.SUSPENDED)

    async def _stand(self, broker_epoch: int) -> tuple[int, int] | None:
        """Wait to be elected; the controller epoch, and the feed position of the claim.

        None: this registration counts no longer.
        """
        paths = (
            layout.CONTROLLER_LEADER,
            layout.CONTROLLER_EPOCH,
            layout.BrokerEpoch.path(self._broker_id),
        )
        with self._metastore.watch_node(layout.CONTROLLER_LEADER) as watch:
            while True:
                leader, epoch, registered = await self._metastore.get_many(paths)
                if epoch is None:
                    raise CorruptNode(layout.CONTROLLER_EPOCH, "it is missing")
                if registered is None or registered.version != broker_epoch:
                    _log.warning("another broker registered this id", broker=self._broker_id)
                    return None
                if leader is not None and leader.value != self._claim():
                    await watch.changed()
                    continue
                try:
                    results = await self._metastore.multi(
                        self._claim_operations(leader, epoch, broker_epoch)
                    )
                except store.NodeError:
                    continue  # somebody was quicker
                return epoch.version + 1, feed.sequence_in(results)

    def _claim(self) -> bytes:
        claim = {"controller": self._broker_id, "incarnation": self._incarnation}
        return layout.encode_json(claim).encode()

    def _claim_operations(
        self, leader: store.Node | None, epoch: store.Node, broker_epoch: int
    ) -> list[store.Operation]:
        """The claim; each term has an epoch of its own, also where the old one was ours too."""
        operations: list[store.Operation] = [
            store.Check(layout.BrokerEpoch.path(self._broker_id), broker_epoch),
            store.Set(
                layout.CONTROLLER_EPOCH,
                layout.ControllerEpoch(self._broker_id).encode(),
                epoch.version,
            ),
        ]
        if leader is not None:
            operations.append(store.Delete(layout.CONTROLLER_LEADER, store.ANY_VERSION))
        operations.append(store.Create(layout.CONTROLLER_LEADER, self._claim(), ephemeral=True))
        return feed.with_entry(operations)

    async def _act(self, broker_epoch: int, epoch: int, position: int) -> None:
        """Be the controller until the term ends; raises why."""
        image = await self._follower.wait_for(position)
        while not _is_registered(image, self._broker_id, broker_epoch):
            image = await self._follower.wait_for_swap(image)
        chain = WriteChain(self._metastore, epoch, is_held=self._is_held)
        await self._tidy(chain)
        state = ReviewState(
            self._config,
            storm_wait_s=self._session_timeout_s,
            can_ask=self._ask_log_ends is not None,
        )
        reviewer = Reviewer(
            chain,
            self._follower,
            state,
            clock=self._clock,
            counters=self.counters,
            ask_log_ends=self._ask_log_ends,
        )
        first_place = random.randrange(1 << 16)  # noqa: S311  spreads topics, keeps no secret
        admin = TopicAdmin(
            chain,
            self._follower,
            self._config,
            first_place=first_place,
            ask_log_ends=self._ask_log_ends,
            leaving=lambda: state.leaving,
        )
        self._term = _Term(chain, admin, reviewer)
        self.counters.terms += 1
        self.counters.active = 1
        _log.info("this broker is the controller", controller_epoch=epoch)
        try:
            await _until_one_fails(
                reviewer.run, partial(self._balance, reviewer), partial(self._trim_feed, chain)
            )
        finally:
            self._term = None
            self.counters.active = 0
            self.counters.offline_partitions = 0

    async def _tidy(self, chain: WriteChain) -> None:
        """Remove what other terms began of topics: they are fenced, and do not go on."""
        written = -1
        for topic_id in self._follower.image.unfinished_topics():
            try:
                written = max(written, await tidy(chain, topic_id))
            except CorruptNode as error:
                _log.error(
                    "an unfinished change of a topic is not undone",
                    topic_id=str(topic_id),
                    reason=str(error),
                    what_to_do="delete the topic's nodes, or repair the one that cannot be read",
                )
                continue
            _log.info("an unfinished change of a topic was undone", topic_id=str(topic_id))
        await self._follower.wait_for(written)

    def _is_held(self) -> bool:
        return self._lease is not None and self._lease.is_held(self._clock.monotonic_s())

    async def _balance(self, reviewer: Reviewer) -> None:
        """Balance now and then, and soon after brokers came or went."""
        while True:
            brokers = self._follower.image.brokers.keys()
            interval_s = self._config.leader_imbalance_check_interval_seconds
            with trio.move_on_after(min(interval_s, self._settled_after_s)) as settling:
                await self._brokers_other_than(brokers)
            if not settling.cancelled_caught:
                continue
            await reviewer.balance(partitions=self._config.auto_leader_rebalance_enable)
            with trio.move_on_after(interval_s):
                await self._brokers_other_than(brokers)

    async def _brokers_other_than(self, brokers: AbstractSet[int]) -> None:
        """Wait until other brokers are registered than these."""
        image = self._follower.image
        while image.brokers.keys() == brokers:
            image = await self._follower.wait_for_swap(image)

    async def _trim_feed(self, chain: WriteChain) -> None:
        """Leaders append entries too, so the controller's own writes do not tell how many."""
        trimmed_at = -1
        while True:
            position = self._follower.image.position
            if position >= trimmed_at + _TRIM_AFTER:
                await chain.trim()
                trimmed_at = position
            await trio.sleep(_TRIM_CHECK_S)


def _is_registered(image: ClusterImage, broker_id: int, broker_epoch: int) -> bool:
    """Whether the image's brokers were read after this broker's registration."""
    broker = image.brokers.get(broker_id)
    return broker is not None and broker.broker_epoch >= broker_epoch


async def _until_one_fails(*services: Callable[[], Awaitable[None]]) -> None:
    """Run all until one raises MetastoreError or NotController, which is raised alone."""
    failures: list[MetastoreError | NotController] = []

    async def run(service: Callable[[], Awaitable[None]]) -> None:
        try:
            await service()
        except* (MetastoreError, NotController) as group:
            failures.extend(_leaves(group))
            term_nursery.cancel_scope.cancel()

    async with trio.open_nursery() as term_nursery:
        for service in services:
            term_nursery.start_soon(run, service)
    if failures:
        raise failures[0]


def _leaves(
    group: BaseExceptionGroup[MetastoreError | NotController],
) -> list[MetastoreError | NotController]:
    found: list[MetastoreError | NotController] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
