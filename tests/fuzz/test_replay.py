"""Every input that fuzzing ever found, and the seeds it starts from, through their targets.

The findings are in corpus/<target>/; a new one that `make fuzz` puts there fails here until what
it found is mended, and stays as its test.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
FOUND = sorted(path for path in CORPUS.glob("*/*") if path.is_file())


def test_the_corpus_belongs_to_targets():
    assert {path.parent.name for path in FOUND} <= set(TARGETS)


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}/{path.name[:14]}")
def test_what_was_found_stays_mended(path):
    TARGETS[path.parent.name].check(path.read_bytes())


if "TRIOQ_FUZZ_INPUTS" in os.environ:  # in the sanitizer leg

    @pytest.mark.parametrize("name", TARGETS)
    def test_gathered_inputs(name):
        """What fuzzing on this machine has gathered so far: a directory for each target."""
        for path in sorted(Path(os.environ["TRIOQ_FUZZ_INPUTS"], name).glob("*")):
            TARGETS[name].check(path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_seeds(name):
    target = TARGETS[name]
    count = 0
    for seed in target.seeds():
        target.check(seed)
        count += 1
    assert count >= 5
