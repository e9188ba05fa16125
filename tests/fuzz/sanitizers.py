"""The native layer under AddressSanitizer and UndefinedBehaviorSanitizer.

It is built with both in a tree of its own (build/sanitize), where the tests of native code,
records and wire run, and the replay of every fuzz target's seeds and findings, and of the inputs
that earlier fuzzing on this machine has gathered. Any report ends the run. Needs gcc and its
sanitizer libraries.
"""

from __future__ import annotations

import subprocess
import sys
import time

from tests.fuzz.native_tree import ROOT, build_tree, tree_environment

_TREE = ROOT / "build" / "sanitize"
_LIBRARIES = ("libasan.so", "libubsan.so")
_TESTS = (
    "tests/fuzz",
    *(f"tests/unit/test_native_{part}.py" for part in ("batch", "batch_reference", "crc32c")),
    *(f"tests/unit/test_native_{part}.py" for part in ("frames", "growth", "hot_request")),
    *(f"tests/unit/test_native_{part}.py" for part in ("index_search", "posix", "socket_io")),
    "tests/unit/test_native_request_lane.py",
    "tests/machines/test_producer_window.py",
    "tests/machines/test_ack_queue.py",
    *(f"tests/unit/test_record_{part}.py" for part in ("batch", "compression", "validate")),
    *(
        f"tests/unit/test_record_{part}.py"
        for part in ("fetched", "fetched_reference", "producing")
    ),
    "tests/unit/test_storage_replica.py",
    "tests/unit/test_wire_hot.py",
    *(f"tests/unit/test_net_{part}.py" for part in ("egress", "socket_buffers")),
)


def run_sanitized() -> int:
    """Build, test, say how long each took; the exit status of the tests."""
    started = time.monotonic()
    build_tree(_TREE, TRIOQ_SANITIZE="address,undefined")
    built = time.monotonic()
    libraries = [
        subprocess.run(
            ["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in _LIBRARIES
    ]
    environment = tree_environment(
        _TREE,
        LD_PRELOAD=" ".join(libraries),
        PYTHONMALLOC="malloc",  # so that objects, too, have the guards of the sanitizer
        ASAN_OPTIONS="detect_leaks=0",  # the interpreter itself leaves much at its end
        UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1",
        TRIOQ_FUZZ_INPUTS=str(ROOT / "build" / "fuzz" / "corpus"),
    )
    check = (
        "import trioq._native.batch as native; "
        f"assert native.__file__.startswith({str(_TREE)!r}), native.__file__"
    )
    subprocess.run([sys.executable, "-c", check], cwd=_TREE, env=environment, check=True)
    options = ("--quiet", "-n2", "-pno:cacheprovider", "--hypothesis-profile=ci")  # no deadlines
    command = [sys.executable, "-m", "pytest", *options, *_TESTS]
    status = subprocess.run(command, cwd=_TREE, env=environment, check=False).returncode
    print(f"built in {built - started:.0f} s, tested in {time.monotonic() - built:.0f} s")
    return status
