"""Moving the replicas of a partition: decisions without I/O (KIP-455).

A reassignment to a target first adds the new replicas: `replicas` becomes the target and behind it
those that are to go, `adding` and `removing` say which are which. The new ones copy; once all of
them are in the ISR the old ones are removed, and `replicas` is the target. To cancel is to take
`adding` away again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trioq.controller.election_state import ElectionRules, LiveBroker, usable
from trioq.errors import InvalidReplicaAssignment, NoReassignmentInProgress
from trioq.metastore.layout import PartitionState


def is_reassigning(state: PartitionState) -> bool:
    """Whether replicas are being added or removed."""
    return bool(state.adding or state.removing)


def target_of(state: PartitionState) -> tuple[int, ...]:
    """The replicas that the partition is to have."""
    return tuple(broker for broker in state.replicas if broker not in state.removing)


def original_of(state: PartitionState) -> tuple[int, ...]:
    """The replicas that it has again when the reassignment is cancelled."""
    return tuple(broker for broker in state.replicas if broker not in state.adding)


def begin(
    state: PartitionState,
    target: Sequence[int],
    live: Mapping[int, LiveBroker],
    rules: ElectionRules,
    *,
    may_change_factor: bool = True,
) -> PartitionState:
    """The state that heads for `target`, in whose order replicas are preferred.

    Replaces a reassignment in progress; what that one was adding and this one does not want is
    dropped at once, unless it is what the partition rests on. May be done in this same step, as
    `advance` tells. Equal to `state` where it is so already.

    Raises InvalidReplicaAssignment: empty, a broker twice, one to be added that is not alive, or
    another number of replicas without `may_change_factor`.
    """
    wanted = tuple(target)
    if not wanted:
        raise InvalidReplicaAssignment("A partition was assigned an empty list of replicas.")
    if len(set(wanted)) != len(wanted):
        raise InvalidReplicaAssignment(f"The replicas {list(wanted)} name a broker more than once.")
    original = original_of(state)
    unknown = sorted(set(wanted) - set(original) - live.keys())
    if unknown:
        raise InvalidReplicaAssignment(
            f"The replicas {list(wanted)} name brokers that are not available: {unknown}."
        )
    if not may_change_factor and len(wanted) != len(original):
        raise InvalidReplicaAssignment(
            f"The replicas {list(wanted)} are {len(wanted)}, the partition has {len(original)},"
            " and the request does not allow another number."
        )
    kept = _without(state, [one for one in state.adding if one not in wanted], live, rules)
    going = tuple(one for one in kept.replicas if one not in wanted)
    adding = tuple(one for one in wanted if one not in original)
    started = kept._replace(replicas=wanted + going, adding=adding, removing=going)
    return advance(started, live, rules)


def cancel(
    state: PartitionState, live: Mapping[int, LiveBroker], rules: ElectionRules
) -> PartitionState:
    """The state in which nothing is reassigned any more.

    Raises NoReassignmentInProgress; InvalidReplicaAssignment where the partition rests on nothing
    but replicas that were being added.
    """
    if not is_reassigning(state):
        raise NoReassignmentInProgress("No reassignment of this partition is in progress.")
    back = _without(state, state.adding, live, rules)
    if any(one in back.replicas for one in state.adding):
        raise InvalidReplicaAssignment(
            "The reassignment cannot be cancelled: no replica of before it is in sync and alive."
        )
    return advance(back._replace(adding=(), removing=()), live, rules)


def advance(
    state: PartitionState, live: Mapping[int, LiveBroker], rules: ElectionRules
) -> PartitionState:
    """The next step: the old replicas removed, once all new ones are in the ISR.

    Nor may the ISR become smaller than min.insync.replicas by it (or than the target, if that is
    smaller). `live` are the brokers that may lead: if the leader is removed, the first of the
    target that is in the ISR and among them takes over. Equal to `state` while it must wait, or
    has no leader.
    """
    if not is_reassigning(state) or state.leader == -1:
        return state
    target = target_of(state)
    if not all(broker in state.isr for broker in state.adding):
        return state
    staying = [broker for broker in state.isr if broker in target]
    if len(staying) < min(max(1, rules.min_insync), len(target)) and state.removing:
        return state
    done = _without(state, state.removing, live, rules)
    if any(broker in done.replicas for broker in state.removing):
        return state
    return done._replace(adding=(), removing=())


def _without(
    state: PartitionState,
    going: Sequence[int],
    live: Mapping[int, LiveBroker],
    rules: ElectionRules,
) -> PartitionState:
    """The state without these replicas; equal to `state` if nobody could lead without them."""
    if not going:
        return state
    isr = {
        broker: epoch
        for broker, epoch in zip(state.isr, state.broker_epochs, strict=True)
        if broker not in going
    }
    leader, leader_epoch = state.leader, state.leader_epoch
    if leader in going:
        live = usable(state, live)
        leader = next(
            (
                one
                for one in state.replicas
                if one in isr and one in live and live[one].broker_epoch == isr[one]
            ),
            -1,
        )
        leader_epoch += 1
        if leader == -1:
            return state
    if not isr:
        return state
    elr = {
        broker: epoch
        for broker, epoch in zip(state.elr, state.elr_epochs, strict=True)
        if broker not in going and len(isr) < rules.min_insync
    }
    failed = {one: epoch for one, epoch in state.failed_logs.items() if one not in going}
    return state.with_failed(failed)._replace(
        leader=leader,
        leader_epoch=leader_epoch,
        isr=tuple(isr),
        broker_epochs=tuple(isr.values()),
        replicas=tuple(one for one in state.replicas if one not in going),
        adding=tuple(one for one in state.adding if one not in going),
        elr=tuple(elr),
        elr_epochs=tuple(elr.values()),
    )
