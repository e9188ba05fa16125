"""The hash by which Kafka's Java client spreads keyed records over partitions."""

from typing_extensions import Buffer

def murmur2(data: Buffer) -> int:
    """The 32-bit hash of `data`, unsigned, with the seed of Kafka's Java client."""

def key_partition(key: Buffer, partition_count: int) -> int:
    """The partition that Java's default partitioner chooses for a record with `key`.

    Raises ValueError unless `partition_count` is positive.
    """
