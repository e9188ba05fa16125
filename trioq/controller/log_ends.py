"""How far the logs of several brokers reach, asked of them all at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import trio

from trioq.controller.election_state import LogEnd
from trioq.types import TopicPartition

ASK_TIMEOUT_S: Final = 5.0

AskLogEnds = Callable[[int, Sequence[TopicPartition]], Awaitable[Mapping[TopicPartition, LogEnd]]]
"""Asks a broker how far its logs of these partitions reach; those that it does not tell are left
out, and a broker that cannot be reached tells nothing. Raises nothing but Cancelled."""


async def gather_log_ends(
    ask: AskLogEnds,
    wanted: Mapping[int, Sequence[TopicPartition]],
    *,
    timeout_s: float = ASK_TIMEOUT_S,
) -> dict[TopicPartition, dict[int, LogEnd]]:
    """What the brokers, keys of `wanted`, tell within `timeout_s`: by partition, then by broker."""
    found: dict[TopicPartition, dict[int, LogEnd]] = {}

    async def ask_one(broker: int, partitions: Sequence[TopicPartition]) -> None:
        for partition, end in (await ask(broker, partitions)).items():
            found.setdefault(partition, {})[broker] = end

    with trio.move_on_after(timeout_s):
        async with trio.open_nursery() as ask_nursery:
            for broker, partitions in wanted.items():
                ask_nursery.start_soon(ask_one, broker, partitions)
    return found
