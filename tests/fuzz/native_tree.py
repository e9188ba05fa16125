"""A copy of the checkout with its native layer built otherwise: for sanitizers, for coverage.

The checkout itself, and what is built in place there, stay as they are.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

_SOURCES = ("trioq", "tests", "bench", "setup.py", "pyproject.toml", "README.md", "LICENSE")
_NOT_COPIED = shutil.ignore_patterns(
    "__pycache__", "*.so", "*.py[cod]", "*.o", ".hypothesis", "local", "results"
)


def build_tree(tree: Path, **environment: str) -> None:
    """Bring `tree` up to date with the checkout and build its native layer in place.

    `environment` says how (CFLAGS, TRIOQ_SANITIZE). What has not changed since the last time is
    not compiled again: copies keep their times. Raises CalledProcessError.
    """
    tree.mkdir(parents=True, exist_ok=True)
    for name in _SOURCES:
        source, target = ROOT / name, tree / name
        if source.is_dir():
            _forget_removed(source, target)
            shutil.copytree(source, target, dirs_exist_ok=True, ignore=_NOT_COPIED)
        elif source.exists():
            shutil.copy2(source, target)
    for made in (tree / "trioq" / "_native").glob("*.c"):
        # Written by Cython in the checkout; here they are made anew when their source is newer.
        pyx = made.with_suffix(".pyx")
        if pyx.exists() and pyx.stat().st_mtime > made.stat().st_mtime:
            made.unlink()
    subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace", "--parallel", "2"],
        cwd=tree,
        env=os.environ | environment,
        check=True,
    )


def tree_environment(tree: Path, **more: str) -> dict[str, str]:
    """The environment of a Python that imports from `tree`, before anything installed."""
    return os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"} | more


def _forget_removed(source: Path, target: Path) -> None:
    """Delete copied Python files whose originals are gone; built files stay."""
    for copy in target.rglob("*.py"):
        if not (source / copy.relative_to(target)).exists():
            copy.unlink()
