"""`trioq log` on files that are whole, and on damaged ones."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from trioq.cli.app import trioq
from trioq.record.builder import build_batch


@pytest.fixture
def segment(tmp_path):
    """A segment of two batches, the second of one record."""
    path = tmp_path / "orders-0" / "00000000000000000000.log"
    path.parent.mkdir()
    first = build_batch([(1_000, b"k", b"a value", ()), (1_001, None, None, (("h", b"x"),))])
    second = build_batch([(1_002, b"k", b"other", ())], base_offset=2)
    path.write_bytes(bytes(first) + bytes(second))
    return path


def run(*arguments):
    return CliRunner().invoke(trioq, ["log", *map(str, arguments)])


def test_dump_shows_batches(segment):
    result = run("dump", segment)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["batch", "batch"]
    assert "base_offset=2" in lines[1]


def test_dump_shows_records_for_people_and_programs(segment):
    lines = run("dump", segment, "--records").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["batch", "record", "record", "batch", "record"]
    objects = [
        json.loads(line) for line in run("dump", segment, "--records", "--json").stdout.splitlines()
    ]
    assert objects[1]["value"] == "a value"
    assert objects[2]["value"] is None


def test_damage_is_shown_and_is_a_failure(segment):
    data = bytearray(segment.read_bytes())
    data[-1] ^= 1
    segment.write_bytes(data)
    result = run("dump", segment)
    assert result.exit_code == 1
    assert any(line.startswith("problem ") for line in result.stdout.splitlines())


def test_files_that_are_none_of_ours(tmp_path):
    other = tmp_path / "notes.txt"
    other.write_text("hello")
    result = run("dump", other)
    assert result.exit_code == 1
    assert "notes.txt" in result.stderr
    missing = run("dump", tmp_path / "missing.log")
    assert missing.exit_code == 2
    assert "does not exist" in missing.stderr


def test_verify_tells_whole_from_damaged(segment):
    whole = run("verify", segment.parent)
    assert (whole.exit_code, whole.stderr) == (0, ""), whole.output
    assert "1 partitions, 1 segments, 2 batches, 3 records" in whole.stdout
    data = bytearray(segment.read_bytes())
    data[-1] ^= 1
    segment.write_bytes(data)
    damaged = run("verify", segment.parent)
    assert damaged.exit_code == 1
    assert damaged.stdout.startswith("damage: ")
    assert not json.loads(run("verify", segment.parent, "--json").stdout)["is_sound"]


def test_verify_of_something_else(tmp_path):
    result = run("verify", tmp_path)
    assert result.exit_code == 1
    assert str(tmp_path) in result.stderr
