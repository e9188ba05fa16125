"""Precedence: flag over environment over file over default."""

from __future__ import annotations

import pytest

from trioq.config.loading import Given, load, read_environment, read_file
from trioq.errors import ConfigError


@pytest.fixture
def file(tmp_path):
    return tmp_path / "broker.toml"


def test_precedence_and_origins(file):
    file.write_text(
        '"num.partitions" = 2\nnode.id = 2\nlog.dirs = ["a", "b"]\n[log.segment]\nbytes = 2048\n'
        "[auto.create.topics]\nenable = false\n"
    )
    environment = {"TRIOQ_NUM_PARTITIONS": "3", "TRIOQ_NODE_ID": "3", "HOME": "/"}
    config = load({"node.id": Given("4", "--node-id")}, environment, file)
    assert config.node_id == 4
    assert config.origin_of("node.id") == "--node-id"
    assert config.num_partitions == 3
    assert config.origin_of("num.partitions") == "environment variable TRIOQ_NUM_PARTITIONS"
    assert config.log_segment_bytes == 2048
    assert config.origin_of("log.segment.bytes") == f"file {file}"
    assert config.log_dirs == ("a", "b")
    assert not config.auto_create_topics_enable
    assert config.origin_of("log.retention.ms") == "default"


def test_the_environment_may_name_the_file(file, tmp_path):
    file.write_text("node.id = 7")
    assert load({}, {"TRIOQ_CONFIG": str(file)}).node_id == 7
    other = tmp_path / "other.toml"
    other.write_text("node.id = 8")
    assert load({}, {"TRIOQ_CONFIG": str(file)}, other).node_id == 8


def test_variables_named_after_flags():
    given = read_environment(
        {"TRIOQ_DATA_DIR": "d", "TRIOQ_LISTEN": "localhost:1", "TRIOQ_RACK": "r"}
    )
    assert {name: value.text for name, value in given.items()} == {
        "log.dirs": "d",
        "listeners": "localhost:1",
        "broker.rack": "r",
    }


def test_variables_that_name_no_key_are_refused():
    with pytest.raises(ConfigError, match="did you mean TRIOQ_NUM_PARTITIONS"):
        read_environment({"TRIOQ_NUM_PARTITION": "1"})
    with pytest.raises(ConfigError, match="is set twice"):
        read_environment({"TRIOQ_LISTEN": "a:1", "TRIOQ_LISTENERS": "b:1"})
    assert read_environment({"TRIOQ_BOOTSTRAP_SERVER": "a:1"}) == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("node.id = ", "is not valid TOML"),
        ("max.connections = 1\nmax.connections.per.ip = 1", "put both in quotes"),
        ("node.idd = 1", "did you mean node.id?"),
        ('"node.id" = 1\nnode.id = 2', "sets node.id twice"),
        ("node.id = 2024-01-01", "allowed is an integer"),
        ("log.dirs = [1, 2]", "log.dirs"),
        ("node.id = 'x'", "set by file"),
        ("node.id = true", "allowed is an integer"),
        ("node.id = 1.5", "allowed is an integer"),
        ("[node]\n", None),
    ],
)
def test_files_with_mistakes(file, text, expected):
    file.write_text(text)
    if expected is None:
        assert load({}, {}, file).node_id == 1
        return
    with pytest.raises(ConfigError) as caught:
        load({}, {}, file)
    assert expected in str(caught.value)


def test_files_that_cannot_be_read(file, tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_file(tmp_path / "missing.toml")
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_file(file)
