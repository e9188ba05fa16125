"""What the table needs measured: a list of steps, each a case against one subject."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, NamedTuple

from bench.figures import joining, mixed, standing
from bench.figures.targets import FLOOR, REBALANCE
from bench.floors import floor
from bench.micro.cases import MicroCase
from bench.micro.cases import cases as micro_cases
from bench.micro.quick import seconds_per_call
from bench.path.client import ClientWork
from bench.path.command import CLIENT_CASES, measure_client
from bench.path.measure import Measured, measure, started
from bench.path.process import BrokerProcess
from bench.path.work import CASES, MB, Work
from bench.peers.peer import Peer

WARMUP_S: Final = 0.5
CLIENT_STEPS: Final = tuple(name for name in CLIENT_CASES if "bulk" not in name)
SYNC_SMALL_BYTES: Final = 170
"""A batch of one record of 100 bytes."""


class Step(NamedTuple):
    """One measurement; it is made once in each round, in the order of the list."""

    case: str
    subject: str
    run: Callable[[float], Measured | dict[str, float]]
    """Takes the seconds of a run. Raises BenchError."""

    work: Work | None = None
    is_once: bool = False
    """Too long for every round, and steady enough to be measured in the first one alone."""


def steps(peers: list[Peer], kept: Mapping[str, BrokerProcess], *, is_verified: bool) -> list[Step]:
    """All of them. Subjects of one case follow each other, so that they see the same weather."""
    found: list[Step] = []
    for case, work in CASES.items():
        found += [_peer_step(case, work, one, kept, is_verified=is_verified) for one in peers]
        found += _floor_steps(case, work)
    for case in CLIENT_STEPS:
        found += [_client_step(case, CLIENT_CASES[case], one, kept) for one in peers]
    return [*found, *_mixed_steps(), *_standing_steps(), *_micro_steps()]


def _peer_step(
    case: str, work: Work, one: Peer, kept: Mapping[str, BrokerProcess], *, is_verified: bool
) -> Step:
    is_checked = is_verified and one.name == "trioq"

    def run(seconds: float) -> Measured:
        if one.name in kept:
            return measure(one, kept[one.name], work, seconds=seconds, warmup_s=WARMUP_S)
        with started(one, {}) as broker:
            return measure(
                one, broker, work, seconds=seconds, warmup_s=WARMUP_S, is_verified=is_checked
            )

    return Step(case, one.name, run, work)


def _client_step(
    case: str, asked: ClientWork, one: Peer, kept: Mapping[str, BrokerProcess]
) -> Step:
    def run(seconds: float) -> Measured:
        if one.name in kept:
            return measure_client(one, kept[one.name], asked, seconds=seconds, warmup_s=WARMUP_S)
        with started(one, {}) as broker:
            return measure_client(one, broker, asked, seconds=seconds, warmup_s=WARMUP_S)

    return Step(case, one.name, run, asked.work)


def _floor_steps(case: str, work: Work) -> list[Step]:
    """The floor that belongs to a case, if there is one."""
    if work.rate:
        return []
    if work.kind == "fetch":
        run = floor.sendfile_server
    elif work.batch_bytes >= MB // 100 and work.kind == "produce":
        run = floor.pump
    else:
        run = floor.echo
    return [Step(case, FLOOR, lambda seconds: run(work, seconds=seconds), work)]


def _mixed_steps() -> list[Step]:
    return [
        Step("small alone", "trioq", mixed.small_alone),
        Step("bulk alone", "trioq", mixed.bulk_alone),
        Step("small beside bulk", "trioq", mixed.small_beside_bulk),
        Step("small beside a busy thread", "trioq", mixed.small_beside_busy_thread),
        Step("64 x 5 beside a busy thread", "trioq", mixed.many_beside_busy_thread),
        Step("produce beside cold fetches", "trioq", mixed.hot_beside_cold),
        Step("small, flush.policy=commit", "trioq", mixed.committed_small),
        Step(
            "small, flush.policy=commit",
            FLOOR,
            lambda seconds: floor.write_and_sync(SYNC_SMALL_BYTES, seconds=seconds).figures(),
        ),
        Step("1 MB, flush.policy=commit", "trioq", mixed.committed_large),
        Step(
            "1 MB, flush.policy=commit",
            FLOOR,
            lambda seconds: floor.write_and_sync(MB, seconds=seconds).figures(),
        ),
    ]


def _standing_steps() -> list[Step]:
    return [
        Step("start, empty", "trioq", standing.empty),
        Step("start, empty", FLOOR, standing.import_trio),
        Step(
            "start, 1,000 partitions",
            "trioq",
            standing.start_with_1000_partitions,
            is_once=True,
        ),
        Step(
            "resident, 2,000 partitions",
            "trioq",
            standing.resident_with_2000_partitions,
            is_once=True,
        ),
        Step("join a group of 10", "trioq", joining.join_steady_group),
        Step("idle, 5,000 + 5,000 + 500", "trioq", standing.idle, is_once=True),
    ]


def _micro_steps() -> list[Step]:
    wanted = ("crc32c", "walk", "build", REBALANCE)
    return [
        Step(one.group, one.subject, partial(_timed, one))
        for one in micro_cases()
        if one.group.startswith(wanted) and not one.group.endswith("nothing written")
    ]


def _timed(case: MicroCase, _seconds: float) -> dict[str, float]:
    return {"seconds_per_call": seconds_per_call(case)}
