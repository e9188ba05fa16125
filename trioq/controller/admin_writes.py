"""How requests for many changes become few writes, with an answer per change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import trio

from trioq.controller.takeover import leftovers, topics_in
from trioq.controller.topic_plan import Plan, chunks, shared
from trioq.controller.write_chain import WriteChain
from trioq.errors import (
    InvalidRequest,
    KafkaError,
    KafkaStorageError,
    MetastoreError,
    NotController,
    RequestTimedOut,
    UnknownServerError,
)
from trioq.metastore import feed, layout, store
from trioq.metastore.feed import ImageFollower
from trioq.metastore.image import ClusterImage
from trioq.types import TopicId

Planner = Callable[[int], Plan]
"""Makes the plan for the change of that number, or raises the KafkaError to answer."""

_ATTEMPTS: Final = 5
_PLANS_PER_CHECKPOINT: Final = 50

_OPERATIONS_HELD: Final = 20_000
"""Operations planned before some are written, so that a request's memory is bounded."""


class AdminWrites:
    """Carries out the administrator's changes, one request after another.

    Changes are planned against the local image, which is first brought up to the last
    write made here; what was changed behind its back fails by version or name, and is
    then planned anew against a newer image.
    """

    def __init__(self, chain: WriteChain, follower: ImageFollower) -> None:
        self.follower = follower
        self._chain = chain
        self._lock = trio.Lock()
        self._written = -1

    async def carry_out(
        self,
        numbers: Iterable[int],
        plan_with: Callable[[ClusterImage], Planner],
        *,
        timeout_s: float,
        validate_only: bool = False,
    ) -> dict[int, KafkaError]:
        """Plan and write the changes of `numbers`; returns the errors of those that failed.

        `plan_with` is called for each attempt with the image to plan against. Returns when
        the local image shows what was written, or after `timeout_s`, and then the changes
        without another error have RequestTimedOut, made or not. With `validate_only`
        nothing is written. Cancelled: each change is made or not; one of several steps is
        finished or undone first.
        """
        pending = list(numbers)
        every = tuple(pending)
        errors: dict[int, KafkaError] = {}
        in_time = True
        try:
            with trio.move_on_after(timeout_s) as limit:
                async with self._lock:
                    for _ in range(_ATTEMPTS):
                        image = await self.follower.wait_for(self._written)
                        pending = await self._attempt(
                            plan_with(image), pending, errors, validate_only=validate_only
                        )
                        if not pending:
                            break
                        self._written = await feed.last_sequence(self._chain.metastore)
                await self.follower.wait_for(self._written)
            in_time = not limit.cancelled_caught
        except MetastoreError as error:
            errors = {number: as_kafka_error(error) for number in every} | errors
        for number in pending if in_time else every:
            errors.setdefault(
                number, RequestTimedOut("The change was not seen to be made in time.")
            )
        return errors

    async def _attempt(
        self,
        planner: Planner,
        numbers: Sequence[int],
        errors: dict[int, KafkaError],
        *,
        validate_only: bool,
    ) -> list[int]:
        """Plan and write; returns the numbers of those to plan anew."""
        again: list[int] = []
        plans: list[tuple[int, Plan]] = []
        held = 0
        for count, number in enumerate(numbers, 1):
            try:
                plan = planner(number)
            except KafkaError as error:
                errors[number] = error
            else:
                if not validate_only:
                    plans.append((number, plan))
                    held += sum(map(len, plan.steps))
            if held >= _OPERATIONS_HELD:
                again += await self._write_all(plans, errors)
                plans, held = [], 0
            elif count % _PLANS_PER_CHECKPOINT == 0:
                await trio.lowlevel.checkpoint()
        return again + await self._write_all(plans, errors)

    async def _write_all(
        self, plans: Sequence[tuple[int, Plan]], errors: dict[int, KafkaError]
    ) -> list[int]:
        """Write the plans; returns the numbers of those to plan anew."""
        again: list[int] = []
        for group in shared(plans):
            try:
                if not await self._write_group(group):
                    again += [number for number, _ in group]
            except (KafkaError, MetastoreError) as error:
                errors.update((number, as_kafka_error(error)) for number, _ in group)
        return again

    async def _write_group(self, group: Sequence[tuple[int, Plan]]) -> bool:
        """Whether the group was written; if not, somebody else changed what it rests on."""
        first = group[0][1]
        if first.topic_id is not None:
            with trio.CancelScope(shield=True):
                return await self._write_steps(first, first.topic_id)
        together = [operation for _, plan in group for operation in plan.steps[0]]
        try:
            self._written = max(self._written, await self._chain.write(together))
        except store.NodeError:
            return False
        return True

    async def _write_steps(self, plan: Plan, topic_id: TopicId) -> bool:
        try:
            for step in plan.steps:
                self._written = max(self._written, await self._chain.write(step))
        except store.NodeError:
            self._written = max(self._written, await tidy(self._chain, topic_id))
            return False
        return True


async def tidy(chain: WriteChain, topic_id: TopicId) -> int:
    """Remove what the first steps of a plan left of a topic that nobody finishes.

    Returns a feed position that includes it, -1 if there was nothing. Raises as
    WriteChain.write.
    """
    written = -1
    try:
        tree = await chain.metastore.read_tree(layout.topic_path(topic_id))
    except store.NoNode:
        return written
    for top, topic, states in topics_in(tree):
        for step in chunks(leftovers(top, topic, states)):
            written = max(written, await chain.write(step))
    return written


def as_kafka_error(error: KafkaError | MetastoreError) -> KafkaError:
    """What a client is told of a failed metastore write; all but corruption may be retried."""
    if isinstance(error, KafkaError):
        return error
    if isinstance(error, store.SessionLost):
        return NotController(str(error))
    if isinstance(error, store.OutcomeUnknown):
        return RequestTimedOut(str(error))
    if isinstance(error, store.MetastoreUnavailable):
        return KafkaStorageError(str(error))
    if isinstance(error, store.TooLarge):
        return InvalidRequest(str(error))
    return UnknownServerError(str(error))
