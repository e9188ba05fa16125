"""Producer ids: taken from the metastore in blocks, so that no two producers share one.

Every broker takes blocks of its own, by compare-and-set of the first id that is free. Whose a
block is never changes, so its ids are given out also while the metastore is out of reach, and
past the session's lease.
"""

from __future__ import annotations

from typing import Final

import trio

from trioq.metastore import layout, store

BLOCK_LENGTH: Final = 1_000

_PATIENCE_S: Final = 5.0


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
                    await self._take_block()
                producer_id = self._next_id
                self._next_id += 1
                return producer_id
        raise store.MetastoreUnavailable(
            f"no block of producer ids could be had within {self._patience_s:g} s"
        )

    async def _take_block(self) -> None:
        node = await self._metastore.get(layout.PRODUCER_IDS)
        known = layout.decode_node(layout.PRODUCER_IDS, node.value, layout.NextProducerIds.of)
        start = max(known.next_id, self._floor)
        after = layout.NextProducerIds(start + BLOCK_LENGTH)
        try:
            await self._metastore.set(layout.PRODUCER_IDS, after.encode(), node.version)
        except (store.VersionConflict, store.OutcomeUnknown):
            return
        self._next_id, self._block_end = start, start + BLOCK_LENGTH
