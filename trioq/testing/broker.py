"""What every broker in a test offers, whatever it runs in."""

from __future__ import annotations

import re
import secrets
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from trioq.config.listeners import format_address

if TYPE_CHECKING:
    from types import TracebackType

    from trioq._native.record_view import Record
    from trioq.testing.waiting import Observer
    from trioq.types import TopicPartition

DEFAULT_SETTINGS: Final = {
    "log.segment.delete.delay.ms": "0",
    "group.initial.rebalance.delay.ms": "0",  # a group's first member need not wait for others
}
WAIT_TIMEOUT_S: Final = 10.0

_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_HINT: Final = 200


def unique_topic(hint: str = "topic") -> str:
    """A legal topic name that no other call returns; `hint` is its beginning, for people."""
    name = _NOT_IN_NAMES.sub("-", hint)[:_LONGEST_HINT].strip("-.") or "topic"
    return f"{name}-{secrets.token_hex(4)}"


class BrokerUnderTest:
    """A broker on a free port of 127.0.0.1; a context manager that starts and stops it.

    `settings` are broker keys over DEFAULT_SETTINGS. Data is in a temporary folder that goes with
    the broker, or in `data_dir`, which stays. The port is taken at the first start and kept for
    later ones. Methods block; call them in a thread (or use the `async_` ones) where the loop of
    the test has to go on meanwhile.
    """

    def __init__(
        self,
        *,
        settings: Mapping[str, str] | None = None,
        data_dir: Path | str | None = None,
        port: int = 0,
    ) -> None:
        self.host = "127.0.0.1"
        self.port = port
        """0 until the first start, if none was given."""
        self.settings: dict[str, str] = {**DEFAULT_SETTINGS, **(settings or {})}
        """Broker keys; a change counts from the next start on."""
        self._temporary: Path | None = None
        if data_dir is None:
            self._temporary = Path(tempfile.mkdtemp(prefix="trioq-test-"))
            data_dir = self._temporary / "data"
        self.data_dir = Path(data_dir)

    @property
    def address(self) -> str:
        """HOST:PORT, as clients take it for `bootstrap.servers`."""
        return format_address(self.host, self.port)

    @property
    def is_running(self) -> bool:
        """True from the end of `start` until it is stopped, crashes or ends by itself."""
        raise NotImplementedError

    # ---- life

    def start(self) -> Self:
        """Start and wait until it serves. Raises what keeps it from that."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop in order, as SIGTERM does; does nothing when it does not run."""
        raise NotImplementedError

    def crash(self) -> None:
        """End as kill -9 ends a broker: sockets dropped, nothing flushed or closed in order."""
        raise NotImplementedError

    def pause(self) -> None:
        """Let nothing in the broker go on until `resume`; connections stay open, unanswered."""
        raise NotImplementedError

    def resume(self) -> None:
        """Go on after `pause`; does nothing when it is not paused."""
        raise NotImplementedError

    def restart(self) -> Self:
        """Stop in order if it runs, and start again with the same data on the same port."""
        self.stop()
        return self.start()

    def close(self) -> None:
        """Stop, and remove the temporary data; may be called again."""
        try:
            self.stop()
        finally:
            if self._temporary is not None:
                shutil.rmtree(self._temporary, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # ---- what is in it

    def create_topic(
        self,
        name: str | None = None,
        *,
        partitions: int = 1,
        config: Mapping[str, str] | None = None,
    ) -> str:
        """Create a topic, with a unique name where none is given; returns the name."""
        topic = unique_topic() if name is None else name
        self._observer.create_topic(topic, partitions, config or {})
        return topic

    def records(self, topic: str) -> list[Record[bytes | None, bytes | None]]:
        """All committed records of a topic now; those of a partition are in order."""
        return self._observer.records(topic)

    def end_offsets(self, topic: str) -> dict[int, int]:
        """The offset that the next record gets, by partition."""
        return self._observer.end_offsets(topic)

    def wait_for_records(
        self, topic: str, count: int = 1, *, timeout_s: float = WAIT_TIMEOUT_S
    ) -> list[Record[bytes | None, bytes | None]]:
        """Wait until a topic, which may not exist yet, has `count` committed records at least.

        Returns all of them; those of a partition are in order. Raises NotInTime.
        """
        return self._observer.wait_for_records(topic, count, timeout_s)

    async def async_wait_for_records(
        self, topic: str, count: int = 1, *, timeout_s: float = WAIT_TIMEOUT_S
    ) -> list[Record[bytes | None, bytes | None]]:
        """As `wait_for_records`, in a thread, while the loop (asyncio's or Trio's) goes on.

        Cancelled only when the wait is over.
        """
        from anyio import to_thread  # noqa: PLC0415  as in _observer

        return await to_thread.run_sync(
            lambda: self.wait_for_records(topic, count, timeout_s=timeout_s)
        )

    def lag(self, group: str, topic: str | None = None) -> dict[TopicPartition, int]:
        """How many offsets of each partition a group has not committed yet.

        Of every partition of `topic`, where nothing committed counts from the partition's start;
        or, without a topic, of the partitions that the group has committed. Offsets count: so do
        the markers of transactions.
        """
        return self._observer.lag(group, topic)

    def wait_for_lag(
        self,
        group: str,
        topic: str | None = None,
        *,
        at_most: int = 0,
        timeout_s: float = WAIT_TIMEOUT_S,
    ) -> dict[TopicPartition, int]:
        """Wait until a group's lag, in all partitions together, is `at_most`; see `lag`.

        A group without committed offsets has no lag yet if no topic is named. Raises NotInTime.
        """
        return self._observer.wait_for_lag(group, topic, at_most, timeout_s)

    async def async_wait_for_lag(
        self,
        group: str,
        topic: str | None = None,
        *,
        at_most: int = 0,
        timeout_s: float = WAIT_TIMEOUT_S,
    ) -> dict[TopicPartition, int]:
        """As `wait_for_lag`, in a thread; see `async_wait_for_records`."""
        from anyio import to_thread  # noqa: PLC0415  as in _observer

        return await to_thread.run_sync(
            lambda: self.wait_for_lag(group, topic, at_most=at_most, timeout_s=timeout_s)
        )

    @property
    def _observer(self) -> Observer:
        # Imported where it is used: it takes longer than a broker takes to start.
        from trioq.testing.waiting import Observer  # noqa: PLC0415

        return Observer(self.host, self.port)
