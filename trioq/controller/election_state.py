"""Who leads a partition: decisions without I/O.

A replica of the ISR holds everything that was committed, and so does one of the ELR (the last
replicas standing, KIP-966), as long as it has not lost what it held. That is judged by broker
epochs, never by ids alone (SAFETY rules 6 and 9): the state keeps the epoch in which each member
was known to hold everything, and the same id under a later epoch counts only if nothing can have
been lost from the one to the other: by clean stops and lost sessions only, with the same log
directories. There may be several between two looks, as when ZooKeeper itself comes and goes. A
replica whose log directory has failed, as its broker said, counts as absent until that broker has
registered again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import NamedTuple

from trioq.metastore.layout import PartitionState


class LiveBroker(NamedTuple):
    """A registered broker. `is_continuous`: it came back from a clean stop with its directories.

    `held_since`: as in layout.BrokerRegistration; -1: since the epoch before if continuous.
    """

    broker_epoch: int
    is_continuous: bool
    held_since: int = -1


class ElectionRules(NamedTuple):
    """What the topic's configuration says: min.insync.replicas, and whether loss is allowed."""

    min_insync: int = 1
    unclean: bool = False


class LogEnd(NamedTuple):
    """How far a replica's log reaches; the greatest of several lost the least."""

    leader_epoch: int
    end_offset: int


class Standing(Enum):
    """What became of a replica that held everything in some broker epoch."""

    SAME = "same"
    """It is still in that epoch."""

    CONTINUED = "continued"
    """It stopped cleanly and is back: it holds what it held."""

    LOST = "lost"
    """It is back, but what it held may be gone."""

    ABSENT = "absent"
    """It is not registered; what it held is on its disk, as far as anybody knows."""


def standing(broker_epoch: int, live: LiveBroker | None) -> Standing:
    """Of a replica that held everything in `broker_epoch`; `live` is how it is registered now."""
    if live is None:
        return Standing.ABSENT
    if live.broker_epoch == broker_epoch:
        return Standing.SAME
    held_since = live.broker_epoch - 1 if live.held_since < 0 else live.held_since
    if live.is_continuous and held_since <= broker_epoch < live.broker_epoch:
        return Standing.CONTINUED
    return Standing.LOST


def usable(state: PartitionState, live: Mapping[int, LiveBroker]) -> Mapping[int, LiveBroker]:
    """The live brokers but those whose replica of this partition has failed (KIP-112)."""
    if not state.failed:
        return live
    failed = _failed_yet(state, live)
    return {broker: one for broker, one in live.items() if broker not in failed}


def _failed_yet(state: PartitionState, live: Mapping[int, LiveBroker]) -> dict[int, int]:
    """The failed logs of brokers that have not registered again since, with their epochs."""
    return {
        broker: epoch
        for broker, epoch in state.failed_logs.items()
        if broker not in live or live[broker].broker_epoch <= epoch
    }


class _Members:
    """ISR and ELR of a state, each member with its epoch and its standing."""

    def __init__(self, state: PartitionState, live: Mapping[int, LiveBroker]) -> None:
        self.state = state
        if state.failed:
            self.state = state.with_failed(_failed_yet(state, live))
            live = usable(state, live)
        self.live = live
        self.epochs = dict(zip(state.elr, state.elr_epochs, strict=True))
        self.epochs |= dict(zip(state.isr, state.broker_epochs, strict=True))
        self.standings = {
            broker: standing(epoch, live.get(broker)) for broker, epoch in self.epochs.items()
        }

    def kept(self, brokers: Iterable[int]) -> tuple[int, ...]:
        """Those that are alive and hold everything."""
        standings = self.standings
        return tuple(
            broker
            for broker in brokers
            if standings[broker] is Standing.SAME or standings[broker] is Standing.CONTINUED
        )

    def with_isr(self, isr: tuple[int, ...], rules: ElectionRules) -> PartitionState:
        """The state with this ISR; who is not in it any more stays known while it is too small.

        Also who may have lost something: if all the others turn out to have done so too, its log
        may be the one that reaches furthest.
        """
        state = self.state
        elr = [broker for broker in (*state.elr, *state.isr) if broker not in isr]
        if len(isr) >= rules.min_insync:
            elr = []
        return state._replace(
            isr=isr,
            broker_epochs=tuple(self.live[broker].broker_epoch for broker in isr),
            elr=tuple(elr),
            elr_epochs=tuple(self._epoch_of(broker) for broker in elr),
        )

    def _epoch_of(self, broker: int) -> int:
        """The epoch in which `broker` holds everything: its present one if it is back unharmed."""
        if self.standings[broker] is Standing.CONTINUED:
            return self.live[broker].broker_epoch
        return self.epochs[broker]


