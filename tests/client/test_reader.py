"""Handing out records: order, what counts as processed, stops, and other tasks' turns."""

from __future__ import annotations

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.client.test_fetcher_state import T0, T1, answer, batch, planned, reading
from trioq.client.fetch_response import apply_response
from trioq.client.reader import Reader
from trioq.errors import ClientClosed, CommitFailed
from trioq.types import TopicPartition

pytestmark = pytest.mark.anyio


def reader_of(state, **options):
    return Reader(
        state,
        **{"on_asked": lambda: None, "on_taken": lambda: None, **options},
    )


def filled(*batches, partition=T0):
    state = reading(T0, T1)
    fill(state, *batches, partition=partition)
    return state


def fill(state, *batches, partition=T0):
    plan = planned(state)
    apply_response(state, plan, answer(plan, {partition: b"".join(batches)}), 0)


async def takes_nothing(reader):
    with anyio.move_on_after(0.01):
        await anext(reader)
        return False
    return True


async def test_what_is_in_hand_is_not_processed():
    reader = reader_of(filled(batch(0, 3), batch(3, 2)))
    assert reader.processed()[T0].offset == 0
    for offset in range(5):
        assert (await anext(reader)).offset == offset
        assert reader.is_holding
        assert reader.processed()[T0].offset == offset
    assert await takes_nothing(reader)
    assert not reader.is_holding
    assert reader.processed()[T0].offset == 5


async def test_of_batches_the_one_in_hand_is_not_processed():
    reader = reader_of(filled(batch(0, 3), batch(3, 2)))
    assert list((await reader.next_batch()).offsets) == [0, 1, 2]
    assert reader.processed()[T0].offset == 0
    assert list((await reader.next_batch()).offsets) == [3, 4]
    assert reader.processed()[T0].offset == 3
    reader.finish()
    assert reader.processed()[T0].offset == 5


async def test_nothing_is_given_out_while_stopped():
    state = filled(batch(0, 3))
    reader = reader_of(state)
    await anext(reader)
    reader.stop()
    assert reader.is_holding
    assert await takes_nothing(reader)
    assert not reader.is_holding
    reader.drop([T0])
    state.unassign([T0])
    reader.go()
    assert await takes_nothing(reader)
    fill(state, batch(0, 1), partition=T1)
    assert (await anext(reader)).partition == 1


async def test_what_is_set_aside_comes_when_it_is_resumed():
    state = filled(batch(0, 3))
    reader = reader_of(state)
    await anext(reader)
    reader.set_aside([T0])
    state.pause([T0])
    assert await takes_nothing(reader)
    assert reader.processed()[T0].offset == 1
    fill(state, batch(0, 1), partition=T1)
    assert (await anext(reader)).partition == 1
    state.resume([T0])
    assert [(await anext(reader)).offset for _ in range(2)] == [1, 2]


async def test_a_failure_is_raised_each_time():
    reader = reader_of(filled(batch(0, 2)))
    await anext(reader)
    reader.failure = ClientClosed("test")
    reader.stop()
    reader.go()
    for _ in range(2):
        with pytest.raises(ClientClosed):
            await anext(reader)
        with pytest.raises(ClientClosed):
            await reader.next_batch()


async def test_what_must_come_before_a_batch_comes_once_and_may_fail():
    cleared = []

    async def before_batch(view):
        await anyio.sleep(0)
        cleared.append(view.start_offset)
        if len(cleared) == 2:
            raise CommitFailed("test")

    reader = reader_of(filled(batch(0, 2), batch(2, 2)), before_batch=before_batch)
    assert [(await anext(reader)).offset for _ in range(2)] == [0, 1]
    with pytest.raises(CommitFailed):
        await anext(reader)
    assert [(await anext(reader)).offset for _ in range(2)] == [2, 3]
    assert cleared == [0, 2, 2]


async def test_a_batch_that_is_taken_back_meanwhile_is_not_given_out():
    async def before_batch(view):
        if view.partition == 0:
            reader.drop([T0])
            raise CommitFailed("the partition has moved")

    state = filled(batch(0, 2))
    fill(state, batch(0, 1), partition=T1)
    reader = reader_of(state, before_batch=before_batch)
    assert (await anext(reader)).partition == 1


async def test_other_tasks_have_their_turn():
    """Records enough for many milliseconds are there: not all of them come before others run."""
    state = filled(batch(0, 150_000))
    reader = reader_of(state)
    turns = []

    async def other():
        while True:
            await anyio.sleep(0)
            turns.append(1)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(other)
        count = 0
        async for _ in reader:
            count += 1
            if len(turns) > 3:
                break
        tasks.cancel_scope.cancel()
    assert count < 150_000


operations = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["record", "record", "record", "batch", "pause", "resume"])),
        st.tuples(st.just("fill"), st.integers(1, 5), st.booleans()),
        st.tuples(st.just("seek"), st.integers(0, 9)),
        st.tuples(st.sampled_from(["cancel", "stop"])),
    ),
    max_size=40,
)


@pytest.mark.parametrize("anyio_backend", ["trio"])
def test_every_record_comes_once_and_in_order(anyio_backend):
    @settings(max_examples=60, deadline=None)
    @given(operations)
    def check(steps):
        anyio.run(run_steps, steps, backend=anyio_backend)

    check()


async def run_steps(steps):
    state = reading(T0, T1)
    reader = reader_of(state)
    expected = {T0: 0, T1: 0}
    ends = {T0: 0, T1: 0}
    logs = {T0: [], T1: []}

    def came(partition, offsets):
        for offset in offsets:
            assert offset == expected[partition]
            expected[partition] += 1
        assert not state.partitions[partition].paused

    async def record():
        with anyio.move_on_after(0):
            one = await anext(reader)
            came(TopicPartition(one.topic, one.partition), [one.offset])
            assert reader.processed()[one.topic, one.partition].offset == one.offset

    async def whole():
        with anyio.move_on_after(0):
            one = await reader.next_batch()
            came(TopicPartition(one.topic, one.partition), one.offsets)

    def refetch():
        """What a broker has at the positions where nothing is buffered."""
        plan = state.plan(1, 0)
        if plan is None:
            return
        records = {
            partition: b"".join(data for end, data in logs[partition] if end > wanted.offset)
            for partition, wanted in plan.wanted.items()
        }
        apply_response(state, plan, answer(plan, records), 0)

    for step in steps:
        match step:
            case ("record",):
                await record()
            case ("batch",):
                await whole()
            case ("fill", count, second):
                partition = T1 if second else T0
                data = batch(ends[partition], count)
                ends[partition] += count
                logs[partition].append((ends[partition], data))
                refetch()
            case ("seek", back):
                expected[T0] = max(0, expected[T0] - back)
                reader.drop([T0])
                state.seek(T0, expected[T0])
            case ("pause",):
                reader.set_aside([T0])
                state.pause([T0])
            case ("resume",):
                state.resume([T0])
            case ("stop",):
                reader.stop()
                await record()
                reader.go()
            case ("cancel",):
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    one = await anext(reader)
                    came(TopicPartition(one.topic, one.partition), [one.offset])
    state.resume([T0, T1])
    for _ in range(3 * sum(ends.values()) + 10):
        refetch()
        with anyio.move_on_after(0.001):
            one = await anext(reader)
            came(TopicPartition(one.topic, one.partition), [one.offset])
        if expected == ends:
            break
    assert expected == ends
