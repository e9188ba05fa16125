"""`trioq log dump` and `trioq log verify` on any bytes: lines and reports, never a crash."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.sample_log import DATA, damaged, random_scripts, sound_files
from tests.fuzz.target import Choices, Target, outcome
from trioq.storage.dump import dump_file
from trioq.storage.verify import NotALogDirectory, verify_dir

_NAMES = (
    "00000000000000000000.log",
    "00000000000000000007.index",
    "00000000000000000007.timeindex",
    "00000000000000000007.snapshot",
    "00000000000000000007.txnindex",
    "leader-epoch-checkpoint",
    "recovery-point-offset-checkpoint",
)
_MOST_LINES = 100_000


def scratch() -> tempfile.TemporaryDirectory[str]:
    memory = Path("/dev/shm")
    return tempfile.TemporaryDirectory(
        prefix="trioq-fuzz-", dir=memory if memory.is_dir() else None
    )


def check_dump(data: bytes) -> None:
    choices = Choices(data)
    mode = choices.byte()
    with scratch() as directory:
        path = Path(directory) / _NAMES[mode % len(_NAMES)]
        path.write_bytes(choices.rest())
        for number, line in enumerate(dump_file(path, records=bool(mode & 0x80))):
            assert "\n" not in str(line)
            assert number < _MOST_LINES


def check_verify(data: bytes) -> None:
    choices = Choices(data)
    files, touched = damaged(choices)
    with scratch() as directory:
        top = Path(directory) / "data"
        for path, content in files.items():
            target = top / Path(path).relative_to(DATA)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        for path in (top, *(one for one in top.iterdir() if one.is_dir())):
            report = outcome(NotALogDirectory, verify_dir, path, allow_gaps=len(touched) > 1)
            if not touched:
                assert report.is_sound
                assert not report.problems
        shutil.rmtree(top)


def _dump_seeds() -> Iterator[bytes]:
    for path, content in sound_files().items():
        for number, name in enumerate(_NAMES):
            if (path.endswith(Path(name).suffix or name) and "." in name) or path.endswith(name):
                yield bytes([number]) + content
                yield bytes([number | 0x80 if (number | 0x80) % len(_NAMES) == number else number])


def _verify_seeds() -> Iterator[bytes]:
    yield b""
    yield b"\2"
    for kind in range(8):
        for file in range(len(sound_files())):
            yield bytes([2, kind, file, 0, 20, 3, 1])
    yield from random_scripts("verify", 30)


TARGETS = (
    Target("dump", check_dump, _dump_seeds, 2048),
    Target("verify", check_verify, _verify_seeds, 120),
)
