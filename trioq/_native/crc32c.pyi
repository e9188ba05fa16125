"""CRC-32C (Castagnoli) over any contiguous buffer."""

from typing_extensions import Buffer

def crc32c(data: Buffer, value: int = 0) -> int:
    """The CRC of `data`, continuing from `value` (the CRC of what came before; 0 to start).

    `data` is borrowed until return; over 64 KiB the interpreter lock is released.
    """

def implementation() -> str:
    """What was chosen for this machine: "sse4.2+pclmul", "armv8" or "table"."""

def crc32c_with(name: str, data: Buffer, value: int = 0) -> int:
    """As `crc32c`, by the named implementation; ValueError where this machine lacks it."""
