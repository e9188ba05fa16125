"""confluent-kafka as the client, in a process of its own: what applications see.

`run` starts the process and gives a Load like the raw generator's; a request is a record here.
librdkafka from Python does about half a million records a second at most, so in bulk this
measures the client. One at a time and at a fixed rate it shows what the broker adds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any, Final, NamedTuple

from bench.errors import BenchError
from bench.histogram import Histogram
from bench.path.loadgen import PATIENCE_S, WARMUP_S, Load
from bench.path.process import ROOT, BrokerProcess
from bench.path.work import Work

MODES: Final = ("one", "rate", "bulk", "consume")
"""One record at a time; open loop at a rate; as many as fit; reading what is there."""


class ClientWork(NamedTuple):
    """What the client does; see Work for what is shared."""

    mode: str
    work: Work
    linger_ms: float = 0.0
    batch_bytes: int = 1_000_000


def run(
    broker: BrokerProcess,
    topic: str,
    asked: ClientWork,
    *,
    seconds: float,
    warmup_s: float = WARMUP_S,
) -> Load:
    """Run the client against `broker`; raises BenchError when a record is not delivered."""
    plan = {
        **asked.work.described(),
        "mode": asked.mode,
        "topic": topic,
        "broker": [broker.host, broker.port, broker.pid],
        "linger_ms": asked.linger_ms,
        "batch_bytes": asked.batch_bytes,  # of librdkafka's batches, not of a raw request
        "seconds": seconds,
        "warmup_s": warmup_s,
    }
    done = subprocess.run(
        [sys.executable, "-m", "bench.path.client", json.dumps(plan)],
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds + warmup_s + PATIENCE_S,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    if done.returncode:
        raise BenchError(f"confluent-kafka: {done.stderr.strip()[-500:]}")
    return _load(json.loads(done.stdout), asked.work)


def _load(seen: dict[str, Any], work: Work) -> Load:
    count, seconds, cpu_s = seen["records"], seen["seconds"], seen["broker_cpu_s"]
    if not count:
        raise BenchError("confluent-kafka delivered nothing")
    moved = count * work.record_bytes
    latency = Histogram(seen["histogram"])
    return Load(
        count / seconds,
        count / seconds,
        moved / seconds,
        cpu_s / count * 1e6,
        cpu_s / max(1, moved) * 1e9,
        cpu_s / seconds,
        seen["cpu_s"] / seconds,
        latency.percentile_ms(50),
        latency.percentile_ms(99),
        latency.percentile_ms(99.9),
        latency.percentile_ms(100),
        seen["unanswered"],
        seen["delivered"],
        seen["sent"],
        latency,
    )


class Session:
    """The client process's side: sends, and counts what is delivered while it is measured."""

    def __init__(self, plan: dict[str, Any]) -> None:
        host, port, pid = plan["broker"]
        self.plan = plan
        self.broker = BrokerProcess(host, port, pid, 0.0)
        self.value = os.urandom(plan["record_bytes"])
        self.latency = Histogram()
        self.records = self.sent = self.delivered = 0
        self.measure_from_ns = time.perf_counter_ns() + int(plan["warmup_s"] * 1e9)
        self.end_ns = self.measure_from_ns + int(plan["seconds"] * 1e9)
        self.cpu_before: tuple[float, float] | None = None

    def settings(self) -> dict[str, Any]:
        """librdkafka's, for what was asked."""
        plan = self.plan
        return {
            "bootstrap.servers": f"{self.broker.host}:{self.broker.port}",
            "acks": plan["acks"],
            "enable.idempotence": plan["acks"] == -1,
            "compression.type": plan["codec"],
            "linger.ms": plan["linger_ms"],
            "batch.size": plan["batch_bytes"],
            "queue.buffering.max.messages": 100_000,
            "log_level": 3,
        }

    def running(self) -> bool:
        """Until the end; notes the CPU when measuring begins."""
        now_ns = time.perf_counter_ns()
        if self.cpu_before is None and now_ns >= self.measure_from_ns:
            self.measure_from_ns = now_ns
            self.cpu_before = (self.broker.cpu_s(), time.process_time())
        return now_ns < self.end_ns

    def note(self, started_ns: int) -> None:
        """A record that was due at `started_ns` has been delivered."""
        self.delivered += 1
        if self.cpu_before is None:
            return
        now_ns = time.perf_counter_ns()
        self.records += now_ns < self.end_ns
        if started_ns >= self.measure_from_ns:
            self.latency.add(now_ns - started_ns)

    def result(self) -> dict[str, Any]:
        """What `_load` reads; to be called right at the end of the measured time."""
        broker_cpu_s, cpu_s = self.cpu_before or (0.0, 0.0)
        return {
            "seconds": (time.perf_counter_ns() - self.measure_from_ns) / 1e9,
            "broker_cpu_s": self.broker.cpu_s() - broker_cpu_s,
            "cpu_s": time.process_time() - cpu_s,
        }


