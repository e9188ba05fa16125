"""`python -m bench path`: one broker, or several, under the load that is asked for."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench import machine
from bench.errors import BenchError
from bench.path import client
from bench.path.ask import Asker
from bench.path.client import MODES, ClientWork
from bench.path.measure import Measured, fill, measure, started, topic_for
from bench.path.process import BrokerProcess
from bench.path.work import CASES, CODECS, KINDS, MB, PAGE_CACHE_BYTES, Work
from bench.peers.peer import Peer
from bench.peers.registry import PEERS, present
from bench.plots import plot_rows
from bench.report import Row, path_table, row_of, write_report

TUNED = {
    "kind": "produce",
    "connections": "1",
    "depth": "5",
    "rate": "0",
    "record_bytes": "100",
    "batch_bytes": "",
    "partitions": "1",
    "acks": "1",
    "codec": "none",
}
"""What users turn, and what it is when only something else is turned."""

CLIENT_WORK = Work(is_idempotent=False)
"""librdkafka takes producer ids with acks=all only."""

CLIENT_CASES: dict[str, ClientWork] = {
    "one record at a time, acks=1": ClientWork("one", CLIENT_WORK),
    "latency, 1000 records/s, linger 0": ClientWork("rate", CLIENT_WORK._replace(rate=1000.0)),
    "latency, 5000 records/s, linger 0": ClientWork("rate", CLIENT_WORK._replace(rate=5000.0)),
    "in bulk, linger 5": ClientWork("bulk", CLIENT_WORK._replace(partitions=4), linger_ms=5.0),
    "consuming in bulk": ClientWork("consume", CLIENT_WORK._replace(records=1000, fetched=1000)),
}
"""The cases of `--client confluent`."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What can be turned. Most take lists: every combination becomes a case."""
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--runs", type=int, default=3, help="runs per case; medians are shown")
    parser.add_argument("--seconds", type=float, default=3.0, help="per run, after a warm-up")
    parser.add_argument("--warmup", type=float, default=0.5, help="seconds")
    parser.add_argument(
        "--peers", default="trioq", help="of: all," + ",".join(p.name for p in PEERS)
    )
    parser.add_argument("--client", choices=("raw", "confluent"), default="raw")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for trioq")
    parser.add_argument("--flush-policy", choices=("os", "interval", "commit"))
    parser.add_argument(
        "--no-verify", action="store_true", help="do not read back what was written"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write a report too")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw plots too (matplotlib)")
    tuned = parser.add_argument_group("tuning", "one value, or a list: 100,1000,16000")
    tuned.add_argument("--kind", help="one of " + ", ".join(KINDS))
    tuned.add_argument("--connections")
    tuned.add_argument("--depth", help="requests in flight on a connection")
    tuned.add_argument(
        "--rate", help="requests/s at fixed times; 0 sends as fast as it is answered"
    )
    tuned.add_argument("--record-bytes")
    tuned.add_argument("--batch-bytes", help="values of a request; default: one record")
    tuned.add_argument("--partitions")
    tuned.add_argument("--acks", help="0, 1 or -1 (all)")
    tuned.add_argument("--codec", help=", ".join(CODECS))
    tuned.add_argument("--mode", help="with --client confluent: " + ", ".join(MODES))
    tuned.add_argument("--linger", help="ms, with --client confluent")


def run(arguments: argparse.Namespace) -> None:
    """Measure every case against every peer in turn, print, write."""
    settings = dict(item.partition("=")[::2] for item in arguments.set)
    if arguments.flush_policy:
        settings["flush.policy"] = arguments.flush_policy
    names = None if arguments.peers == "all" else set(arguments.peers.split(","))
    peers, absent = present(names)
    about = machine.describe()
    print(machine.sentence(about))
    rows: list[Row] = []
    failures: dict[str, str] = {f"{name} is absent": reason for name, reason in absent.items()}
    cases = _client_cases(arguments) if arguments.client == "confluent" else _cases(arguments)
    with contextlib.ExitStack() as kept:
        processes = _kept(peers, kept)
        for name, work in cases.items():
            if arguments.only not in name:
                continue
            found, failed = _interleaved(name, work, peers, processes, arguments, settings)
            rows += found
            failures |= failed
    print(path_table(rows))
    for what, reason in failures.items():
        print(f"{what}: {reason}")
    if arguments.json:
        versions = {one.name: one.version() for one in peers}
        write_report(
            arguments.json, "path", about, settings, rows, peers=versions, failures=failures
        )
    if arguments.plots:
        for path in plot_rows([row.described() for row in rows], arguments.plots):
            print(path)


def _kept(peers: list[Peer], stack: contextlib.ExitStack) -> Mapping[str, BrokerProcess]:
    """The processes of those peers that serve all cases."""
    return {one.name: stack.enter_context(started(one, {})) for one in peers if one.is_kept}


