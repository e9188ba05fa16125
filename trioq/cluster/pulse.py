"""The loop's pulse: what is done after it has stood still, and by whom while it does.

A broker that was stopped or starved does not know what happened meanwhile: others may have been
elected in its place. So after a gap of more than a third of a session the reactor serves nothing
until the metastore answered and the image is that of now, or the metastore is known to be out of
reach (SAFETY rule 12). Groups wait after briefer gaps too, and until the image is that of now. A
thread watches the loop itself: one that does not move loses its session,
so that others take over, and in the end its process (rule 13).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from trioq import logs
from trioq.cluster.pulse_state import BEATS_PER_SESSION, GapState, Verdict, WatchdogState
from trioq.errors import MetastoreError

if TYPE_CHECKING:
    from trioq.clock import Clock
    from trioq.metastore.feed import ImageFollower
    from trioq.metastore.zookeeper import ZooKeeperMetastore

_log = logs.get_logger("trioq.cluster")

EXIT_WEDGED: Final = 70

_PAUSE_S: Final = 0.05
_SAY_PATIENCE_S: Final = 1.0


class Pulse:
    """The gate that the reactor asks before each pass; `run` is its life."""

    def __init__(
        self,
        metastore: ZooKeeperMetastore,
        follower: ImageFollower,
        clock: Clock,
        *,
        exit_process: Callable[[int], None] = os._exit,
    ) -> None:
        self._metastore = metastore
        self._follower = follower
        self._clock = clock
        self._exit_process = exit_process
        self._session_s = metastore.session_timeout_s
        self._gap = GapState(self._session_s, clock.monotonic_s())
        self._stood_still = trio.Event()
        self._opened = trio.Event()
        self._is_over = threading.Event()

    # ---- the gate

    def is_shut(self, now_s: float) -> bool:
        """Whether nothing may be served at `now_s`; called on the loop's thread only."""
        gaps_before = self._gap.all_gaps
        gap_s = self._gap.look(now_s)
        if self._gap.all_gaps != gaps_before:
            self._stood_still.set()
        if gap_s:
            _log.warning(
                "the loop stood still; nothing is served until the metastore answers",
                stood_still_s=round(gap_s, 1),
            )
        return self._gap.is_shut

    def is_behind(self, now_s: float) -> bool:
        """Whether the image may be older than a gap of the loop: ask before acting for a slot."""
        self.is_shut(now_s)
        return self._gap.is_behind

    @property
    def gaps(self) -> int:
        """How often it was shut."""
        return self._gap.gaps

    async def opened(self) -> None:
        """Wait until it is open."""
        while self._gap.is_shut:
            await self._opened.wait()

    # ---- the tasks

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Beat, watch, open after gaps; until cancelled."""
        thread = threading.Thread(target=self._watch, name="trioq-watchdog", daemon=True)
        try:
            async with trio.open_nursery() as pulse_nursery:
                pulse_nursery.start_soon(self._open_after_gaps)
                self._gap.begin(self._clock.monotonic_s())
                thread.start()
                task_status.started()
                while True:
                    await trio.sleep(self._interval_s)
                    self.is_shut(self._clock.monotonic_s())
        finally:
            self._is_over.set()
            if thread.is_alive():
                thread.join(_SAY_PATIENCE_S)

    @property
    def _interval_s(self) -> float:
        return self._session_s / BEATS_PER_SESSION

    async def _open_after_gaps(self) -> None:
        while True:
            await self._stood_still.wait()
            self._stood_still = trio.Event()
            gaps, all_gaps, was_shut = self._gap.gaps, self._gap.all_gaps, self._gap.is_shut
            with trio.move_on_after(self._gap.limit_s) as patience:
                await self._catch_up()
            self.is_shut(self._clock.monotonic_s())  # or has it stood still again meanwhile?
            if not patience.cancelled_caught:
                self._gap.caught_up(all_gaps)
            if self._gap.is_behind:
                self._stood_still.set()
            if not self._gap.open(gaps):
                continue
            if patience.cancelled_caught and was_shut:
                _log.warning("the metastore is out of reach; serving what is led here all the same")
            self._opened.set()
            self._opened = trio.Event()

    async def _catch_up(self) -> None:
        """Bring the image up to now."""
        while True:
            await self._metastore.session.connected()
            try:
                await self._metastore.sync()
                await self._follower.catch_up()
            except MetastoreError:
                await trio.sleep(_PAUSE_S)
            else:
                return

    # ---- the thread

    def _watch(self) -> None:
        """The watchdog; in its own thread."""
        clock, interval_s = self._clock, self._interval_s
        state = WatchdogState(self._session_s, clock.monotonic_s())
        while not self._is_over.wait(interval_s):
            verdict = state.see(clock.monotonic_s(), self._gap.last_look_s, interval_s=interval_s)
            stood_still_s = round(clock.monotonic_s() - self._gap.last_look_s, 1)
            if verdict is Verdict.GIVE_UP_SESSION:
                _start(self._metastore.give_up)
                _say(
                    "the loop does not move: this broker gives up its session, others take over",
                    stood_still_s=stood_still_s,
                )
            elif verdict is Verdict.EXIT:
                _say(
                    "the loop does not move: this broker stops; the next start recovers its logs",
                    stood_still_s=stood_still_s,
                    exit_status=EXIT_WEDGED,
                )
                self._exit_process(EXIT_WEDGED)
                return


def _start(call: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread


def _say(event: str, **fields: object) -> None:
    """Log, but do not wait long: it may be stderr that the loop waits for."""
    _start(partial(_log.error, event, **fields)).join(_SAY_PATIENCE_S)
