"""A cluster with 2,000 partitions: what it costs at rest, how fast a controller is replaced."""

from __future__ import annotations

import os
import signal
import time

from bench.cluster.failing import SESSION_TIMEOUT_S, SETTINGS, Figures
from bench.cluster.processes import Cluster, running_cluster, settle
from bench.errors import BenchError
from bench.path.ask import Asker
from trioq.wire.api_keys import ApiKey
from trioq.wire.messages.create_topics import (
    CreateTopicsRequest,
    CreateTopicsRequestTopic,
    CreateTopicsResponse,
)
from trioq.wire.messages.metadata import MetadataRequest, MetadataResponse

TOPICS = 10
PARTITIONS_EACH = 200
REPLICAS = 3
IDLE_S = 10.0
REST_S = 5.0
PATIENCE_S = 60.0


def idle() -> Figures:
    """Cores that each broker keeps busy when nobody asks for anything."""
    with running_cluster(SETTINGS) as cluster:
        created_s = _fill(cluster)
        settle(REST_S)
        before, start_s = cluster.cpu_s(), time.monotonic()
        time.sleep(IDLE_S)
        seconds, after = time.monotonic() - start_s, cluster.cpu_s()
        cores = [(after[one] - before[one]) / seconds for one in after]
        resident = [broker.resident_bytes() for broker in cluster.brokers.values()]
    return {
        "busiest_cores": max(cores),
        "mean_cores": sum(cores) / len(cores),
        "created_s": created_s,
        "resident_bytes": max(resident),
    }


def killed_controller() -> Figures:
    """From kill -9 of the controller until another has created a topic."""
    with running_cluster(SETTINGS) as cluster:
        _fill(cluster)
        settle(REST_S)
        with Asker(cluster.brokers[1]) as asker:
            old = _controller(asker)
        survivor = next(one for number, one in cluster.brokers.items() if number != old)
        with Asker(survivor) as asker:
            killed_s = time.monotonic()
            os.kill(cluster.brokers[old].pid, signal.SIGKILL)
            end_s = killed_s + PATIENCE_S
            while _controller(asker) == old and time.monotonic() < end_s:
                time.sleep(0.01)
            elected_s = time.monotonic() - killed_s
            while _create(asker, "after", 1, 1) and time.monotonic() < end_s:
                time.sleep(0.02)
            acting_s = time.monotonic() - killed_s
    return {
        "elected_s": elected_s,
        "acting_s": acting_s,
        "after_session_s": acting_s - SESSION_TIMEOUT_S,
    }


def _fill(cluster: Cluster) -> float:
    """Create the topics; how long that took."""
    with Asker(cluster.brokers[1]) as asker:
        start_s = time.monotonic()
        for number in range(TOPICS):
            name = f"standing{number}"
            end_s = time.monotonic() + PATIENCE_S
            while code := _create(asker, name, PARTITIONS_EACH, REPLICAS):
                if time.monotonic() > end_s:
                    raise BenchError(f"{name} cannot be created: error {code}")
                time.sleep(0.1)
            asker.wait_for_topic(name, PARTITIONS_EACH)
        return time.monotonic() - start_s


def _create(asker: Asker, name: str, partitions: int, replicas: int) -> int:
    """Ask for a topic; the error code."""
    topic = CreateTopicsRequestTopic(
        name=name, num_partitions=partitions, replication_factor=replicas
    )
    request = CreateTopicsRequest(topics=[topic], timeout_ms=30_000)
    return asker.ask(ApiKey.CREATE_TOPICS, request, CreateTopicsResponse).topics[0].error_code


def _controller(asker: Asker) -> int:
    return asker.ask(ApiKey.METADATA, MetadataRequest(topics=[]), MetadataResponse).controller_id
