"""How `trioq consume` reads: until the end there was, a number of records, or a signal."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import anyio

from trioq.cli.record_output import Render
from trioq.cli.running import Interruption, write_to
from trioq.cli.start_position import StartKind, StartPosition
from trioq.cli.target import Target
from trioq.client.client import Client
from trioq.client.consumer import Consumer
from trioq.client.consumer_settings import Isolation
from trioq.client.list_offsets import offsets_at
from trioq.client.partition_state import EARLIEST, LATEST
from trioq.errors import CallTimeout
from trioq.record.fetched import RecordBatchView
from trioq.types import TopicPartition

_LOOK_S: Final = 0.2
"""How often it is looked whether a partition ends in something that is no record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumeJob:
    """What to read and where to write it."""

    topics: tuple[str, ...]
    partitions: tuple[int, ...]
    """Of each topic; () for all."""
    group: str | None
    start: StartPosition
    """In a group: of partitions that it has no offset of."""
    max_messages: int | None
    follow: bool
    isolation: Isolation
    render: Render
    descriptor: int


class Consuming:
    """One run of `trioq consume`."""

    def __init__(self, job: ConsumeJob, target: Target) -> None:
        self._job = job
        self._target = target
        self._left = job.max_messages
        """How many records may still be printed; None for any number."""

        self._ends: dict[TopicPartition, int] = {}
        """Where partitions that are not read to their end yet end; unused with --follow."""

        self._is_assigned = False
        self._client: Client
        self._consumer: Consumer

    async def run(self, interruption: Interruption) -> None:
        """Read and print; in a group, what was printed is committed. Raises what reading raises."""
        job = self._job
        async with self._target.client() as client:
            for topic in job.topics:
                await client.cluster.metadata.topic(topic)
            consumer = client.consumer(
                *(job.topics if job.group is not None else ()),
                group=job.group,
                auto_offset_reset="latest" if job.start.kind is StartKind.END else "earliest",
                isolation=job.isolation,
                on_assigned=self._assigned,
                on_revoked=self._revoked,
            )
            self._client, self._consumer = client, consumer
            async with consumer:
                with interruption.ending_early():
                    if job.group is None:
                        await self._assign()
                    await self._read()

    # ---- where to start and to end ----------------------------------------------------

    async def _assign(self) -> None:
        partitions = []
        for topic in self._job.topics:
            info = await self._client.cluster.metadata.topic(topic)
            numbers = self._job.partitions or range(len(info.partitions))
            partitions += [TopicPartition(topic, number) for number in numbers]
        starts = await self._bounds(partitions)
        self._consumer.assign(partitions)
        for partition, offset in starts.items():
            self._consumer.seek(partition, offset)
        self._is_assigned = True

    async def _assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """The group has given us these."""
        if partitions:
            committed = await self._consumer.committed(partitions)
            starts = await self._bounds(partitions)
            for partition, offset in starts.items():
                if partition not in committed:
                    self._consumer.seek(partition, offset)
        self._is_assigned = True

    async def _revoked(self, partitions: frozenset[TopicPartition]) -> None:
        for partition in partitions:
            self._ends.pop(partition, None)

    async def _bounds(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Note where partitions end; the offset in each that --from comes to."""
        cluster, start = self._client.cluster, self._job.start
        read_committed = self._job.isolation == "read_committed"
        asked = [EARLIEST, LATEST]
        if start.kind is StartKind.TIMESTAMP:
            asked.append(start.number)
        found = [
            await offsets_at(
                cluster, dict.fromkeys(partitions, timestamp), read_committed=read_committed
            )
            for timestamp in asked
        ]
        starts = {}
        for partition in partitions:
            beginning, end, *at = (one[partition].offset for one in found)
            at_timestamp = at[0] if at and at[0] >= 0 else None
            starts[partition] = start.offset(beginning, end, at_timestamp)
            if end > beginning:
                self._ends[partition] = end
        return starts

    # ---- reading ----------------------------------------------------------------------

    @property
    def _is_done(self) -> bool:
        if self._left == 0:
            return True
        return not self._job.follow and self._is_assigned and not self._ends

    async def _read(self) -> None:
        batches = self._consumer.batches()
        await self._look_for_ends()
        last_s = anyio.current_time()
        while not self._is_done:
            batch = None
            with anyio.move_on_after(_LOOK_S):
                batch = await anext(batches)
            if batch is None:
                await self._look_for_ends()
                if self._ends and anyio.current_time() - last_s > self._target.timeout_s:
                    raise self._nothing_comes()
            else:
                await self._print(batch)
                last_s = anyio.current_time()

    def _nothing_comes(self) -> CallTimeout:
        partition, end = min(self._ends.items())
        return CallTimeout(
            f"nothing more came of {partition} for {self._target.timeout_s:g} s, which goes to "
            f"offset {end}: is the broker that leads it running? --timeout waits longer"
        )

    async def _print(self, batch: RecordBatchView[Any, Any]) -> None:
        """Print a batch, as far as it is wanted; the rest is not processed."""
        partition = TopicPartition(batch.topic, batch.partition)
        end = None if self._job.follow else self._ends.get(partition, batch.start_offset)
        records = list(islice(batch, self._left))
        after = batch.next_offset if len(records) == len(batch) else records[-1].offset + 1
        if end is not None and after > end:
            records = [record for record in records if record.offset < end]
            after = end
        written_to = batch.start_offset
        try:
            if records:
                await write_to(self._job.descriptor, self._job.render(records))
            written_to = after
        finally:
            if written_to != batch.next_offset and partition in self._consumer.assignment:
                self._consumer.seek(partition, written_to)
        if self._left is not None:
            self._left -= len(records)
        if end is not None and written_to >= end:
            self._ended(partition)

    async def _look_for_ends(self) -> None:
        """Find partitions whose position is at their end, with nothing (more) to print before."""
        if self._job.follow:
            return
        for partition, end in list(self._ends.items()):
            if partition not in self._consumer.assignment:
                continue
            position = -1
            with anyio.move_on_after(_LOOK_S):
                position = await self._consumer.position(partition)
            if position >= end:
                self._ended(partition)

    def _ended(self, partition: TopicPartition) -> None:
        self._ends.pop(partition, None)
        if partition in self._consumer.assignment:
            self._consumer.pause(partition)
