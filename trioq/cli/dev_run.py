"""The life of the cluster that `trioq dev-cluster` runs: up together, down one by one."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import click
import trio

from trioq import logs
from trioq.cli import dev_zookeeper
from trioq.cli.dev_process import DevProcess, readable
from trioq.errors import StartupError
from trioq.metastore.zookeeper_address import ZooKeeperAddress

_READY: Final = re.compile(r"trioq ready (?P<host>\S+):(?P<port>\d+) node=\d+ in \d+ ms")
_COLOURS: Final = ("cyan", "green", "yellow", "magenta", "blue")
_TAIL_LINES: Final = 10


class Plan(NamedTuple):
    """What is to run. `settings` are keys of every broker; `port` is the first one's, 0 any."""

    brokers: int
    directory: Path
    port: int
    zookeeper: str | None
    settings: Mapping[str, str]
    restart_after_s: float


def run(plan: Plan) -> None:
    """Run it until a signal. Raises StartupError when it does not come up."""
    with _held(plan.directory) as lock:
        try:
            trio.run(DevCluster(plan, lock).run)
        except BaseExceptionGroup as group:
            refusals, bugs = group.split(StartupError)
            if refusals is None or bugs is not None:
                raise
            raise _first(refusals) from None


def _first(group: BaseExceptionGroup[StartupError]) -> StartupError:
    one = group.exceptions[0]
    return _first(one) if isinstance(one, BaseExceptionGroup) else one


