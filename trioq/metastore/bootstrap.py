"""The first start of a cluster, and every start of a broker."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Final

import trio

from trioq.errors import StartupError
from trioq.metastore import layout, store

_LIKELY_RESTART_S: Final = 30.0
_GROUP: Final = 400
"""Operations per group of a bulk write; the nodes are small, so bytes are no limit."""


def new_topic_id() -> uuid.UUID:
    """A random topic id, never one of those Kafka reserves (the first hundred)."""
    while True:
        topic_id = uuid.uuid4()
        if topic_id.int > 100:
            return topic_id


def new_cluster_id() -> str:
    """A random cluster id as Kafka writes them: 22 characters, not starting with "-"."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        if not text.startswith("-"):
            return text


async def ensure_cluster(metastore: store.Metastore, *, slots: int = layout.DEFAULT_SLOTS) -> str:
    """The cluster id; on the very first call the layout's fixed nodes are created with it.

    Atomic: of brokers that start together one creates, the others read. A cluster without
    coordination slots (of an earlier version of trioq) gets `slots` of them; the number of one
    that has them stays. Raises CorruptNode, and StartupError for a metastore that has lost the
    cluster's node.
    """
    node, slots_node = await metastore.get_many((layout.CLUSTER, layout.SLOTS))
    if node is None:
        try:
            await metastore.multi(_skeleton(new_cluster_id()))
        except store.NodeExists as error:
            node = await _created_by_another(metastore, error)
        else:
            node = await metastore.get(layout.CLUSTER)
    if slots_node is None or not slots_node.value:
        await _create_slots(metastore, layout.Slots(slots))
    return layout.decode_node(layout.CLUSTER, node.value, layout.ClusterId.of).cluster_id


async def _create_slots(metastore: store.Metastore, slots: layout.Slots) -> None:
    """Create the nodes of the slots that are not there yet; their number is written last.

    Of brokers that do so at once the first to write it says how many; slots beyond are not used.
    """
    while True:
        existing: set[str] = set()
        with suppress(store.NoNode):
            existing.update(await metastore.read_tree(layout.SLOTS))
        operations: list[store.Operation] = [
            store.Create(path, value)
            for path, value in _slot_nodes(slots.number)
            if path not in existing
        ]
        groups = [operations[start : start + _GROUP] for start in range(0, len(operations), _GROUP)]
        groups.append([store.Set(layout.SLOTS, slots.encode(), 0)])
        try:
            await metastore.bulk(groups)
        except store.NodeExists:
            continue
        except store.VersionConflict:
            pass  # another broker has finished it
        return


def _slot_nodes(count: int) -> Iterator[tuple[str, bytes]]:
    yield layout.SLOTS, b""
    for slot in range(count):
        yield layout.slot_path(slot), layout.SlotState(-1).encode()
        yield layout.slot_seq_path(slot), b""
        yield layout.slot_groups_path(slot), b""


async def _created_by_another(metastore: store.Metastore, error: store.NodeExists) -> store.Node:
    """The cluster's node where a node beside it was there already; raises StartupError."""
    (node,) = await metastore.get_many((layout.CLUSTER,))
    if node is None:
        raise StartupError(
            f"the metastore holds {error} but not {layout.CLUSTER}, without which nobody can say "
            "whose it is: it is damaged. Restore it from a backup"
        )
    return node


def _skeleton(cluster_id: str) -> list[store.Operation]:
    operations: list[store.Operation] = [
        store.Create(layout.CLUSTER, layout.ClusterId(cluster_id).encode())
    ]
    operations += [
        store.Create(path, b"")
        for path in (
            "/brokers",
            "/brokers/epochs",
            layout.BROKER_IDS,
            layout.BROKER_CONFIGS,
            "/controller",
            layout.TOPICS,
            layout.TOPIC_NAMES,
            layout.TOPIC_IDS,
            "/feed",
            layout.FEED_ENTRIES,
        )
    ]
    operations += [
        store.Create(f"{parent}/{bucket}", b"")
        for parent in (layout.TOPIC_NAMES, layout.TOPIC_IDS)
        for bucket in layout.bucket_names()
    ]
    operations += [
        store.Create(layout.CONTROLLER_EPOCH, layout.ControllerEpoch(-1).encode()),
        store.Create(layout.CONTROLLER_SEQ, b""),
        store.Create(layout.PRODUCER_IDS, layout.NextProducerIds(0).encode()),
        store.Create(layout.FEED_FLOOR, layout.FeedFloor(-1).encode()),
    ]
    return operations


class RegistrationTaken(StartupError):
    """Somebody else has registered under this broker's id since: this one must stop."""


