"""A broker in a thread of the test's own process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, TypeVar

import trio

from trioq.broker import Broker
from trioq.config import BrokerConfig
from trioq.errors import BrokerBug, ConfigError, KafkaError, MetastoreError, StartupError
from trioq.testing.broker import BrokerUnderTest
from trioq.testing.disk import CrashingDisk
from trioq.testing.refusals import refuse_next
from trioq.wire.api_keys import APIS, ApiKey

if TYPE_CHECKING:
    from trioq.metastore.image import ClusterImage
    from trioq.server.context import Context

START_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 60.0

_REFUSALS: Final = (StartupError, ConfigError, MetastoreError)

T = TypeVar("T")


class InProcessBroker(BrokerUnderTest):
    """A real broker in a thread and Trio loop of its own, whose state a test can look at.

        with InProcessBroker() as broker:
            ...  # any client, at broker.address

    It is ready within milliseconds, and touches neither signal handlers nor other settings of
    the process. It shares the interpreter with the test: code of the test that computes slows it
    down. Any number may run at once. A bug that would end a broker's process is raised in the
    test instead, as BrokerBug, by the next call or at the end of the block.
    """

    def __init__(
        self,
        *,
        settings: Mapping[str, str] | None = None,
        data_dir: Path | str | None = None,
        port: int = 0,
    ) -> None:
        super().__init__(settings=settings, data_dir=data_dir, port=port)
        self._life: _Life | None = None

    @property
    def is_running(self) -> bool:
        return self._life is not None and self._life.is_serving

    def start(self) -> Self:
        """Start and wait until it serves.

        Raises StartupError or ConfigError, as `trioq serve` prints them, and BrokerBug.
        """
        if self._life is not None:
            raise RuntimeError("the broker was started already: stop it first, or use restart")
        config = BrokerConfig.from_mapping(
            {
                **self.settings,
                "log.dirs": str(self.data_dir),
                "listeners": self.address,
            }
        )
        self.data_dir.parent.mkdir(parents=True, exist_ok=True)
        life = _Life(config)
        try:
            life.start()
        except BaseException:
            life.abandon()
            raise
        self._life = life
        self.port = life.broker.server.listeners[0].port
        return self

    def stop(self) -> None:
        """Stop in order: what is begun is answered, logs are closed. Raises BrokerBug."""
        life, self._life = self._life, None
        if life is not None:
            life.end(life.broker.stop)

    def crash(self) -> None:
        """End as kill -9 ends a broker: sockets dropped, nothing flushed or closed in order.

        What it had written is in the files (a process that is killed leaves it to the system);
        what it had not is lost. `start` goes on with that.
        """
        life, self._life = self._life, None
        if life is not None:
            life.end(life.crash)

    def pause(self) -> None:
        life = self._running()
        life.pause()

    def resume(self) -> None:
        if self._life is not None:
            self._life.resume()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Paused for the length of the block."""
        self.pause()
        try:
            yield
        finally:
            self.resume()

    # ---- its inside

    @property
    def broker(self) -> Broker:
        """The broker itself. Its parts belong to its loop: look at them by `call`."""
        return self._running().broker

    @property
    def image(self) -> ClusterImage:
        """Topics, partitions and configuration as the broker knows them now; immutable."""
        return self.call(lambda context: context.image)

    def call(self, function: Callable[[Context], T]) -> T:
        """`function` with the broker's context, run on the broker's loop; what it returns.

        It must not block. What it raises is raised here. `context` has the broker's parts: log
        directories, partitions, metrics, image.
        """
        life = self._running()
        return life.call(lambda: function(life.broker.context))

    def refuse(self, api: ApiKey | str, error: type[KafkaError], *, times: int = 1) -> None:
        """Answer the next `times` requests of an API with an error, whoever sends them.

        `api` is an ApiKey or Kafka's name of it, such as "Produce". Those requests have no other
        effect: nothing is written. The error is put wherever the response has a place for one;
        a request without such a place is served as usual and not counted. `times=0` ends it.

        A refused Produce request with acks=0 has no answer: its connection is closed, as a real
        broker does.
        """
        key = _api_key(api)
        life = self._running()
        life.call(lambda: refuse_next(life.broker.server, key, error, times))

    def _running(self) -> _Life:
        life = self._life
        if life is None:
            raise RuntimeError("the broker does not run: start it first")
        life.raise_failure()
        return life


