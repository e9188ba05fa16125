"""One connection: versions, order, timeouts, SASL, TLS."""

from __future__ import annotations

import ssl
import struct

import anyio
import pytest

import trioq
from tests.client.fake_cluster import FakeCluster
from trioq.client.apis import api_of, common_version
from trioq.client.pieces import joined
from trioq.errors import (
    AuthenticationFailed,
    BootstrapFailed,
    CallTimeout,
    ClientUsageError,
    ConnectionFailed,
    UnsupportedByBroker,
)
from trioq.wire.messages.api_versions import ApiVersionsResponse, ApiVersionsResponseKey
from trioq.wire.messages.metadata import MetadataRequest, MetadataResponse
from trioq.wire.messages.produce import ProduceRequest
from trioq.wire.messages.sasl_authenticate import SaslAuthenticateRequest, SaslAuthenticateResponse
from trioq.wire.messages.sasl_handshake import SaslHandshakeRequest, SaslHandshakeResponse

pytestmark = pytest.mark.anyio


@pytest.fixture
def cluster():
    with FakeCluster() as fake:
        yield fake


# ---- versions ------------------------------------------------------------------------


async def test_the_highest_common_version_is_used(cluster):
    cluster.api_versions = lambda _: ApiVersionsResponse(
        api_keys=[
            ApiVersionsResponseKey(api_key=3, min_version=1, max_version=7),
            ApiVersionsResponseKey(api_key=0, min_version=0, max_version=99),
        ]
    )
    async with trioq.connect(cluster.bootstrap) as client:
        connection = await client.cluster.connection(1)
        assert connection.version_of(MetadataRequest) == 7
        assert connection.version_of(MetadataRequest, at_most=5) == 5
        assert connection.version_of(ProduceRequest) == ProduceRequest.LAST_VERSION
        with pytest.raises(UnsupportedByBroker, match="Metadata is needed in version 8"):
            connection.version_of(MetadataRequest, at_least=8)
        with pytest.raises(UnsupportedByBroker, match="serves none"):
            connection.version_of(SaslHandshakeRequest)


async def test_an_older_broker_is_asked_in_its_version(cluster):
    asked = []

    def versions(version):
        asked.append(version)
        if version > 2:
            return ApiVersionsResponse(
                error_code=35,
                api_keys=[ApiVersionsResponseKey(api_key=18, min_version=0, max_version=2)],
            )
        return None

    cluster.api_versions = versions
    async with trioq.connect(cluster.bootstrap) as client:
        assert client.statistics().brokers == 1
    assert asked == [4, 2]


async def test_a_refusal_that_is_not_in_version_0_is_taken_for_one(cluster):
    asked = []

    def versions(version):
        asked.append(version)
        return ApiVersionsResponse(error_code=35) if version > 1 else None

    cluster.api_versions = versions
    cluster.refuses_in_version_0 = False
    async with trioq.connect(cluster.bootstrap) as client:
        assert client.statistics().brokers == 1
    assert asked == [4, 3, 2, 1]


async def test_a_broker_that_serves_no_version(cluster):
    cluster.api_versions = lambda _: ApiVersionsResponse(error_code=35)
    with pytest.raises(UnsupportedByBroker, match="no version of ApiVersions"):
        await trioq.connect(cluster.bootstrap).__aenter__()


async def test_a_broker_that_refuses_to_say_its_versions(cluster):
    cluster.api_versions = lambda _: ApiVersionsResponse(error_code=41)
    with pytest.raises(BootstrapFailed, match="NOT_CONTROLLER"):
        await trioq.connect(cluster.bootstrap).__aenter__()


