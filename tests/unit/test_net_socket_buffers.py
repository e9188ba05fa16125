"""The memory of receiving."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trioq.net.socket_buffers import (
    GROWTH,
    RECEIVE_BYTES,
    TRUSTED_BYTES,
    Inbox,
    ReceiveBudget,
)

LIMIT = 1000
MOST = 600  # the largest frame


class BudgetMachine(RuleBasedStateMachine):
    """Inboxes that grow to their frame's size, finish, or leave."""

    def __init__(self) -> None:
        super().__init__()
        self.budget = ReceiveBudget(LIMIT)
        self.frames: dict[Inbox, int] = {}  # bytes each still wants
        self.asked: dict[Inbox, int] = {}  # growth that waits, in order

    @rule(frame_bytes=st.integers(1, MOST))
    def arrive(self, frame_bytes: int) -> None:
        self.frames[Inbox()] = frame_bytes

    @precondition(lambda self: any(inbox not in self.asked for inbox in self.frames))
    @rule(data=st.data())
    def grow(self, data: st.DataObject) -> None:
        inbox = data.draw(st.sampled_from([i for i in self.frames if i not in self.asked]))
        left = self.frames[inbox] - inbox.charged_bytes
        if left == 0:
            self._finish(inbox)
            return
        size = data.draw(st.integers(1, left))

        def granted() -> None:
            assert next(iter(self.asked)) is inbox, "not in order"
            assert self.asked.pop(inbox) == size

        if not self.budget.grant(inbox, size, granted):
            self.asked[inbox] = size

    @precondition(lambda self: self.frames)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        inbox = data.draw(st.sampled_from(list(self.frames)))
        self.asked.pop(inbox, None)
        del self.frames[inbox]
        self.budget.forget(inbox)

    def _finish(self, inbox: Inbox) -> None:
        del self.frames[inbox]
        self.budget.release(inbox)

    @invariant()
    def charges_add_up_and_stay_below_limit_and_reserve(self) -> None:
        assert self.budget.used_bytes == sum(inbox.charged_bytes for inbox in self.frames)
        assert self.budget.used_bytes <= LIMIT + MOST
        assert self.budget.waiting_count == len(self.asked)

    @invariant()
    def someone_can_always_go_on(self) -> None:
        if self.frames:
            assert len(self.asked) < len(self.frames)

    def teardown(self) -> None:
        for inbox in list(self.frames):
            self.asked.pop(inbox, None)
            del self.frames[inbox]
            self.budget.forget(inbox)
        assert self.budget.used_bytes == 0


TestBudget = BudgetMachine.TestCase


@given(st.integers(1, 5_000_000), st.data())
def test_an_inbox_grows_with_what_arrives_and_ends_at_its_frame(
    frame_bytes: int, data: st.DataObject
) -> None:
    inbox = Inbox()
    first = min(frame_bytes, 100)
    inbox.keep(memoryview(bytes(first)), frame_bytes)
    fill(inbox, data, RECEIVE_BYTES)
    assert len(inbox.take()) == frame_bytes
    assert inbox.length == inbox.frame_bytes == 0
    # The next one may be as large at once, up to a bound.
    trusted_bytes = max(RECEIVE_BYTES, min(frame_bytes, TRUSTED_BYTES))
    inbox.keep(memoryview(bytes(100)), 6_000_000)
    fill(inbox, data, trusted_bytes)
    # What was not received whole earns nothing.
    inbox.take()
    inbox.keep(memoryview(bytes(100)), 50_000_000)
    inbox.grow(inbox.next_growth())
    inbox.take()
    inbox.keep(memoryview(bytes(100)), 50_000_000)
    assert 100 + inbox.next_growth() == TRUSTED_BYTES


def fill(inbox: Inbox, data: st.DataObject, at_once_bytes: int) -> None:
    """Receive a frame in pieces; the buffer is never larger than is allowed."""
    frame_bytes = inbox.frame_bytes
    while inbox.length < frame_bytes:
        if inbox.is_full:
            inbox.grow(inbox.next_growth())
        assert len(inbox.buffer) <= max(GROWTH * inbox.length, at_once_bytes)
        assert len(inbox.buffer) <= frame_bytes
        room = len(inbox.buffer) - inbox.length
        inbox.length += data.draw(st.sampled_from([room, -(-room // 3)]))
