"""Histograms of nanoseconds as the C programs write them: bucket numbers and counts.

The buckets are those of native/histogram.h: a value below 2,048 has one of its own, above that
the leading 11 bits of the value choose it, so that no value is off by more than 0.1 %.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

SUB_BITS: Final = 10
SUB_BUCKETS: Final = 1 << SUB_BITS
_NS_PER_MS: Final = 1_000_000


def bucket_of(value_ns: int) -> int:
    """The number of the bucket that counts `value_ns` (>= 0)."""
    if value_ns < 2 * SUB_BUCKETS:
        return value_ns
    shift = value_ns.bit_length() - 1 - SUB_BITS
    return shift * SUB_BUCKETS + (value_ns >> shift)


def bucket_range(bucket: int) -> tuple[int, int]:
    """The values [first, end) that the bucket counts, in nanoseconds."""
    if bucket < 2 * SUB_BUCKETS:
        return bucket, bucket + 1
    shift = bucket // SUB_BUCKETS - 1
    first = (bucket - shift * SUB_BUCKETS) << shift
    return first, first + (1 << shift)


class Histogram:
    """Counts per bucket; adding two gives the histogram of both."""

    def __init__(self, counts: Iterable[Sequence[int]] = ()) -> None:
        self.counts: Counter[int] = Counter()
        for bucket, count in counts:
            self.counts[bucket] += count

    def __add__(self, other: Histogram) -> Histogram:
        return Histogram([*self.counts.items(), *other.counts.items()])

    def add(self, value_ns: int) -> None:
        """Count one value."""
        self.counts[bucket_of(value_ns)] += 1

    @property
    def total(self) -> int:
        """How many values were counted."""
        return self.counts.total()

    def percentile_ms(self, percent: float) -> float:
        """The value that `percent` % of all are at most, in milliseconds; 0 when it is empty.

        It is the greatest value of its bucket, so it is never too good.
        """
        rank = max(1, -(-self.total * percent // 100))
        seen = 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= rank:
                return (bucket_range(bucket)[1] - 1) / _NS_PER_MS
        return 0.0

    def as_list(self) -> list[list[int]]:
        """[[bucket, count], ...] in order, for a report."""
        return [[bucket, self.counts[bucket]] for bucket in sorted(self.counts)]
