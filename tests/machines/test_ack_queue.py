"""Acknowledgements: each registration is told exactly once, and never too early."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trioq.errors import KafkaError, NotLeaderOrFollower
from trioq.replication.waiters import AckQueue


class Recorder:
    def __init__(self) -> None:
        self.told: list[tuple[int, type[KafkaError] | None]] = []

    def acknowledged(self, index: int) -> None:
        self.told.append((index, None))

    def refused(self, index: int, error: type[KafkaError]) -> None:
        self.told.append((index, error))


@given(st.lists(st.integers(1, 50) | st.integers(-50, -1), max_size=60))
def test_everyone_is_told_once_and_not_before_its_offset(steps: list[int]) -> None:
    """Positive: append so many records and wait for them; negative: this many became safe."""
    queue, recorder = AckQueue(), Recorder()
    end = safe = 0
    ends: list[int] = []
    for step in steps:
        if step > 0:
            end += step
            queue.add(end, recorder, len(ends))
            ends.append(end)
        else:
            safe = min(end, safe - step)
            queue.pass_offset(safe)
        assert [index for index, _ in recorder.told] == [
            index for index, needed in enumerate(ends) if needed <= safe
        ]
    queue.refuse_all(NotLeaderOrFollower)
    assert sorted(index for index, _ in recorder.told) == list(range(len(ends)))
    assert all(
        error is (None if ends[index] <= safe else NotLeaderOrFollower)
        for index, error in recorder.told
    )
    assert len(queue) == 0


def test_a_duplicate_waiting_for_an_earlier_offset_is_told_in_its_turn() -> None:
    queue, recorder = AckQueue(), Recorder()
    queue.add(10, recorder, 0)
    queue.add(5, recorder, 1)
    queue.pass_offset(9)
    assert recorder.told == []
    queue.pass_offset(10)
    assert recorder.told == [(0, None), (1, None)]
