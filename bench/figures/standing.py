"""What a broker costs that does little: starting, resident memory, CPU while nothing happens."""

from __future__ import annotations

import subprocess
import sys
import time

from bench.path import loadgen
from bench.path.ask import Asker
from bench.path.frames import long_poll_template, produce_template
from bench.path.measure import make_topic
from bench.path.process import BrokerProcess, running_broker, scratch_directory
from bench.path.work import Work, produce
from bench.peers import trioq

Figures = dict[str, float]
TOPIC = "standing"
MANY_CONNECTIONS = 5000
MANY_PARTITIONS = 5000
LONG_POLLS = 500
SETTLE_S = 15.0
"""After writing to thousands of partitions the log directory has its work to do first."""


def import_trio(_seconds: float) -> Figures:
    """The floor of starting: an interpreter that imports trio."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import trio"], check=True)
    return {"ready_s": time.perf_counter() - started}


def empty(_seconds: float) -> Figures:
    """A broker without data, just started."""
    with running_broker() as broker:
        return {"ready_s": broker.ready_s, "resident_bytes": broker.resident_bytes()}


def loaded_start(partitions: int) -> Figures:
    """A broker that starts again with `partitions` written partitions, after a clean stop."""
    with scratch_directory() as directory:
        with running_broker(data_dir=directory / "data") as broker:
            write_partitions(broker, partitions)
            resident_bytes = broker.resident_bytes()
        with running_broker(data_dir=directory / "data") as broker:
            return {"ready_s": broker.ready_s, "resident_bytes": float(resident_bytes)}


def start_with_1000_partitions(_seconds: float) -> Figures:
    """`ready_s` of the second start."""
    return loaded_start(1000)


def resident_with_2000_partitions(_seconds: float) -> Figures:
    """`resident_bytes` after a record has been written to each."""
    return loaded_start(2000)


def write_partitions(broker: BrokerProcess, partitions: int, topic: str = TOPIC) -> None:
    """Create a topic and write one record to each of its partitions."""
    work = produce(1, 16, 1, 100, partitions=partitions)
    with Asker(broker) as asker:
        make_topic(trioq.PEER, asker, topic, partitions)
        template = produce_template(topic, work, asker.producer_ids(1))
    loadgen.send(broker, template, work, partitions)


def idle(seconds: float, partitions: int = MANY_PARTITIONS, polls: int = LONG_POLLS) -> Figures:
    """5,000 connections, as many partitions, and long polls on 500 of the connections.

    `broker_cores` is what the broker's process used.
    """
    work = Work("long_poll", MANY_CONNECTIONS, active=polls, partitions=min(polls, partitions))
    with running_broker() as broker:
        write_partitions(broker, partitions)
        with Asker(broker) as asker:
            make_topic(trioq.PEER, asker, "polled", work.partitions)
        template = long_poll_template("polled", work)
        load = loadgen.run(broker, template, work, seconds=max(2.0, seconds), warmup_s=SETTLE_S)
        return {"broker_cores": load.broker_cores, "resident_bytes": broker.resident_bytes()}
