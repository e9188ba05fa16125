"""Every example of the page on testing is run, as it is printed."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

from trioq.testing.process import _environment

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"
BLOCK = re.compile(
    r'^```python title="(?P<name>\w+\.py)"\n(?P<code>.*?)^```$', re.MULTILINE | re.DOTALL
)


def test_examples(tmp_path):
    text = PAGE.read_text()
    blocks = {match["name"]: match["code"] for match in BLOCK.finditer(text)}
    assert len(blocks) == text.count("```python"), "every block has a name of its own"
    for name, code in blocks.items():
        (tmp_path / name).write_text(code)
    names = {point.name for point in importlib.metadata.entry_points(group="pytest11")}
    loaded = () if "trioq" in names else ("-p", "trioq.testing.plugin")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-pno:cacheprovider", "-pno:xdist", *loaded, tmp_path],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=_environment(),
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    tests = sum(code.count("def test_") for code in blocks.values())
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > tests, "one of them runs under both loops"
