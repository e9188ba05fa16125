"""The targets of the table: which figure of which case, against what, and whether it is met."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from bench.report import Row

OURS: Final = "trioq"
FLOOR: Final = "floor"
MIB: Final = 1024**2


class Figures:
    """Medians of everything that was measured."""

    def __init__(self, rows: list[Row]) -> None:
        self._medians = {(row.case, row.subject): row.medians for row in rows}

    def get(self, case: str, subject: str, figure: str) -> float | None:
        """None where it was not measured."""
        return self._medians.get((case, subject), {}).get(figure)

    def subjects(self, case: str) -> list[str]:
        """Who was measured in that case."""
        return [subject for one, subject in self._medians if one == case]

    def best_other(self, case: str, figure: str) -> float | None:
        """The greatest figure of the peers, floors left out."""
        others = (subject for subject in self.subjects(case) if subject not in {OURS, FLOOR})
        values = (self.get(case, subject, figure) for subject in others)
        return max((value for value in values if value is not None), default=None)


class Limit(NamedTuple):
    """A bound that comes from what else was measured, or a fixed one."""

    of: Callable[[Figures], float | None]
    shown: str


class Check(NamedTuple):
    """One line of the table: trioq's figure, which is to be at least or at most the limit."""

    case: str
    figure: str
    is_least: bool
    limit: Limit
    unit: str
    scale: float = 1.0
    """What the figure is multiplied with to be shown in `unit`."""

    title: str = ""
    """Instead of the case."""


def fixed(value: float) -> Limit:
    """A number of its own."""
    return Limit(lambda _figures: value, "")


def part_of(share: float, case: str, subject: str, figure: str, named: str) -> Limit:
    """A share of what another subject, or another case, reached."""

    def limit(figures: Figures) -> float | None:
        value = figures.get(case, subject, figure)
        return None if value is None else share * value

    return Limit(limit, f"{share:.2g} of {named}" if share != 1 else named)


def above_peers(case: str, figure: str = "bytes_per_s") -> Limit:
    """What the best peer reached."""
    return Limit(lambda figures: figures.best_other(case, figure), "every peer")


SMALL: Final = "produce 1 x 100 B, 64 x 5 in flight"
SMALL_ONE: Final = "produce 1 x 100 B, 1 x 16"
MIDDLE: Final = "produce 16 KB, 4 x 5"
LARGE: Final = "produce 1 MB, 1 x 5"
FETCH: Final = "fetch 1 MB, 1 x 2"
FETCH_FEW: Final = "fetch 1 MB of 4 MB, 1 x 2"
REBALANCE: Final = "rebalance 100 members x 1,000 partitions"
COMMIT: Final = "small, flush.policy=commit"
COMMIT_LARGE: Final = "1 MB, flush.policy=commit"
RATE: Final = "requests_per_s"
BYTES: Final = "bytes_per_s"
CPU: Final = "broker_cpu_us_per_request"
CPU_GB: Final = "broker_cpu_s_per_gb"


def _level_with_mock(case: str, share: float) -> Check:
    return Check(case, RATE, True, part_of(share, case, "mock", RATE, "mock"), "req/s")


def _commit_latency(figures: Figures) -> float | None:
    sync = figures.get(COMMIT, FLOOR, "sync_p50_ms")
    return None if sync is None else 1.0 + sync


def _twice_import(figures: Figures) -> float | None:
    floor = figures.get("start, empty", FLOOR, "ready_s")
    return None if floor is None else min(0.4, 1.8 * floor)