def _produce(session: Session) -> dict[str, Any]:
    from confluent_kafka import KafkaError, Message, Producer

    plan = session.plan
    producer = Producer(session.settings())
    failures: list[str] = []

    def send(started_ns: int) -> None:
        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                failures.append(str(error))
            session.note(started_ns)

        while True:
            try:
                producer.produce(
                    plan["topic"],
                    session.value,
                    partition=session.sent % plan["partitions"],
                    on_delivery=delivered,
                )
                break
            except BufferError:
                producer.poll(0.01)
        session.sent += 1

    interval_ns = 1e9 / plan["rate"] if plan["mode"] == "rate" else 0.0
    start_ns = time.perf_counter_ns()
    while session.running() and not failures:
        if plan["mode"] == "one":
            send(time.perf_counter_ns())
            while session.delivered < session.sent:
                producer.poll(1.0)
        elif plan["mode"] == "bulk":
            send(time.perf_counter_ns())
            producer.poll(0)
        else:
            due_ns = start_ns + int(session.sent * interval_ns)
            wait_ns = due_ns - time.perf_counter_ns()
            if wait_ns <= 0:
                send(due_ns)
            producer.poll(max(0, wait_ns) / 1e9)
    result = session.result()
    unanswered = producer.flush(10)
    if failures:
        raise SystemExit(f"a record was not delivered: {failures[0]}")
    return {**result, "unanswered": unanswered}


def _consume(session: Session) -> dict[str, Any]:
    from confluent_kafka import Consumer, TopicPartition

    plan = session.plan
    consumer = Consumer(
        {
            "bootstrap.servers": f"{session.broker.host}:{session.broker.port}",
            "group.id": "bench",
            "enable.auto.commit": False,
            "log_level": 3,
        }
    )
    start = [TopicPartition(plan["topic"], number, 0) for number in range(plan["partitions"])]
    consumer.assign(start)
    last_ns = time.perf_counter_ns()
    while session.running():
        messages = consumer.consume(10_000, 0.2)
        if not messages:
            consumer.assign(start)  # all was read: once more
        for message in messages:
            if message.error():
                raise SystemExit(f"a record was not read: {message.error()}")
        now_ns = time.perf_counter_ns()
        session.sent += len(messages)
        session.delivered += len(messages)
        if messages and session.cpu_before is not None:
            session.records += len(messages)
            session.latency.add(now_ns - last_ns)
        last_ns = now_ns
    result = session.result()
    consumer.close()
    return {**result, "unanswered": 0}


def main() -> None:
    """Do what the JSON in the first argument asks, print one JSON object."""
    session = Session(json.loads(sys.argv[1]))
    result = _consume(session) if session.plan["mode"] == "consume" else _produce(session)
    result |= {
        "records": session.records,
        "sent": session.sent,
        "delivered": session.delivered,
        "histogram": session.latency.as_list(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