async def serve_bytes(answer, use):
    """Run `use(port)` while a server answers anything with `answer` and hangs up."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)

    async def handle(stream):
        async with stream:
            await stream.receive(100)
            await stream.send(answer)

    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, handle)
        await use(listener.extra(anyio.abc.SocketAttribute.local_port))
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "is this a Kafka broker"),
        (struct.pack(">ii", 4, 99), "request 99, which is not the next"),
        (struct.pack(">iih", 6, 1, 0), "does not speak Kafka's protocol"),
        (struct.pack(">iihi", 10, 1, 0, 1 << 30), "does not speak Kafka's protocol"),
        (b"\0\0", "closed by the other side"),
    ],
)
async def test_what_is_no_broker(answer, reason):
    async def use(port):
        with pytest.raises(BootstrapFailed, match=reason):
            await trioq.connect(f"127.0.0.1:{port}").__aenter__()

    await serve_bytes(answer, use)


# ---- calls ---------------------------------------------------------------------------


async def test_calls_are_pipelined_and_bounded(cluster):
    async with trioq.connect(cluster.bootstrap, max_in_flight=3) as client:
        connection = await client.cluster.connection(1)
        most = 0

        async def call():
            nonlocal most
            await connection.call(MetadataRequest(topics=[]), MetadataResponse, timeout_s=10)
            most = max(most, connection.in_flight)

        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(call)
        assert most <= 3
        assert connection.in_flight == 0


async def test_a_late_answer_fails_every_call_of_the_connection(cluster):
    async with trioq.connect(cluster.bootstrap) as client:
        connection = await client.cluster.connection(1)
        failures = []

        async def call(timeout_s):
            try:
                await connection.call(
                    MetadataRequest(topics=[]), MetadataResponse, timeout_s=timeout_s
                )
            except ConnectionFailed as error:
                failures.append(type(error))

        cluster.lock.acquire()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call, 0.05)
                tasks.start_soon(call, 60)
        finally:
            cluster.lock.release()
        assert failures == [CallTimeout, CallTimeout]
        assert isinstance(connection.failure, CallTimeout)
        assert await client.cluster.connection(1) is not connection


async def test_the_answer_to_a_cancelled_call_is_dropped(cluster):
    async with trioq.connect(cluster.bootstrap) as client:
        connection = await client.cluster.connection(1)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await connection.call(MetadataRequest(topics=[]), MetadataResponse, timeout_s=10)
        answer = await connection.call(MetadataRequest(topics=[]), MetadataResponse, timeout_s=10)
        assert answer.cluster_id == "fake"
        assert connection.failure is None


async def test_connections_are_shared_and_opened_once(cluster):
    async with trioq.connect(cluster.bootstrap) as client:
        found = set()

        async def take():
            found.add(await client.cluster.connection(1))

        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(take)
        assert len(found) == 1
        assert await client.cluster.connection(1, "other") not in found
        assert cluster.nodes[1].accepted == 3  # and the one of the bootstrap


async def test_a_connection_that_broke_is_replaced(cluster):
    async with trioq.connect(cluster.bootstrap) as client:
        connection = await client.cluster.connection(1)
        cluster.nodes[1].drop_connections()
        while connection.failure is None:
            await connection.wait_for_progress()
        with pytest.raises(ConnectionFailed, match="closed by the other side|reset"):
            await connection.call(MetadataRequest(topics=[]), MetadataResponse, timeout_s=10)
        again = await client.cluster.connection(1)
        await again.call(MetadataRequest(topics=[]), MetadataResponse, timeout_s=10)


def test_every_request_has_its_key():
    assert api_of(SaslAuthenticateRequest)[:4] == (36, "SaslAuthenticate", 0, 2)
    assert api_of(ProduceRequest).first_version == 3
    assert common_version(api_of(MetadataRequest), {3: (2, 4)}) == 4


def test_small_pieces_are_joined():
    big = b"x" * 300_000
    assert joined([b"a"]) == [b"a"]
    assert joined([b"a", b"b", big, b"c", big]) == [b"ab", big, b"c", big]


# ---- SASL ----------------------------------------------------------------------------


class SaslServer:
    """Answers one mechanism; `steps` are functions from the client's token to a response."""

    def __init__(self, mechanism, *steps, lifetime_ms=0):
        self.mechanism = mechanism
        self.steps = steps
        self.at = 0
        self.lifetime_ms = lifetime_ms
        self.sessions = 0

    def __call__(self, request):
        if isinstance(request, SaslHandshakeRequest):
            self.at = 0
            self.sessions += 1
            known = request.mechanism == self.mechanism
            return SaslHandshakeResponse(error_code=0 if known else 33, mechanisms=[self.mechanism])
        assert isinstance(request, SaslAuthenticateRequest)
        step = self.steps[self.at]
        self.at += 1
        answer = step(request.auth_bytes)
        if isinstance(answer, bytes):
            return SaslAuthenticateResponse(auth_bytes=answer, session_lifetime_ms=self.lifetime_ms)
        return SaslAuthenticateResponse(error_code=58, error_message=answer)


def plain(token):
    return b"" if token == b"\0alice\0secret" else "Invalid credentials"


async def test_plain(cluster):
    cluster.sasl = SaslServer("PLAIN", plain)
    async with trioq.connect(cluster.bootstrap, sasl=trioq.SaslPlain("alice", "secret")) as client:
        assert client.statistics().brokers == 1


async def test_wrong_credentials_are_not_retried(cluster):
    cluster.sasl = SaslServer("PLAIN", plain)
    with pytest.raises(AuthenticationFailed, match=r"refused the PLAIN.*Invalid credentials"):
        await trioq.connect(cluster.bootstrap, sasl=trioq.SaslPlain("alice", "wrong")).__aenter__()
    assert cluster.sasl.sessions == 1


