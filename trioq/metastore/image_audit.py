"""A look now and then whether the image is what the metastore holds (SAFETY rule 16).

The feed tells of every change, so the two can only differ by a bug or by a metastore that was
changed behind the brokers' backs. A sample is compared; where it differs and the feed does not
explain it, everything is read again.
"""

from __future__ import annotations

import random
from contextlib import suppress
from functools import partial
from typing import Final, NamedTuple

import trio

from trioq import logs
from trioq.errors import MetastoreError
from trioq.metastore import layout, store
from trioq.metastore.feed import ImageFollower
from trioq.metastore.image import ClusterImage
from trioq.metastore.layout import PartitionState
from trioq.types import TopicId

_log = logs.get_logger("trioq.metastore")

AUDIT_INTERVAL_S: Final = 300.0
SAMPLE: Final = 200
"""Partitions compared at a time."""


class _Sampled(NamedTuple):
    topic_id: TopicId
    partition: int

    @property
    def path(self) -> str:
        return layout.partition_path(self.topic_id, self.partition)

    def state_in(self, image: ClusterImage) -> PartitionState | None:
        topic = image.topics_by_id.get(self.topic_id)
        if topic is None or self.partition >= len(topic.partitions):
            return None
        return topic.partitions[self.partition]


class ImageAudit:
    """One broker's; `draw` is a seam for tests."""

    def __init__(
        self,
        metastore: store.Metastore,
        follower: ImageFollower,
        *,
        interval_s: float = AUDIT_INTERVAL_S,
        sample: int = SAMPLE,
        draw: random.Random | None = None,
    ) -> None:
        self._metastore = metastore
        self._follower = follower
        self._interval_s = interval_s
        self._sample = sample
        self._draw = draw or random.Random()  # noqa: S311  chooses a sample, keeps no secret

    async def run(self) -> None:
        """Audit every interval until cancelled; what the metastore refuses, next time.

        Raises StartupError as ImageFollower.load.
        """
        while True:
            await trio.sleep(self._interval_s * (0.9 + 0.2 * self._draw.random()))
            try:
                await self.audit()
            except layout.CorruptNode as error:
                _log.error(
                    "the image cannot be read again",
                    reason=str(error),
                    consequence="this broker goes on with what it knows, and cannot start anew",
                    what_to_do="restore that node from a backup of the metastore",
                )
            except MetastoreError as error:
                _log.info("the image was not audited", reason=str(error))

    async def audit(self) -> int:
        """Compare a sample; returns how many differed, after which all was read again.

        A node that cannot be read, and is not known to be so, differs. Those that are known to be
        are always looked at: everything is read again when one was written.
        """
        if await self._was_repaired():
            await self._follower.load()
        sampled = self._choose(self._follower.image)
        differing = await self._differing(sampled)
        if not differing:
            return 0
        await self._follower.catch_up()
        differing = await self._differing(differing)
        if differing:
            _log.error(
                "the image differs from the metastore and is read again",
                partitions=len(differing),
                first=differing[0].path,
            )
            await self._follower.load()
        return len(differing)

    async def _was_repaired(self) -> bool:
        """Whether a node that could not be read was written since."""
        unreadable = self._follower.image.unreadable
        if not unreadable:
            return False
        nodes = await self._metastore.get_many(list(unreadable))
        return any(
            node is None or node.version != found.version
            for node, found in zip(nodes, unreadable.values(), strict=True)
        )

    def _choose(self, image: ClusterImage) -> list[_Sampled]:
        topics = list(image.topics_by_id.values())
        total = sum(len(topic.partitions) for topic in topics)
        numbers = sorted(self._draw.sample(range(total), min(self._sample, total)))
        chosen: list[_Sampled] = []
        first = 0
        for topic in topics:
            end = first + len(topic.partitions)
            while len(chosen) < len(numbers) and numbers[len(chosen)] < end:
                chosen.append(_Sampled(topic.topic_id, numbers[len(chosen)] - first))
            first = end
        return chosen

    async def _differing(self, sampled: list[_Sampled]) -> list[_Sampled]:
        """Those of which the image, as it is once they were read, says something else."""
        nodes = await self._metastore.get_many([one.path for one in sampled])
        image = self._follower.image
        return [
            one
            for one, node in zip(sampled, nodes, strict=True)
            if one.path not in image.unreadable and not _is_in(one.state_in(image), one.path, node)
        ]


def _is_in(state: PartitionState | None, path: str, node: store.Node | None) -> bool:
    """Whether the node holds `state`; None: that it is not there."""
    if node is None:
        return state is None
    of = partial(PartitionState.of, version=node.version)
    with suppress(layout.CorruptNode):  # the reading of everything says so
        return layout.decode_node(path, node.value, of) == state
    return False
