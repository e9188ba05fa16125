"""Brokers with disks in memory that copy from each other, on a clock that tests move.

Logs, partitions and fetchers are real; the network between them is a call, which fails as told.
The metastore is the test: it says who leads.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from random import Random

import trio
import trio.testing

from tests.sim.group_world import TrioClock
from tests.unit.storage_support import NOW_MS, TOPIC_ID, batch, open_dirs, read_all
from trioq.config import BrokerConfig
from trioq.config.topic import TopicConfig
from trioq.errors import KafkaError, NotLeaderOrFollower, PeerUnreachable
from trioq.metastore.image import BrokerImage, ClusterImage, TopicImage
from trioq.metastore.layout import PartitionState
from trioq.replication.fetchers import ReplicaFetchers
from trioq.replication.partition import Partition
from trioq.replication.partitions import Partitions
from trioq.storage.disk import Disk
from trioq.storage.log import Log
from trioq.storage.log_dirs import LogDirs
from trioq.storage.memory_disk import MemoryDisk
from trioq.wire.messages.fetch import (
    FetchRequest,
    FetchResponse,
    FetchResponseDivergingEpoch,
    FetchResponsePartition,
    FetchResponseTopic,
)
from trioq.wire.messages.list_offsets import (
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsResponsePartition,
    ListOffsetsResponseTopic,
)
from trioq.wire.messages.offset_for_leader_epoch import (
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
    OffsetForLeaderEpochResponsePartition,
    OffsetForLeaderEpochResponseTopic,
)
from trioq.wire.schema import Message

CONFIG = {"replica.fetch.backoff.ms": "20", "replica.fetch.wait.max.ms": "100"}


class Asked:
    """What a leader holds of one partition of a session."""

    def __init__(self) -> None:
        self.offset = self.epoch = self.leader_epoch = self.max_bytes = self.start = -1
        self.told = (-1, -1)


class FakeChannel:
    """A fetcher's way to its leader: Fetch with sessions, and the two look-ups."""

    is_receiving = False

    def __init__(self, world: ReplicaWorld, origin: int, target: int) -> None:
        self.world, self.origin, self.target = world, origin, target
        self.session: dict[tuple[object, int], Asked] = {}
        self.session_id = self.epoch = 0

    def close(self) -> None:
        pass

    async def call(self, request: Message, *, api_version: int, timeout_s: float) -> Message:
        await trio.sleep(self.world.latency_s)
        world = self.world
        world.calls.append((self.origin, self.target, request))
        broker = world.brokers[self.target]
        if not broker.is_up or world.is_cut(self.origin, self.target):
            raise PeerUnreachable(f"broker {self.target} is not there")
        if self.target in world.swallows:
            await trio.sleep(timeout_s)
            raise PeerUnreachable("no answer in time")
        if isinstance(request, ListOffsetsRequest):
            answer: Message = self.list_offsets(broker, request)
        elif isinstance(request, OffsetForLeaderEpochRequest):
            answer = self.epochs(broker, request)
        else:
            assert isinstance(request, FetchRequest)
            answer = await self.fetch(broker, request)
        await trio.sleep(world.latency_s)
        if world.is_cut(self.origin, self.target):
            raise PeerUnreachable("the answer was lost")
        return answer

    def list_offsets(self, broker: Broker, request: ListOffsetsRequest) -> ListOffsetsResponse:
        topics = []
        for topic in request.topics:
            found = []
            for asked in topic.partitions:
                one = ListOffsetsResponsePartition(partition_index=asked.partition_index)
                try:
                    partition = broker.partition(asked.partition_index)
                    partition.check_epoch(asked.current_leader_epoch)
                    one.offset = partition.log.log_start_offset
                except KafkaError as error:
                    one.error_code = error.code
                found.append(one)
            topics.append(ListOffsetsResponseTopic(name=topic.name, partitions=found))
        return ListOffsetsResponse(topics=topics)

    def epochs(
        self, broker: Broker, request: OffsetForLeaderEpochRequest
    ) -> OffsetForLeaderEpochResponse:
        topics = []
        for topic in request.topics:
            found = []
            for asked in topic.partitions:
                one = OffsetForLeaderEpochResponsePartition(partition=asked.partition)
                try:
                    partition = broker.partition(asked.partition)
                    partition.check_epoch(asked.current_leader_epoch)
                    one.leader_epoch, one.end_offset = partition.log.epoch_end_offset(
                        asked.leader_epoch
                    )
                except KafkaError as error:
                    one.error_code = error.code
                found.append(one)
            topics.append(OffsetForLeaderEpochResponseTopic(topic=topic.topic, partitions=found))
        return OffsetForLeaderEpochResponse(topics=topics)

    async def fetch(self, broker: Broker, request: FetchRequest) -> FetchResponse:
        if request.session_epoch == 0:
            self.session.clear()
            self.session_id, self.epoch = self.session_id + 1, 1
        elif (request.session_id, request.session_epoch) != (self.session_id, self.epoch):
            return FetchResponse(error_code=70)
        else:
            self.epoch += 1
        for topic in request.topics:
            for one in topic.partitions:
                asked = self.session.setdefault((topic.topic_id, one.partition), Asked())
                asked.offset, asked.epoch = one.fetch_offset, one.last_fetched_epoch
                asked.leader_epoch = one.current_leader_epoch
                asked.max_bytes = one.partition_max_bytes
                asked.start = one.log_start_offset
        for forgotten in request.forgotten_topics_data:
            for number in forgotten.partitions:
                self.session.pop((forgotten.topic_id, number), None)
        state = request.replica_state
        assert state is not None
        assert state.replica_id == self.origin
        deadline = trio.current_time() + request.max_wait_ms / 1000
        is_full = request.session_epoch == 0
        while True:
            answers = self.read_all(broker, request, state.replica_epoch, is_full=is_full)
            if (
                is_full
                or any(one.error_code or one.records or one.diverging_epoch for one in answers)
                or trio.current_time() >= deadline
            ):
                for one in answers:
                    if one.error_code == 0:
                        asked = self.session[TOPIC_ID, one.partition_index]
                        asked.told = (one.high_watermark, one.log_start_offset)
                topics = [FetchResponseTopic(topic_id=TOPIC_ID, partitions=answers)]
                return FetchResponse(session_id=self.session_id, responses=topics)
            await trio.sleep(0.005)

    def read_all(
        self, broker: Broker, request: FetchRequest, broker_epoch: int, *, is_full: bool
    ) -> list[FetchResponsePartition]:
        answers, length = [], 0
        for key, asked in list(self.session.items()):
            if length >= request.max_bytes:
                break
            answer = self.read(broker, key[1], asked, broker_epoch, is_full=is_full)
            if answer is not None:
                answers.append(answer)
                if answer.records:
                    length += len(answer.records)  # type: ignore[arg-type]
                    self.session[key] = self.session.pop(key)  # the others have their turn
        return answers

    def read(
        self, broker: Broker, number: int, asked: Asked, broker_epoch: int, *, is_full: bool
    ) -> FetchResponsePartition | None:
        answer = FetchResponsePartition(partition_index=number, aborted_transactions=None)
        try:
            found = broker.partition(number).read_as_replica(
                self.origin,
                broker_epoch,
                asked.offset,
                self.world.max_bytes or asked.max_bytes,
                min_one_batch=True,
                current_leader_epoch=asked.leader_epoch,
                last_fetched_epoch=asked.epoch,
                now_s=trio.current_time(),
                log_start_offset=asked.start,
            )
        except KafkaError as error:
            answer.error_code, answer.high_watermark = error.code, -1
            return answer
        answer.high_watermark = found.high_watermark
        answer.log_start_offset = found.log_start_offset
        if found.diverging is not None:
            epoch, end = found.diverging
            answer.diverging_epoch = FetchResponseDivergingEpoch(epoch=epoch, end_offset=end)
            return answer
        told = (found.high_watermark, found.log_start_offset)
        if found.region is not None:
            region = found.region
            data = os.pread(region.file.fileno(), region.length, region.position)
            region.file.release()
            answer.records = memoryview(self.world.damage(bytearray(data)))
        elif told == asked.told and not is_full:
            return None
        return answer