async def register_broker(
    metastore: store.Metastore,
    registration: layout.BrokerRegistration,
    *,
    patience_s: float = _LIKELY_RESTART_S,
    renewing: Collection[str] = (),
    own: Collection[str] = (),
) -> layout.BrokerRegistration:
    """Register a broker under a new broker epoch; returns the registration with it.

    `broker_epoch` of the argument is ignored. `clean` is true in the result only if nothing that
    the broker held under its last epoch can be missing: after a clean stop, or in the same
    process (incarnation), and with all log directories of then (SAFETY rule 6).

    If the id is registered with one of the same directory ids, this is a restart whose old
    session has not ended: waits for that up to `patience_s` (1.5 session timeouts). A registration
    that is there with the argument's own `incarnation` is this one, its answer lost.

    `renewing` is given for the renewal of a registration whose session has ended: the incarnations
    under which this process has registered or tried to. It is made only if one of them was the
    last to register under the id (SAFETY rule 14). `own` are the same of a process whether it
    renews or not: a registration of one of them, left over from a session that this process has
    lost, is replaced without waiting for the end of that session, which ZooKeeper may draw out.

    Raises StartupError, naming the holder, when the id belongs to another living broker;
    RegistrationTaken for a renewal that comes too late; what the metastore raises. Cancelled:
    registered or not; registering again gives a higher epoch.
    """
    path = registration.path()
    with metastore.watch_node(path) as watch:
        deadline = trio.current_time() + patience_s
        left_over = ""
        while True:
            try:
                return await _register(metastore, registration, renewing, own, left_over)
            except store.NodeExists:
                (held,) = await metastore.get_many((path,))
            except (store.VersionConflict, store.NoNode):
                left_over = ""
                continue
            if held is None:
                continue
            holder = layout.decode_node(path, held.value, layout.BrokerRegistration.of)
            if holder.incarnation == registration.incarnation:
                return holder
            if holder.incarnation in own and not left_over:
                left_over = holder.incarnation
                continue
            left_over = ""
            with trio.move_on_at(deadline) as waiting:
                if set(holder.directory_ids) & set(registration.directory_ids):
                    await watch.changed()
                else:
                    waiting.cancel()
                    await trio.lowlevel.checkpoint()
            if waiting.cancelled_caught:
                raise StartupError(
                    f"broker id {registration.broker_id} is taken by a broker on host"
                    f" {holder.host} (incarnation {holder.incarnation}): give this one"
                    " another --node-id, or stop that one; if it is dead, its session ends within"
                    " zookeeper.session.timeout.ms, and this one can start then"
                )


async def _register(
    metastore: store.Metastore,
    registration: layout.BrokerRegistration,
    renewing: Collection[str],
    own: Collection[str],
    left_over: str,
) -> layout.BrokerRegistration:
    """Register once; `left_over` is the incarnation whose registration is to be replaced."""
    epoch_path = layout.BrokerEpoch.path(registration.broker_id)
    (held,) = await metastore.get_many((epoch_path,))
    found = -1 if held is None else held.version
    last = None
    if held is not None:
        last = layout.decode_node(epoch_path, held.value, layout.BrokerEpoch.of)
    if renewing and (last is None or last.incarnation not in renewing):
        raise RegistrationTaken(
            f"broker id {registration.broker_id} was registered by another process (broker epoch "
            f"{found}) while this one had no session: this one stops. See which of the two should "
            "run, and give each its own --node-id"
        )
    held_since = found + 1
    if last is not None:
        is_continuous = _is_continuous(last, registration, own)
        registration = registration._replace(clean=is_continuous)
        if is_continuous:
            held_since = found if last.held_since < 0 else last.held_since
    registration = registration._replace(broker_epoch=found + 1, held_since=held_since)
    epoch_value = layout.BrokerEpoch(
        registration.incarnation, registration.directory_ids, registration.clean, held_since
    ).encode()
    write_epoch: store.Operation
    if held is None:
        write_epoch = store.Create(epoch_path, epoch_value)
    else:
        write_epoch = store.Set(epoch_path, epoch_value, held.version)
    claim = store.Create(registration.path(), registration.encode(), ephemeral=True)
    operations: list[store.Operation] = [claim, write_epoch]
    if left_over and last is not None and last.incarnation == left_over:
        # Nobody else has registered since, or the epoch's version is another.
        operations.insert(0, store.Delete(registration.path(), store.ANY_VERSION))
    await metastore.multi(operations)
    return registration


def _is_continuous(
    last: layout.BrokerEpoch, now: layout.BrokerRegistration, own: Collection[str]
) -> bool:
    """Whether the broker holds everything that it held when it registered last, and since."""
    never_stopped = last.incarnation == now.incarnation or last.incarnation in own
    return (now.clean or never_stopped) and set(last.directory_ids) <= set(now.directory_ids)
