"""`trioq produce` and `trioq consume` against a running broker."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.broker_process import TRIOQ, BrokerProcess
from tests.e2e.clients import Confluent
from tests.e2e.message import Message
from tests.e2e.test_command import trioq

TIMEOUT_S = 60


def run(
    broker: BrokerProcess, command: str, *arguments: object, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [TRIOQ, command, "--bootstrap-server", broker.address, *map(str, arguments)],
        input=stdin,
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def produce(broker: BrokerProcess, *arguments: object, stdin: bytes = b"") -> None:
    done = run(broker, "produce", *arguments, stdin=stdin)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def consume(broker: BrokerProcess, *arguments: object) -> bytes:
    done = run(broker, "consume", *arguments)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


def create(broker: BrokerProcess, topic: str, *options: object) -> None:
    done = trioq("topic", "--bootstrap-server", broker.address, "create", topic, *options)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start a command with pipes; what still runs at the end of the test is killed."""
    running: list[subprocess.Popen[bytes]] = []

    def start_one(
        broker: BrokerProcess, command: str, *arguments: object
    ) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [TRIOQ, command, "--bootstrap-server", broker.address, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        running.append(process)
        return process

    yield start_one
    for process in running:
        process.kill()
        process.communicate()


def test_lines_come_back_as_they_were(broker: BrokerProcess, topic: str, tmp_path: Path) -> None:
    lines = b"".join(b"%d %s\n" % (number, b"x" * (number % 50)) for number in range(20_000))
    file = tmp_path / "lines"
    file.write_bytes(lines)
    produce(broker, topic, file, "--compression", "zstd")
    assert consume(broker, topic) == lines
    produce(broker, topic, "--acks", 1, stdin=b"\xff\x00\n\nlast")
    assert consume(broker, topic, "--from", -3) == b"\xff\x00\n\nlast\n"
    assert consume(broker, topic, "--from", 19_999, "--max-messages", 2) == (
        lines.splitlines(keepends=True)[-1] + b"\xff\x00\n"
    )


def test_keys_headers_and_partitions(broker: BrokerProcess, topic: str) -> None:
    create(broker, topic, "--partitions", 3)
    produce(
        broker, topic, "--key-separator", ":", "--null", "NULL", "--partition", 2,
        "--header", "a=1", "--header", "b=", stdin=b"k:v\nk:NULL\n",
    )  # fmt: skip
    produce(broker, topic, "--key-separator", ":", stdin=b"same:1\nsame:2\n")
    rows = [json.loads(line) for line in consume(broker, topic, "--json").splitlines()]
    found = {(row["key"], row["value"], row["partition"]) for row in rows}
    assert {("k", "v", 2), ("k", None, 2)} <= found
    assert len({partition for key, _, partition in found if key == "same"}) == 1
    shown = consume(
        broker, topic, "--partition", 2, "--format", r"{offset} {key} {value} {headers}\n"
    )
    assert shown.startswith(b"0 k v a=1,b=\n1 k  a=1,b=\n")
    assert consume(broker, topic, "--partition", 2, "--show-headers", "--max-messages", 1) == (
        b"a=1,b=\tv\n"
    )


def test_json_can_be_copied_from_topic_to_topic(broker: BrokerProcess, topic: str) -> None:
    message = Message(
        b"v\xff", key=b"k", headers=(("h", b"1"), ("n", None)), timestamp_ms=1_000_000
    )
    Confluent().write(broker.address, topic, [message, Message(None)])
    printed = consume(broker, topic, "--json")
    first, second = map(json.loads, printed.splitlines())
    assert first["key"] == "k"
    assert second["value"] is None
    produce(broker, f"{topic}-copy", "--json", stdin=printed)
    copied = [json.loads(line) for line in consume(broker, f"{topic}-copy", "--json").splitlines()]
    assert copied == [{**one, "topic": f"{topic}-copy"} for one in (first, second)]


def test_times(broker: BrokerProcess, topic: str) -> None:
    day_ms = 86_400_000
    stamps = [1_769_860_800_000 + day * day_ms for day in range(3)]
    lines = [json.dumps({"value": str(day), "timestamp_ms": at}) for day, at in enumerate(stamps)]
    produce(broker, topic, "--json", stdin="\n".join(lines).encode())
    assert consume(broker, topic, "--from", "2026-02-01T00:00:00Z") == b"1\n2\n"
    assert consume(broker, topic, "--from", f"@{stamps[2]}") == b"2\n"
    assert consume(broker, topic, "--from", f"@{stamps[2] + 1}") == b""


def test_a_group_goes_on_where_it_was(group_broker: BrokerProcess, topic: str) -> None:
    lines = [b"%d\n" % number for number in range(10)]
    produce(group_broker, topic, stdin=b"".join(lines))
    options = topic, "--group", f"group-of-{topic}"
    got = consume(group_broker, *options, "--max-messages", 3).splitlines(keepends=True)
    assert len(got) == 3
    got += consume(group_broker, *options).splitlines(keepends=True)
    assert sorted(got) == lines
    assert consume(group_broker, *options) == b""
    assert consume(group_broker, topic, "--group", f"late-{topic}", "--from", "end") == b""
    last = consume(group_broker, topic, "--group", f"last-{topic}", "--from", "8").splitlines()
    assert len(last) <= 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_reading_in_order(
    group_broker: BrokerProcess,
    topic: str,
    number: signal.Signals,
    start: Callable[..., subprocess.Popen[bytes]],
) -> None:
    """What was printed is committed, and the group is left: the next member gets on at once."""
    produce(group_broker, topic, "--partition", 0, stdin=b"one\n")
    group = f"group-of-{topic}"
    reading = start(group_broker, "consume", topic, "--group", group, "--follow")
    assert reading.stdout is not None
    assert reading.stdout.readline() == b"one\n"
    produce(group_broker, topic, "--partition", 0, stdin=b"two\n")
    assert reading.stdout.readline() == b"two\n"
    reading.send_signal(number)
    out, errors = reading.communicate(timeout=TIMEOUT_S)
    assert (reading.returncode, out, errors) == (128 + number, b"", b"")
    produce(group_broker, topic, "--partition", 0, stdin=b"three\n")
    assert consume(group_broker, topic, "--group", group) == b"three\n"


def test_a_signal_ends_writing_after_what_was_read(
    broker: BrokerProcess, topic: str, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    writing = start(broker, "produce", topic)
    assert writing.stdin is not None
    writing.stdin.write(b"one\ntwo\nthr")
    writing.stdin.flush()
    deadline = time.monotonic() + TIMEOUT_S
    while run(broker, "consume", topic).stdout != b"one\ntwo\n":
        assert time.monotonic() < deadline
    writing.send_signal(signal.SIGINT)
    out, errors = writing.communicate(timeout=TIMEOUT_S)
    assert (writing.returncode, out, errors) == (130, b"", b"")


def test_a_reader_that_has_seen_enough(broker: BrokerProcess, topic: str) -> None:
    produce(broker, topic, stdin=b"x\n" * 200_000)
    done = subprocess.run(
        f"set -o pipefail; {TRIOQ} consume {topic} | head -1",
        shell=True,
        executable="/bin/bash",
        env={**os.environ, "TRIOQ_BOOTSTRAP_SERVER": broker.address},
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"x\n", b"")


def test_a_wrong_line_ends_writing_after_those_before(broker: BrokerProcess, topic: str) -> None:
    done = run(broker, "produce", topic, "--key-separator", ":", stdin=b"a:1\n" * 100_000 + b"b\n")
    assert done.returncode == 1
    assert done.stderr.startswith(b"trioq: line 100001 has no key separator ':'")
    assert b"Traceback" not in done.stderr


def test_what_the_broker_refuses_is_said_once(broker: BrokerProcess, topic: str) -> None:
    create(broker, topic, "--config", "max.message.bytes=1000")
    done = run(broker, "produce", topic, stdin=b"x" * 5000)
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1
    assert b"max.message.bytes of " in done.stderr


@pytest.mark.parametrize("command", ["produce", "consume"])
def test_nobody_at_the_address(command: str) -> None:
    done = trioq(command, "t", "--bootstrap-server", "127.0.0.1:1")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "127.0.0.1:1" in done.stderr


def test_a_topic_that_is_not_there(broker: BrokerProcess, topic: str) -> None:
    done = run(broker, "consume", topic)
    assert done.returncode == 1
    assert topic.encode() in done.stderr
    done = run(broker, "consume", topic, "--partition", 5)
    assert done.returncode == 1


def test_progress_is_shown_on_a_terminal(broker: BrokerProcess, topic: str) -> None:
    """On stderr, while the input takes its time; and nothing of it is left."""
    ours, theirs = pty.openpty()
    writing = subprocess.Popen(
        [TRIOQ, "produce", "--bootstrap-server", broker.address, topic],
        stdin=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(theirs)
    assert writing.stdin is not None
    shown = b""
    try:
        writing.stdin.write(b"x\n" * 1000)
        writing.stdin.flush()
        while b"1,000 records" not in shown:
            shown += os.read(ours, 4096)
        writing.stdin.close()
        assert writing.wait(TIMEOUT_S) == 0
    finally:
        writing.kill()
        writing.wait()
        os.close(ours)
    assert b"records/s" in shown
