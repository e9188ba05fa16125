"""The controller's writes: one after the other, fenced by its epoch.

Each write is one multi that checks the controller's epoch node, sets the chain's `seq`
node at the version this chain expects, and appends to the change feed. So a deposed
controller writes nothing, and a write after a lost one fails rather than overtake it.
The value set in `seq` is random: reading it back tells whether a write of unknown
outcome (a broken connection, a cancelled caller) was applied.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

import trio

from trioq.errors import NotController
from trioq.metastore import feed, layout, store

WRITE_OPERATIONS: Final = store.MAX_MULTI_OPERATIONS - 3
"""Operations that a write may have beside those of the chain and the feed."""

WRITE_BYTES: Final = 200 * 1024
"""Bytes (store.operation_bytes) of a write: its values go into the feed's entry as well."""

_TRIM_EVERY: Final = 100
_CHAIN_OPERATIONS: Final = 2


class WriteChain:
    """Writes of one controller term; any task may call, calls queue."""

    def __init__(self, metastore: store.Metastore, controller_epoch: int) -> None:
        self.metastore = metastore
        self.controller_epoch = controller_epoch
        self._lock = trio.Lock()
        self._seq_version: int | None = None
        self._writes = 0

    async def write(self, operations: Sequence[store.Operation]) -> int:
        """Apply `operations` as one multi; returns a feed position that includes it.

        Raises NotController when another controller was elected; store.NodeError of an
        operation (nothing was applied; `index` counts in `operations`); TooLarge;
        MetastoreUnavailable; SessionLost. Never OutcomeUnknown, unless reading back
        fails too. Cancelled: applied or not.
        """
        async with self._lock:
            await self._trim()
            while True:
                version = await self._expected_version()
                token = os.urandom(8).hex().encode()
                try:
                    position = await self._send(operations, token, version)
                except store.VersionConflict as conflict:
                    if conflict.path == layout.CONTROLLER_SEQ and conflict.index < 0:
                        continue  # a write whose caller was cancelled was applied after all
                    raise
                return position

    async def _expected_version(self) -> int:
        if self._seq_version is None:
            self._seq_version = (await self.metastore.get(layout.CONTROLLER_SEQ)).version
        return self._seq_version

    async def _send(self, operations: Sequence[store.Operation], token: bytes, version: int) -> int:
        fenced: list[store.Operation] = [
            store.Check(layout.CONTROLLER_EPOCH, self.controller_epoch),
            store.Set(layout.CONTROLLER_SEQ, token, version),
            *feed.with_entry(operations),
        ]
        self._seq_version = None  # until the outcome is known
        try:
            results = await self.metastore.multi(fenced)
        except store.NodeError as error:
            if error.path == layout.CONTROLLER_EPOCH:
                raise NotController("Another controller has been elected.") from error
            error.index -= _CHAIN_OPERATIONS
            if error.index >= 0:
                self._seq_version = version
            raise
        except store.OutcomeUnknown:
            seq = await self.metastore.get(layout.CONTROLLER_SEQ)
            if seq.value != token:
                raise store.MetastoreUnavailable(
                    "the write was lost; nothing was changed"
                ) from None
            self._seq_version = seq.version
            return await feed.last_sequence(self.metastore)
        self._seq_version = version + 1
        return feed.sequence_in(results)

    async def _trim(self) -> None:
        """Trim the feed now and then: before a write, whose outcome it must not hide."""
        self._writes += 1
        if self._writes % _TRIM_EVERY == 0:
            fence = store.Check(layout.CONTROLLER_EPOCH, self.controller_epoch)
            await feed.trim(self.metastore, fence=(fence,))
