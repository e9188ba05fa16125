"""One target under atheris (libFuzzer): runs in a process of its own, started by runner.py.

    python -m tests.fuzz.engine TARGET SEEDS [arguments of libFuzzer]

Python code of trioq and the functions that it generates are instrumented as they are imported;
native code is, when it was built so and coverage.so is preloaded. Memory is limited: an
allocation beyond it is a MemoryError, and so a finding.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import resource
import sys
from pathlib import Path

import atheris

ROOM_BYTES = 512 << 20
"""What a target may allocate above what the process has when fuzzing begins."""

_TRACED = (
    *(f"cmp{size}" for size in (1, 2, 4, 8)),
    *(f"const_cmp{size}" for size in (1, 2, 4, 8)),
    "switch",
)


def watch_native_code() -> None:
    """Give libFuzzer the counters in coverage.so, and coverage.so libFuzzer's functions."""
    path = os.environ.get("TRIOQ_FUZZ_COVERAGE")
    if not path:
        return
    (core,) = Path(atheris.__file__).parent.glob("core_with_libfuzzer*.so")
    libfuzzer = ctypes.CDLL(str(core))
    shim = ctypes.CDLL(path)
    for name in _TRACED:
        function = ctypes.cast(libfuzzer[f"__sanitizer_cov_trace_{name}"], ctypes.c_void_p)
        ctypes.c_void_p.in_dll(shim, f"trioq_{name}").value = function.value
    slots = shim.trioq_slots()
    for symbol, slot_bytes, initialize in (
        ("trioq_counters", 1, "__sanitizer_cov_8bit_counters_init"),
        ("trioq_places", 2 * ctypes.sizeof(ctypes.c_size_t), "__sanitizer_cov_pcs_init"),
    ):
        start = ctypes.addressof(ctypes.c_char.in_dll(shim, symbol))
        end = start + slots * slot_bytes
        libfuzzer[initialize](ctypes.c_void_p(start), ctypes.c_void_p(end))


def limit_memory() -> None:
    """No more address space than there is now, and ROOM_BYTES."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + ROOM_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main(arguments: list[str]) -> None:
    name, seeds, *options = arguments
    watch_native_code()
    with contextlib.redirect_stderr(io.StringIO()), atheris.instrument_imports(include=["trioq"]):
        from tests.fuzz.targets import TARGETS, wire
    wire.instrumented = atheris.instrument_func
    target = TARGETS[name]
    directory = Path(seeds)
    directory.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (directory / f"{number:05}").write_bytes(seed)
        with contextlib.suppress(Exception):  # only so that all is imported; they come again
            target.check(seed)
    atheris.Setup(["fuzz", f"-max_len={target.max_bytes}", *options, seeds], target.check)
    if sys.platform == "linux":
        limit_memory()
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
