"""The controller's writes: a fenced chain that also appends to the change feed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import trio

from trioq.errors import NotController
from trioq.metastore import feed, layout, store
from trioq.metastore.write_chain import CHAIN_OPERATIONS, Deposed, FencedChain

WRITE_OPERATIONS: Final = store.MAX_MULTI_OPERATIONS - CHAIN_OPERATIONS - 1
"""Operations that a write may have beside those of the chain and the feed."""

WRITE_BYTES: Final = 200 * 1024
"""Bytes (store.operation_bytes) of a write: its values go into the feed's entry as well."""

_TRIM_EVERY: Final = 100


class WriteChain:
    """Writes of one controller term; any task may call, calls queue."""

    def __init__(self, metastore: store.Metastore, controller_epoch: int) -> None:
        self.metastore = metastore
        self.controller_epoch = controller_epoch
        self._chain = FencedChain(
            metastore,
            fence=store.Check(layout.CONTROLLER_EPOCH, controller_epoch),
            seq_path=layout.CONTROLLER_SEQ,
        )
        self._lock = trio.Lock()
        self._writes = 0

    async def write(self, operations: Sequence[store.Operation]) -> int:
        """Apply `operations` as one multi; returns a feed position that includes it.

        Raises NotController when another controller was elected; store.NodeError of an
        operation (nothing was applied; `index` counts in `operations`); TooLarge;
        MetastoreUnavailable; SessionLost. Never OutcomeUnknown, unless reading back
        fails too. Cancelled: applied or not.
        """
        try:
            async with self._lock:
                await self._trim()
                results = await self._chain.write(feed.with_entry(operations))
        except Deposed as deposed:
            raise NotController("Another controller has been elected.") from deposed
        if results is None:
            return await feed.last_sequence(self.metastore)
        return feed.sequence_in(results)

    async def _trim(self) -> None:
        """Trim the feed now and then: before a write, whose outcome it must not hide."""
        self._writes += 1
        if self._writes % _TRIM_EVERY == 0:
            await feed.trim(self.metastore, fence=(self._chain.fence,))
