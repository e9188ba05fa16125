"""How one member gets from what it owns to its part of the target assignment (KIP-848).

    STABLE ────► UNREVOKED   something has to be given up first; the epoch stays
       │  ◄────────┤         it was: on to the target's epoch
       ▼           ▼
    UNRELEASED ──► STABLE    at the target's epoch; partitions come as others give them up

A partition reaches its new member only after the old one, in a heartbeat, said that it owns it
no longer, was replaced under its instance id, or was removed from the group.
"""

from __future__ import annotations

from trioq.coordinator.consumer_member import Member, MemberPhase, PartitionOwners, holds_any
from trioq.metastore.group_layout import Assignment
from trioq.types import TopicId

_NONE: frozenset[int] = frozenset()


def reconcile(
    member: Member, target_epoch: int, owners: PartitionOwners, owned: Assignment | None
) -> bool:
    """Take `member` as far towards its target as it goes now; False if nothing changed.

    `owned` is what it said that it owns in this heartbeat, None if it said nothing.
    """
    epoch = member.epoch
    if member.phase is MemberPhase.STABLE and epoch == target_epoch:
        return False
    if member.phase is MemberPhase.UNREVOKED:
        if holds_any(owned, member.pending_revocation):
            return False
        owners.release(member, member.pending_revocation)
        member.pending_revocation = {}
        epoch += 1
    member.releases_seen = owners.releases
    kept: dict[TopicId, frozenset[int]] = {}
    lost: dict[TopicId, frozenset[int]] = {}
    gained: dict[TopicId, frozenset[int]] = {}
    waits = _compare(member, owners, kept, lost, gained)
    if lost and holds_any(owned, lost):
        member.phase = MemberPhase.UNREVOKED
        member.assigned = kept
        member.pending_revocation = lost
        member.move_to_epoch(epoch)
        return True
    phase = MemberPhase.UNRELEASED if waits else MemberPhase.STABLE
    if phase is member.phase and not (lost or gained) and member.epoch == target_epoch:
        return False
    owners.release(member, lost)
    owners.take(member, gained)
    for topic_id, partitions in gained.items():
        kept[topic_id] = kept.get(topic_id, _NONE) | partitions
    member.phase = phase
    if lost or gained:
        member.assigned = kept
    member.pending_revocation = {}
    member.move_to_epoch(target_epoch)
    member.releases_seen = owners.releases
    return True


def waits_for_release(member: Member, owners: PartitionOwners) -> bool:
    """Whether others still own some of what `member` is to have."""
    lacking = {
        topic_id: partitions - member.assigned.get(topic_id, _NONE)
        for topic_id, partitions in member.target.items()
    }
    return any(
        partitions and len(owners.free_for(member, topic_id, partitions)) < len(partitions)
        for topic_id, partitions in lacking.items()
    )


def _compare(
    member: Member,
    owners: PartitionOwners,
    kept: dict[TopicId, frozenset[int]],
    lost: dict[TopicId, frozenset[int]],
    gained: dict[TopicId, frozenset[int]],
) -> bool:
    """Fill in what stays, goes and comes by topic; True if more comes once others release it."""
    waits = False
    target, assigned = member.target, member.assigned
    for topic_id, has in assigned.items():
        wanted = target.get(topic_id, _NONE)
        stays = has if has is wanted else has & wanted
        if stays:
            kept[topic_id] = stays
        if len(stays) < len(has):
            lost[topic_id] = has - stays
    for topic_id, wanted in target.items():
        lacking = wanted - kept.get(topic_id, _NONE)
        if lacking:
            free = owners.free_for(member, topic_id, lacking)
            if free:
                gained[topic_id] = free
            waits = waits or len(free) < len(lacking)
    return waits
