"""Fenced write chains, over every backend: SAFETY rules 7 and 15."""

from __future__ import annotations

import pytest
import trio

from trioq.metastore import store
from trioq.metastore.store import Check, Create, Delete, Set
from trioq.metastore.write_chain import CHAIN_BYTES, CHAIN_OPERATIONS, Deposed, FencedChain

pytestmark = pytest.mark.trio

FENCE, SEQ = "/term", "/term/seq"


@pytest.fixture
async def metastore(backend):
    async with backend.site().open() as opened:
        await opened.multi([Create(FENCE, b"nobody"), Create(SEQ, b"")])
        yield opened


async def take_over(metastore) -> FencedChain:
    """A new term: the fence's next version."""
    version = await metastore.set(FENCE, b"me", store.ANY_VERSION)
    return FencedChain(metastore, fence=Check(FENCE, version), seq_path=SEQ)


class Doubtful:
    """A store whose next multis answer OutcomeUnknown: applied at once, late, or never."""

    def __init__(self, metastore, *fates: str, gets_fail: int = 0) -> None:
        self._metastore = metastore
        self._fates = list(fates)
        self._gets_fail = gets_fail
        self.late = []

    def __getattr__(self, name):
        return getattr(self._metastore, name)

    async def multi(self, operations):
        fate = self._fates.pop(0) if self._fates else "done"
        if fate == "done":
            return await self._metastore.multi(operations)
        if fate == "applied":
            await self._metastore.multi(operations)
        elif fate == "late":
            self.late.append(operations)
        raise store.OutcomeUnknown("connection lost")

    async def get(self, path):
        if self._gets_fail:
            self._gets_fail -= 1
            raise store.MetastoreUnavailable("no connection")
        return await self._metastore.get(path)


async def test_results_are_those_of_the_operations(metastore):
    chain = await take_over(metastore)
    assert await chain.write([Create("/a", b"1"), Set("/a", b"2", 0)]) == ["/a", 1]
    assert await chain.write([Check("/a", 1), Delete("/a", 1)]) == [None, None]


async def test_safety_7_a_deposed_term_writes_nothing(metastore):
    old = await take_over(metastore)
    await old.write([Create("/a", b"")])
    new = await take_over(metastore)
    with pytest.raises(Deposed):
        await old.write([Create("/b", b"")])
    await new.write([Create("/c", b"")])
    with pytest.raises(Deposed):
        await old.write([Set("/a", b"", 0)])
    assert await metastore.get_many(["/a", "/b", "/c"]) == [(b"", 0), None, (b"", 0)]


async def test_safety_15_a_write_after_a_lost_one_fails_the_lost_one(metastore):
    term = await take_over(metastore)
    doubtful = Doubtful(metastore, "late")
    chain = FencedChain(doubtful, fence=term.fence, seq_path=SEQ)
    with pytest.raises(store.MetastoreUnavailable):
        await chain.write([Create("/lost", b"")])
    await chain.write([Create("/next", b"")])
    with pytest.raises(store.VersionConflict) as caught:
        await metastore.multi(doubtful.late[0])
    assert caught.value.path == SEQ
    assert await metastore.get_many(["/lost"]) == [None]


async def test_safety_15_a_lost_write_that_lands_first_is_met_by_the_next(metastore):
    term = await take_over(metastore)
    doubtful = Doubtful(metastore, "late")
    chain = FencedChain(doubtful, fence=term.fence, seq_path=SEQ)
    with pytest.raises(store.MetastoreUnavailable):
        await chain.write([Create("/a", b"")])
    await metastore.multi(doubtful.late[0])
    with pytest.raises(store.NodeExists) as caught:
        await chain.write([Create("/a", b"")])
    assert caught.value.index == 0
    await chain.write([Set("/a", b"x", 0)])


async def test_an_unknown_outcome_is_read_back(metastore):
    term = await take_over(metastore)
    chain = FencedChain(Doubtful(metastore, "applied", "never"), fence=term.fence, seq_path=SEQ)
    assert await chain.write([Create("/a", b"")]) is None
    with pytest.raises(store.MetastoreUnavailable):
        await chain.write([Create("/b", b"")])
    assert await chain.write([Create("/c", b"")]) == ["/c"]
    assert await metastore.get_many(["/a", "/b", "/c"]) == [(b"", 0), None, (b"", 0)]


