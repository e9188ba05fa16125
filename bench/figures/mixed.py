"""Two kinds of work at once, and work with synchronous writes: trioq alone, no peers."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bench.errors import BenchError
from bench.path import loadgen
from bench.path.ask import Asker
from bench.path.frames import fetch_template, produce_template
from bench.path.measure import fill, make_topic, measure, started
from bench.path.process import BrokerProcess, running_broker
from bench.path.work import Work, produce
from bench.peers import trioq
from bench.peers.peer import Peer

Figures = dict[str, float]

SMALL = produce(1, 1, 1, 100)
MANY = produce(64, 5, 1, 100)
BULK = produce(16, 5, 1000, 1000, limit_bytes=0)
HOT = produce(4, 256, 1, 100, rate=1000.0)
COLD = Work("fetch", 1, 2, records=1000, record_bytes=1000, fetched=512)
WARMUP_S = 0.3
EVICT_EACH_S = 0.05

BUSY = Peer(
    "trioq beside a busy thread",
    lambda directory, settings: running_broker(
        settings, data_dir=directory / "data", module="bench.path.busy_broker"
    ),
    absent=lambda: "",
    version=lambda: "",
)


def _load_alone(
    work: Work, seconds: float, settings: Mapping[str, str] | None = None, peer: Peer = trioq.PEER
) -> Figures:
    with started(peer, settings or {}) as broker:
        measured = measure(peer, broker, work, seconds=seconds, warmup_s=WARMUP_S)
    return measured.load.figures()


def small_alone(seconds: float) -> Figures:
    """One connection, one record at a time."""
    return _load_alone(SMALL, seconds)


def bulk_alone(seconds: float) -> Figures:
    """16 connections with five requests of 1 MB each, not bounded by the dirty limit."""
    return _load_alone(BULK, seconds)


def small_beside_bulk(seconds: float) -> Figures:
    """The small work's figures, and as `bulk_bytes_per_s` what the bulk moved meanwhile."""
    with started(trioq.PEER, {}) as broker, Asker(broker) as asker:
        make_topic(trioq.PEER, asker, "bulk", BULK.partitions)
        make_topic(trioq.PEER, asker, "small", SMALL.partitions)
        bulk = produce_template("bulk", BULK, asker.producer_ids(BULK.connections))
        small = produce_template("small", SMALL, asker.producer_ids(1))
        os.sync()
        with loadgen.generating(broker, bulk, BULK, seconds=seconds, warmup_s=WARMUP_S) as beside:
            load = loadgen.run(broker, small, SMALL, seconds=seconds, warmup_s=WARMUP_S)
            moved = beside.finish(seconds + loadgen.PATIENCE_S)
    return {**load.figures(), "bulk_bytes_per_s": moved.bytes_per_s}


def small_beside_busy_thread(seconds: float) -> Figures:
    """The small work against a process in which Python never rests."""
    return _load_alone(SMALL, seconds, peer=BUSY)


def many_beside_busy_thread(seconds: float) -> Figures:
    """64 connections with five small requests in flight against the same process."""
    return _load_alone(MANY, seconds, peer=BUSY)


def committed_small(seconds: float) -> Figures:
    """The small work, acknowledged after fdatasync."""
    return _load_alone(SMALL, seconds, {"flush.policy": "commit"})


def committed_large(seconds: float) -> Figures:
    """1 MB requests, acknowledged after fdatasync."""
    return _load_alone(produce(1, 5, 1000, 1000), seconds, {"flush.policy": "commit"})


def hot_beside_cold(seconds: float) -> Figures:
    """Produce at a fixed rate while another client reads what is not in memory.

    `cold_bytes_per_s` is what was read; its pages are thrown out over and over.
    """
    with started(trioq.PEER, {}) as broker, Asker(broker) as asker:
        make_topic(trioq.PEER, asker, "cold", 1)
        make_topic(trioq.PEER, asker, "hot", HOT.partitions)
        batch_bytes = fill(trioq.PEER, broker, asker, "cold", COLD)
        cold = fetch_template("cold", COLD, COLD.fetched * COLD.records, batch_bytes)
        hot = produce_template("hot", HOT, asker.producer_ids(HOT.connections))
        os.sync()
        with (
            _evicting(broker, "cold-0"),
            loadgen.generating(broker, cold, COLD, seconds=seconds, warmup_s=WARMUP_S) as reading,
        ):
            load = loadgen.run(broker, hot, HOT, seconds=seconds, warmup_s=WARMUP_S)
            read = reading.finish(seconds + loadgen.PATIENCE_S)
    return {**load.figures(), "cold_bytes_per_s": read.bytes_per_s}


@contextmanager
def _evicting(broker: BrokerProcess, partition: str) -> Iterator[None]:
    """Throw the pages of a partition's log out of memory again and again.

    Its files must be synced: dirty pages stay. Raises BenchError where there are none.
    """
    if broker.data_dir is None:
        raise BenchError("the broker's data directory is not known")
    paths = sorted(broker.data_dir.glob(f"**/{partition}/*.log"))
    if not paths:
        raise BenchError(f"no log of {partition} in {broker.data_dir}")
    _evict(paths)
    done = threading.Event()

    def evict_for_ever() -> None:
        while not done.wait(EVICT_EACH_S):
            _evict(paths)

    thread = threading.Thread(target=evict_for_ever)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _evict(paths: list[Path]) -> None:
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
