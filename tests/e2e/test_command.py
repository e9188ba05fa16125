"""The `trioq` command against a running broker."""

from __future__ import annotations

import json
import subprocess

from tests.e2e.broker_process import TRIOQ, BrokerProcess
from tests.e2e.clients import CODECS, Confluent
from tests.e2e.message import Message, sample


def trioq(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [TRIOQ, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )


def topic_command(broker: BrokerProcess, *arguments: object) -> subprocess.CompletedProcess[str]:
    return trioq("topic", "--bootstrap-server", broker.address, *arguments)


def test_topic_round_trip(broker: BrokerProcess, topic: str) -> None:
    created = topic_command(
        broker, "create", topic, "--partitions", 3, "--config", "retention.ms=60000"
    )
    assert (created.returncode, created.stderr) == (0, "")
    again = topic_command(broker, "create", topic)
    assert again.returncode == 1
    assert topic in again.stderr
    assert topic_command(broker, "create", topic, "--if-not-exists").returncode == 0
    Confluent().write(broker.address, topic, [Message(b"v")] * 4, partition=1)
    listed = json.loads(topic_command(broker, "list", "--json").stdout)
    assert [one["partitions"] for one in listed if one["name"] == topic] == [3]
    described = json.loads(topic_command(broker, "describe", topic, "--json").stdout)
    (details,) = described
    assert details["config"] == {"retention.ms": "60000", **broker.given_config}
    assert [part["end_offset"] for part in details["partitions"]] == [0, 4, 0]
    altered = topic_command(
        broker, "alter", topic, "--config", "flush.policy=commit", "--partitions", 4
    )
    assert altered.returncode == 0
    topic_command(broker, "alter", topic, "--delete-config", "retention.ms")
    broker.settle()
    (details,) = json.loads(topic_command(broker, "describe", topic, "--json").stdout)
    assert details["config"] == {"flush.policy": "commit", **broker.given_config}
    assert len(details["partitions"]) == 4
    assert topic in topic_command(broker, "describe", topic).stdout
    assert topic_command(broker, "delete", topic).returncode == 0
    broker.settle()
    assert topic_command(broker, "delete", topic).returncode == 1
    assert topic_command(broker, "delete", topic, "--if-exists").returncode == 0
    assert topic not in topic_command(broker, "list").stdout


def test_a_wrong_config_names_the_nearest_key(broker: BrokerProcess, topic: str) -> None:
    done = topic_command(broker, "create", topic, "--config", "retention.m=1")
    assert done.returncode == 1
    assert "retention.ms" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_broker_at_the_address() -> None:
    done = trioq("topic", "--bootstrap-server", "127.0.0.1:1", "--timeout", 2, "list")
    assert done.returncode == 1
    assert "127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr


def test_log_dump_and_verify_read_what_clients_wrote(broker: BrokerProcess, topic: str) -> None:
    for codec in CODECS:
        Confluent().write(broker.address, topic, sample(codec, 10), codec=codec)
    (path,) = broker.segment_paths(topic)
    dumped = trioq("log", "dump", path)
    assert dumped.returncode == 0, dumped.stderr
    for codec in CODECS[1:]:
        assert codec in dumped.stdout
    verified = trioq("log", "verify", path.parent)
    assert verified.returncode == 0, verified.stdout + verified.stderr
