"""What the bench knows of a broker that trioq is compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from bench.path.process import BrokerProcess

Settings = Mapping[str, str]


class Peer(NamedTuple):
    """A broker on the loopback, started the same way as every other."""

    name: str
    start: Callable[[Path, Settings], AbstractContextManager[BrokerProcess]]
    """Runs it in an empty directory; the settings are trioq's keys and only trioq knows them.
    Raises BenchError if it does not get ready."""

    absent: Callable[[], str]
    """Why it cannot be had on this machine; empty if it can. May download it."""

    version: Callable[[], str]
    creates_topics: bool = True
    """It serves CreateTopics; otherwise topics come with the first Metadata request."""

    is_kept: bool = False
    """It is slow to start and get warm, so one process serves all cases of a run."""

    most_partitions: int = 0
    """Of a topic; 0: no limit."""

    most_fetched: int = 0
    """Requests of 1 MB that it keeps in memory, if that is little. 0: enough."""

    needs_producer_ids: bool = True
    """False where it gives none: it is then measured without, and has less to check."""

    tells_ends: bool = True
    """False where ListOffsets does not answer with the offset behind the last record."""
