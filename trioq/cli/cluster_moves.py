"""Moving replicas for `trioq cluster`: begins the moves of a plan and waits until they are over."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Final, NamedTuple

import anyio
import click

from trioq.cli.cluster_view import ClusterView, look_at
from trioq.client.admin import Admin
from trioq.client.client import Client
from trioq.controller.placement import Replicas
from trioq.controller.replica_plan import Placement, plan_drain, plan_rebalance
from trioq.errors import (
    ElectionNotNeeded,
    KafkaError,
    LeaderNotAvailable,
    ReassignmentInProgress,
)
from trioq.types import TopicPartition

THROTTLES: Final = ("leader.replication.throttled.rate", "follower.replication.throttled.rate")

_POLL_S: Final = 0.5
_MOVES_AT_ONCE: Final = 200


class Move(NamedTuple):
    """What a plan does with one partition; `copies` are brokers that get its data."""

    topic: str
    partition: int
    replicas: Replicas
    planned: Replicas
    copies: Replicas


def moves_of(before: Placement, plan: Placement) -> list[Move]:
    """A plan as a table, in the order of topics and partitions."""
    return [
        Move(
            partition.topic,
            partition.partition,
            before[partition],
            plan[partition],
            tuple(one for one in plan[partition] if one not in before[partition]),
        )
        for partition in sorted(plan)
    ]


class Drained(NamedTuple):
    """A broker that was drained, or (with moves) what that would take."""

    moves: list[Move]
    moved: int


async def drain(
    client: Client, broker: int, *, dry_run: bool, throttle_bytes: int | None
) -> Drained:
    """Move everything off a broker; with `dry_run` say only what that takes.

    Raises InvalidReplicationFactor where there is no room; LeaderNotAvailable when all is moved
    that can be, and something cannot; UsageError for a broker that is not known.
    """
    view = await look_at(client)
    if broker not in {one.broker for one in view.brokers}:
        known = ", ".join(str(one.broker) for one in view.brokers)
        raise click.UsageError(f"there is no broker {broker}: the cluster has {known}")
    before, plan = view.placement(), _drain_plan(view, broker)
    if dry_run:
        return Drained(moves_of(before, plan), 0)
    moved = 0
    async with _throttled(client.admin, throttle_bytes):
        # Again for what was created on the broker meanwhile, or moved back.
        while left := _on_broker(view, broker):
            if plan:
                await _begin(client.admin, plan)
            await _wait(client.admin, left, broker=broker)
            moved += len(left)
            view = await look_at(client)
            plan = _drain_plan(view, broker)
    stay = [one for one in view.partitions if broker in one.replicas]
    if stay:
        first = stay[0]
        raise LeaderNotAvailable(
            f"{moved} partitions were moved, but {len(stay)} stay on broker {broker}, because "
            f"nobody has their data: {first.partition} is {first.problem}. Start that broker, or "
            "give the partition up: delete its topic, or `trioq cluster elect-leaders --unclean`"
        )
    return Drained([], moved)


def _drain_plan(view: ClusterView, broker: int) -> dict[TopicPartition, Replicas]:
    """What has to move off a broker and can; nothing can be copied without a leader."""
    placement = view.placement()
    plan = plan_drain(view.places(), placement, broker)
    offline = {one.partition for one in view.partitions if one.is_offline}
    return {partition: target for partition, target in plan.items() if partition not in offline}


def _on_broker(view: ClusterView, broker: int) -> list[TopicPartition]:
    return [
        one.partition for one in view.partitions if broker in one.replicas and not one.is_offline
    ]


class Rebalanced(NamedTuple):
    """What was moved, or would be; and how many partitions got another leader."""

    moves: list[Move]
    elected: int


async def rebalance(client: Client, *, dry_run: bool, throttle_bytes: int | None) -> Rebalanced:
    """Even out replicas and leaders. Raises ReassignmentInProgress."""
    view = await look_at(client)
    moving = [one.partition for one in view.partitions if one.is_moving]
    if moving:
        raise ReassignmentInProgress(
            f"{len(moving)} partitions are being moved already, {moving[0]} among them: wait until "
            "that is over (`trioq cluster describe` shows it)"
        )
    before = view.placement()
    offline = {one.partition for one in view.partitions if one.is_offline}
    plan = plan_rebalance(view.places(), before, fixed=offline)
    moves = moves_of(before, plan)
    if dry_run:
        return Rebalanced(moves, 0)
    if plan:
        async with _throttled(client.admin, throttle_bytes):
            await _begin(client.admin, plan)
            await _wait(client.admin, list(plan))
    after = {**before, **plan}
    led_by = {one.partition: one.leader for one in (await look_at(client)).partitions}
    misled = [
        partition
        for partition, replicas in after.items()
        if led_by.get(partition) not in {None, replicas[0]} and replicas[0] in _up(view)
    ]
    return Rebalanced(moves, await _elected(client.admin, misled))


def _up(view: ClusterView) -> set[int]:
    return {one.broker for one in view.brokers if one.is_up}


async def _elected(admin: Admin, partitions: Sequence[TopicPartition]) -> int:
    if not partitions:
        return 0
    results = await admin.elect_leaders(partitions)
    return sum(error is None for error in results.values())


async def elect(
    client: Client, topics: Sequence[str], *, unclean: bool
) -> list[tuple[TopicPartition, KafkaError | None]]:
    """Elect leaders in all partitions of `topics`, or in all; what had to be, and its outcome.

    Raises UnknownTopicOrPartition.
    """
    asked = None
    if topics:
        described = [await client.admin.describe_topic(name) for name in topics]
        asked = [
            TopicPartition(one.name, partition.partition)
            for one in described
            for partition in one.partitions
        ]
    results = await client.admin.elect_leaders(asked, unclean=unclean)
    return sorted(
        (
            (partition, error)
            for partition, error in results.items()
            if not isinstance(error, ElectionNotNeeded)
        ),
        key=lambda one: one[0],
    )


async def _begin(admin: Admin, plan: Mapping[TopicPartition, Replicas]) -> None:
    for some in _chunks(sorted(plan)):
        await admin.alter_partition_reassignments({one: plan[one] for one in some})


def _chunks(partitions: Sequence[TopicPartition]) -> Iterator[Sequence[TopicPartition]]:
    for start in range(0, len(partitions), _MOVES_AT_ONCE):
        yield partitions[start : start + _MOVES_AT_ONCE]


async def _wait(
    admin: Admin, partitions: Sequence[TopicPartition], *, broker: int | None = None
) -> None:
    """Wait until none of them is being moved; with `broker`, none that is to leave it."""
    with _bar(len(partitions)) as show:
        while True:
            moving = await admin.list_partition_reassignments()
            left = sum(
                one in moving and (broker is None or broker in moving[one].replicas)
                for one in partitions
            )
            show(len(partitions) - left)
            if not left:
                return
            await anyio.sleep(_POLL_S)


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar of partitions on stderr, to be told how many are done.

    There is none where stderr is no terminal.
    """
    if not sys.stderr.isatty():
        yield lambda _done: None
        return
    from rich import progress  # noqa: PLC0415  needed on terminals only
    from rich.console import Console  # noqa: PLC0415

    bar = progress.Progress(
        progress.TextColumn("partitions moved"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        console=Console(stderr=True),
        auto_refresh=False,
        transient=True,
    )
    task = bar.add_task("", total=total)

    def show(done: int) -> None:
        bar.update(task, completed=done)
        bar.refresh()

    with bar:
        yield show


@asynccontextmanager
async def _throttled(admin: Admin, rate_bytes: int | None) -> AsyncIterator[None]:
    """Bound what all brokers copy in a second while the block runs.

    The bound stays where the block is cut short, because the moves go on.
    """
    if rate_bytes is None:
        yield
        return
    await admin.alter_broker_configs(set_to=dict.fromkeys(THROTTLES, str(rate_bytes)))
    try:
        yield
    except BaseException:
        deletes = " ".join(f"--delete {key}" for key in THROTTLES)
        click.echo(
            "what was begun goes on, and so does its throttle; give the same command again, or "
            f"lift it with: trioq config alter broker {deletes}",
            err=True,
        )
        raise
    await admin.alter_broker_configs(delete=THROTTLES)