def _api_key(api: ApiKey | str) -> ApiKey:
    if isinstance(api, ApiKey):
        return api
    for row in APIS.values():
        if row.name == api:
            return row.key
    raise ValueError(
        f"no API is called {api}; there are {', '.join(a.name for a in APIS.values())}"
    )


class _Life:
    """One run of a broker, from start to end, in a thread."""

    def __init__(self, config: BrokerConfig) -> None:
        self._config = config
        self._disk = CrashingDisk()
        self._started: Future[None] = Future()
        self._go_on: threading.Event | None = None  # while paused
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="trioq broker", daemon=True)
        self._token: trio.lowlevel.TrioToken
        self._scope = trio.CancelScope()
        self.broker: Broker

    @property
    def is_serving(self) -> bool:
        return self._started.done() and self._thread.is_alive()

    # ---- in the broker's thread

    def _run(self) -> None:
        try:
            trio.run(self._serve)
        except BaseException as error:  # noqa: BLE001  handed to the thread of the test
            self._failure = error
            if not self._started.done():
                self._started.set_exception(_cause(error))

    async def _serve(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self.broker = Broker(self._config, disk=self._disk)
        with self._scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(self.broker.run)
                self._started.set_result(None)

    # ---- in the test's

    def start(self) -> None:
        """Return when the broker serves; raises why it does not."""
        self._thread.start()
        try:
            self._started.result(START_TIMEOUT_S)
        except TimeoutError:
            raise BrokerBug(f"the broker did not start within {START_TIMEOUT_S:g} s") from None

    def abandon(self) -> None:
        """The start failed: leave nothing running."""
        if self._thread.is_alive():
            self._post(self._scope.cancel)
        self._thread.join(STOP_TIMEOUT_S)

    def raise_failure(self) -> None:
        """Raise what ended the broker, if anything did."""
        if self._failure is not None:
            raise _cause(self._failure) from self._failure

    def call(self, function: Callable[[], T]) -> T:
        """`function()` on the broker's loop."""
        if self._go_on is not None:
            raise RuntimeError("the broker is paused: resume it first")
        outcome: Future[T] = Future()

        def run() -> None:
            try:
                outcome.set_result(function())
            except BaseException as error:  # noqa: BLE001  raised in the thread of the test
                outcome.set_exception(error)

        self._post(run)
        while True:
            try:
                return outcome.result(0.1)
            except TimeoutError:
                if outcome.done():
                    raise
                if not self._thread.is_alive():
                    self.raise_failure()
                    raise RuntimeError("the broker has ended meanwhile") from None

    def pause(self) -> None:
        """Keep the loop standing still until `resume`."""
        if self._go_on is not None:
            return
        go_on = threading.Event()
        stands: Future[None] = Future()

        def stand_still() -> None:
            stands.set_result(None)
            go_on.wait()

        self._post(stand_still)
        stands.result(START_TIMEOUT_S)
        self._go_on = go_on

    def resume(self) -> None:
        go_on, self._go_on = self._go_on, None
        if go_on is not None:
            go_on.set()

    def crash(self) -> None:
        """On the loop: nothing that the broker does from here on has an effect outside."""
        self._disk.die()
        self.broker.server.drop()
        self._scope.cancel()

    def end(self, how: Callable[[], None]) -> None:
        """Call `how` on the loop, wait for the end of the thread, raise what went wrong."""
        self._post(how)
        self.resume()
        self._thread.join(STOP_TIMEOUT_S)
        if self._thread.is_alive():
            raise BrokerBug(f"the broker did not end within {STOP_TIMEOUT_S:g} s")
        self.raise_failure()

    def _post(self, function: Callable[[], object]) -> None:
        try:
            self._token.run_sync_soon(function)
        except trio.RunFinishedError:
            self._thread.join(STOP_TIMEOUT_S)
            self.raise_failure()


def _cause(error: BaseException) -> BaseException:
    """What is raised in the test for what ended the broker."""
    leaves = list(_leaves(error))
    for leaf in leaves:
        if isinstance(leaf, _REFUSALS):
            return leaf
    bugs = [leaf for leaf in leaves if isinstance(leaf, BrokerBug)] or leaves
    return BrokerBug(f"the broker ended by itself: {bugs[0]!r}")


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions in a tree of groups."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
