"""Settings of a producer, checked as a whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from trioq.client.settings import at_least_one
from trioq.errors import ClientUsageError
from trioq.record.compression import Codec, compress

Acks = Literal[0, 1, -1, "all"]
Compression = Literal["none", "gzip", "snappy", "lz4", "zstd"]

Partitioner = Callable[[str, bytes | None, bytes | None, int], int | None]
"""(topic, key, value, number of partitions) to a partition; None leaves it to the producer."""

MAX_IN_FLIGHT: Final = 5
"""Brokers recognise repetitions among the last five batches of a partition only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerSettings:
    """See `Client.producer`."""

    acks: Acks = "all"
    idempotent: bool | None = None
    compression: Compression = "none"
    compression_level: int | None = None
    linger_ms: float = 5.0
    batch_bytes: int = 1_000_000
    buffer_bytes: int = 64 * 1024 * 1024
    max_request_bytes: int = 1024 * 1024
    delivery_timeout_ms: int = 120_000
    max_block_ms: int = 60_000
    max_in_flight: int = MAX_IN_FLIGHT
    partitioner: Partitioner | None = None

    def __post_init__(self) -> None:
        if self.acks not in {0, 1, -1, "all"}:
            raise ClientUsageError(f'acks={self.acks!r}: allowed are 0, 1 and "all"')
        if self.compression.upper() not in Codec.__members__:
            raise ClientUsageError(
                f"compression={self.compression!r}: allowed are none, gzip, snappy, lz4 and zstd"
            )
        if self.compression_level is not None:
            try:
                compress(self.codec, b"level", self.compression_level)
            except Exception as error:
                raise ClientUsageError(
                    f"compression_level={self.compression_level} is none of {self.compression}: "
                    f"{error}"
                ) from error
        for name in (
            "batch_bytes",
            "buffer_bytes",
            "max_request_bytes",
            "delivery_timeout_ms",
            "max_block_ms",
            "max_in_flight",
        ):
            at_least_one(name, getattr(self, name))
        if self.linger_ms < 0:
            raise ClientUsageError(f"linger_ms={self.linger_ms}: allowed is 0 or more")
        if self.idempotent and self.required_acks != -1:
            raise ClientUsageError('idempotent=True needs acks="all"')
        if self.is_idempotent and self.max_in_flight > MAX_IN_FLIGHT:
            raise ClientUsageError(
                f"max_in_flight={self.max_in_flight}: an idempotent producer may have "
                f"{MAX_IN_FLIGHT} at most"
            )

    @property
    def required_acks(self) -> int:
        """As the protocol has it: -1 for all in-sync replicas."""
        return -1 if self.acks == "all" else self.acks

    @property
    def is_idempotent(self) -> bool:
        """By default with acks="all", and never without."""
        return self.required_acks == -1 if self.idempotent is None else self.idempotent

    @property
    def codec(self) -> Codec:
        return Codec[self.compression.upper()]

    @property
    def batches_in_flight(self) -> int:
        """Of one partition. Without sequence numbers a retry would overtake those behind it."""
        if self.is_idempotent or self.required_acks == 0:
            return self.max_in_flight
        return 1