def review(
    state: PartitionState,
    live: Mapping[int, LiveBroker],
    rules: ElectionRules,
    *,
    logs: Mapping[int, LogEnd] | None = None,
    waits: bool = True,
) -> PartitionState:
    """The state that follows from who is alive; equal to `state` where nothing must change.

    A leader that is alive in its epoch stays. Else the first of the replicas that are kept of
    the ISR leads, then of the ELR; then, where `rules.unclean` allows loss, any that is alive.
    If all of ISR and ELR are back and each may have lost something, the one whose log reaches
    furthest leads, once `logs` tells of all of them (`must_ask`); the others stay known, as it may
    lose more before they are in sync. Unless it `waits` for all, those of which `logs` tells are
    enough. Otherwise there is no leader,
    and ISR and ELR stay as they are, so that the first that is back unharmed leads: an ISR
    never shrinks to nobody. A replica whose log has failed is as one that is not there, and what
    was said of it is forgotten when its broker has registered again. `partition_epoch` is left
    alone.
    """
    members = _Members(state, live)
    kept_isr = members.kept(state.isr)
    if state.leader != -1 and members.standings.get(state.leader) is Standing.SAME:
        return members.with_isr(kept_isr, rules)
    if kept_isr:
        return _led(members.with_isr(kept_isr, rules), _first(state, kept_isr))
    kept_elr = members.kept(state.elr)
    if kept_elr:
        chosen = _first(state, kept_elr)
        return _led(members.with_isr((chosen,), rules), chosen)
    chosen = _lossy(members, rules, logs or {}, waits=waits)
    if chosen != -1:
        alone = members.with_isr((chosen,), rules)
        if rules.unclean:
            alone = alone._replace(elr=(), elr_epochs=())
        return _led(alone, chosen)
    if state.leader == -1:
        return state
    return state._replace(leader=-1, leader_epoch=state.leader_epoch + 1, last_leader=state.leader)


def has_live_leader(state: PartitionState, live: Mapping[int, LiveBroker]) -> bool:
    """Whether the leader is alive in the epoch in which it was elected."""
    return state.leader != -1 and _Members(state, live).standings.get(state.leader) is Standing.SAME


def must_ask(
    state: PartitionState, live: Mapping[int, LiveBroker], *, waits: bool = True
) -> tuple[int, ...]:
    """The brokers whose LogEnd `review` needs before it can elect a leader; empty if none.

    Not empty when all that could lead are back and each may have lost something (SAFETY rule 9);
    unless it `waits` for all, when some of them are.
    """
    return _harmed(_Members(state, live), waits=waits)


def _harmed(members: _Members, *, waits: bool) -> tuple[int, ...]:
    standings, leader = members.standings, members.state.leader
    if leader != -1 and standings.get(leader) is Standing.SAME:
        return ()
    harmed = tuple(broker for broker, one in standings.items() if one is Standing.LOST)
    others = {one for one in standings.values() if one is not Standing.LOST}
    return harmed if not others or (others == {Standing.ABSENT} and not waits) else ()


def _lossy(
    members: _Members, rules: ElectionRules, logs: Mapping[int, LogEnd], *, waits: bool
) -> int:
    """Who leads although something may be lost; -1: nobody."""
    state = members.state
    if rules.unclean:
        alive = [broker for broker in state.replicas if broker in members.live]
    else:
        asked = _harmed(members, waits=waits)
        if waits and any(broker not in logs for broker in asked):
            return -1
        alive = [broker for broker in state.replicas if broker in asked and broker in logs]
    nothing = LogEnd(-1, -1)
    return max(alive, key=lambda broker: logs.get(broker, nothing), default=-1)


def hand_over(
    state: PartitionState, leaving: int, live: Mapping[int, LiveBroker], rules: ElectionRules
) -> PartitionState:
    """The state once `leaving`, which is about to stop, no longer counts.

    Equal to `state` if nobody else could lead: then it stays until it is gone.
    """
    if leaving not in state.isr:
        return state
    rest = {broker: one for broker, one in live.items() if broker != leaving}
    without = review(state, rest, rules._replace(unclean=False))
    return state if without.leader == -1 else without


def prefer(state: PartitionState, live: Mapping[int, LiveBroker]) -> PartitionState:
    """The state with the preferred leader, the first of the replicas, if it is in sync."""
    first = state.replicas[0]
    if state.leader in {first, -1}:
        return state
    return _led(state, first) if first in _Members(state, live).kept(state.isr) else state


def _led(state: PartitionState, leader: int) -> PartitionState:
    return state._replace(leader=leader, leader_epoch=state.leader_epoch + 1, last_leader=-1)


def _first(state: PartitionState, brokers: tuple[int, ...]) -> int:
    """The most preferred of them."""
    return min(
        brokers,
        key=lambda one: state.replicas.index(one) if one in state.replicas else len(state.replicas),
    )


def first_state(replicas: tuple[int, ...], broker_epochs: Mapping[int, int]) -> PartitionState:
    """The state of a partition that is being created on live brokers.

    `broker_epochs` are those of the live brokers; the first replica among them leads, and
    all live replicas are in sync, as there is nothing to copy yet.
    """
    live = tuple(broker for broker in replicas if broker in broker_epochs)
    return PartitionState(
        leader=live[0] if live else -1,
        leader_epoch=0,
        isr=live,
        broker_epochs=tuple(broker_epochs[broker] for broker in live),
        replicas=replicas,
    )


def state_after_start(state: PartitionState, broker_id: int, broker_epoch: int) -> PartitionState:
    """The state of a partition after the one broker of the cluster has started again.

    Its leader epoch is raised whatever happened before, so that nothing of an earlier
    term passes for one of this. The broker leads what it holds; it was the last replica
    standing, clean stop or not. A partition of another broker id has no leader.
    """
    if broker_id in state.replicas:
        return state._replace(
            leader=broker_id,
            leader_epoch=state.leader_epoch + 1,
            isr=(broker_id,),
            broker_epochs=(broker_epoch,),
            elr=(),
            elr_epochs=(),
            last_leader=-1,
        )
    return state._replace(
        leader=-1,
        leader_epoch=state.leader_epoch + 1,
        last_leader=state.last_leader if state.leader == -1 else state.leader,
    )
