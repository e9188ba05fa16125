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
                try:
                    return await self._send(operations, _token(), version)
                except store.VersionConflict as conflict:
                    if conflict.path == self.seq_path and conflict.index < 0:
                        continue  # a write that was given up on was applied after all
                    raise

    async def write_window(
        self, writes: Sequence[Sequence[store.Operation]]
    ) -> list[list[store.Result] | store.NodeError | None]:
        """Apply several writes, a multi each, in order and all under way at once.

        For each: its results; or the NodeError of an operation (it was not applied; `index`
        counts in its operations); or None where it was not applied because one before it was
        refused: write it again. Raises Deposed, TooLarge, MetastoreUnavailable, SessionLost or
        OutcomeUnknown when all are answered; each of them may then be applied or not. Cancelled:
        the same.
        """
        async with self._lock:
            version = await self._expected_version()
            self._seq_version = None  # until the outcome is known
            outcomes = await self._send_in_order(
                [
                    [self.fence, store.Set(self.seq_path, _token(), version + place), *operations]
                    for place, operations in enumerate(writes)
                ]
            )
            told = [self._told(outcome) for outcome in outcomes]
            if outcomes and isinstance(outcomes[0], store.NodeError) and told[0] is None:
                return told  # a write that was given up on was applied after all
            self._seq_version = version + sum(isinstance(one, list) for one in told)
            return told

    async def _send_in_order(
        self, writes: Sequence[Sequence[store.Operation]]
    ) -> list[list[store.Result] | MetastoreError]:
        """Send each as soon as the one before it has been sent; what came of each."""
        outcomes: dict[int, list[store.Result] | MetastoreError] = {}
        turns = [trio.Event() for _ in range(len(writes) + 1)]

        async def send(place: int) -> None:
            await turns[place].wait()
            turns[place + 1].set()  # wakes when the call below has put its write into the queue
            try:
                outcomes[place] = await self.metastore.multi(writes[place])
            except MetastoreError as error:
                outcomes[place] = error

        async with trio.open_nursery() as send_nursery:
            turns[0].set()
            for place in range(len(writes)):
                send_nursery.start_soon(send, place)
        return [outcomes[place] for place in range(len(writes))]

    def _told(
        self, outcome: list[store.Result] | MetastoreError
    ) -> list[store.Result] | store.NodeError | None:
        """What `write_window` says of one outcome, or raises."""
        if isinstance(outcome, list):
            return outcome[CHAIN_OPERATIONS:]
        if not isinstance(outcome, store.NodeError):
            raise outcome
        if outcome.index >= CHAIN_OPERATIONS:
            outcome.index -= CHAIN_OPERATIONS
            return outcome
        if outcome.path == self.fence.path:
            raise self._deposed() from outcome
        return None

    def _deposed(self) -> Deposed:
        return Deposed(f"{self.fence.path}: another broker holds this role now")

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
                raise self._deposed() from error
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


def _token() -> bytes:
    return os.urandom(8).hex().encode()