class Broker:
    """One broker: its disk, its logs, the partitions on them, its fetchers."""

    def __init__(self, world: ReplicaWorld, broker_id: int) -> None:
        self.world, self.broker_id = world, broker_id
        self.disk: Disk | MemoryDisk = MemoryDisk()
        self.is_up = False
        self.broker_epoch = 10 * broker_id
        self.image = ClusterImage()
        self.config = BrokerConfig.from_mapping(
            CONFIG | {"node.id": str(broker_id)} | world.broker_config
        )
        self.dirs: LogDirs
        self.partitions: Partitions
        self.fetchers: ReplicaFetchers
        self._scope = trio.CancelScope()

    def channel(self, broker_id: int, *, max_bytes: int, kept_bytes: int) -> FakeChannel:
        return FakeChannel(self.world, self.broker_id, broker_id)

    def partition(self, number: int = 0) -> Partition:
        found = self.partitions.find("orders", number)
        if found is None:
            raise NotLeaderOrFollower
        return found

    def log(self, number: int = 0) -> Log:
        return self.partition(number).log

    async def start(self) -> None:
        self.dirs = open_dirs(self.disk, clock=self.world.clock)  # type: ignore[arg-type]
        self.dirs.recover()
        self.partitions = Partitions(self.dirs, self.config)
        self.partitions.use_broker_epoch(self.broker_epoch)
        self.fetchers = ReplicaFetchers(self.partitions, self, lambda: self.config)
        self.image = ClusterImage()
        self.is_up = True
        self.take_image()
        self._scope = trio.CancelScope()
        await self.world.nursery.start(self._run)

    async def _run(self, *, task_status: trio.TaskStatus[None]) -> None:
        with self._scope:
            async with trio.open_nursery() as nursery:
                for one in self.dirs.dirs:
                    nursery.start_soon(self._write, one.writer)
                await nursery.start(self.fetchers.run)
                task_status.started()

    async def _write(self, writer) -> None:
        """Rounds of the log dir's thread, on this one: with virtual time no thread may run."""
        while True:
            await trio.sleep(self.world.sync_s)
            if not self.world.is_stalled(self.broker_id):
                writer.run_round()

    def take_image(self) -> None:
        before, self.image = self.image, self.world.image
        self.partitions.apply_image(before, self.image)
        self.fetchers.follow(before, self.image)

    def stop(self, random: Random | None = None, *, clean: bool = False) -> None:
        """Kill the process; with `random` power is lost too. With `clean` it stops in order."""
        self.is_up = False
        self._scope.cancel()
        if clean:
            self.dirs.close()
            return
        assert isinstance(self.disk, MemoryDisk)
        if random is None:
            self.disk.kill()
        else:
            self.disk.crash(random)


