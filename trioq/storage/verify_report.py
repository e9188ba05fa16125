"""What `trioq log verify` found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple

MAX_PROBLEMS: Final = 1_000

Progress = Callable[[str, int, int], None]
"""Called with the file at work, and bytes of log checked and to check in all."""


class Severity(Enum):
    """What a problem means."""

    DAMAGE = "damage"
    """Records are lost or changed in this copy."""
    REPAIRABLE = "repairable"
    """Only derived data, or an unfinished write: the broker puts it right by itself."""


class Problem(NamedTuple):
    """One thing that is not as it should be; `position` is a byte of the file."""

    severity: Severity
    file: str
    position: int
    what: str
    advice: str

    def __str__(self) -> str:
        return f"{self.file} at byte {self.position}: {self.what}. {self.advice}"


@dataclass(slots=True)
class VerifyReport:
    """Totals and problems; the first 1,000 are kept, all are counted."""

    partitions: int = 0
    segments: int = 0
    batches: int = 0
    records: int = 0
    log_bytes: int = 0
    problems: list[Problem] = field(default_factory=list)
    damage_count: int = 0
    repairable_count: int = 0

    @property
    def is_sound(self) -> bool:
        """No record is lost or changed."""
        return self.damage_count == 0

    def damage(self, file: str, position: int, what: str, advice: str) -> None:
        self.damage_count += 1
        self._keep(Problem(Severity.DAMAGE, file, position, what, advice))

    def repairable(self, file: str, position: int, what: str, advice: str) -> None:
        self.repairable_count += 1
        self._keep(Problem(Severity.REPAIRABLE, file, position, what, advice))

    def _keep(self, problem: Problem) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)
