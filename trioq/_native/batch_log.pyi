"""Many batches in a row, in memory and in files; imported through trioq._native.batch.

`buf` is any contiguous buffer, borrowed until return; `position` and `end` are bytes in it, and
one that lies outside is ValueError. Work over more than 64 KiB releases the interpreter lock.
"""

from typing_extensions import Buffer

from trioq._native.batch_header import BatchHeader

def scan(
    buf: Buffer, position: int, end: int, *, check_crc: bool
) -> tuple[list[BatchHeader], int, str | None]:
    """The whole, valid batches that follow each other from `position`, with where they end.

    The third value is None when the rest, if any, is the start of a batch cut off by `end`, else
    what is wrong with the batch there. Checked are size, magic, counts and, if asked, CRC; record
    counts below the offset range are fine (compaction leaves such batches).
    """

def locate(buf: Buffer, position: int, end: int, target_offset: int) -> tuple[int, int]:
    """(position, size_bytes) of the first batch from `position` whose last offset is >= target.

    (-1, -1) when no batch whose header lies in the range reaches the target. The batch found may
    be cut off by `end`. Raises CorruptMessage where no batch header stands at an edge.
    """

def locate_in_file(fd: int, position: int, end: int, target_offset: int) -> tuple[int, int]:
    """As locate, in a file: reads headers only. Raises CorruptMessage and OSError."""

def last_edge(fd: int, position: int, limit: int) -> int:
    """The greatest batch edge <= `limit` in a file, walking headers from the edge `position`.

    `position` itself when not even one whole batch fits, or the file ends there. Raises
    CorruptMessage where no batch header stands at an edge, and OSError.
    """
