"""How a compacted segment takes the place of others: names of files, and what a crash leaves.

A group of segments, the first at offset `b`, becomes one segment at `b`:

1. `b.log.cleaned`, `b.index.cleaned` and `b.timeindex.cleaned` are written and synced.
2. `b.log.cleaned` is renamed `b.log.swap` and the directory is synced: the point of no return.
3. The files of the group are renamed `.deleted`, the new indexes get their names, and last
   `b.log.swap` becomes `b.log`.

A crash before the second step leaves `.cleaned` files, which are removed. After it there is a
`.swap`, and `finish_swaps` does the third step again: the group are the segments from `b` to the
end of the last batch in the `.swap`, which is always that of the group's last segment, if only its
header. Renames reach the disk in their order, so `b.log` is never missing without a `.swap`.
"""

from __future__ import annotations

from trioq import logs
from trioq.storage.batch_scan import BatchScan
from trioq.storage.disk import Disk
from trioq.storage.segment import FILE_SUFFIXES, LOG_SUFFIX, file_name

CLEANED_SUFFIX = ".cleaned"
SWAP_SUFFIX = ".swap"

log = logs.get_logger(__name__)


def finish_swaps(disk: Disk, directory: str) -> None:
    """Bring swaps that a crash interrupted to their end; any thread. Raises OSError.

    Running it again after it was interrupted is fine.
    """
    names = disk.listdir(directory)
    swaps = [name for name in names if name.endswith(LOG_SUFFIX + SWAP_SUFFIX)]
    for name in sorted(swaps):
        stem = name.partition(".")[0]
        if stem.isdigit():
            bases = [int(other[: -len(LOG_SUFFIX)]) for other in names if _is_log(other)]
            _finish(disk, directory, int(stem), bases)
    if swaps:
        disk.fsync_dir(directory)


def _is_log(name: str) -> bool:
    return name.endswith(LOG_SUFFIX) and name[: -len(LOG_SUFFIX)].isdigit()


def _finish(disk: Disk, directory: str, base_offset: int, bases: list[int]) -> None:
    path = f"{directory}/{file_name(base_offset, LOG_SUFFIX)}"
    end_offset, is_whole = _end_of(disk, path + SWAP_SUFFIX)
    if not is_whole and base_offset in bases:
        log.warning("swap_dropped", file=path + SWAP_SUFFIX, reason="it is damaged")
        disk.unlink(path + SWAP_SUFFIX)
        return
    replaced = [base for base in sorted(bases) if base_offset <= base < end_offset]
    log.info("swap_finished", file=path, replaces=len(replaced), end_offset=end_offset)
    for base in [base_offset, *replaced]:
        for suffix in FILE_SUFFIXES:
            disk.unlink(f"{directory}/{file_name(base, suffix)}")
    disk.rename(path + SWAP_SUFFIX, path)


def _end_of(disk: Disk, path: str) -> tuple[int, bool]:
    """The offset behind the last whole batch of a file, and whether that is all of the file."""
    file = disk.open(path)
    try:
        size = file.size()
        scan = BatchScan(file, 0, size, check_crc=False)
        end_offset = -1
        for _, header in scan:
            end_offset = header.next_offset
        return end_offset, size > 0 and scan.valid_end == size
    finally:
        file.close()
