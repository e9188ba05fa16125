"""The high watermark is the minimum over every replica that counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioq.errors import BrokerBug
from trioq.replication.isr_state import IsrState

LEADER = 1
offsets = st.integers(0, 1000)


def test_a_leader_alone_counts_alone() -> None:
    isr = IsrState(LEADER, [LEADER])
    isr.record_position(2, 3)
    assert isr.is_alone
    assert isr.high_watermark(17) == 17


def test_a_leader_outside_its_isr_is_a_bug() -> None:
    with pytest.raises(BrokerBug):
        IsrState(LEADER, [2, 3])


@given(
    local=offsets,
    committed=st.sets(st.integers(2, 6)),
    proposed=st.none() | st.sets(st.integers(2, 6)),
    positions=st.dictionaries(st.integers(2, 6), offsets),
)
def test_high_watermark_is_the_minimum_over_old_and_new(
    local: int, committed: set[int], proposed: set[int] | None, positions: dict[int, int]
) -> None:
    isr = IsrState(LEADER, committed | {LEADER})
    for replica, end in positions.items():
        isr.record_position(replica, end)
    if proposed is not None:
        isr.propose(proposed | {LEADER})
    counted = committed | (proposed or set())
    assert isr.high_watermark(local) == min([local, *(positions.get(r, 0) for r in counted)])
    if proposed is not None:
        isr.decide(proposed | {LEADER})
        assert isr.high_watermark(local) == min([local, *(positions.get(r, 0) for r in proposed)])
