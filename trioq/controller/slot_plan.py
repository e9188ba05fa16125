"""Which broker leads which coordination slot: decisions without I/O.

A slot has no log: any live broker can lead it at once, and its groups then meet a coordinator
that reads them anew. So what counts is that every slot has a live leader, then that all brokers
have the same number of them, with as few moves as that takes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from trioq.metastore import layout, store
from trioq.metastore.image import SlotImage
from trioq.metastore.layout import SlotState


def plan_slots(
    slots: Sequence[SlotImage],
    live: Mapping[int, int],
    *,
    leaving: Collection[int] = (),
    even_out: bool = True,
) -> dict[int, SlotState]:
    """The slots that need another state, by number, with that state; empty if all is well.

    `live` holds the broker epochs of the registered brokers by id; `leaving` those that are
    about to stop: they lead nothing while anybody else is alive, and get nothing new. A slot
    whose leader is alive in its epoch stays there, unless it has to move so that the numbers
    of slots of any two brokers differ by at most 1; with `even_out` False it stays in any case.
    A slot whose leader is back under a later epoch goes to that broker again if that is as good
    as any. Where nobody could lead a slot, its state stays.
    """
    staying = {broker: epoch for broker, epoch in live.items() if broker not in leaving}
    if not staying:
        return {}
    led: dict[int, list[int]] = {broker: [] for broker in staying}
    back: dict[int, list[int]] = {broker: [] for broker in staying}
    orphans: list[int] = []
    for number, slot in enumerate(slots):
        if slot.leader not in staying:
            orphans.append(number)
        elif slot.broker_epoch == staying[slot.leader]:
            led[slot.leader].append(number)
        else:
            back[slot.leader].append(number)
    counts = {broker: len(numbers) for broker, numbers in led.items()}
    shares = _shares(len(slots), led, back)
    chosen: dict[int, int] = {}
    for broker, numbers in back.items():
        room = max(0, shares[broker] - counts[broker])
        chosen |= dict.fromkeys(numbers[:room], broker)
        counts[broker] += min(room, len(numbers))
        orphans += numbers[room:]
    if even_out:
        for broker, numbers in led.items():
            excess = counts[broker] - shares[broker]
            if excess > 0:
                orphans += numbers[-excess:]
                counts[broker] -= excess
    for number in sorted(orphans):
        broker = min(counts, key=lambda one: (counts[one] - shares[one], counts[one], one))
        chosen[number] = broker
        counts[broker] += 1
    return {number: SlotState(chosen[number], live[chosen[number]]) for number in sorted(chosen)}


def slot_writes(slots: Sequence[SlotImage], plan: Mapping[int, SlotState]) -> list[store.Set]:
    """What writes `plan`: each compares with the epoch that the slot had in `slots`."""
    return [
        store.Set(layout.slot_path(number), state.encode(), slots[number].epoch)
        for number, state in plan.items()
    ]


def _shares(
    count: int, led: Mapping[int, Collection[int]], back: Mapping[int, Collection[int]]
) -> dict[int, int]:
    """How many slots each broker is due; one more goes to those that have the most."""
    share, remainder = divmod(count, len(led))
    by_need = sorted(led, key=lambda one: (-len(led[one]), -len(back[one]), one))
    return {broker: share + (rank < remainder) for rank, broker in enumerate(by_need)}