async def test_a_mechanism_that_is_not_offered(cluster):
    cluster.sasl = SaslServer("SCRAM-SHA-256")
    with pytest.raises(AuthenticationFailed, match="does not accept PLAIN: it offers SCRAM"):
        await trioq.connect(cluster.bootstrap, sasl=trioq.SaslPlain("a", "b")).__aenter__()


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize("password", ["secret", "wrong"])
async def test_scram(cluster, mechanism, password):
    from scramp import ScramException, ScramMechanism

    scram = ScramMechanism(mechanism)
    salt, stored_key, server_key, iterations = scram.make_auth_info("secret", iteration_count=4096)
    server = None

    def first(token):
        nonlocal server
        server = scram.make_server(lambda _: (salt, stored_key, server_key, iterations))
        server.set_client_first(token.decode())
        return server.get_server_first().encode()

    def final(token):
        try:
            server.set_client_final(token.decode())
        except ScramException:
            return "Authentication failed"
        return server.get_server_final().encode()

    cluster.sasl = SaslServer(mechanism, first, final)
    sasl = trioq.SaslScram("alice", password, mechanism)
    client = trioq.connect(cluster.bootstrap, sasl=sasl)
    if password == "secret":
        async with client:
            assert client.statistics().brokers == 1
    else:
        with pytest.raises(AuthenticationFailed, match="Authentication failed"):
            await client.__aenter__()


async def test_scram_server_that_does_not_know_the_password(cluster):
    from scramp import ScramMechanism

    scram = ScramMechanism("SCRAM-SHA-256")
    info = scram.make_auth_info("secret")
    server = None

    def first(token):
        nonlocal server
        server = scram.make_server(lambda _: info)
        server.set_client_first(token.decode())
        return server.get_server_first().encode()

    cluster.sasl = SaslServer("SCRAM-SHA-256", first, lambda _: b"v=bm90IHRoZSBzaWduYXR1cmU=")
    with pytest.raises(AuthenticationFailed, match="SCRAM-SHA-256 for 'alice'"):
        await trioq.connect(
            cluster.bootstrap, sasl=trioq.SaslScram("alice", "secret", "SCRAM-SHA-256")
        ).__aenter__()


async def test_oauthbearer(cluster):
    tokens = []

    def check(token):
        tokens.append(token)
        return b""

    async def fresh():
        return "token-2"

    cluster.sasl = SaslServer("OAUTHBEARER", check)
    for sasl in (
        trioq.SaslOAuthBearer("token-1", {"scope": "all"}),
        trioq.SaslOAuthBearer(fresh),
        trioq.SaslOAuthBearer(lambda: "token-3"),
    ):
        async with trioq.connect(cluster.bootstrap, sasl=sasl):
            pass
    assert tokens == [
        b"n,,\x01auth=Bearer token-1\x01scope=all\x01\x01",
        b"n,,\x01auth=Bearer token-2\x01\x01",
        b"n,,\x01auth=Bearer token-3\x01\x01",
    ]


async def test_a_refused_token(cluster):
    cluster.sasl = SaslServer(
        "OAUTHBEARER", lambda _: b'{"status":"invalid_token"}', lambda token: "it is " + repr(token)
    )
    with pytest.raises(AuthenticationFailed, match=r"it is b'\\x01'"):
        await trioq.connect(cluster.bootstrap, sasl=trioq.SaslOAuthBearer("t")).__aenter__()


async def test_a_session_that_ends_gets_another_connection(cluster):
    cluster.sasl = SaslServer("PLAIN", plain, lifetime_ms=60)
    async with trioq.connect(cluster.bootstrap, sasl=trioq.SaslPlain("alice", "secret")) as client:
        connection = await client.cluster.connection(1)
        while connection.is_usable(anyio.current_time()):
            await anyio.sleep(0.005)
        another = await client.cluster.connection(1)
        assert another is not connection
        while connection.failure is None:
            await connection.wait_for_progress()
        await another.call(MetadataRequest(topics=[]), MetadataResponse, timeout_s=10)


def test_secrets_do_not_show():
    texts = [
        repr(trioq.SaslPlain("alice", "secret")),
        repr(trioq.SaslScram("alice", "secret")),
        repr(trioq.SaslOAuthBearer("secret")),
    ]
    assert not any("secret" in text for text in texts)
    with pytest.raises(ClientUsageError):
        trioq.SaslPlain("a\0b", "c")
    with pytest.raises(ClientUsageError):
        trioq.SaslScram("a", "b", "SCRAM-SHA-1")


# ---- TLS -----------------------------------------------------------------------------


async def test_tls(cluster, tls_proxy, certificates):
    context = ssl.create_default_context(cafile=certificates.ca)
    async with tls_proxy(cluster.nodes[1].port) as port:
        cluster.nodes[1].port = port  # what metadata names
        async with trioq.connect(f"localhost:{port}", tls=context) as client:
            assert client.statistics().brokers == 1
        with pytest.raises(AuthenticationFailed, match=r"does not verify"):
            await trioq.connect(f"localhost:{port}", tls=True).__aenter__()
        with pytest.raises(BootstrapFailed):
            await trioq.connect(f"localhost:{port}", request_timeout_ms=2000).__aenter__()


async def test_tls_where_there_is_none(cluster, certificates):
    context = ssl.create_default_context(cafile=certificates.ca)
    with pytest.raises(BootstrapFailed, match="is it a TLS listener"):
        await trioq.connect(cluster.bootstrap, tls=context, connect_timeout_ms=300).__aenter__()