@contextmanager
def _held(directory: Path) -> Iterator[int]:
    """The directory, locked. Its ZooKeeper holds the lock too: two would ruin the data.

    Raises StartupError when another has it.
    """
    path = directory / "lock"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StartupError(f"{directory} cannot be used: {error.strerror or error}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = path.read_text().strip()
            raise StartupError(
                f"{directory} is in use: by another dev-cluster, or by the ZooKeeper that one left "
                f"when it was killed (processes {holder}); end them, or choose another --data-dir"
            ) from error
        os.ftruncate(descriptor, 0)
        yield descriptor
    finally:
        os.close(descriptor)


Ready = Callable[[], None]
"""Called when a process does what it is for."""


class _Broker(DevProcess):
    """One broker, by its number, and what it printed."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.address = ""
        self._label = click.style(f"broker {number} | ", fg=_COLOURS[(number - 1) % len(_COLOURS)])
        self._render = logs.coloured_line if sys.stderr.isatty() else logs.plain_line
        self._last_words = ""

    async def live(self, command: list[str], ready: Ready) -> str:
        """Run it once; how it ended, and what it said of that."""
        self._last_words = ""

        def read(line: str) -> None:
            if match := _READY.fullmatch(line):
                self.address = f"{match['host']}:{match['port']}"
                ready()
                return
            if line.startswith("trioq: "):
                self._last_words = line.removeprefix("trioq")
            shown = readable(line, self._render)
            click.echo("\n".join(self._label + one for one in shown.splitlines()), err=True)

        return await self.run(command, read) + self._last_words


class DevCluster:
    """ZooKeeper and the brokers of a plan; `run` is its life."""

    def __init__(self, plan: Plan, lock: int) -> None:
        self._plan = plan
        self._lock = lock
        self._zookeeper = DevProcess()
        self._zookeeper_port = 0
        self._metastore = ""
        self._brokers = [_Broker(number) for number in range(1, plan.brokers + 1)]
        self._signalled = trio.Event()
        self._starting = trio.CancelScope()

    async def run(self) -> None:
        """Start, tell, keep running, and stop when a signal comes. Raises StartupError."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen, nursery.cancel_scope)
            async with trio.open_nursery() as processes:
                with self._starting:
                    await self._start(processes)
                await self._signalled.wait()
                click.echo("\nstopping; Ctrl-C again ends everything at once", err=True)
                await self._stop()
                processes.cancel_scope.cancel()  # one that was just being started again
            nursery.cancel_scope.cancel()

    async def _listen(self, everything: trio.CancelScope) -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            async for _ in signals:
                if self._signalled.is_set():
                    everything.cancel()
                self._signalled.set()
                self._starting.cancel()

    # ---- up

    async def _start(self, processes: trio.Nursery) -> None:
        self._metastore = await self._find_metastore(processes)
        async with trio.open_nursery() as starts:
            for broker in self._brokers:
                starts.start_soon(processes.start, self._keep_broker, broker)
        self._tell()

    async def _find_metastore(self, processes: trio.Nursery) -> str:
        """The URL of the ZooKeeper that was named, or of the one that is started."""
        if self._plan.zookeeper is not None:
            text = self._plan.zookeeper
            url = f"zookeeper://{text}" if "/" in text else f"zookeeper://{text}/trioq-dev-cluster"
            address = ZooKeeperAddress.of_url(url)
            await dev_zookeeper.check_running(address.hosts)
            return address.described()
        self._zookeeper_port = dev_zookeeper.free_port()
        await processes.start(self._keep_zookeeper)
        return f"zookeeper://{dev_zookeeper.HOST}:{self._zookeeper_port}/trioq"

    async def _keep_broker(
        self, broker: _Broker, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        name = f"broker {broker.number}"
        await self._keep(name, lambda ready: broker.live(self._command(broker), ready), task_status)

    async def _keep_zookeeper(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        await self._keep("ZooKeeper", self._live_zookeeper, task_status)

    async def _keep(
        self, name: str, live: Callable[[Ready], Awaitable[str]], task_status: trio.TaskStatus[None]
    ) -> None:
        """Start a process again whenever it has ended, until all is stopping.

        Started when it was ready for the first time. Raises StartupError when it never was.
        """
        was_ready = False

        def ready() -> None:
            nonlocal was_ready
            if not was_ready:
                was_ready = True
                task_status.started()

        while True:
            how = await live(ready)
            if self._signalled.is_set():
                return
            if not was_ready:
                raise StartupError(f"{name} {how}")
            wait_s = self._plan.restart_after_s
            click.echo(f"{name} {how}; it is started again in {wait_s:g} s", err=True)
            with trio.move_on_after(wait_s):
                await self._signalled.wait()
                return

    async def _live_zookeeper(self, ready: Ready) -> str:
        """Run it once; its output goes to a file, the end of which is told if it gives up."""
        directory = self._plan.directory / "zookeeper"
        launch = dev_zookeeper.find(dev_zookeeper.configure(directory, self._zookeeper_port))
        log_path = directory / "server.log"
        is_ready = False
        last: deque[str] = deque(maxlen=_TAIL_LINES)

        async def tell_ready() -> None:
            nonlocal is_ready
            await dev_zookeeper.until_serves(self._zookeeper_port)
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"{os.getpid()} and {self._zookeeper.pid}\n".encode(), 0)
            is_ready = True
            ready()

        with log_path.open("a") as log:

            def read(line: str) -> None:
                last.append(line)
                log.write(line + "\n")
                log.flush()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(tell_ready)
                how = await self._zookeeper.run(
                    launch.command,
                    read,
                    environment=launch.environment,
                    keep_open=(self._lock,),
                )
                nursery.cancel_scope.cancel()
        if is_ready:
            return how
        return "\n".join([f"{how}; the end of its log, {log_path}:", *last])

    def _command(self, broker: _Broker) -> list[str]:
        plan = self._plan
        port = plan.port and plan.port + broker.number - 1
        command = [sys.executable, "-P", "-m", "trioq.cli", "serve"]
        command += ["--node-id", str(broker.number), "--metastore", self._metastore]
        command += ["--data-dir", str(plan.directory / f"broker-{broker.number}")]
        command += ["--listen", broker.address or f"{dev_zookeeper.HOST}:{port}"]
        for key, value in plan.settings.items():
            command += ["--set", f"{key}={value}"]
        return command

    def _tell(self) -> None:
        """Say what runs, and what to try."""
        plan = self._plan
        first = self._brokers[0]
        lines = [
            f"{plan.brokers} brokers, data in {plan.directory}, {self._metastore}",
            "",
            *(f"  broker {one.number}  {one.address}  process {one.pid}" for one in self._brokers),
            "",
            "try, in another terminal:",
            "",
            f"  export TRIOQ_BOOTSTRAP_SERVER={','.join(one.address for one in self._brokers)}",
            "  trioq topic create orders --partitions 3",
            "  seq 1000 | trioq produce orders",
            "  trioq consume orders",
            "  trioq cluster describe --partitions",
            f"  kill -9 {first.pid}    # broker 1; it is back in {plan.restart_after_s:g} s",
            "",
            "Ctrl-C stops everything.",
        ]
        click.echo("\n".join(lines))

    # ---- down

    async def _stop(self) -> None:
        """The brokers one by one, so that each can hand over what it leads; ZooKeeper last."""
        for process in (*reversed(self._brokers), self._zookeeper):
            await process.terminate()
