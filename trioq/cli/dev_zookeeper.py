"""A ZooKeeper server for trying things out: where one is found, how it is started."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import trio

from trioq.errors import StartupError

HOST: Final = "127.0.0.1"
TICK_MS: Final = 1000
"""Sessions last from two ticks on."""

_DEBIAN_JAR: Final = Path("/usr/share/java/zookeeper.jar")
_DEBIAN_SETTINGS: Final = Path("/etc/zookeeper/conf")
_HEAP_MB: Final = 256
_START_TIMEOUT_S: Final = 60.0
_ASK_TIMEOUT_S: Final = 5.0
_POLL_S: Final = 0.05

HOW_TO_GET_ONE: Final = (
    "install it with Java (Debian: apt-get install zookeeper; macOS: brew install zookeeper; or "
    "unpack a release of zookeeper.apache.org and set ZOOKEEPER_HOME), or name one that runs with "
    "--zookeeper HOST:PORT"
)


class Launch(NamedTuple):
    """How to run a server by a configuration file: the command, and what its environment adds."""

    command: list[str]
    environment: Mapping[str, str]


def find(configuration: Path, environment: Mapping[str, str] = os.environ) -> Launch:
    """The ZooKeeper of $ZOOKEEPER_HOME, of the path, or of Debian's package.

    Raises StartupError, saying what to install.
    """
    if shutil.which("java") is None and "JAVA_HOME" not in environment:
        raise StartupError(f"a cluster needs ZooKeeper, and there is no java: {HOW_TO_GET_ONE}")
    script = _script(environment)
    if script is not None:
        heap = {"ZK_SERVER_HEAP": str(_HEAP_MB), "ZOO_LOG_DIR": str(configuration.parent)}
        return Launch([script, "start-foreground", str(configuration)], heap)
    if _DEBIAN_JAR.exists():
        classes = f"{_DEBIAN_SETTINGS}:{_DEBIAN_JAR}"
        main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
        return Launch(["java", f"-Xmx{_HEAP_MB}m", "-cp", classes, main, str(configuration)], {})
    raise StartupError(f"a cluster needs ZooKeeper, and there is none: {HOW_TO_GET_ONE}")


def _script(environment: Mapping[str, str]) -> str | None:
    home = environment.get("ZOOKEEPER_HOME")
    if home:
        script = Path(home) / "bin" / "zkServer.sh"
        if not script.exists():
            raise StartupError(
                f"ZOOKEEPER_HOME is {home}, where there is no bin/zkServer.sh: correct it"
            )
        return str(script)
    return shutil.which("zkServer.sh") or shutil.which("zkServer")  # Homebrew's has no suffix


def configure(directory: Path, port: int) -> Path:
    """Write the configuration of a server with its data in `directory`; returns its path."""
    data = directory / "data"
    data.mkdir(parents=True, exist_ok=True)
    path = directory / "zoo.cfg"
    path.write_text(
        f"tickTime={TICK_MS}\n"
        f"dataDir={data.absolute()}\n"
        f"clientPort={port}\n"
        f"clientPortAddress={HOST}\n"
        "admin.enableServer=false\n"
        "4lw.commands.whitelist=srvr\n"
        "maxClientCnxns=0\n"
        "autopurge.snapRetainCount=3\n"
        "autopurge.purgeInterval=1\n"
    )
    return path


def free_port() -> int:
    """A port of this machine that nobody has at the moment."""
    with socket.socket() as one:
        one.bind((HOST, 0))
        port: int = one.getsockname()[1]
        return port


async def until_serves(port: int) -> None:
    """Return when a server serves clients there. Raises StartupError when none does in time."""
    with trio.move_on_after(_START_TIMEOUT_S):
        while "Mode:" not in await _ask(port):  # noqa: ASYNC110  nobody tells when a server serves
            await trio.sleep(_POLL_S)
        return
    raise StartupError(f"ZooKeeper does not serve within {_START_TIMEOUT_S:.0f} s")


async def _ask(port: int) -> str:
    """The answer to the word "srvr"; empty while nobody answers."""
    answer = b""
    with trio.move_on_after(_ASK_TIMEOUT_S):
        try:
            async with await trio.open_tcp_stream(HOST, port) as stream:
                await stream.send_all(b"srvr")
                async for chunk in stream:
                    answer += chunk
        except (OSError, trio.BrokenResourceError):
            return ""
    return answer.decode(errors="replace")


async def check_running(hosts: str) -> None:
    """Raises StartupError when nobody listens at any of "host:port,host:port"."""
    for one in hosts.split(","):
        host, _, port = one.rpartition(":")
        with trio.move_on_after(_ASK_TIMEOUT_S):
            try:
                stream = await trio.open_tcp_stream(host.strip("[]"), int(port))
            except OSError:
                continue
            await stream.aclose()
            return
    raise StartupError(f"no ZooKeeper answers at {hosts}: start it, or correct --zookeeper")
