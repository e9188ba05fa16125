"""A damaged metastore file: the start of a broker over it is refused with a reason, or succeeds."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Iterator
from pathlib import Path

import trio

from tests.fuzz.target import Choices, Raised, Target, outcome, seeded
from tests.fuzz.targets.tools import scratch
from trioq.controller.takeover import take_over_alone
from trioq.errors import MetastoreError, StartupError
from trioq.metastore import layout
from trioq.metastore.bootstrap import ensure_cluster
from trioq.metastore.embedded import open_embedded
from trioq.metastore.feed import ImageFollower
from trioq.metastore.image import ClusterImage
from trioq.metastore.store import Create

_FILE = "metastore.sqlite"
_REFUSALS = (StartupError, MetastoreError)  # what process.serve reports as a reason


@functools.cache
def sound_file() -> bytes:
    """A metastore with two topics, closed in order."""

    async def build(path: Path) -> None:
        async with open_embedded(path) as metastore:
            await ensure_cluster(metastore)
            for number, name in enumerate(("orders", "payments"), 1):
                topic_id = uuid.UUID(int=number)
                node = layout.TopicNode(name, 2, config={"retention.ms": "1000"})
                state = layout.PartitionState(1, 0, (1,), (0,), (1,))
                claim = layout.TopicClaim(name, topic_id)
                await metastore.multi(
                    [
                        Create(layout.TopicClaim.path(name), claim.encode()),
                        Create(layout.topic_path(topic_id), node.encode()),
                        Create(layout.partition_path(topic_id, 0), state.encode()),
                        Create(layout.partition_path(topic_id, 1), state.encode()),
                    ]
                )
            config = layout.BrokerConfig({"log.retention.ms": "5"})
            await metastore.multi([Create(layout.BrokerConfig.path(""), config.encode())])

    with scratch() as directory:
        path = Path(directory) / _FILE
        trio.run(build, path)
        return path.read_bytes()


async def _start(path: Path) -> ClusterImage:
    """What a broker does with its metastore before it serves."""
    async with open_embedded(path) as metastore:
        await ensure_cluster(metastore)
        await take_over_alone(metastore, 1, 5)
        follower = ImageFollower(metastore)
        await follower.load()
        return follower.image


def check_metastore(data: bytes) -> None:
    choices = Choices(data)
    content = bytearray(sound_file())
    is_damaged = False
    while not choices.is_used_up:
        at = choices.number(3) % len(content)
        kind = choices.byte()
        if kind % 16 == 1:
            del content[at:]
            content += b"\0"
        else:
            new = choices.take(1 + kind % 16)
            content[at : at + len(new)] = new
        is_damaged = True
    with scratch() as directory:
        path = Path(directory) / _FILE
        path.write_bytes(content)
        image = outcome(_REFUSALS, trio.run, _start, path)
        if not is_damaged:
            assert not isinstance(image, Raised)
            assert set(image.topics) == {"orders", "payments"}


def _seeds() -> Iterator[bytes]:
    chance = seeded("metastore")
    content = sound_file()
    yield b""
    for text in (b'"leader"', b'"name"', b'"isr"', b"orders", b"cluster", b"/topics", b'"config"'):
        at = content.find(text)
        for kind in (0, 3):
            yield at.to_bytes(3, "big") + bytes([kind]) + chance.randbytes(4)
    for at in (0, 16, 18, 28, 60, 68, 100, 4096, len(content) - 1):
        yield at.to_bytes(3, "big") + bytes([chance.randrange(16)]) + chance.randbytes(8)


TARGETS = (Target("metastore", check_metastore, _seeds, 120),)
