"""What `trioq dev-cluster` needs, and what it says when that is missing."""

from __future__ import annotations

import pytest

from trioq import logs
from trioq.cli import dev_zookeeper
from trioq.cli.dev_process import readable
from trioq.errors import StartupError


def test_without_java_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StartupError, match=r"there is no java: install .* or name one that runs"):
        dev_zookeeper.find(tmp_path / "zoo.cfg", {})


def test_without_zookeeper_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(dev_zookeeper, "_DEBIAN_JAR", tmp_path / "none.jar")
    with pytest.raises(StartupError, match=r"there is none: install .*apt-get install zookeeper"):
        dev_zookeeper.find(tmp_path / "zoo.cfg", {"JAVA_HOME": "/java"})


def test_zookeeper_home_counts_before_the_path(tmp_path, monkeypatch):
    scripts = []
    for name in ("home/bin", "path"):
        (tmp_path / name).mkdir(parents=True)
        scripts.append(tmp_path / name / "zkServer.sh")
        scripts[-1].touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    environment = {"JAVA_HOME": "/java", "ZOOKEEPER_HOME": str(tmp_path / "home")}
    config = tmp_path / "zoo.cfg"
    for expected in scripts:
        launch = dev_zookeeper.find(config, environment)
        assert launch.command == [str(expected), "start-foreground", str(config)]
        environment.pop("ZOOKEEPER_HOME", None)
    environment["ZOOKEEPER_HOME"] = str(tmp_path / "nowhere")
    with pytest.raises(StartupError, match=r"there is no bin/zkServer.sh: correct it"):
        dev_zookeeper.find(config, environment)


def test_log_lines_are_made_readable():
    line = '{"time": "2026-01-31T12:00:00Z", "level": "info", "event": "x happened", "n": 1}'
    shown = readable(line, logs.plain_line)
    assert "x happened" in shown
    assert "n=1" in shown
    for other in ("plain words", "[1]", '{"level": "info"}', "1"):
        assert readable(other, logs.plain_line) == other