def _interleaved(
    name: str,
    work: Work | ClientWork,
    peers: list[Peer],
    kept: Mapping[str, BrokerProcess],
    arguments: argparse.Namespace,
    settings: Mapping[str, str],
) -> tuple[list[Row], dict[str, str]]:
    """Runs of one case, peer after peer, again and again; what failed is left out."""
    measured: dict[str, list[Measured]] = {}
    failures: dict[str, str] = {}
    for number in range(arguments.runs):
        for one in peers:
            if f"{name}, {one.name}" in failures:
                continue
            is_last = number == arguments.runs - 1
            try:
                with _process(one, kept, settings) as broker:
                    found = _measure_one(one, broker, work, arguments, is_last=is_last)
            except BenchError as error:
                failures[f"{name}, {one.name}"] = str(error)
                continue
            measured.setdefault(one.name, []).append(found)
    shared = work.work if isinstance(work, ClientWork) else work
    return [row_of(name, subject, shared, found) for subject, found in measured.items()], failures


@contextlib.contextmanager
def _process(
    one: Peer, kept: Mapping[str, BrokerProcess], settings: Mapping[str, str]
) -> Iterator[BrokerProcess]:
    if one.name in kept:
        yield kept[one.name]
        return
    with started(one, settings) as broker:
        yield broker


def _measure_one(
    one: Peer,
    broker: BrokerProcess,
    work: Work | ClientWork,
    arguments: argparse.Namespace,
    *,
    is_last: bool,
) -> Measured:
    if isinstance(work, ClientWork):
        return measure_client(
            one, broker, work, seconds=arguments.seconds, warmup_s=arguments.warmup
        )
    return measure(
        one,
        broker,
        work,
        seconds=arguments.seconds,
        warmup_s=arguments.warmup,
        is_verified=is_last and one.name == "trioq" and not arguments.no_verify,
    )


def measure_client(
    one: Peer, broker: BrokerProcess, asked: ClientWork, *, seconds: float, warmup_s: float
) -> Measured:
    """Run confluent-kafka against `broker` on a new topic."""
    with Asker(broker) as asker, topic_for(one, asker, asked.work) as topic:
        if asked.mode == "consume":
            fill(one, broker, asker, topic, asked.work)
        os.sync()
        load = client.run(broker, topic, asked, seconds=seconds, warmup_s=warmup_s)
    return Measured(load, None, is_idempotent=asked.work.acks == -1)


def _cases(arguments: argparse.Namespace) -> dict[str, Work]:
    """The standing cases, or every combination of what was turned."""
    given = {name: value for name in TUNED if (value := getattr(arguments, name)) is not None}
    if not given:
        return CASES
    lists = {name: given.get(name, value).split(",") for name, value in TUNED.items()}
    varied = [name for name, values in lists.items() if len(values) > 1 or name in given]
    cases = {}
    for values in itertools.product(*lists.values()):
        chosen = dict(zip(lists, values, strict=True))
        name = ", ".join(f"{one.replace('_', ' ')} {chosen[one]}" for one in varied)
        cases[name] = _work(chosen)
    return cases


def _work(chosen: Mapping[str, str]) -> Work:
    record_bytes = int(chosen["record_bytes"])
    records = max(1, int(chosen["batch_bytes"] or 0) // max(1, record_bytes))
    rate = float(chosen["rate"])
    return Work(
        chosen["kind"],
        int(chosen["connections"]),
        256 if rate else int(chosen["depth"]),
        rate=rate,
        record_bytes=record_bytes,
        records=records,
        partitions=int(chosen["partitions"]),
        acks=int(chosen["acks"]),
        codec=chosen["codec"],
        limit_bytes=PAGE_CACHE_BYTES if records * record_bytes >= MB // 10 else 0,
    )


def _client_cases(arguments: argparse.Namespace) -> dict[str, ClientWork]:
    """The standing cases of the client, or what was turned."""
    if not (arguments.mode or arguments.linger or arguments.batch_bytes):
        return CLIENT_CASES
    cases = {}
    modes = (arguments.mode or "bulk").split(",")
    lingers = (arguments.linger or "0").split(",")
    sizes = (arguments.batch_bytes or "1000000").split(",")
    for mode, linger, size in itertools.product(modes, lingers, sizes):
        work = CLIENT_WORK._replace(
            record_bytes=int(arguments.record_bytes or 100),
            partitions=int(arguments.partitions or 1),
            acks=int(arguments.acks or 1),
            codec=arguments.codec or "none",
            rate=float(arguments.rate or 0),
        )
        name = f"{mode}, linger {linger}, batch bytes {size}"
        cases[name] = ClientWork(mode, work, float(linger), int(size))
    return cases
