from __future__ import annotations

import pytest

from trioq.errors import ConfigError
from trioq.metastore.zookeeper_address import ZooKeeperAddress


@pytest.mark.parametrize(
    ("url", "hosts", "chroot"),
    [
        ("zookeeper://a:1,b:2/trioq", "a:1,b:2", "/trioq"),
        ("zookeeper://a", "a:2181", ""),
        ("zookeeper://a/", "a:2181", ""),
        ("zookeeper://[::1]:7/x/y/", "[::1]:7", "/x/y"),
        ("zookeeper://[::1]", "[::1]:2181", ""),
    ],
)
def test_addresses(url, hosts, chroot):
    assert ZooKeeperAddress.of_url(url) == ZooKeeperAddress(hosts, chroot)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a:1",
        "kafka://a:1",
        "zookeeper://",
        "zookeeper://a:x",
        "zookeeper://a:1,",
        "zookeeper://a:0",
        "zookeeper://a:70000",
        "zookeeper://a::1",
        "zookeeper://::1",
        "zookeeper://a//b",
        "zookeeper://a/../b",
    ],
)
def test_what_is_no_address_is_said_so(url):
    with pytest.raises(ConfigError, match="zookeeper://host:2181,host:2181/path"):
        ZooKeeperAddress.of_url(url)


def test_a_password_is_not_shown():
    address = ZooKeeperAddress("a:1", user="me", password="hidden")
    assert "hidden" not in repr(address)


def test_what_was_not_reached_is_told_with_what_to_do():
    plain = ZooKeeperAddress("a:1", connect_timeout_s=3)
    assert plain.unreached(was_connected=False, last="refused") == (
        "no ZooKeeper server answered at a:1 within 3 s: start it, or correct the address "
        "(last: refused)"
    )
    tls = ZooKeeperAddress("a:1", use_tls=True)
    assert "secureClientPort" in tls.unreached(was_connected=False, last="")
    assert "a majority" in plain.unreached(was_connected=True, last="")
    named = ZooKeeperAddress("a:1", user="me", password="hidden")
    told = named.unreached(was_connected=True, last="")
    assert "authProvider.sasl" in told
    assert "hidden" not in told
