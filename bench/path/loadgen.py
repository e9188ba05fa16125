"""Runs the load generator (native/loadgen.c) against a broker."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from bench.errors import BenchError
from bench.histogram import Histogram
from bench.path.frames import Template
from bench.path.process import BrokerProcess
from bench.path.work import Work
from bench.programs import program
from trioq.errors import BY_CODE

GB = 1e9
WARMUP_S = 0.5
PATIENCE_S = 60.0
PREPARATION_S = 600.0


class Load(NamedTuple):
    """What one run of the load generator saw, and what it cost the broker."""

    requests_per_s: float
    records_per_s: float
    bytes_per_s: float
    """Of the direction that carries the records."""

    broker_cpu_us_per_request: float
    broker_cpu_s_per_gb: float
    broker_cores: float
    """Cores that the broker kept busy."""

    generator_cores: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    unanswered: int
    acknowledged: int
    """Requests, from the start to the end of the drain."""

    sent: int
    histogram: Histogram

    def figures(self) -> dict[str, float]:
        """All but the histogram."""
        figures = self._asdict()
        del figures["histogram"]
        return figures


class Generator:
    """A load generator at work; `finish` waits for it."""

    def __init__(self, process: subprocess.Popen[str], work: Work) -> None:
        self._process = process
        self._work = work

    def finish(self, timeout_s: float) -> Load:
        """Raises BenchError if an answer had an error or the broker closed a connection."""
        return _load(self.seen(timeout_s), self._work)

    def seen(self, timeout_s: float) -> dict[str, Any]:
        """What the program printed; raises as `finish` does."""
        try:
            out, err = self._process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            self._process.kill()
            self._process.communicate()
            raise BenchError("the load generator does not end: the broker hangs") from error
        if self._process.returncode:
            raise BenchError(f"load generator: {err.strip() or out}")
        seen: dict[str, Any] = json.loads(out)
        if seen["errors"]:
            first = seen["first_error"]
            name = BY_CODE[first].kafka_name if first in BY_CODE else "unknown"
            raise BenchError(f"{seen['errors']} answers had errors, first {first} ({name})")
        if seen["short_answers"]:
            raise BenchError(f"{seen['short_answers']} answers were shorter than asked for")
        return seen

    def stop(self) -> None:
        """End it, if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


@contextmanager
def generating(
    broker: BrokerProcess,
    template: Template,
    work: Work,
    *,
    seconds: float,
    warmup_s: float = WARMUP_S,
    limit_requests: int = 0,
) -> Iterator[Generator]:
    """A generator that loads `broker` beside whatever else is done until its `finish`."""
    with tempfile.NamedTemporaryFile(suffix=".frames") as file:
        file.write(template.frames)
        file.flush()
        command = [
            str(program("loadgen")),
            f"host={broker.host}",
            f"port={broker.port}",
            f"template={file.name}",
            f"pid={broker.pid}",
            f"connections={work.connections}",
            f"active={work.active or work.connections}",
            f"depth={work.depth}",
            f"rate={work.rate}",
            f"limit_bytes={work.limit_bytes}",
            f"limit_requests={limit_requests}",
            f"seconds={seconds}",
            f"warmup_s={warmup_s}",
            *template.options(),
        ]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        generator = Generator(process, work)
        try:
            yield generator
        finally:
            generator.stop()


def run(
    broker: BrokerProcess,
    template: Template,
    work: Work,
    *,
    seconds: float,
    warmup_s: float = WARMUP_S,
) -> Load:
    """Load `broker` and wait for the end."""
    with generating(broker, template, work, seconds=seconds, warmup_s=warmup_s) as generator:
        return generator.finish(seconds + warmup_s + PATIENCE_S)


def send(broker: BrokerProcess, template: Template, work: Work, count: int) -> None:
    """Send `count` requests and wait for their answers; nothing is measured.

    Raises BenchError unless exactly so many were acknowledged.
    """
    with generating(
        broker, template, work, seconds=PREPARATION_S, warmup_s=0, limit_requests=count
    ) as generator:
        seen = generator.seen(PREPARATION_S + PATIENCE_S)
    if seen["acknowledged"] != count:
        raise BenchError(f"{seen['acknowledged']} of {count} requests were acknowledged")


def patched(template: Template, times: int) -> list[bytes]:
    """The first frame as the generator would send it again and again."""
    with tempfile.NamedTemporaryFile(suffix=".frames") as file:
        file.write(template.frames)
        file.flush()
        command = [str(program("loadgen")), "patch", f"template={file.name}", f"times={times}"]
        done = subprocess.run([*command, *template.options()], capture_output=True, check=True)
    size = template.frame_bytes
    return [done.stdout[at * size : (at + 1) * size] for at in range(times)]


def _load(seen: dict[str, Any], work: Work) -> Load:
    answers, seconds = seen["answers"], seen["seconds"]
    if not answers or not seconds:
        raise BenchError("nothing was answered while it was measured")
    moved = max(seen["bytes_in"], seen["bytes_out"])
    cpu_s = seen["broker_cpu_s"]
    histogram = Histogram(seen["histogram"])
    return Load(
        answers / seconds,
        answers * work.records / seconds,
        moved / seconds,
        cpu_s / answers * 1e6,
        cpu_s / max(1, moved) * GB,
        cpu_s / seconds,
        seen["cpu_s"] / seconds,
        histogram.percentile_ms(50),
        histogram.percentile_ms(99),
        histogram.percentile_ms(99.9),
        seen["largest_ns"] / 1e6,
        seen["unanswered"],
        seen["acknowledged"],
        seen["sent"],
        histogram,
    )
