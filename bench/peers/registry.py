"""The list of peers."""

from __future__ import annotations

from typing import Final

from bench.peers import apache_kafka, mock, noida, tansu, trioq
from bench.peers.peer import Peer

PEERS: Final[tuple[Peer, ...]] = (
    trioq.PEER,
    mock.PEER,
    tansu.PEER,
    noida.PEER,
    apache_kafka.PEER,
)


def peer(name: str) -> Peer:
    """The peer of that name; raises KeyError."""
    return {one.name: one for one in PEERS}[name]


def present(names: set[str] | None = None) -> tuple[list[Peer], dict[str, str]]:
    """The peers that can be had, and why the others cannot. `names` None: all."""
    chosen = [one for one in PEERS if names is None or one.name in names]
    reasons = {one.name: one.absent() for one in chosen}
    absent = {name: reason for name, reason in reasons.items() if reason}
    return [one for one in chosen if one.name not in absent], absent