@pytest.mark.parametrize("fate", ["applied", "never"])
async def test_what_cannot_be_read_back_stays_unknown_and_may_be_written_again(metastore, fate):
    term = await take_over(metastore)
    await term.write([Create("/a", b"")])
    doubtful = Doubtful(metastore, fate)
    chain = FencedChain(doubtful, fence=term.fence, seq_path=SEQ)
    chain._seq_version = (await metastore.get(SEQ)).version  # as after another write
    doubtful._gets_fail = 1
    with pytest.raises(store.OutcomeUnknown):
        await chain.write([Set("/a", b"x", store.ANY_VERSION)])
    await chain.write([Set("/a", b"x", store.ANY_VERSION)])
    assert (await metastore.get("/a")).value == b"x"


async def test_a_refused_write_names_its_own_operation(metastore):
    chain = await take_over(metastore)
    with pytest.raises(store.NoNode) as caught:
        await chain.write([Create("/a", b""), Create("/x/y", b"")])
    assert caught.value.index == 1
    await chain.write([Create("/a", b"")])


async def test_a_cancelled_write_is_found_out_by_the_next(metastore):
    chain = await take_over(metastore)
    for number in range(20):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(chain.write, [Create(f"/b{number}", b"")])
                for _ in range(number % 4):
                    await trio.lowlevel.checkpoint()
                scope.cancel()
        await chain.write([Create(f"/c{number}", b"")])
    names = await metastore.children("/")
    assert len([name for name in names if name.startswith("c")]) == 20


async def test_the_chain_counts_what_it_adds(metastore):
    chain = await take_over(metastore)
    room = store.MAX_MULTI_OPERATIONS - CHAIN_OPERATIONS
    await chain.write([Create(f"/n{number}", b"") for number in range(room)])
    with pytest.raises(store.TooLarge):
        await chain.write([Check("/n0", 0)] * (room + 1))
    overhead = store.operation_bytes(Create("/big", b""))
    await chain.write([Create("/big", bytes(store.MAX_MULTI_BYTES - CHAIN_BYTES - overhead))])


async def test_a_window_of_writes_is_applied_in_order(metastore):
    chain = await take_over(metastore)
    await chain.write([Create("/a", b"")])
    writes = [[Set("/a", b"%d" % number, number)] for number in range(20)]
    assert await chain.write_window(writes) == [[number + 1] for number in range(20)]
    assert await metastore.get("/a") == (b"19", 20)
    assert await chain.write([Set("/a", b"", 20)]) == [21]


async def test_safety_17_a_refused_write_of_a_window_keeps_nothing_but_itself_back(metastore):
    chain = await take_over(metastore)
    writes = [
        [Create("/a", b"")],
        [Check("/a", 0), Create("/none/b", b""), Create("/c", b"")],
        [Create("/d", b"")],
        [Create("/e", b"")],
    ]
    first, refused, *rest = await chain.write_window(writes)
    assert (first, rest) == (["/a"], [None, None])
    assert isinstance(refused, store.NoNode)
    assert (refused.index, refused.path) == (1, "/none")
    assert await chain.write_window(writes[2:]) == [["/d"], ["/e"]]
    assert await metastore.get_many(["/c"]) == [None]


async def test_safety_7_a_deposed_term_writes_no_window(metastore):
    old = await take_over(metastore)
    await take_over(metastore)
    with pytest.raises(Deposed):
        await old.write_window([[Create("/a", b"")], [Create("/b", b"")]])
    assert await metastore.get_many(["/a", "/b"]) == [None, None]


async def test_safety_15_nothing_of_a_window_comes_after_a_lost_write(metastore):
    term = await take_over(metastore)
    doubtful = Doubtful(metastore, "done", "late")
    chain = FencedChain(doubtful, fence=term.fence, seq_path=SEQ)
    with pytest.raises(store.OutcomeUnknown):
        await chain.write_window([[Create("/a", b"")], [Create("/b", b"")], [Create("/c", b"")]])
    assert await metastore.get_many(["/a", "/b", "/c"]) == [(b"", 0), None, None]
    # The chain goes on from what is there, and then the lost one is too late.
    assert await chain.write_window([[Create("/d", b"")]]) == [["/d"]]
    with pytest.raises(store.VersionConflict):
        await metastore.multi(doubtful.late[0])


async def test_a_window_after_a_write_that_was_given_up_on_meets_its_version(metastore):
    term = await take_over(metastore)
    doubtful = Doubtful(metastore, "late")
    chain = FencedChain(doubtful, fence=term.fence, seq_path=SEQ)
    with pytest.raises(store.OutcomeUnknown):
        await chain.write_window([[Create("/a", b"")]])
    chain._seq_version = (await metastore.get(SEQ)).version
    await metastore.multi(doubtful.late[0])
    assert await chain.write_window([[Create("/b", b"")]]) == [None]
    assert await chain.write_window([[Create("/b", b"")]]) == [["/b"]]
