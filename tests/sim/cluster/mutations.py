"""Rules to break, so that it is seen that the simulation would notice: each by its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from tests.sim.cluster.fetching import Fetching
from tests.sim.cluster.metastore import Metastore
from tests.sim.cluster.model_log import ModelLog
from tests.sim.cluster.process import Process
from trioq.controller import election_state, review_state
from trioq.controller.election_state import LogEnd, Standing
from trioq.replication import follower_side
from trioq.replication.follower_side import FollowerSide
from trioq.replication.isr_state import IsrState
from trioq.replication.leader_side import LeaderSide
from trioq.replication.partition import Partition
from trioq.storage.epoch_cache import EpochCache

Patch = AbstractContextManager[Any]


def _no_union() -> Patch:
    """Rule 8: what is proposed does not count until it is known to be written."""
    return patch.object(IsrState, "propose", lambda _self, _members: None)


def _shrink_at_once() -> Patch:
    """Rule 8: only what is proposed counts, as soon as it is sent."""
    propose = IsrState.propose

    def broken(self: IsrState, members: Mapping[int, int]) -> None:
        propose(self, members)
        self._counted = tuple(self._followers[one] for one in members if one != self.local_id)

    return patch.object(IsrState, "propose", broken)


def _join_early() -> Patch:
    """Rule 8: a follower joins that has the high watermark, but not this term's start."""
    may_join = IsrState.may_join

    def broken(self: IsrState, replica_id: int, high_watermark: int, now_s: float) -> bool:
        self.start_offset, kept = 0, self.start_offset
        try:
            return may_join(self, replica_id, high_watermark, now_s)
        finally:
            self.start_offset = kept

    return patch.object(IsrState, "may_join", broken)


def _truncate_to_high_watermark() -> Patch:
    """KIP-101: a follower cuts its log at its own high watermark when a term begins."""
    begin = Partition._begin_term

    def broken(self: Partition, state: Any, *, leads: bool) -> None:
        begin(self, state, leads=leads)
        if not leads:
            self.log.truncate_to(self.log.high_watermark)

    return patch.object(Partition, "_begin_term", broken)


def _truncate_by_offset() -> Patch:
    """KIP-279: the leader's end of an epoch that this log does not have."""
    return patch.object(
        follower_side,
        "truncation_offset",
        lambda _epoch, end, _own, _own_end, log_end: min(end, log_end),
    )


def _no_truncation() -> Patch:
    """KIP-101: what the leader does not have stays."""
    return patch.object(
        follower_side, "truncation_offset", lambda _epoch, _end, _own, _own_end, log_end: log_end
    )


def _ids_not_epochs() -> Patch:
    """Rule 6: whoever is alive holds what its id held."""

    def broken(_epoch: int, live: Any) -> Standing:
        return Standing.ABSENT if live is None else Standing.SAME

    return patch.object(election_state, "standing", broken)


def _leads_by_id() -> Patch:
    """Rule 6: a broker leads by a state that names an earlier registration of it."""
    return patch.object(
        Partition,
        "is_named_by",
        lambda self, state: self.broker_epoch >= 0 and self.local_id in state.isr,
    )


def _positions_stay() -> Patch:
    """Rule 8: what a follower stated in an earlier term of the leader counts in the present one."""
    lead, begin = LeaderSide._lead, Partition._begin_term
    stated: dict[Any, dict[int, tuple[int, int]]] = {}

    def broken(self: LeaderSide, state: Any) -> None:
        lead(self, state)
        assert self._isr is not None
        for replica, (epoch, end_offset) in stated.pop(self, {}).items():
            follower = self._isr._followers.get(replica)
            if follower is not None:
                follower.broker_epoch, follower.end_offset = epoch, end_offset

    def remembering(self: Partition, state: Any, *, leads: bool) -> None:
        if self._isr is not None:
            stated[self] = {
                replica: (one.broker_epoch, one.end_offset)
                for replica, one in self._isr._followers.items()
            }
        begin(self, state, leads=leads)

    return _both(
        patch.object(LeaderSide, "_lead", broken),
        patch.object(Partition, "_begin_term", remembering),
    )


def _stale_answers() -> Patch:
    """Rule 1: what was asked for in an earlier term is taken all the same."""
    return _both(
        patch.object(Fetching, "_is_wanted", lambda _self, _number, _term: True),
        patch.object(FollowerSide, "_check_term", lambda _self, _term: None),
    )


def _waiters_survive() -> Patch:
    """Rule 10: who waits is not told that the term is over."""
    return patch.object(LeaderSide, "_refuse_waiters", lambda _self, _error: None)


