"""The controller's writes: a fenced chain that also appends to the change feed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import trio

from trioq.errors import NotController
from trioq.metastore import feed, layout, store
from trioq.metastore.write_chain import CHAIN_OPERATIONS, Deposed, FencedChain

WRITE_OPERATIONS: Final = store.MAX_MULTI_OPERATIONS - CHAIN_OPERATIONS - 1
"""Operations that a write may have beside those of the chain and the feed."""

WRITE_BYTES: Final = 200 * 1024
"""Bytes (store.operation_bytes) of a write: its values go into the feed's entry as well."""

WRITES_IN_FLIGHT: Final = 8
"""Of one call of `write_all` (SAFETY rule 17)."""

_TRIM_EVERY: Final = 100


class Written(NamedTuple):
    """What became of several writes.

    `position` is a feed position that includes those that were applied, -1 if none was;
    `refused` has the error of each that was not, by its place.
    """

    position: int
    refused: dict[int, store.NodeError]


class WriteChain:
    """Writes of one controller term; any task may call, calls queue.

    `is_held` tells whether the term may still act: past the lease nothing is written (SAFETY
    rule 12), although the fence would not let it harm anybody.
    """

    def __init__(
        self,
        metastore: store.Metastore,
        controller_epoch: int,
        *,
        is_held: Callable[[], bool] = lambda: True,
    ) -> None:
        self.metastore = metastore
        self.controller_epoch = controller_epoch
        self._is_held = is_held
        self._chain = FencedChain(
            metastore,
            fence=store.Check(layout.CONTROLLER_EPOCH, controller_epoch),
            seq_path=layout.CONTROLLER_SEQ,
        )
        self._lock = trio.Lock()
        self._writes = 0

    async def write(self, operations: Sequence[store.Operation]) -> int:
        """Apply `operations` as one multi; returns a feed position that includes it.

        Raises NotController when another controller was elected, or the lease has ended;
        store.NodeError of an operation (nothing was applied; `index` counts in `operations`);
        TooLarge; MetastoreUnavailable; SessionLost. Never OutcomeUnknown, unless reading back
        fails too. Cancelled: applied or not.
        """
        try:
            async with self._lock:
                self._check_held()
                await self._trim_now_and_then(1)
                results = await self._chain.write(feed.with_entry(operations))
        except Deposed as deposed:
            raise NotController(_DEPOSED) from deposed
        if results is None:
            return await feed.last_sequence(self.metastore)
        return feed.sequence_in(results)

    async def write_all(self, writes: Sequence[Sequence[store.Operation]]) -> Written:
        """Apply several writes, each a multi of its own, in order, several under way at once.

        One that is refused does not keep the others. Raises as `write`, but OutcomeUnknown as
        soon as one is unknown, and then any may be applied or not. Cancelled: the same.
        """
        position, refused = -1, dict[int, store.NodeError]()
        left = list(range(len(writes)))
        try:
            async with self._lock:
                while left:
                    self._check_held()
                    window, left = left[:WRITES_IN_FLIGHT], left[WRITES_IN_FLIGHT:]
                    await self._trim_now_and_then(len(window))
                    outcomes = await self._chain.write_window(
                        [feed.with_entry(writes[place]) for place in window]
                    )
                    again: list[int] = []
                    for place, outcome in zip(window, outcomes, strict=True):
                        if outcome is None:
                            again.append(place)
                        elif isinstance(outcome, store.NodeError):
                            refused[place] = outcome
                        else:
                            position = max(position, feed.sequence_in(outcome))
                    left = again + left
        except Deposed as deposed:
            raise NotController(_DEPOSED) from deposed
        return Written(position, refused)

    async def trim(self) -> int:
        """Trim the feed; returns how many entries went. Raises as `write`."""
        try:
            async with self._lock:
                self._check_held()
                return await self._trim()
        except Deposed as deposed:
            raise NotController(_DEPOSED) from deposed

    def _check_held(self) -> None:
        if not self._is_held():
            raise NotController("The controller's lease has ended.")

    async def _trim_now_and_then(self, writes: int) -> None:
        """Trim the feed before a write, whose outcome trimming must not hide."""
        before, self._writes = self._writes, self._writes + writes
        if before // _TRIM_EVERY != self._writes // _TRIM_EVERY:
            await self._trim()

    async def _trim(self) -> int:
        try:
            return await feed.trim(self.metastore, fence=(self._chain.fence,))
        except store.VersionConflict as conflict:
            if conflict.path != layout.CONTROLLER_EPOCH:
                raise
            raise Deposed(_DEPOSED) from conflict


_DEPOSED: Final = "Another controller has been elected."
