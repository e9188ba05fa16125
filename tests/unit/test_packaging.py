"""What installing and starting promise: a sentence without a compiler, cheap imports."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest

import trioq

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_a_missing_compiler_is_one_sentence(tmp_path):
    result = subprocess.run(
        [sys.executable, "setup.py", "build_ext",
         f"--build-lib={tmp_path}", f"--build-temp={tmp_path}"],
        cwd=ROOT, env={**os.environ, "CC": "/nonexistent"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 1
    sentence = result.stderr.strip().splitlines()[-1]
    assert "needs a C compiler and Python's headers" in sentence
    assert "apt-get install gcc python3-dev" in sentence
    assert "Traceback" not in result.stderr


def test_the_version_is_stated_once():
    assert "version" in PYPROJECT["project"]["dynamic"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", trioq.__version__)


def test_types_are_shipped():
    native = ROOT / "trioq/_native"
    assert (ROOT / "trioq/py.typed").exists()
    modules = [path.stem for path in native.glob("*.pyx")]
    assert modules
    assert [name for name in modules if not (native / f"{name}.pyi").exists()] == []


def test_every_package_has_an_init():
    directories = {path.parent for path in (ROOT / "trioq").rglob("*.py")}
    assert [str(d) for d in directories if not (d / "__init__.py").exists()] == []


def test_what_is_imported_is_declared():
    """Every third-party module that the package imports belongs to a declared dependency."""
    declared = {
        re.split(r"[<>=\[]", text)[0]
        for text in [
            *PYPROJECT["project"]["dependencies"],
            *chain.from_iterable(PYPROJECT["project"]["optional-dependencies"].values()),
            *PYPROJECT["build-system"]["requires"],
        ]
    }
    pattern = re.compile(r"^\s*(?:from|import) ([a-zA-Z_]\w*)", re.MULTILINE)
    imported = {
        name
        for path in (ROOT / "trioq").rglob("*.py")
        for name in pattern.findall(_code(path.read_text()))
    }
    imported = {DISTRIBUTIONS.get(name, name) for name in imported}
    third_party = imported - set(sys.stdlib_module_names) - {"trioq", "Cython"}
    # For type checkers, which bring it; and what loads trioq.testing.plugin, and nothing else does.
    assert third_party - declared <= {"typing_extensions", "pytest"}


DISTRIBUTIONS = {"re2": "google-re2"}
"""What modules belong to where that is not their name."""


def _code(source: str) -> str:
    """`source` without its multi-line strings."""
    return re.sub(r'""".*?"""', '""', source, flags=re.DOTALL)


HEAVY = {
    "Cython", "asyncio", "confluent_kafka", "cramjam", "hypothesis", "kazoo", "kio", "pytest",
    "re2", "rich", "scramp", "setuptools", "structlog", "zstandard",
}  # fmt: skip


@pytest.mark.parametrize(
    "package",
    [
        "config",
        "storage",
        "metastore",
        "net",
        "replication",
        "controller",
        "coordinator",
        "server",
        "cluster",
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(package):
    """Importing a room of the broker, with all of its modules, stays cheap."""
    script = (
        "import importlib, pkgutil, sys\n"
        f"import trioq.{package} as package\n"
        "for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "    if not module.name.endswith(\n"
        "        ('.zookeeper', '.zookeeper_client', '.zookeeper_handshake')\n"
        "    ):\n"
        "        importlib.import_module(module.name)\n"
        f"heavy = {HEAVY!r} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_importing_the_package_loads_no_loop_and_no_client():
    script = (
        "import sys, trioq\n"
        "loaded = {'anyio', 'trio', 'asyncio', 'trioq.client', 'structlog'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
        "assert {'connect', 'Client', 'SaslPlain'} <= set(dir(trioq))\n"
        "assert trioq.errors.BufferFull\n"
        "assert all(getattr(trioq, name) for name in trioq._LAZY)\n"
        "assert trioq.connect.__module__ == 'trioq.client.client'\n"
        "loaded = {'trio', 'structlog', 'scramp', 'zstandard'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
        "try:\n"
        "    trioq.nothing\n"
        "except AttributeError as error:\n"
        "    assert 'nothing' in str(error)\n"
        "else:\n"
        "    raise SystemExit(1)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
