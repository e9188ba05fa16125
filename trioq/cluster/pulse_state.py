"""Whether the loop has stood still, and what to do about it: decisions without I/O."""

from __future__ import annotations

from enum import Enum
from typing import Final

GAP_SHARE: Final = 1 / 3
"""Of a session: the loop may stand still for so long and serve on at once (SAFETY rule 12)."""

BRIEF_GAP_SHARE: Final = 1 / 12
"""Of a session: after a longer gap groups are coordinated only once the image is that of now. A
coordination slot is moved from a living broker without waiting for its lease, as when slots are
evened out, so what it holds in memory may be another's since."""

GIVE_UP_SHARE: Final = 2 / 3
"""Of a session: a loop that has not moved for so long loses the session (rule 13)."""

EXIT_SHARE: Final = 2.0
"""Of a session: a loop that has not moved for so long will not move again."""

BEATS_PER_SESSION: Final = 24


class GapState:
    """Shut from the first look after a gap until it is opened.

    Everybody who is about to act for this broker looks first; the loop also looks 24 times in a
    session, so two looks are further apart only if nothing ran in between. After brief gaps it is
    not shut, but `is_behind`: what the image says may be old.
    """

    __slots__ = (
        "all_gaps",
        "brief_limit_s",
        "gaps",
        "is_behind",
        "is_shut",
        "last_look_s",
        "limit_s",
    )

    def __init__(self, session_timeout_s: float, now_s: float) -> None:
        self.limit_s = GAP_SHARE * session_timeout_s
        self.brief_limit_s = BRIEF_GAP_SHARE * session_timeout_s
        self.last_look_s = now_s
        self.gaps = 0
        """How many there have been."""
        self.all_gaps = 0
        """The same with the brief ones."""
        self.is_shut = False
        self.is_behind = False

    def begin(self, now_s: float) -> None:
        """From now on the loop looks often enough."""
        self.last_look_s = now_s

    def look(self, now_s: float) -> float:
        """Note that the loop runs; returns the length of a gap that ends with this look, else 0."""
        gap_s = now_s - self.last_look_s
        self.last_look_s = now_s
        if gap_s > self.brief_limit_s:
            self.all_gaps += 1
            self.is_behind = True
        if gap_s <= self.limit_s:
            return 0.0
        self.gaps += 1
        self.is_shut = True
        return gap_s

    def open(self, gaps: int) -> bool:
        """What changed in the first `gaps` gaps is known now: open, unless there was one more."""
        self.is_shut = self.gaps != gaps
        return not self.is_shut

    def caught_up(self, all_gaps: int) -> None:
        """The image is that of after the first `all_gaps` gaps, brief or not."""
        self.is_behind = self.all_gaps != all_gaps


class Verdict(Enum):
    """What the watchdog does."""

    NOTHING = "nothing"
    GIVE_UP_SESSION = "give up session"
    EXIT = "exit"


class WatchdogState:
    """Judges a loop by its beats, as seen from another thread.

    A process that was stopped as a whole did not look either: such time does not count.
    """

    __slots__ = ("_beat_s", "_exit_s", "_give_up_s", "_has_given_up", "_last_s", "_since_s")

    def __init__(self, session_timeout_s: float, now_s: float) -> None:
        self._give_up_s = GIVE_UP_SHARE * session_timeout_s
        self._exit_s = EXIT_SHARE * session_timeout_s
        self._beat_s = now_s
        self._since_s = now_s
        self._last_s = now_s
        self._has_given_up = False

    def see(self, now_s: float, beat_s: float, *, interval_s: float) -> Verdict:
        """Judge at `now_s`, `interval_s` after the time before; `beat_s` is the loop's last."""
        slept_s = now_s - self._last_s
        self._last_s = now_s
        if beat_s != self._beat_s:
            self._beat_s, self._since_s, self._has_given_up = beat_s, now_s, False
            return Verdict.NOTHING
        if slept_s > 2 * interval_s:
            self._since_s += slept_s - interval_s
        stood_s = now_s - self._since_s
        if stood_s >= self._exit_s:
            return Verdict.EXIT
        if stood_s >= self._give_up_s and not self._has_given_up:
            self._has_given_up = True
            return Verdict.GIVE_UP_SESSION
        return Verdict.NOTHING
