"""What `trioq produce` reads and `trioq consume` prints: lines to records and back."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trioq._native import batch as native
from trioq.cli import record_output
from trioq.cli.record_input import (
    MAX_LINE_BYTES,
    InputError,
    InputRecord,
    JsonLines,
    LineSplitter,
    TextLines,
    parse_headers,
)
from trioq.record.fetched import Record, read_fetched


def fetched(records: Sequence[InputRecord]) -> list[Record]:
    """The records as a consumer gets them from orders-3."""
    data = native.build([(one.timestamp_ms, one.key, one.value, one.headers) for one in records])
    (batch,) = read_fetched(bytes(data), topic="orders", partition=3, start_offset=0).batches
    return list(batch)


def split(chunks: Sequence[bytes]) -> list[bytes]:
    splitter = LineSplitter()
    lines = [line for chunk in chunks for line in splitter.feed(chunk)]
    return lines + splitter.finish()


@given(
    st.lists(st.binary(max_size=20).map(lambda line: line.replace(b"\n", b""))),
    st.lists(st.integers(0, 200)),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_lines_are_the_same_however_they_arrive(lines, cuts, is_ended):
    text = b"".join(line + b"\n" for line in lines)
    if lines and lines[-1] and not is_ended:
        text = text[:-1]
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    chunks = [text[start:end] for start, end in itertools.pairwise(edges)]
    assert split(chunks) == lines


def test_a_line_without_an_end_is_refused_before_memory_ends():
    splitter = LineSplitter()
    splitter.feed(bytes(MAX_LINE_BYTES))
    with pytest.raises(InputError, match="longer than"):
        splitter.feed(b"x")


def test_text_with_and_without_keys():
    assert TextLines().columns([b"a:1", b""]) == (None, [b"a:1", b""])
    assert TextLines(key_separator=b":").columns([b"a:1:2", b":"]) == ([b"a", b""], [b"1:2", b""])
    nulls = TextLines(key_separator=b":", null=b"-")
    assert nulls.columns([b"a:-", b"-:1"]) == ([b"a", None], [None, b"1"])


def test_a_line_without_its_separator_is_named_by_number():
    lines = TextLines(key_separator=b"\t")
    lines.columns([b"a\t1", b"b\t2"])
    with pytest.raises(InputError, match=r"line 4 has no key separator '\\t'"):
        lines.columns([b"c\t3", b"d"])


def test_json_is_read_generously():
    lines = [
        b'{"key": "a", "value": {"n": 1, "s": "\xc3\xa4"}, "headers": {"h": "x", "z": null}}',
        b"  ",
        b'{"value_base64": "/w==", "partition": 2, "timestamp_ms": 5, "topic": "t", "offset": 9}',
        b'{"value": null, "headers": [{"name": "a", "value": "1"}, {"name": "a", "value": "2"}]}',
    ]
    assert JsonLines().records(lines) == [
        InputRecord(b"a", '{"n":1,"s":"ä"}'.encode(), (("h", b"x"), ("z", None))),
        InputRecord(None, b"\xff", (), 2, 5),
        InputRecord(None, None, (("a", b"1"), ("a", b"2"))),
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"hello", "line 2 is no record: Expecting value"),
        (b"[1]", "no JSON object"),
        (b"\xff", "line 2 is no record"),
        (b'{"vlaue": "x"}', "unknown field 'vlaue'; allowed are headers, key"),
        (b'{"value": "x", "value_base64": "eA=="}', "in place of value"),
        (b'{"value_base64": "!"}', "value_base64"),
        (b'{"headers": 1}', "headers are an object"),
        (b'{"headers": [{"value": "x"}]}', "a header is an object with a name"),
        (b'{"partition": -1}', "partition is a whole number"),
        (b'{"timestamp_ms": true}', "timestamp_ms is a whole number"),
        (b"[" * 100_000, "line 2 is no record"),
    ],
)
def test_json_that_is_no_record_is_named_by_line(line, expected):
    with pytest.raises(InputError, match=expected):
        JsonLines().records([b"{}", line])


def test_headers_of_the_command_line():
    assert parse_headers(["a=1", "b=", "a=x=y"]) == (("a", b"1"), ("b", b""), ("a", b"x=y"))
    with pytest.raises(ValueError, match="'a' is not NAME=VALUE"):
        parse_headers(["a"])


BYTES = st.none() | st.binary(max_size=12) | st.text(max_size=8).map(str.encode)
RECORDS = st.lists(
    st.builds(
        InputRecord,
        BYTES,
        BYTES,
        st.lists(st.tuples(st.text(max_size=5), BYTES), max_size=2).map(tuple),
        st.none(),
        st.integers(1, 2**40),
    ),
    min_size=1,
    max_size=5,
)


@given(RECORDS)
@settings(max_examples=60, deadline=None)
def test_json_that_was_printed_can_be_sent_again(records):
    printed = record_output.json_lines(fetched(records))
    assert printed.count(b"\n") == len(records)
    read = JsonLines().records(split([printed]))
    assert [record.partition for record in read] == [3] * len(records)
    assert [record._replace(partition=None) for record in read] == records


SOME = [
    InputRecord(b"k", b"one", (("a", b"1"), ("b", None)), None, 7),
    InputRecord(None, None, (), None, 8),
]


def test_templates():
    render = record_output.template(
        r"{topic}-{partition}@{offset} {timestamp} {key}={value} [{headers}] {{}}\t\\\n"
    )
    assert render(fetched(SOME)) == (
        b"orders-3@0 7 k=one [a=1,b=] {}\t\\\norders-3@1 8 = [] {}\t\\\n"
    )


@pytest.mark.parametrize("text", ["{vlaue}", "{}", "{value!r}", "{value:>5}", "{", "}"])
def test_a_wrong_template_is_refused(text):
    with pytest.raises(ValueError):
        record_output.template(text)


def test_values_and_headers():
    assert record_output.values(fetched(SOME)) == b"one\n\n"
    assert record_output.values_with_headers(fetched(SOME)) == b"a=1,b=\tone\n\t\n"


def test_records_cannot_steer_a_terminal():
    hostile = InputRecord(None, b"\x1b]0;owned\x07\r\xff\xc2\x9b ok\t\xc3\xa4", (), None, 1)
    shown = record_output.for_terminal(record_output.values)(fetched([hostile]))
    assert shown.decode() == "\\x1b]0;owned\\x07\\r\\xff\\x9b ok\tä\n"
    assert json.loads(record_output.json_lines(fetched([hostile])))["value_base64"]