def _no_elr() -> Patch:
    """Rule 9: who leaves an ISR that becomes too small is forgotten."""
    with_isr = election_state._Members.with_isr

    def broken(self: Any, isr: Any, rules: Any) -> Any:
        return with_isr(self, isr, rules)._replace(elr=(), elr_epochs=())

    return patch.object(election_state._Members, "with_isr", broken)


def _one_is_enough() -> Patch:
    """Rule 9: the high watermark advances with fewer than min.insync.replicas."""
    high_watermark = IsrState.high_watermark

    def broken(self: IsrState, local_end_offset: int) -> int:
        self.least, state = 1, self.state
        self.state = state._replace(elr=())
        try:
            return high_watermark(self, local_end_offset)
        finally:
            self.state = state

    return patch.object(IsrState, "high_watermark", broken)


def _any_log() -> Patch:
    """Rule 9: of those that may have lost something any is elected, not the furthest."""
    review = review_state.review

    def broken(state: Any, live: Any, rules: Any, *, logs: Any = None, **how: Any) -> Any:
        same = None if logs is None else dict.fromkeys(logs, LogEnd(0, 0))
        return review(state, live, rules, logs=same, **how)

    return patch.object(review_state, "review", broken)


def _unsynced_counts() -> Patch:
    """Rule 2: with flush.policy=commit what is written counts before it is synced."""
    return patch.object(
        ModelLog, "durable_end_offset", property(lambda self: self.written_end_offset)
    )


def _epochs_stay() -> Patch:
    """Rule 1: truncation leaves the epoch cache as it was."""
    return patch.object(EpochCache, "truncate_from_end", lambda _self, _offset: False)


def _any_version() -> Patch:
    """Rule 15: states are set whatever was written meanwhile."""
    return patch.object(Metastore, "may_set", lambda _self, _before: True)


def _end_at_once() -> Patch:
    """Rule 11 (KIP-207): a new leader tells an end before it has reached its term's start."""
    return patch.object(
        LeaderSide, "latest_offset", lambda self, *, read_committed: self.log.high_watermark
    )


def _always_clean() -> Patch:
    """Rule 6: a stop counts as clean although the start was not, and nobody was told of that."""
    return patch.object(Process, "stops_cleanly", True)


def _begins_again_at_once() -> Patch:
    """Rules 9, 11: a damaged replica begins again without asking whether others count on it."""
    return patch.object(IsrState, "counts_on", lambda _self, _replica, _epoch: False)


def _unclean() -> Patch:
    """Any replica that is alive may lead."""
    review = review_state.review

    def broken(state: Any, live: Any, rules: Any, **how: Any) -> Any:
        return review(state, live, rules._replace(unclean=True), **how)

    return patch.object(review_state, "review", broken)


@contextmanager
def _both(*patches: Patch) -> Iterator[None]:
    with ExitStack() as stack:
        for one in patches:
            stack.enter_context(one)
        yield


MUTATIONS: dict[str, Callable[[], Patch]] = {
    function.__name__.strip("_"): function
    for function in (
        _no_union,
        _shrink_at_once,
        _join_early,
        _truncate_to_high_watermark,
        _truncate_by_offset,
        _no_truncation,
        _ids_not_epochs,
        _leads_by_id,
        _positions_stay,
        _stale_answers,
        _waiters_survive,
        _no_elr,
        _one_is_enough,
        _any_log,
        _unsynced_counts,
        _epochs_stay,
        _any_version,
        _end_at_once,
        _always_clean,
        _begins_again_at_once,
        _unclean,
    )
}

_CONTENDED = {
    "faults": ("isolate", "prefer"),
    "fault_each_ms": 60,
    "write_each_ms": 10,
    "slow": 0.1,
}
_DISKS = {"flush_policy": "os", "sync_each_ms": 3000}

FAVOURED: dict[str, dict[str, Any]] = {
    "truncate_by_offset": {**_CONTENDED, "slow": 0},
    "positions_stay": {**_CONTENDED, "fault_each_ms": 40, "write_each_ms": 5},
    "stale_answers": _CONTENDED,
    "no_elr": {**_DISKS, "faults": ("power", "kill")},
    "begins_again_at_once": {"faults": ("damage", "kill"), "fault_each_ms": 60},
    "always_clean": {**_DISKS, "faults": ("power", "clean")},
    "unsynced_counts": {
        "faults": ("outage",),
        "fault_each_ms": 120,
        "flush_policy": "commit",
        "commit_ms": 200,
        "write_each_ms": 10,
    },
}
"""Settings under which a mutation shows soon."""
