"""Topic administration: what CreateTopics, DeleteTopics, CreatePartitions and the config
requests do. Each answers item by item; a wrong item does not keep the others from being done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from trioq.config import BrokerConfig
from trioq.controller import topic_plan
from trioq.controller.admin_writes import AdminWrites, Planner
from trioq.controller.config_admin import ConfigAdmin, ConfigResult
from trioq.controller.config_changes import ConfigChange, ConfigResource
from trioq.controller.election_state import first_state
from trioq.controller.placement import BrokerPlace, place, start_led_by
from trioq.controller.topic_plan import Plan
from trioq.controller.topic_rules import (
    MIN_INSYNC,
    REPLICATED_MIN_INSYNC,
    NewPartitions,
    NewTopic,
    PartitionBudget,
    Shape,
    check_name,
    growth_of,
    is_min_insync_raised,
    shape_of,
    topic_overrides,
)
from trioq.controller.write_chain import WriteChain
from trioq.errors import (
    InvalidRequest,
    InvalidTopicException,
    KafkaError,
    TopicAlreadyExists,
    TopicDeletionDisabled,
    UnknownTopicId,
    UnknownTopicOrPartition,
)
from trioq.metastore import layout
from trioq.metastore.bootstrap import new_topic_id
from trioq.metastore.feed import ImageFollower
from trioq.metastore.image import ClusterImage, TopicImage
from trioq.metastore.layout import PartitionState, TopicNode
from trioq.types import ZERO_TOPIC_ID, TopicId, TopicPartition

if TYPE_CHECKING:
    from trioq.controller.log_ends import AskLogEnds
    from trioq.controller.partition_admin import PartitionAdmin, PartitionResult, Reassignment

DEFAULT_TIMEOUT_S: Final = 30.0


class CreatedTopic(NamedTuple):
    """What became of one NewTopic; without an error the topic has this shape."""

    name: str
    topic_id: TopicId = ZERO_TOPIC_ID
    partitions: int = -1
    replication_factor: int = -1
    config: Mapping[str, str] = layout.NO_CONFIG
    error: KafkaError | None = None


class DeletedTopic(NamedTuple):
    """What became of one topic to delete; name and id as far as they are known."""

    name: str | None
    topic_id: TopicId
    error: KafkaError | None = None


class GrownTopic(NamedTuple):
    """What became of one NewPartitions."""

    name: str
    error: KafkaError | None = None


class TopicAdmin:
    """Changes topics and configs through the controller's write chain.

    Any task may call; requests are carried out one after another, and each returns when
    the local image shows its changes. Cancelled: each item is done or not.
    """

    def __init__(
        self,
        chain: WriteChain,
        follower: ImageFollower,
        config: BrokerConfig,
        *,
        first_place: int = 0,
        ask_log_ends: AskLogEnds | None = None,
        leaving: Callable[[], Collection[int]] = tuple,
    ) -> None:
        """`first_place` is where in the row of brokers the first topic begins; `leaving()` are the
        brokers that are about to stop: they get no new replicas while there are enough others.
        """
        self._writes = AdminWrites(chain, follower)
        self._configs = ConfigAdmin(self._writes, config)
        self._config = config
        self._placed = first_place
        self._ask_log_ends = ask_log_ends
        self._leaving = leaving

    def use_config(self, config: BrokerConfig) -> None:
        """Take changed broker defaults."""
        self._config = config
        self._configs.use_config(config)

    async def create_topics(
        self,
        topics: Sequence[NewTopic],
        *,
        validate_only: bool = False,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> list[CreatedTopic]:
        """Create topics; the answers are in the order of the request.

        Errors of an item: InvalidTopicException (name, or one that collides with another
        by "." and "_"), TopicAlreadyExists, InvalidPartitions, InvalidReplicationFactor,
        InvalidReplicaAssignment, InvalidConfig, InvalidRequest (a name twice),
        PolicyViolation (more than 10,000 partitions in the request), RequestTimedOut, and
        what the metastore's failure becomes.
        """
        counts = Counter(topic.name for topic in topics)
        twice = InvalidRequest("The topic is named more than once in the request.")
        created = [
            CreatedTopic(topic.name, error=twice if counts[topic.name] > 1 else None)
            for topic in topics
        ]

        def plan_with(image: ClusterImage) -> Planner:
            creation = _Creation(image, self._config, self._leaving())

            def plan(number: int) -> Plan:
                made, created[number] = creation.plan(topics[number], self._placed)
                self._placed += created[number].partitions
                return made

            return plan

        errors = await self._writes.carry_out(
            [number for number, answer in enumerate(created) if answer.error is None],
            plan_with,
            timeout_s=timeout_s,
            validate_only=validate_only,
        )
        for number, error in errors.items():
            created[number] = CreatedTopic(topics[number].name, error=error)
        if validate_only:
            return [answer._replace(topic_id=ZERO_TOPIC_ID) for answer in created]
        return created

    async def auto_create(self, name: str, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> TopicImage:
        """Create a topic on first use, with the broker's defaults, or find it existing.

        Raises UnknownTopicOrPartition where the configuration does not allow it, else as
        `create_topics` answers.
        """
        if not self._config.auto_create_topics_enable:
            raise UnknownTopicOrPartition
        (created,) = await self.create_topics([NewTopic(name)], timeout_s=timeout_s)
        if created.error is not None and not isinstance(created.error, TopicAlreadyExists):
            raise created.error
        topic = self._writes.follower.image.topics.get(name)
        if topic is None:
            raise UnknownTopicOrPartition
        return topic

    async def delete_topics(
        self, topics: Sequence[str | TopicId], *, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> list[DeletedTopic]:
        """Delete topics by name or id; the answers are in the order of the request.

        Errors of an item: UnknownTopicOrPartition, UnknownTopicId, InvalidRequest (a topic
        twice), TopicDeletionDisabled, RequestTimedOut, and the metastore's.
        """
        image = self._writes.follower.image
        known = [_find(image, topic) for topic in topics]
        deleted = [
            _deletion_answer(named, topic) for named, topic in zip(topics, known, strict=True)
        ]
        counts = Counter(answer[:2] for answer in deleted)

        def plan_with(image: ClusterImage) -> Planner:
            def plan(number: int) -> Plan:
                if counts[deleted[number][:2]] > 1:
                    raise InvalidRequest("The topic is named more than once in the request.")
                if not self._config.delete_topic_enable:
                    raise TopicDeletionDisabled
                topic = _find(image, topics[number])
                if topic is None:
                    raise (
                        UnknownTopicOrPartition
                        if isinstance(topics[number], str)
                        else UnknownTopicId
                    )
                deleted[number] = DeletedTopic(topic.name, topic.topic_id)
                return topic_plan.deletion(topic)

            return plan

        errors = await self._writes.carry_out(range(len(topics)), plan_with, timeout_s=timeout_s)
        return [answer._replace(error=errors.get(number)) for number, answer in enumerate(deleted)]

    async def create_partitions(
        self,
        requests: Sequence[NewPartitions],
        *,
        validate_only: bool = False,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> list[GrownTopic]:
        """Add partitions to topics; the answers are in the order of the request.

        Errors of an item: UnknownTopicOrPartition, InvalidPartitions (no increase, or too
        many), InvalidReplicaAssignment, InvalidReplicationFactor, PolicyViolation (as for
        `create_topics`), InvalidRequest (a topic twice), RequestTimedOut, and the
        metastore's.
        """
        counts = Counter(request.name for request in requests)

        def plan_with(image: ClusterImage) -> Planner:
            budget = PartitionBudget()

            def plan(number: int) -> Plan:
                request = requests[number]
                if counts[request.name] > 1:
                    raise InvalidRequest("The topic is named more than once in the request.")
                topic = image.topics.get(request.name)
                if topic is None:
                    raise UnknownTopicOrPartition
                shape = growth_of(request, topic.partitions, self._config, set(image.brokers))
                budget.take(shape.partitions)
                places = _places(image, self._leaving(), shape.replication_factor)
                first = topic.partitions[0].replicas
                start = start_led_by(places, first[0] if first else -1)
                states = _states(image, places, shape, start, len(topic.partitions))
                return topic_plan.growth(topic, states)

            return plan

        errors = await self._writes.carry_out(
            range(len(requests)), plan_with, timeout_s=timeout_s, validate_only=validate_only
        )
        return [
            GrownTopic(request.name, errors.get(number)) for number, request in enumerate(requests)
        ]

    async def alter_configs(
        self,
        resources: Sequence[tuple[ConfigResource, Mapping[str, str | None]]],
        *,
        validate_only: bool = False,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> list[ConfigResult]:
        """Replace all of each resource's own values; see ConfigAdmin.replace."""
        return await self._configs.replace(
            resources, validate_only=validate_only, timeout_s=timeout_s
        )

    async def incremental_alter_configs(
        self,
        resources: Sequence[tuple[ConfigResource, Sequence[ConfigChange]]],
        *,
        validate_only: bool = False,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> list[ConfigResult]:
        """Change single values of each resource; see ConfigAdmin.change."""
        return await self._configs.change(
            resources, validate_only=validate_only, timeout_s=timeout_s
        )

    async def elect_leaders(
        self,
        partitions: Sequence[TopicPartition] | None,
        *,
        unclean: bool = False,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> list[PartitionResult]:
        """Elect leaders for these partitions, None: all; see PartitionAdmin.elect_leaders."""
        return await self._partition_admin().elect_leaders(
            partitions, unclean=unclean, timeout_s=timeout_s, ask_log_ends=self._ask_log_ends
        )

    async def alter_reassignments(
        self, reassignments: Sequence[Reassignment], *, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> list[PartitionResult]:
        """Move replicas, or cancel that; see PartitionAdmin.alter_reassignments."""
        return await self._partition_admin().alter_reassignments(reassignments, timeout_s=timeout_s)

    def _partition_admin(self) -> PartitionAdmin:
        from trioq.controller.partition_admin import PartitionAdmin  # noqa: PLC0415  seldom used

        return PartitionAdmin(self._writes, self._config)


class _Creation:
    """Plans the new topics of one request against one image."""

    def __init__(self, image: ClusterImage, config: BrokerConfig, leaving: Collection[int]) -> None:
        self._image = image
        self._config = config
        self._leaving = leaving
        self._live_brokers = set(image.brokers)
        self._claims: dict[str, str] | None = None
        self._budget = PartitionBudget()

    def plan(self, topic: NewTopic, start: int) -> tuple[Plan, CreatedTopic]:
        """The plan, and the answer if it succeeds; the row of brokers begins at `start`."""
        check_name(topic.name)
        if topic.name in self._image.topics:
            raise TopicAlreadyExists(f"Topic '{topic.name}' already exists.")
        self._claim(topic.name)
        shape = shape_of(topic, self._config, self._live_brokers)
        overrides = topic_overrides(topic.configs)
        if is_min_insync_raised(shape.replication_factor, overrides, self._config):
            overrides[MIN_INSYNC] = str(REPLICATED_MIN_INSYNC)
        self._budget.take(shape.partitions)
        places = _places(self._image, self._leaving, shape.replication_factor)
        states = _states(self._image, places, shape, start, 0)
        topic_id = new_topic_id()
        node = TopicNode(topic.name, shape.partitions, config=overrides)
        answer = CreatedTopic(
            topic.name, topic_id, shape.partitions, shape.replication_factor, overrides
        )
        return topic_plan.creation(topic_id, node, states), answer

    def _claim(self, name: str) -> None:
        """Refuse a name whose metrics would collide with another's."""
        claim = name.replace(".", "_")
        if "_" not in claim:
            return
        if self._claims is None:
            self._claims = {other.replace(".", "_"): other for other in self._image.topics}
        other = self._claims.setdefault(claim, name)
        if other != name:
            raise InvalidTopicException(
                f"Topic '{name}' collides with topic '{other}': names must differ in more"
                " than '.' and '_'."
            )


def _states(
    image: ClusterImage,
    places: Sequence[BrokerPlace],
    shape: Shape,
    start: int,
    first_partition: int,
) -> list[PartitionState]:
    replicas = shape.replicas
    if replicas is None:
        replicas = place(
            places,
            shape.partitions,
            shape.replication_factor,
            start=start,
            first_partition=first_partition,
        )
    epochs = {broker.broker_id: broker.broker_epoch for broker in image.brokers.values()}
    return [first_state(ids, epochs) for ids in replicas]


def _places(
    image: ClusterImage, leaving: Collection[int], replication_factor: int
) -> list[BrokerPlace]:
    """Where new replicas may be: on all live brokers, if too few of them stay."""
    every = [BrokerPlace(broker.broker_id, broker.rack) for broker in image.brokers.values()]
    staying = [place for place in every if place.broker_id not in leaving]
    return staying if len(staying) >= replication_factor else every


def _find(image: ClusterImage, topic: str | TopicId) -> TopicImage | None:
    if isinstance(topic, str):
        return image.topics.get(topic)
    return image.topics_by_id.get(topic)


def _deletion_answer(named: str | TopicId, topic: TopicImage | None) -> DeletedTopic:
    if topic is not None:
        return DeletedTopic(topic.name, topic.topic_id)
    if isinstance(named, str):
        return DeletedTopic(named, ZERO_TOPIC_ID)
    return DeletedTopic(None, named)
