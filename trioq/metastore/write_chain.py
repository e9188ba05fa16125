"""Writes one after the other, fenced: what the controller and each slot's leader write with.

Each write is one multi that checks the fence, a persistent node whose version is the writer's
term, and sets the chain's `seq` node at the version that the chain expects (SAFETY rules 7 and
15). So a deposed writer writes nothing, and a write after a lost one fails rather than overtake
it. The value set in `seq` is random: reading it back tells whether a write of unknown outcome
(a broken connection, a cancelled caller) was applied.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

import trio

from trioq.errors import MetastoreError
from trioq.metastore import store

CHAIN_OPERATIONS: Final = 2
"""Operations that the chain adds to each write."""

CHAIN_BYTES: Final = 512
"""At least what they count towards MAX_MULTI_BYTES."""


class Deposed(MetastoreError):
    """The fence has another version: somebody else holds the role now. Nothing was written."""


class FencedChain:
    """Writes of one term of a role; any task may call, calls queue.

    `fence` is the term: the node's path and its version during the term. `seq_path` exists and
    is set by the role's holder only.
    """

    __slots__ = ("_lock", "_seq_version", "fence", "metastore", "seq_path")

    def __init__(self, metastore: store.Metastore, *, fence: store.Check, seq_path: str) -> None:
        self.metastore = metastore
        self.fence = fence
        self.seq_path = seq_path
        self._lock = trio.Lock()
        self._seq_version: int | None = None

    async def write(self, operations: Sequence[store.Operation]) -> list[store.Result] | None:
        """Apply `operations` as one multi; returns their results.

        None: they were applied, but their results are not known, because that was found out by
        reading back. Raises Deposed; store.NodeError of an operation (nothing was applied;
        `index` counts in `operations`); TooLarge; MetastoreUnavailable (nothing was applied);
        SessionLost. OutcomeUnknown only when reading back fails too: the same operations may
        be written again, and meet either state. Cancelled: applied or not, as a whole.
        """
        async with self._lock:
            while True:
                version = await self._expected_version()
                token = os.urandom(8).hex().encode()
                try:
                    return await self._send(operations, token, version)
                except store.VersionConflict as conflict:
                    if conflict.path == self.seq_path and conflict.index < 0:
                        continue  # a write that was given up on was applied after all
                    raise

    async def _expected_version(self) -> int:
        if self._seq_version is None:
            self._seq_version = (await self.metastore.get(self.seq_path)).version
        return self._seq_version

    async def _send(
        self, operations: Sequence[store.Operation], token: bytes, version: int
    ) -> list[store.Result] | None:
        fenced: list[store.Operation] = [
            self.fence,
            store.Set(self.seq_path, token, version),
            *operations,
        ]
        self._seq_version = None  # until the outcome is known
        try:
            results = await self.metastore.multi(fenced)
        except store.NodeError as error:
            if error.path == self.fence.path and error.index == 0:
                raise Deposed(f"{self.fence.path}: another broker holds this role now") from error
            error.index -= CHAIN_OPERATIONS
            if error.index >= 0:
                self._seq_version = version
            raise
        except store.OutcomeUnknown as unknown:
            await self._read_back(token, unknown)
            return None
        self._seq_version = version + 1
        return results[CHAIN_OPERATIONS:]

    async def _read_back(self, token: bytes, unknown: store.OutcomeUnknown) -> None:
        """Return if the write with `token` was applied; raises what `write` promises."""
        try:
            seq = await self.metastore.get(self.seq_path)
        except store.MetastoreUnavailable:
            raise unknown from None
        if seq.value != token:
            raise store.MetastoreUnavailable("the write was lost; nothing was changed") from None
        self._seq_version = seq.version
