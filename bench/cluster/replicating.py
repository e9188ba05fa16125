"""What acks=all on three brokers costs beside acks=1 on one."""

from __future__ import annotations

from typing import NamedTuple

from bench.cluster.processes import create_topic, running_cluster, settle
from bench.errors import BenchError
from bench.path import frames, loadgen
from bench.path.ask import Asker
from bench.path.process import running_broker
from bench.path.work import PAGE_CACHE_BYTES, Work, produce

LEADER = 1
REPLICAS = (1, 2, 3)
SETTLE_S = 1.0
GB = 1e9

WARMUP_S = 0.05
"""So short that the limit of bytes is not reached before anything is measured."""

WORKS = {
    "100 KB": produce(4, 5, 100, 1000, limit_bytes=PAGE_CACHE_BYTES // 4),
    "100 KB, 16 x 5": produce(16, 5, 100, 1000, limit_bytes=PAGE_CACHE_BYTES // 4),
    "1 x 100 B, 64 x 5 in flight": produce(64, 5, 1, 100),
    "1 x 100 B, 1 x 1": produce(1, 1, 1, 100),
}


class Cost(NamedTuple):
    """A run's figures. CPU time is that of all brokers from the first request to the last."""

    records_per_s: float
    bytes_per_s: float
    records_per_cpu_s: float
    cpu_s_per_gb: float
    leader_cpu_s_per_gb: float
    follower_cpu_s_per_gb: float
    """Of one follower; 0 where there is none."""

    p50_ms: float
    p99_ms: float


def compared(work: Work, seconds: float) -> dict[str, float]:
    """Both, one after the other, and how they compare."""
    one, three = alone(work, seconds), replicated(work, seconds)
    return {
        "cpu_ratio": three.records_per_cpu_s / one.records_per_cpu_s,
        "rate_ratio": three.records_per_s / one.records_per_s,
        "alone_cpu_s_per_gb": one.cpu_s_per_gb,
        "alone_mb_per_s": one.bytes_per_s / 1e6,
        "alone_p50_ms": one.p50_ms,
        **{name: value for name, value in three._asdict().items() if name != "bytes_per_s"},
        "mb_per_s": three.bytes_per_s / 1e6,
    }


def alone(work: Work, seconds: float) -> Cost:
    """One broker with the embedded metastore, acks=1."""
    with running_broker() as broker, Asker(broker) as asker:
        asker.create_topic("alone", work.partitions)
        template = frames.produce_template("alone", work, asker.producer_ids(work.connections))
        settle(SETTLE_S)
        before = broker.cpu_s()
        load = loadgen.run(broker, template, work, seconds=seconds, warmup_s=WARMUP_S)
        return _cost(load, work, template, {LEADER: broker.cpu_s() - before})


def replicated(work: Work, seconds: float, settings: dict[str, str] | None = None) -> Cost:
    """Three brokers, acks=all, the first leads all partitions, min.insync.replicas=2."""
    work = work._replace(acks=-1)
    with running_cluster(settings) as cluster, Asker(cluster.brokers[LEADER]) as asker:
        create_topic(asker, "replicated", [REPLICAS] * work.partitions)
        asker.wait_until_served("replicated", work.partitions)
        template = frames.produce_template("replicated", work, asker.producer_ids(work.connections))
        settle(SETTLE_S)
        before = cluster.cpu_s()
        load = loadgen.run(
            cluster.brokers[LEADER], template, work, seconds=seconds, warmup_s=WARMUP_S
        )
        after = cluster.cpu_s()
        return _cost(load, work, template, {one: after[one] - before[one] for one in after})


def _cost(
    load: loadgen.Load, work: Work, template: frames.Template, cpu_s: dict[int, float]
) -> Cost:
    if load.acknowledged != load.sent:
        raise BenchError(f"{load.sent - load.acknowledged} requests were not acknowledged")
    moved = load.acknowledged * template.batch_bytes
    followers = [used for number, used in cpu_s.items() if number != LEADER]
    total_s = sum(cpu_s.values())
    return Cost(
        load.records_per_s,
        load.bytes_per_s,
        load.acknowledged * work.records / total_s,
        total_s / moved * GB,
        cpu_s[LEADER] / moved * GB,
        sum(followers) / len(followers) / moved * GB if followers else 0.0,
        load.p50_ms,
        load.p99_ms,
    )
