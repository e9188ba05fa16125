"""The page on clusters: its files are what the programs take that they are written for."""

from __future__ import annotations

import configparser
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest
from click.testing import CliRunner

from trioq.cli.app import trioq
from trioq.cli.cluster_view import BrokerView, ClusterView, as_json
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
    if "node.id" in text:
        assert config.is_clustered
        assert config.default_replication_factor == 3


def test_the_unit_waits_longer_than_a_broker_takes_to_stop():
    (text,) = [one for one in blocks("ini") if "trioq serve" in one]
    unit = configparser.ConfigParser()
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(text)
    config = BrokerConfig.from_mapping({})
    takes_ms = config.controlled_shutdown_max_wait_ms + config.shutdown_drain_timeout_ms
    assert 1000 * int(unit["Service"]["TimeoutStopSec"]) > 2 * takes_ms
    assert unit["Service"]["ExecStart"].endswith("trioq serve --config /etc/trioq/broker.toml")


def test_the_unit_does_not_start_again_what_is_configured_wrongly(tmp_path):
    (text,) = [one for one in blocks("ini") if "trioq serve" in one]
    (status,) = re.findall(r"^RestartPreventExitStatus=(\d+)$", text, re.MULTILINE)
    file = tmp_path / "broker.toml"
    file.write_text('"node.id" = "first"\n')
    program = [sys.executable, "-m", "trioq.cli", "serve", "--config", str(file)]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == int(status)
    assert "node.id" in done.stderr


def test_a_restart_waits_for_what_describe_shows():
    (condition,) = re.findall(r"jq --exit-status '([^']+)'", PAGE.read_text())
    broker = BrokerView(1, "q1", 9092, None, True, True, 0, 0, 0)
    shown = as_json(ClusterView("c", 1, [broker], []))
    outer, inner = condition.split("select(")
    assert set(re.findall(r"\.(\w+)", outer)) == {"offline", "under_replicated", "brokers"}
    assert shown.keys() > {"offline", "under_replicated", "brokers"}
    assert inner.startswith('.state == "up")')
    (first,) = cast("list[dict[str, object]]", shown["brokers"])
    assert first["state"] == "up"
    assert shown["offline"] == shown["under_replicated"] == []


def test_containers_get_variables_that_there_are():
    (text,) = blocks("yaml")
    variables = dict(re.findall(r'(TRIOQ_\w+): "?([^",}\n]+)', text))
    assert len(variables) == 4
    (check,) = re.findall(r"test: \[CMD, trioq, ([^\]]+)\]", text)
    done = CliRunner().invoke(trioq, [*check.replace('"', "").split(", "), "--help"])
    assert done.exit_code == 0, done.output
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
