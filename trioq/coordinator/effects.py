"""What a group's state machine asks its driver to do, in order.

A machine's event returns a list of effects. The driver carries them out in the list's order. An
`Answer` is given only when every `Persist` of the group before it, in its own list or in that of an
earlier event, is durable, and becomes COORDINATOR_NOT_AVAILABLE when one failed; a failed one is
repeated before the next result is given (the client tries again; nobody was told what the store
does not hold, SAFETY rule 15). Refusals need not wait.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from trioq.coordinator.group_requests import JoinRequest
from trioq.errors import KafkaError
from trioq.metastore.group_layout import ClassicGroup

Waiter = Any
"""Whoever waits for an answer: handed in with an event, handed back, never looked at."""


class Answer(NamedTuple):
    """Give `result` to `waiter`; each waiter is answered exactly once."""

    waiter: Waiter
    result: Any
    """The event's result type (such as JoinResult), or a KafkaError."""


class Persist(NamedTuple):
    """Write the machine's `snapshot()`, as it is when this effect is met, to the metastore."""


class Remove(NamedTuple):
    """The group is dead: delete its node unless it still holds committed offsets."""


class Convert(NamedTuple):
    """The group goes on in its other protocol, by a machine restored from `group`.

    What follows in the list is carried out with that machine. A `join` that comes with it is an
    event for it: the request that brought this about, with its waiter, who has no answer yet.
    """

    group: ClassicGroup
    join: tuple[JoinRequest, Waiter] | None = None


Effect = Answer | Persist | Remove | Convert


def refusal(waiter: Waiter, error: KafkaError) -> list[Effect]:
    """The effects of an event that is refused and changed nothing."""
    return [Answer(waiter, error)]
