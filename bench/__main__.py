"""python -m bench: first figures of one broker, as a table and, if asked, as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bench.path import frames, loadgen
from bench.path.process import BrokerProcess, running_broker
from trioq import __version__
from trioq.cli.admin_connection import AdminConnection, HostPort
from trioq.wire.api_keys import ApiKey
from trioq.wire.messages.create_topics import (
    CreateTopicsRequest,
    CreateTopicsRequestTopic,
    CreateTopicsResponse,
)

MIB = 1024**2
TOPIC = "bench"


class Case(NamedTuple):
    """One row of the table."""

    name: str
    connections: int
    depth: int
    template: Callable[[], frames.Template]


def produce_case(name: str, connections: int, depth: int, record_bytes: int, records: int) -> Case:
    def template() -> frames.Template:
        return frames.produce_template(
            TOPIC,
            partitions=min(connections, 16),
            connections=connections,
            record_bytes=record_bytes,
            records=records,
            # Not of a block that this broker hands out.
            first_producer_id=10**9 + abs(hash(name)) % 10**6 * 1000,
        )

    return Case(name, connections, depth, template)


CASES = (
    produce_case("produce 1 x 100 B, 64 x 5 in flight", 64, 5, 100, 1),
    produce_case("produce 1 x 100 B, 1 x 16", 1, 16, 100, 1),
    produce_case("produce 16 KB, 4 x 5", 4, 5, 1000, 16),
    produce_case("produce 1 MB, 1 x 5", 1, 5, 1000, 1000),
    Case(
        "fetch 1 MB, 1 x 2",
        1,
        2,
        lambda: frames.fetch_template(
            TOPIC, connections=1, max_bytes=1_100_000, offset_step=1000, offset_end=100_000
        ),
    ),
    Case("ApiVersions, 200 x 1", 200, 1, lambda: frames.api_versions_template(200)),
)


def main() -> None:
    """Parse arguments, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="per run")
    parser.add_argument("--runs", type=int, default=3, help="runs per case; medians are shown")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    arguments = parser.parse_args()
    settings = dict(item.partition("=")[::2] for item in arguments.set)
    rows = [
        measure(case, arguments.seconds, arguments.runs, settings)
        for case in CASES
        if arguments.only in case.name
    ]
    start = start_up(arguments.runs, settings)
    print_table(rows, start)
    if arguments.json:
        report = {
            "machine": f"{platform.platform()} {os.cpu_count()} cores",
            "python": platform.python_version(),
            "trioq": __version__,
            "settings": settings,
            "cases": rows,
            "start_up": start,
        }
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


def measure(
    case: Case, seconds: float, runs: int, settings: dict[str, str]
) -> dict[str, float | str]:
    """Medians over `runs`, each against a broker of its own."""
    loads = []
    for _ in range(runs):
        with running_broker(settings) as broker:
            create_topic(broker)
            if case.name.startswith("fetch"):
                fill(broker)
            loads.append(
                loadgen.run(
                    broker,
                    case.template(),
                    connections=case.connections,
                    depth=case.depth,
                    seconds=seconds,
                )
            )
    return {
        "case": case.name,
        **{
            field: statistics.median(getattr(load, field) for load in loads)
            for field in loadgen.Load._fields
        },
    }


def create_topic(broker: BrokerProcess) -> None:
    """The topic that every case uses, with 16 partitions."""
    topic = CreateTopicsRequestTopic(name=TOPIC, num_partitions=16, replication_factor=1)
    request = CreateTopicsRequest(topics=[topic], timeout_ms=30_000)
    with AdminConnection(HostPort(broker.host, broker.port), timeout_s=30) as admin:
        admin.ask(ApiKey.CREATE_TOPICS, request, CreateTopicsResponse)


def fill(broker: BrokerProcess) -> None:
    """About a second of produced 1 MB batches, to be fetched."""
    case = produce_case("fill", 1, 2, 1000, 1000)
    loadgen.run(broker, case.template(), connections=1, depth=2, seconds=1.0)


def start_up(runs: int, settings: dict[str, str]) -> dict[str, float]:
    """Time from exec to the ready line, and resident memory then, of an empty broker."""
    ready, resident = [], []
    for _ in range(max(5, runs)):
        with running_broker(settings) as broker:
            ready.append(broker.ready_s)
            resident.append(broker.resident_bytes())
    return {"ready_s": statistics.median(ready), "resident_bytes": statistics.median(resident)}


def print_table(rows: list[dict[str, float | str]], start: dict[str, float]) -> None:
    """The figures for people."""
    names = ("req/s", "MB/s", "us CPU", "CPU s/GB", "p50 ms", "p99 ms")
    print(f"{'case':38}" + "".join(f" {name:>9}" for name in names))
    for row in rows:
        megabytes_per_s = float(row["bytes_per_s"]) / 1e6
        print(
            f"{row['case']:38} {row['requests_per_s']:>9.0f} {megabytes_per_s:>9.1f} "
            f"{row['broker_cpu_us_per_request']:>9.1f} {row['broker_cpu_s_per_gb']:>9.2f} "
            f"{row['p50_ms']:>9.2f} {row['p99_ms']:>9.2f}"
        )
    print(
        f"exec to ready {start['ready_s'] * 1000:.0f} ms, "
        f"resident {start['resident_bytes'] / MIB:.1f} MiB"
    )


if __name__ == "__main__":
    main()
