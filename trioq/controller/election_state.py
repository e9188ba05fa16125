"""Who leads a partition: decisions without I/O."""

from __future__ import annotations

from collections.abc import Mapping

from trioq.metastore.layout import PartitionState


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
            last_leader=-1,
        )
    return state._replace(
        leader=-1,
        leader_epoch=state.leader_epoch + 1,
        last_leader=state.last_leader if state.leader == -1 else state.leader,
    )
