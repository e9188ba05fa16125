"""The cluster's topics, as groups of the consumer protocol see them."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet

from trioq.metastore.image import ClusterImage, changed_topics
from trioq.types import TopicId


class ImageTopics:
    """A view of whatever image is the newest; see consumer_requests.Topics."""

    __slots__ = ("_image", "generation")

    def __init__(self, image: Callable[[], ClusterImage]) -> None:
        self._image = image
        self.generation = 0

    def follow(self, before: ClusterImage, after: ClusterImage) -> bool:
        """The image was swapped; whether topics came, went or grew."""
        is_changed = any(
            old is None or new is None or len(old.partitions) != len(new.partitions)
            for old, new in changed_topics(before, after)
        )
        self.generation += is_changed
        return is_changed

    def id_of(self, name: str) -> TopicId | None:
        topic = self._image().topics.get(name)
        return None if topic is None else topic.topic_id

    def name_of(self, topic_id: TopicId) -> str | None:
        topic = self._image().topics_by_id.get(topic_id)
        return None if topic is None else topic.name

    def partitions_of(self, topic_id: TopicId) -> int:
        topic = self._image().topics_by_id.get(topic_id)
        return 0 if topic is None else len(topic.partitions)

    def names(self) -> AbstractSet[str]:
        return self._image().topics.keys()
