"""A task group for the background: it never wraps what the body of an `async with` raises."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self

import anyio


class BackgroundTasks:
    """Tasks that live as long as an `async with` block and are cancelled at its end.

    What the block raises goes on as it is, not in an exception group as from a task group of
    its own. A task that fails is a bug: it cancels the block and comes out in a group.
    """

    def __init__(self) -> None:
        self._group = anyio.create_task_group()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        self._group.cancel_scope.cancel()
        if isinstance(error, Exception):
            await self._group.__aexit__(None, None, None)
            return None
        return await self._group.__aexit__(kind, error, traceback)

    def start_soon(
        self, function: Callable[..., Coroutine[Any, Any, None]], *arguments: object
    ) -> None:
        """Run `function(*arguments)` in a task of its own."""
        self._group.start_soon(function, *arguments)
