"""Real ZooKeeper servers, as plain Java processes: one, or an ensemble, of Debian's package."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

JAR = Path("/usr/share/java/zookeeper.jar")
CONFIGURATION = Path("/etc/zookeeper/conf")
NETTY = ("all", "handler", "buffer", "common", "transport", "codec", "resolver")
START_TIMEOUT_S = 60.0
POLL_S = 0.02
TICK_MS = 500
JAVA_OPTIONS = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""Of a small server that lives for seconds: its best compiler would cost more than it saves."""


class Ports(NamedTuple):
    """Where one server listens: for clients, and for the other servers."""

    client: int
    quorum: int
    election: int
    host: str = "127.0.0.1"


def missing() -> str:
    """Why no server can be started here; empty if one can."""
    if shutil.which("java") is None:
        return "no ZooKeeper: there is no java on the path"
    if not JAR.exists():
        return f"no ZooKeeper: {JAR} is missing (Debian: apt-get install zookeeper)"
    return ""


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody has at the moment."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _state(task: Path) -> str:
    """A thread's state as the kernel has it."""
    return (task / "stat").read_text().rpartition(")")[2].split()[0]


class ZooKeeperServer:
    """One server process with a directory of its own; it can be stopped, killed and started.

    `prefix` are the words before its command, such as those that run it in another namespace.
    """

    def __init__(
        self,
        directory: Path,
        ports: Ports,
        *,
        number: int = 1,
        ensemble: Mapping[int, Ports] | None = None,
        settings: Sequence[str] = (),
        java_options: Sequence[str] = (),
        with_netty: bool = False,
        prefix: Sequence[str] = (),
    ) -> None:
        self.directory = directory
        self.ports = ports
        self._java_options = list(java_options)
        self._with_netty = with_netty
        self._prefix = list(prefix)
        self._process: subprocess.Popen[bytes] | None = None
        data = directory / "data"
        data.mkdir(parents=True, exist_ok=True)
        lines = [
            f"tickTime={TICK_MS}",
            f"dataDir={data}",
            f"clientPort={ports.client}",
            f"clientPortAddress={ports.host}",
            "admin.enableServer=false",
            "4lw.commands.whitelist=*",
            "maxClientCnxns=0",
            "maxSessionTimeout=60000",
            *settings,
        ]
        if ensemble:
            (data / "myid").write_text(f"{number}\n")
            lines += ["initLimit=20", "syncLimit=10"]
            lines += [
                f"server.{n}={one.host}:{one.quorum}:{one.election}" for n, one in ensemble.items()
            ]
        self._config = directory / "zoo.cfg"
        self._config.write_text("\n".join(lines) + "\n")

    @property
    def address(self) -> str:
        return f"{self.ports.host}:{self.ports.client}"

    @property
    def log_path(self) -> Path:
        return self.directory / "server.log"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def leads(self) -> bool:
        """Whether it is the ensemble's leader."""
        return "Mode: leader" in self.ask("srvr")

    def launch(self) -> None:
        """Start the process; `wait` for it to serve."""
        classes = [str(CONFIGURATION), str(JAR)]
        if self._with_netty:
            classes += [f"/usr/share/java/netty-{part}.jar" for part in NETTY]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *self._prefix,
                    *("java", *JAVA_OPTIONS, *self._java_options),
                    *("-cp", ":".join(classes)),
                    "org.apache.zookeeper.server.quorum.QuorumPeerMain",
                    str(self._config),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def wait(self) -> None:
        """Wait until it serves clients."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while self.ask("srvr").find("Mode:") < 0:
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(
                    f"ZooKeeper does not serve:\n{self.log_path.read_text()[-3000:]}"
                )
            time.sleep(POLL_S)

    def start(self) -> None:
        self.launch()
        self.wait()

    def ask(self, word: str) -> str:
        """The answer to one of the four-letter words; empty while nobody answers."""
        try:
            with socket.create_connection((self.ports.host, self.ports.client), 5) as connection:
                connection.sendall(word.encode())
                answer = b""
                while piece := connection.recv(4096):
                    answer += piece
                return answer.decode()
        except OSError:
            return ""

    def pause(self) -> None:
        """SIGSTOP, and wait until every thread stands still."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        tasks = Path(f"/proc/{self._process.pid}/task")
        while any(_state(task) not in {"T", "t"} for task in tasks.iterdir()):
            time.sleep(POLL_S)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextlib.contextmanager
def one_server(
    directory: Path,
    *,
    settings: Sequence[str] = (),
    before: Callable[[], None] = lambda: None,
    **more: Any,
) -> Iterator[ZooKeeperServer]:
    """A server that serves, once `before` was called; skips the test where none can be had."""
    if reason := missing():
        pytest.skip(reason)
    before()
    server = ZooKeeperServer(directory, Ports(*free_ports(3)), settings=settings, **more)
    try:
        server.start()
        yield server
    finally:
        server.kill()


@contextlib.contextmanager
def ensemble(directory: Path, count: int = 3) -> Iterator[list[ZooKeeperServer]]:
    """So many servers with a leader among them; skips the test where none can be had."""
    if reason := missing():
        pytest.skip(reason)
    flat = free_ports(3 * count)
    ports = {n + 1: Ports(*flat[3 * n : 3 * n + 3]) for n in range(count)}
    servers = [
        ZooKeeperServer(directory / str(n), one, number=n, ensemble=ports)
        for n, one in ports.items()
    ]
    try:
        for server in servers:
            server.launch()
        for server in servers:
            server.wait()
        yield servers
    finally:
        for server in servers:
            server.kill()
