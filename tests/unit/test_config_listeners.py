"""Addresses to listen on and to advertise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioq.config import BrokerConfig, Listener, format_address, parse_address
from trioq.errors import ConfigError


def endpoints(listeners: str, advertised: str = "") -> tuple[Listener, ...]:
    values = {"listeners": listeners}
    if advertised:
        values["advertised.listeners"] = advertised
    return BrokerConfig.from_mapping(values).endpoints()


def test_one_bare_address():
    assert endpoints("127.0.0.1:0") == (Listener("PLAINTEXT", "127.0.0.1", 0, "127.0.0.1", 0),)


def test_several_addresses_named_and_bare():
    assert endpoints("localhost:1,INSIDE://[::1]:2,[fe80::1%eth0]:3") == (
        Listener("PLAINTEXT", "localhost", 1, "localhost", 1),
        Listener("INSIDE", "::1", 2, "::1", 2),
        Listener("PLAINTEXT-2", "fe80::1%eth0", 3, "fe80::1%eth0", 3),
    )


def test_a_wildcard_with_an_advertised_address():
    assert endpoints("0.0.0.0:9092,[::]:9093", "a.example:1,b.example:0") == (
        Listener("PLAINTEXT", "0.0.0.0", 9092, "a.example", 1),
        Listener("PLAINTEXT-2", "::", 9093, "b.example", 0),
    )


def test_advertised_addresses_by_name():
    assert endpoints("A://:1,B://*:2", "B://b:2,A://a:1") == (
        Listener("A", "", 1, "a", 1),
        Listener("B", "", 2, "b", 2),
    )


@pytest.mark.parametrize(
    ("listeners", "advertised", "expected"),
    [
        ("0.0.0.0:9092", "", "--advertised HOST:PORT"),
        ("[::]:9092", "", "--advertised HOST:PORT"),
        (":9092", "", "--advertised HOST:PORT"),
        ("*:9092", "", "--advertised HOST:PORT"),
        ("localhost", "", "HOST:PORT"),
        ("localhost:", "", "HOST:PORT"),
        ("localhost:65536", "", "from 0 to 65535"),
        ("localhost:-1", "", "from 0 to 65535"),
        ("::1:9092", "", "an IPv6 address needs brackets"),
        ("a b:1", "", "HOST:PORT"),
        ("bad name://a:1", "", "NAME://HOST:PORT"),
        ("A://a:1,A://b:2", "", "two listeners are named A"),
        ("a:1", "b:1,c:2", "only 1 listeners"),
        ("a:1", "X://b:1", "no listener is named X"),
        ("a:1,b:2", "PLAINTEXT://b:1,PLAINTEXT://c:1", "PLAINTEXT twice"),
        ("a:1", "0.0.0.0:1", "a client cannot connect to a wildcard"),
    ],
)
def test_bad_addresses_are_refused_with_a_sentence(listeners, advertised, expected):
    with pytest.raises(ConfigError) as caught:
        endpoints(listeners, advertised)
    assert expected in str(caught.value)


@pytest.mark.parametrize("name", ["SSL", "SASL_SSL", "sasl_plaintext"])
def test_names_that_promise_more_than_listeners_do_are_refused(name):
    with pytest.raises(ConfigError, match="without encryption and authentication only"):
        endpoints(f"INSIDE://127.0.0.1:1,{name}://127.0.0.1:0")


@given(
    st.one_of(st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str)), st.integers(0, 65535)
)
def test_addresses_read_back_as_they_are_shown(host, port):
    address = parse_address(format_address(host, port), key="listeners")
    assert (address.host, address.port) == (host, port)


@given(st.text(max_size=100))
def test_any_text_is_an_address_or_refused(text):
    try:
        address = parse_address(text, key="listeners")
    except ConfigError as error:
        assert "listeners=" in str(error)
    else:
        assert 0 <= address.port <= 65535
