"""Producer ids: taken from the metastore in blocks, so that no two producers share one.

Every broker takes blocks of its own, by compare-and-set of the first id that is free. Whose a
block is never changes, so its ids are given out also while the metastore is out of reach, and
past the session's lease. A broker of a cluster keeps one in reserve, so that producers can begin
meanwhile as well.

"Past the lease nothing is allocated" (SAFETY rule 12) is about what another may allocate in this
one's place. That cannot be here:

- a block is used only if its compare-and-set was answered: then the first free id is above it for
  everybody, whoever is registered, and for ever. One of unknown outcome is thrown away
- an id is not tied to the broker that gave it out: every leader takes an unknown producer from
  sequence 0 on, so the client of a broker that was replaced produces wherever the leaders are
- what is new, a block, needs the store: a set in a lost session raises, and one that ZooKeeper
  carries out all the same is a compare-and-set like any other
- a block is this process's memory: one that was stopped goes on with it, a new one takes another
"""

from __future__ import annotations

from typing import Final

import trio

from trioq.errors import MetastoreError
from trioq.metastore import layout, store

BLOCK_LENGTH: Final = 1_000

_PATIENCE_S: Final = 5.0
_PAUSE_S: Final = 1.0


class ProducerIds:
    """Hands out producer ids of this broker's current block; any task may call.

    What is left of a block is lost with the process: ids are many. `patience_s` is how long to
    wait for a new one.
    """

    def __init__(self, metastore: store.Metastore, *, patience_s: float = _PATIENCE_S) -> None:
        self._metastore = metastore
        self._patience_s = patience_s
        self._next_id = 0
        self._block_end = 0
        self._reserve: tuple[int, int] | None = None
        self._reserve_used = trio.Event()
        self._floor = 0
        self._lock = trio.Lock()

    def raise_above(self, seen_max: int) -> None:
        """Never hand out `seen_max` or less: the greatest id found in this broker's logs."""
        self._floor = max(self._floor, seen_max + 1)

    async def next_producer_id(self) -> int:
        """A producer id that nobody had before.

        Raises what the metastore raises, except that a block of unknown outcome is thrown
        away and another one taken; MetastoreUnavailable when that takes too long. Cancelled:
        at most a block is lost.
        """
        with trio.move_on_after(self._patience_s):
            async with self._lock:
                self._next_id = max(self._next_id, self._floor)
                while self._next_id >= self._block_end:
                    await self._next_block()
                producer_id = self._next_id
                self._next_id += 1
                return producer_id
        raise store.MetastoreUnavailable(
            f"no block of producer ids could be had within {self._patience_s:g} s"
        )

    async def keep_reserve(self) -> None:
        """Have another block at hand, from now on until cancelled."""
        while True:
            while self._reserve is None:
                try:
                    self._reserve = await self._take_block()
                except MetastoreError:
                    await trio.sleep(_PAUSE_S)
            self._reserve_used = trio.Event()
            await self._reserve_used.wait()

    async def _next_block(self) -> None:
        """Go on with the reserve, or with a new block where none is kept or it is used up."""
        block = self._reserve
        if block is None:
            block = await self._take_block()
        else:
            self._reserve = None
            self._reserve_used.set()
        if block is not None:
            start, self._block_end = block
            self._next_id = max(start, self._floor)

    async def _take_block(self) -> tuple[int, int] | None:
        """Start and end of a block that is this broker's now; None: try again."""
        node = await self._metastore.get(layout.PRODUCER_IDS)
        known = layout.decode_node(layout.PRODUCER_IDS, node.value, layout.NextProducerIds.of)
        start = max(known.next_id, self._floor)
        after = layout.NextProducerIds(start + BLOCK_LENGTH)
        try:
            await self._metastore.set(layout.PRODUCER_IDS, after.encode(), node.version)
        except (store.VersionConflict, store.OutcomeUnknown):
            return None
        return start, start + BLOCK_LENGTH
