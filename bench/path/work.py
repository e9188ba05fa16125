"""What a broker is given to do in one case: the parameters that users turn."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, NamedTuple

KINDS: Final = (
    *("produce", "fetch", "long_poll"),
    *("api_versions", "metadata", "list_offsets"),
    *("heartbeat", "commit"),
)
CODECS: Final = ("none", "gzip", "snappy", "lz4", "zstd")
MB: Final = 1_000_000


def page_cache_bytes() -> int:
    """What a run of large requests sends at most: 0.8 of what the kernel lets be dirty before it
    starts to write back, which slows everybody down to the disk's pace; at most 4 GB."""
    try:
        ratio = int(Path("/proc/sys/vm/dirty_background_ratio").read_text())
        memory = Path("/proc/meminfo").read_text()
    except OSError:
        return 600 * MB
    available = int(memory.partition("MemAvailable:")[2].split()[0]) * 1024
    return max(600 * MB, min(4000 * MB, available * (ratio or 10) * 8 // 1000))


PAGE_CACHE_BYTES: Final = page_cache_bytes()

FETCHED_REQUESTS: Final = 128
"""Requests of 1 MB that are written before they are fetched over and over."""

FEW_FETCHED_REQUESTS: Final = 4
"""As much as librdkafka's mock broker keeps; so little stays in the processor's caches."""


class Work(NamedTuple):
    """One case. Sizes are in bytes, the rate in requests a second."""

    kind: str = "produce"
    connections: int = 1
    depth: int = 1
    """Most requests in flight on a connection."""

    rate: float = 0.0
    """Open loop: requests are due at fixed times, whatever the answers do. 0: closed loop."""

    record_bytes: int = 100
    """Of a record's value."""

    records: int = 1
    """In a request, which holds one batch."""

    partitions: int = 1
    acks: int = 1
    codec: str = "none"
    is_idempotent: bool = True
    active: int = 0
    """Connections that send; the others are only held. 0: all."""

    fetched: int = FETCHED_REQUESTS
    """Batches that are written, to be fetched over and over."""

    limit_bytes: int = 0
    """The run ends when so much was sent. 0: no limit."""

    @property
    def batch_bytes(self) -> int:
        """Values of a request; what is on the wire is a little more, or with a codec less."""
        return self.record_bytes * self.records

    def described(self) -> dict[str, Any]:
        """For a report."""
        return {**self._asdict(), "batch_bytes": self.batch_bytes}


def produce(connections: int, depth: int, records: int, record_bytes: int, **more: Any) -> Work:
    """Idempotent produce requests over at most four partitions.

    Four is what every peer can have: librdkafka's mock broker gives no topic more.
    """
    partitions = more.pop("partitions", min(connections, 4))
    large = records * record_bytes >= MB // 10
    return Work(
        "produce",
        connections,
        depth,
        records=records,
        record_bytes=record_bytes,
        partitions=partitions,
        limit_bytes=more.pop("limit_bytes", PAGE_CACHE_BYTES if large else 0),
        **more,
    )


CASES: Final[dict[str, Work]] = {
    "produce 1 x 100 B, 64 x 5 in flight": produce(64, 5, 1, 100),
    "produce 1 x 100 B, 1 x 16": produce(1, 16, 1, 100),
    "produce 16 KB, 4 x 5": produce(4, 5, 16, 1000),
    "produce 1 MB, 1 x 5": produce(1, 5, 1000, 1000),
    "fetch 1 MB, 1 x 2": Work("fetch", 1, 2, records=1000, record_bytes=1000),
    "fetch 1 MB of 4 MB, 1 x 2": Work(
        "fetch", 1, 2, records=1000, record_bytes=1000, fetched=FEW_FETCHED_REQUESTS
    ),
    "ApiVersions, 200 x 1": Work("api_versions", 200),
    "Metadata, 200 x 1": Work("metadata", 200, partitions=4),
    "ListOffsets, 200 x 1": Work("list_offsets", 200, partitions=4),
    "Heartbeat, 200 x 1": Work("heartbeat", 200),
    "OffsetCommit of 10, 200 x 1": Work("commit", 200, records=10, partitions=10),
    "latency, 1000 requests/s": produce(4, 256, 1, 100, rate=1000.0),
    "latency, 5000 requests/s": produce(4, 256, 1, 100, rate=5000.0),
}
"""The cases of `python -m bench path`; `bench figures` uses them too."""
