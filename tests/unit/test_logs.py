"""Log lines: JSON in pipes, readable on terminals, one line each."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioq import logs

FIELDS = st.dictionaries(
    st.text("abcxyz_", min_size=1),
    st.one_of(st.text(), st.integers(), st.booleans(), st.none(), st.binary(), st.floats()),
    max_size=5,
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def stream():
    target = io.StringIO()
    logs.configure("debug", target)
    yield target
    logs.configure()


@given(st.text(), FIELDS)
def test_json_lines_hold_one_object_each(event, fields):
    line = logs.json_line("info", event, fields)
    assert "\n" not in line
    record = json.loads(line)
    assert record["event"] == event
    assert record["level"] == "info"


@given(st.text(), FIELDS)
def test_readable_lines_are_one_printable_line(event, fields):
    assert logs.plain_line("warning", event, fields).isprintable()


def test_lines_carry_logger_and_bound_fields(stream):
    log = logs.get_logger("trioq.some.module").bind(partition="orders-0")
    log.warning("segment rolled", base_offset=4096)
    record = json.loads(stream.getvalue())
    assert record["logger"] == "trioq.some.module"
    assert record["partition"] == "orders-0"
    assert record["base_offset"] == 4096
    assert record["level"] == "warning"
    assert record["time"].endswith("Z")


def test_fields_never_hide_the_lines_own(stream):
    logs.get_logger("m").info("real", time="fake", level="fake")
    record = json.loads(stream.getvalue())
    assert (record["level"], record["level_"], record["time_"]) == ("info", "fake", "fake")


def test_levels_below_the_threshold_are_not_written():
    target = io.StringIO()
    logs.configure("warning", target)
    log = logs.get_logger("m")
    log.info("quiet")
    log.error("loud")
    logs.configure()
    assert [json.loads(line)["event"] for line in target.getvalue().splitlines()] == ["loud"]


def test_exceptions_carry_the_traceback(stream):
    try:
        raise ValueError("broken")
    except ValueError:
        logs.get_logger("m").exception("it failed", where="here")
    record = json.loads(stream.getvalue())
    assert record["level"] == "error"
    assert "ValueError: broken" in record["exception"]


def test_an_exception_can_be_given(stream):
    group = ExceptionGroup("both", [ValueError("one"), KeyError("two")])
    logs.get_logger("m").error("it failed", exc_info=group)
    record = json.loads(stream.getvalue())
    assert "ValueError: one" in record["exception"]
    assert "exc_info" not in record


def test_terminals_get_readable_lines_and_colours_where_wanted(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    target = Terminal()
    logs.configure("info", target)
    logs.get_logger("m").info("listening", address="127.0.0.1:9092", why="a b")
    monkeypatch.setenv("NO_COLOR", "1")
    logs.configure("info", target)
    logs.get_logger("m").info("listening", address="127.0.0.1:9092", why="a b")
    logs.configure()
    coloured, plain = target.getvalue().splitlines()
    assert "\x1b[" in coloured
    assert "\x1b[" not in plain
    assert "listening" in plain
    assert "address=127.0.0.1:9092 why='a b'" in plain


def test_structlog_is_not_imported_before_the_first_line():
    script = (
        "import sys, trioq.logs as logs; logs.configure('info'); "
        "logs.get_logger('m').debug('x'); print('structlog' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_a_reader_that_went_away_takes_nobody_along():
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    logs.configure("info", Gone())
    logs.get_logger("m").info("into the void")
    logs.configure()


def test_lines_can_be_captured(stream):
    with logs.captured() as lines:
        logs.get_logger("m").debug("seen", n=1)
    assert lines == [{"logger": "m", "n": 1, "event": "seen", "log_level": "debug"}]
    assert stream.getvalue() == ""