CHECKS: Final[tuple[Check, ...]] = (
    Check(LARGE, BYTES, True, part_of(0.8, LARGE, FLOOR, BYTES, "bare pump"), "MB/s", 1e-6),
    Check(LARGE, BYTES, True, above_peers(LARGE), "MB/s", 1e-6),
    Check(LARGE, CPU_GB, False, fixed(0.9), "CPU s/GB"),
    Check(FETCH, BYTES, True, part_of(0.85, FETCH, FLOOR, BYTES, "bare sendfile"), "MB/s", 1e-6),
    Check(FETCH, BYTES, True, above_peers(FETCH), "MB/s", 1e-6),
    Check(FETCH, CPU_GB, False, fixed(0.65), "CPU s/GB"),
    Check(
        FETCH_FEW,
        BYTES,
        True,
        part_of(0.85, FETCH_FEW, FLOOR, BYTES, "bare sendfile"),
        "MB/s",
        1e-6,
    ),
    Check(FETCH_FEW, BYTES, True, above_peers(FETCH_FEW), "MB/s", 1e-6),
    _level_with_mock(SMALL, 1.0),
    Check(SMALL, CPU, False, fixed(12), "us CPU"),
    _level_with_mock(SMALL_ONE, 1.0),
    Check(SMALL_ONE, CPU, False, fixed(15), "us CPU"),
    _level_with_mock(MIDDLE, 0.8),
    Check(MIDDLE, CPU, False, fixed(30), "us CPU"),
    _level_with_mock("ApiVersions, 200 x 1", 0.8),
    _level_with_mock("Metadata, 200 x 1", 0.8),
    _level_with_mock("ListOffsets, 200 x 1", 0.8),
    _level_with_mock("one record at a time, acks=1", 1.0),
    _level_with_mock("Heartbeat, 200 x 1", 0.8),
    Check("OffsetCommit of 10, 200 x 1", "records_per_s", True, fixed(20_000), "offsets/s"),
    Check(REBALANCE, "seconds_per_call", False, fixed(0.05), "ms", 1000),
    Check("join a group of 10", "heartbeats_until_assigned", False, fixed(1.5), "heartbeats"),
    Check("latency, 1000 records/s, linger 0", "p50_ms", False, fixed(0.6), "p50 ms"),
    Check("latency, 1000 records/s, linger 0", "p99_ms", False, fixed(5), "p99 ms"),
    Check("latency, 5000 records/s, linger 0", "p50_ms", False, fixed(1.0), "p50 ms"),
    Check("latency, 5000 records/s, linger 0", "p99_ms", False, fixed(5), "p99 ms"),
    Check("latency, 1000 requests/s", "p50_ms", False, fixed(0.6), "p50 ms"),
    Check("latency, 1000 requests/s", "p99_ms", False, fixed(5), "p99 ms"),
    Check("latency, 5000 requests/s", "p50_ms", False, fixed(1.0), "p50 ms"),
    Check("latency, 5000 requests/s", "p99_ms", False, fixed(5), "p99 ms"),
    Check("small beside bulk", "p99_ms", False, fixed(10), "p99 ms"),
    Check(
        "small beside bulk",
        "bulk_bytes_per_s",
        True,
        part_of(0.75, "bulk alone", OURS, BYTES, "alone"),
        "MB/s",
        1e-6,
        title="bulk beside small",
    ),
    Check(
        "small beside a busy thread",
        RATE,
        True,
        part_of(0.3, "small alone", OURS, RATE, "alone"),
        "req/s",
    ),
    Check(
        "64 x 5 beside a busy thread",
        RATE,
        True,
        part_of(0.3, SMALL, OURS, RATE, "alone"),
        "req/s",
    ),
    Check("produce beside cold fetches", "p99_ms", False, fixed(10), "p99 ms"),
    Check(COMMIT, "p50_ms", False, Limit(_commit_latency, "1 ms + fdatasync"), "p50 ms"),
    Check(
        COMMIT_LARGE,
        BYTES,
        True,
        part_of(0.8, COMMIT_LARGE, FLOOR, BYTES, "write+fdatasync"),
        "MB/s",
        1e-6,
    ),
    Check("start, empty", "ready_s", False, Limit(_twice_import, "1.8 import trio"), "ms", 1000),
    Check("start, 1,000 partitions", "ready_s", False, fixed(2.0), "ms", 1000),
    Check(
        "start, empty", "resident_bytes", False, fixed(45 * MIB), "MiB", 1 / MIB, "resident, empty"
    ),
    Check("resident, 2,000 partitions", "resident_bytes", False, fixed(150 * MIB), "MiB", 1 / MIB),
    Check("idle, 5,000 + 5,000 + 500", "broker_cores", False, fixed(0.03), "% core", 100),
    *(
        Check(
            f"crc32c {size}",
            "seconds_per_call",
            False,
            part_of(1.0, f"crc32c {size}", "google-crc32c", "seconds_per_call", "google-crc32c"),
            "us",
            1e6,
        )
        for size in ("100 B", "16 KB", "1 MB")
    ),
    *(
        Check(
            case,
            "seconds_per_call",
            False,
            part_of(1 / 3, case, "aiokafka", "seconds_per_call", "aiokafka"),
            "us",
            1e6,
        )
        for case in ("walk 100 x 100 B", "build 100 x 100 B")
    ),
)
"""Every target, in the order of the table."""


class Verdict(NamedTuple):
    """A check's outcome; None where something was not measured."""

    check: Check
    value: float | None
    limit: float | None
    beside: Mapping[str, float]
    """The same figure of the others."""

    @property
    def is_met(self) -> bool | None:
        if self.value is None or self.limit is None:
            return None
        return self.value >= self.limit if self.check.is_least else self.value <= self.limit


def judge(figures: Figures) -> list[Verdict]:
    """Every check against what was measured."""
    verdicts = []
    for check in CHECKS:
        values = {
            subject: figures.get(check.case, subject, check.figure)
            for subject in figures.subjects(check.case)
            if subject != OURS
        }
        beside = {subject: value for subject, value in values.items() if value is not None}
        value = figures.get(check.case, OURS, check.figure)
        verdicts.append(Verdict(check, value, check.limit.of(figures), beside))
    return verdicts
