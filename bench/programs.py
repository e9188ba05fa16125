"""The bench's C programs, compiled at first use into a cache directory."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

from bench.errors import BenchError

HERE: Final = Path(__file__).parent
_CRC32C: Final = HERE.parent / "trioq" / "_native" / "crc32c_impl.c"

SOURCES: Final[Mapping[str, tuple[Path, ...]]] = {
    "loadgen": (HERE / "native/loadgen.c", HERE / "native/connection.c", _CRC32C),
    "pump": (HERE / "floors/pump.c", _CRC32C),
    "sendserver": (HERE / "floors/sendserver.c",),
    "writesync": (HERE / "floors/writesync.c",),
}
"""The files that each program is compiled from."""

FLAGS: Final = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Wconversion", "-Wshadow")


def cache_dir() -> Path:
    """Where compiled programs and downloaded peers are kept; made if it is not there."""
    base = os.environ.get("TRIOQ_BENCH_CACHE") or os.environ.get("XDG_CACHE_HOME")
    path = Path(base) if base else Path.home() / ".cache"
    path = path if os.environ.get("TRIOQ_BENCH_CACHE") else path / "trioq-bench"
    path.mkdir(parents=True, exist_ok=True)
    return path


@cache
def program(name: str) -> Path:
    """The compiled program; raises BenchError without Linux or a C compiler."""
    if sys.platform != "linux":
        raise BenchError("the load generator and the floors need Linux (epoll, timerfd, sendfile)")
    binary = cache_dir() / f"{name}-{_digest(name)}"
    if not binary.exists():
        compile_program(name, binary)
    return binary


def compile_program(name: str, binary: Path, flags: tuple[str, ...] = FLAGS) -> str:
    """Compile into `binary`, which appears whole or not at all; returns the compiler's words."""
    partial = binary.with_suffix(f".{os.getpid()}")
    command = [_compiler(), *flags, "-o", str(partial), *map(str, SOURCES[name])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchError(f"{name} does not compile:\n{done.stderr}")
        partial.rename(binary)
    finally:
        partial.unlink(missing_ok=True)
    return done.stderr


def _compiler() -> str:
    named = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    for candidate in (named, "cc", "gcc", "clang"):
        if found := shutil.which(candidate):
            return found
    raise BenchError("the bench needs a C compiler for its load generator; on Debian: gcc")


def _digest(name: str) -> str:
    headers = sorted((HERE / "native").glob("*.h"))
    digest = hashlib.sha256(" ".join((_compiler(), *FLAGS)).encode())
    for path in (*SOURCES[name], *headers, _CRC32C.with_suffix(".h")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