class ReplicaWorld:
    """Three brokers with a replica of every partition of one topic."""

    def __init__(
        self,
        nursery: trio.Nursery,
        *,
        partitions: int = 1,
        topic_config: dict[str, str] | None = None,
        broker_config: dict[str, str] | None = None,
    ) -> None:
        self.nursery = nursery
        self.clock = TrioClock()
        self.latency_s = 0.001
        self.sync_s = 0.002
        self.max_bytes = 0
        self.broker_config = broker_config or {}
        self.topic_config = topic_config or {}
        self.calls: list[tuple[int, int, Message]] = []
        self.cuts: set[tuple[int, int]] = set()
        self.swallows: set[int] = set()
        """Brokers that take requests and never answer."""
        self.stalled: set[int] = set()
        self.damage: Callable[[bytearray], bytearray] = lambda data: data
        self.states = [
            PartitionState(-1, 0, (1, 2, 3), (10, 20, 30), (1, 2, 3)) for _ in range(partitions)
        ]
        self.image = ClusterImage()
        self.registered: dict[int, BrokerImage] = {}
        self._make_image()
        self.brokers = {number: Broker(self, number) for number in (1, 2, 3)}

    def is_cut(self, one: int, other: int) -> bool:
        return (one, other) in self.cuts or (other, one) in self.cuts

    def is_stalled(self, broker_id: int) -> bool:
        return broker_id in self.stalled

    def _make_image(self) -> None:
        topic = TopicImage("orders", TOPIC_ID, tuple(self.states), self.topic_config, 0)
        self.image = ClusterImage(
            topics={"orders": topic},
            topics_by_id={TOPIC_ID: topic},
            brokers=self.registered,
            position=self.image.position + 1,
        )

    def change(self, number: int = 0, **values: object) -> None:
        """Write a partition state; brokers see it when they take the image."""
        before = self.states[number]
        self.states[number] = before._replace(
            partition_epoch=before.partition_epoch + 1,
            **values,  # type: ignore[arg-type]
        )
        self._make_image()

    def elect(self, leader: int, number: int = 0, *, tell: bool = True, **values: object) -> None:
        epoch = self.states[number].leader_epoch + 1
        self.change(number, leader=leader, leader_epoch=epoch, **values)
        if tell:
            self.tell()

    def register(self, broker_id: int, broker_epoch: int) -> None:
        """The image has the broker under this epoch; brokers see it when they take the image."""
        registration = BrokerImage(broker_id, broker_epoch, None, {}, (), "", "", True)
        self.registered = {**self.registered, broker_id: registration}
        self._make_image()

    def tell(self) -> None:
        for broker in self.brokers.values():
            if broker.is_up:
                broker.take_image()

    def leader(self, number: int = 0) -> Broker:
        return self.brokers[self.states[number].leader]

    def produce(
        self, *values: bytes, number: int = 0, producer: tuple[int, int, int] | None = None
    ) -> int:
        """Append to the leader; the offset behind the batch."""
        broker = self.leader(number)
        partition = broker.partition(number)
        data = batch(*(values or (b"x" * 50,)), producer=producer)
        header = partition.check_batch(memoryview(data))
        appended = partition.append_as_leader(memoryview(data), header, acks=1, now_ms=NOW_MS)
        broker.dirs.end_pass()
        return appended.last_offset + 1

    async def until(self, condition: Callable[[], bool], *, within_s: float = 60) -> None:
        deadline = trio.current_time() + within_s
        while not condition():
            assert trio.current_time() < deadline, "it does not come about"
            await trio.sleep(0.005)

    def is_equal(self, number: int = 0) -> bool:
        """Whether every replica that is up holds what the leader holds, and knows it is safe."""
        ends = {
            (
                broker.log(number).log_end_offset,
                broker.log(number).high_watermark,
                broker.log(number).log_start_offset,
            )
            for broker in self.brokers.values()
            if broker.is_up
        }
        return len(ends) == 1 and len({end for _, end, _ in ends} | {e for e, _, _ in ends}) == 1

    async def settled(self, number: int = 0) -> None:
        await self.until(lambda: self.is_equal(number))

    def content(self, broker_id: int, number: int = 0) -> bytes:
        return read_all(self.brokers[broker_id].log(number))


@asynccontextmanager
async def replica_world(**options: object) -> AsyncIterator[ReplicaWorld]:
    async with trio.open_nursery() as nursery:
        world = ReplicaWorld(nursery, **options)  # type: ignore[arg-type]
        for broker in world.brokers.values():
            await broker.start()
        yield world
        nursery.cancel_scope.cancel()


def in_virtual_time(test: Callable[..., object], *args: object) -> None:
    trio.run(  # type: ignore[call-overload]
        partial(test, *args), clock=trio.testing.MockClock(autojump_threshold=0)
    )


__all__ = ["TopicConfig", "in_virtual_time", "replica_world"]
