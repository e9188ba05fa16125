"""The page on clusters: its files are what the programs take that they are written for."""

from __future__ import annotations

import configparser
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from trioq.cli.app import trioq
from trioq.config import BrokerConfig
from trioq.config.loading import load, read_environment

PAGE = Path(__file__).parents[2] / "docs" / "cluster.md"


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found, language
    return found


@pytest.mark.parametrize("text", blocks("toml"))
def test_brokers_start_with_the_files_shown(text, tmp_path):
    file = tmp_path / "broker.toml"
    file.write_text(text)
    config = load({}, {}, file)
    assert isinstance(config, BrokerConfig)
    assert not config.is_clustered or config.default_replication_factor == 3


def test_the_unit_waits_longer_than_a_broker_takes_to_stop():
    (text,) = [one for one in blocks("ini") if "[Service]" in one]
    unit = configparser.ConfigParser()
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(text)
    config = BrokerConfig.from_mapping({})
    takes_ms = config.controlled_shutdown_max_wait_ms + config.shutdown_drain_timeout_ms
    assert 1000 * int(unit["Service"]["TimeoutStopSec"]) > 2 * takes_ms
    assert unit["Service"]["ExecStart"].endswith("trioq serve --config /etc/trioq/broker.toml")


def test_containers_get_variables_that_there_are():
    (text,) = blocks("yaml")
    variables = dict(re.findall(r'(TRIOQ_\w+): "?([^",}\n]+)', text))
    assert len(variables) == 4
    given = read_environment(variables)
    assert given["metastore"].text == "zookeeper://zookeeper:2181/trioq"


def test_every_command_shown_is_understood():
    shown = re.findall(
        r"^(?: *until |echo \w+ \| )?trioq ([^|\n]+)", PAGE.read_text(), re.MULTILINE
    )
    commands = [shlex.split(one) for one in shown]
    assert len(commands) > 6
    for command in commands:
        done = CliRunner().invoke(trioq, [*command, "--help"])
        assert done.exit_code == 0, (command, done.output)
