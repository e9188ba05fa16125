"""Being let in: SASL, TLS, and nodes that only their owner may touch."""

from __future__ import annotations

import gc
import subprocess
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.zookeeper.server import free_ports, one_server
from trioq.clock import SystemClock
from trioq.errors import StartupError
from trioq.metastore import store
from trioq.metastore.store import Node
from trioq.metastore.zookeeper import open_zookeeper
from trioq.metastore.zookeeper_address import ZooKeeperAddress

pytestmark = pytest.mark.trio

LOGIN = """Server {
    org.apache.zookeeper.server.auth.DigestLoginModule required
    user_trioq="secret" user_other="else";
};
"""
STORE_PASSWORD = "only-for-this-test"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZooKeeperAddress]:
    """A server that knows two users; the address of one of them."""
    tmp_path = tmp_path_factory.mktemp("guarded")
    login = tmp_path / "login.conf"
    login.write_text(LOGIN)
    provider = "authProvider.sasl=org.apache.zookeeper.server.auth.SASLAuthenticationProvider"
    with one_server(
        tmp_path,
        settings=[provider],
        java_options=[f"-Djava.security.auth.login.config={login}"],
    ) as server:
        yield ZooKeeperAddress(server.address, "/mine", user="trioq", password="secret")


async def test_a_named_user_keeps_its_nodes_for_itself(guarded):
    async with open_zookeeper(guarded, SystemClock()) as metastore:
        await metastore.create("/a", b"secret")
        assert await metastore.get("/a") == Node(b"secret", 0)
    other = replace(guarded, user="other", password="else", chroot="")
    async with open_zookeeper(other, SystemClock()) as metastore:
        await check_refused(metastore.set("/mine/a", b"x", 0))
        await check_refused(metastore.get("/mine/a"))


async def check_refused(call) -> None:
    try:
        await call
    except store.MetastoreUnavailable as error:
        assert str(error).startswith("/mine/a: ZooKeeper refuse")
    else:
        raise AssertionError("nothing was refused")


async def test_a_wrong_password_is_said_so_at_once(guarded):
    wrong = replace(guarded, password="guess")
    with pytest.raises(StartupError, match="refuses user 'trioq'"):
        async with open_zookeeper(wrong, SystemClock()):
            pass


async def test_a_user_of_servers_that_know_no_users_is_told_so(tmp_path):
    with one_server(tmp_path) as server:
        address = ZooKeeperAddress(
            server.address, "/mine", user="trioq", password="secret", connect_timeout_s=3
        )
        with pytest.raises(StartupError, match=r"broke each connection .* authProvider\.sasl"):
            async with open_zookeeper(address, SystemClock()):
                pass


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZooKeeperAddress]:
    """A server with a TLS port; the address with the certificate to trust."""
    tmp_path = tmp_path_factory.mktemp("encrypted")
    keys, certificate = tmp_path / "keys.p12", tmp_path / "server.pem"
    (port,) = free_ports(1)
    settings = [
        f"secureClientPort={port}",
        "secureClientPortAddress=127.0.0.1",
        "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory",
        f"ssl.keyStore.location={keys}",
        f"ssl.keyStore.password={STORE_PASSWORD}",
        f"ssl.trustStore.location={certificate}",
        "ssl.clientAuth=none",
    ]

    def make_keys() -> None:
        tool = ["keytool", "-keystore", str(keys), "-storepass", STORE_PASSWORD, "-alias", "zk"]
        names = ["-dname", "CN=127.0.0.1", "-ext", "san=ip:127.0.0.1"]
        _run(tool, ["-genkeypair", "-keyalg", "RSA", "-storetype", "PKCS12", *names])
        _run(tool, ["-exportcert", "-rfc", "-file", str(certificate)])

    with one_server(tmp_path, settings=settings, with_netty=True, before=make_keys):
        yield ZooKeeperAddress(f"127.0.0.1:{port}", "/tls", use_tls=True, ca_file=str(certificate))


def _run(tool: list[str], arguments: list[str]) -> None:
    subprocess.run([*tool, *arguments], check=True, capture_output=True)


async def test_tls_is_spoken(encrypted):
    async with open_zookeeper(encrypted, SystemClock()) as metastore:
        await metastore.create("/a", b"sealed")
        assert await metastore.get("/a") == Node(b"sealed", 0)


# kazoo leaves the sockets of handshakes that failed to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_server_that_is_not_trusted_is_not_used(encrypted, tmp_path):
    strangers = tmp_path / "strangers.p12"
    certificate = tmp_path / "stranger.pem"
    tool = ["keytool", "-keystore", str(strangers), "-storepass", STORE_PASSWORD, "-alias", "no"]
    _run(tool, ["-genkeypair", "-keyalg", "RSA", "-storetype", "PKCS12", "-dname", "CN=no"])
    _run(tool, ["-exportcert", "-rfc", "-file", str(certificate)])
    distrusting = replace(encrypted, ca_file=str(certificate), connect_timeout_s=2.0)
    with pytest.raises(
        StartupError, match=r"no ZooKeeper server answered .*CERTIFICATE_VERIFY_FAILED"
    ):
        async with open_zookeeper(distrusting, SystemClock()):
            pass
    gc.collect()  # here, not in somebody else's test
