"""`trioq group`, `trioq config` and `trioq cluster` against a running broker."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from typing import Any

from tests.e2e.broker_process import BrokerProcess
from tests.e2e.test_command import trioq
from tests.e2e.test_command_records import consume, create, produce, start  # noqa: F401  fixture


def command(broker: BrokerProcess, *arguments: object) -> str:
    name, *rest = arguments
    done = trioq(name, "--bootstrap-server", broker.address, *rest)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def refused(broker: BrokerProcess, *arguments: object) -> str:
    name, *rest = arguments
    done = trioq(name, "--bootstrap-server", broker.address, *rest)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    return done.stderr


def described(broker: BrokerProcess, group: str) -> Any:
    (found,) = json.loads(command(broker, "group", "describe", group, "--json"))
    return found


def test_the_life_of_a_group(
    group_broker: BrokerProcess,
    topic: str,
    start: Callable[..., subprocess.Popen[bytes]],  # noqa: F811
) -> None:
    create(group_broker, topic, "--partitions", 2)
    produce(group_broker, topic, "--partition", 0, stdin=b"a\nb\nc\n")
    group = f"group-of-{topic}"
    reading = start(group_broker, "consume", topic, "--group", group, "--follow")
    assert reading.stdout is not None
    assert [reading.stdout.readline() for _ in range(3)] == [b"a\n", b"b\n", b"c\n"]

    found = described(group_broker, group)
    (member,) = found["members"]
    assert (found["state"], member["client_id"]) == ("Stable", "trioq-cli")
    assert {one["member_id"] for one in found["partitions"]} == {member["member_id"]}
    assert group in command(group_broker, "group", "list", "--state", "Stable")
    to_end = "reset-offsets", group, "--to", "end", "--topic", topic
    assert "has members" in refused(group_broker, "group", *to_end)
    assert "has members" in refused(group_broker, "group", "delete", group)

    reading.send_signal(signal.SIGINT)
    assert reading.wait(60) == 130
    found = described(group_broker, group)
    assert (found["state"], found["members"], found["lag"]) == ("Empty", [], 0)
    produce(group_broker, topic, "--partition", 0, stdin=b"d\n")
    assert described(group_broker, group)["lag"] == 1

    dry = command(group_broker, "group", "reset-offsets", group, "--to", 1, "--dry-run")
    assert f"{topic}\t0\t3\t1\n" in dry
    assert described(group_broker, group)["lag"] == 1
    command(group_broker, "group", "reset-offsets", group, "--to", "-2", "--topic", topic)
    assert described(group_broker, group)["lag"] == 2
    assert consume(group_broker, topic, "--group", group) == b"c\nd\n"

    command(group_broker, "group", "delete", group)
    assert "there is no group" in refused(group_broker, "group", "describe", group)
    command(group_broker, "group", "delete", group, "--if-exists")


def test_configuration_is_read_and_changed(group_broker: BrokerProcess, topic: str) -> None:
    create(group_broker, topic)
    group_broker.settle()
    before = command(group_broker, "config", "describe", "topic", topic)
    assert before.count("\ttopic\t") == len(group_broker.given_config)
    changes = "--set", "retention.ms=77777", "--set", "cleanup.policy=compact"
    command(group_broker, "config", "alter", "topic", topic, *changes, "--dry-run")
    assert command(group_broker, "config", "describe", "topic", topic) == before
    command(group_broker, "config", "alter", "topic", topic, *changes)
    command(group_broker, "config", "alter", "topic", topic, "--append", "cleanup.policy=delete")
    group_broker.settle()
    shown = command(group_broker, "config", "describe", "topic", topic)
    assert "retention.ms\t77777\ttopic\tno\n" in shown
    assert "cleanup.policy\tcompact,delete\ttopic\tno\n" in shown
    command(group_broker, "config", "alter", "topic", topic, "--delete", "retention.ms")
    group_broker.settle()
    assert "retention.ms" not in command(group_broker, "config", "describe", "topic", topic)
    wrong = refused(group_broker, "config", "alter", "topic", topic, "--set", "retention.ms=soon")
    assert "retention.ms=soon is not valid" in wrong
    keys = json.loads(
        command(
            group_broker, "config", "describe", "broker", group_broker.node_id, "--all", "--json"
        )
    )
    assert {"node.id", "log.dirs"} <= {one["key"] for one in keys}


def test_the_cluster(group_broker: BrokerProcess) -> None:
    found = json.loads(command(group_broker, "cluster", "describe", "--json"))
    assert found["controller_id"] == group_broker.controller_id
    addresses = {one["id"]: f"{one['host']}:{one['port']}" for one in found["brokers"]}
    assert addresses == group_broker.nodes
