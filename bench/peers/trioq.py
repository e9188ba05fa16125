"""trioq itself, as a peer among the others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.path.process import BrokerProcess, running_broker
from bench.peers.peer import Peer, Settings
from trioq import __version__


@contextmanager
def start(directory: Path, settings: Settings) -> Iterator[BrokerProcess]:
    """`trioq serve` with defaults and the settings of the run."""
    with running_broker(settings, data_dir=directory / "data") as broker:
        yield broker


PEER = Peer("trioq", start, absent=lambda: "", version=lambda: __version__)
