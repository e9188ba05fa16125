"""`trioq cluster` against a cluster whose answers are written here."""

from __future__ import annotations

import io
import json
import signal
import types
import uuid

import anyio
import pytest
from click.testing import CliRunner

from tests.unit.scripted_broker import ScriptedBroker
from trioq.cli import cluster_moves, output, running
from trioq.cli.app import trioq
from trioq.wire.api_keys import ApiKey
from trioq.wire.messages.alter_partition_reassignments import (
    AlterPartitionReassignmentsResponse,
    AlterPartitionReassignmentsResponsePartition,
    AlterPartitionReassignmentsResponseTopic,
)
from trioq.wire.messages.describe_cluster import DescribeClusterResponse
from trioq.wire.messages.describe_configs import (
    DescribeConfigsResponse,
    DescribeConfigsResponseConfig,
    DescribeConfigsResponseResource,
)
from trioq.wire.messages.describe_topic_partitions import (
    DescribeTopicPartitionsResponse,
    DescribeTopicPartitionsResponseNextCursor,
    DescribeTopicPartitionsResponsePartition,
    DescribeTopicPartitionsResponseTopic,
)
from trioq.wire.messages.elect_leaders import (
    ElectLeadersResponse,
    ElectLeadersResponsePartition,
    ElectLeadersResponseTopic,
)
from trioq.wire.messages.incremental_alter_configs import (
    IncrementalAlterConfigsResponse,
    IncrementalAlterConfigsResponseResource,
)
from trioq.wire.messages.list_partition_reassignments import (
    ListPartitionReassignmentsResponse,
    ListPartitionReassignmentsResponsePartition,
    ListPartitionReassignmentsResponseTopic,
)
from trioq.wire.messages.metadata import (
    MetadataResponse,
    MetadataResponseBroker,
    MetadataResponsePartition,
    MetadataResponseTopic,
)

THROTTLED = {"leader.replication.throttled.rate", "follower.replication.throttled.rate"}


class Cluster(ScriptedBroker):
    """Brokers 1 to 3, all at this address, and 4, which is down; orders has a partition each way.

    A move is over when the reassignments were listed once.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                ApiKey.METADATA: self._metadata,
                ApiKey.DESCRIBE_CLUSTER: lambda _: DescribeClusterResponse(
                    cluster_id="c", controller_id=self.controller_id
                ),
                ApiKey.DESCRIBE_CONFIGS: self._configs,
                ApiKey.LIST_PARTITION_REASSIGNMENTS: self._reassignments,
                ApiKey.ALTER_PARTITION_REASSIGNMENTS: self._alter,
                ApiKey.INCREMENTAL_ALTER_CONFIGS: self._alter_configs,
                ApiKey.ELECT_LEADERS: self._elect,
                ApiKey.DESCRIBE_TOPIC_PARTITIONS: self._describe_partitions,
            }
        )
        self.replicas = {0: [1, 2], 1: [2, 3], 2: [3, 4], 3: [4]}
        self.leaders = {0: 1, 1: 2, 2: 3, 3: -1}
        self.in_sync = {0: [1, 2], 1: [2], 2: [3], 3: [4]}
        self.moving: dict[int, tuple[list[int], list[int], list[int]]] = {}
        self.controller_id = 2
        self.refuses = self.elections = 0
        self.keep_moving = False
        self.eligible: dict[int, list[int]] = {}
        self.offline: dict[int, list[int]] = {2: [4], 3: [4]}

    def _metadata(self, _):
        brokers = [
            MetadataResponseBroker(node_id=n, host="127.0.0.1", port=self.port, rack=f"r{n % 2}")
            for n in (1, 2, 3)
        ]
        partitions = [
            MetadataResponsePartition(
                error_code=0 if leader > 0 else 5,
                partition_index=number,
                leader_id=leader,
                replica_nodes=self.replicas[number],
                isr_nodes=self.in_sync[number],
                offline_replicas=self.offline.get(number, []),
            )
            for number, leader in self.leaders.items()
        ]
        topic = MetadataResponseTopic(
            name="orders", topic_id=uuid.UUID(int=7), partitions=partitions
        )
        return MetadataResponse(cluster_id="c", controller_id=2, brokers=brokers, topics=[topic])

    def _configs(self, request):
        return DescribeConfigsResponse(
            results=[
                DescribeConfigsResponseResource(
                    resource_type=2,
                    resource_name=one.resource_name,
                    configs=[DescribeConfigsResponseConfig(name="min.insync.replicas", value="2")],
                )
                for one in request.resources
            ]
        )

    def _reassignments(self, _):
        partitions = [
            ListPartitionReassignmentsResponsePartition(
                partition_index=number,
                replicas=replicas,
                adding_replicas=adding,
                removing_replicas=removing,
            )
            for number, (replicas, adding, removing) in self.moving.items()
        ]
        if not self.keep_moving:
            self.moving.clear()
        topics = [ListPartitionReassignmentsResponseTopic(name="orders", partitions=partitions)]
        return ListPartitionReassignmentsResponse(topics=topics if partitions else [])

    def _alter(self, request):
        answers = []
        for topic in request.topics:
            for one in topic.partitions:
                before, number = self.replicas[one.partition_index], one.partition_index
                adding = [n for n in one.replicas if n not in before]
                removing = [n for n in before if n not in one.replicas]
                if not self.refuses:
                    self.moving[number] = (one.replicas + removing, adding, removing)
                    self.replicas[number] = one.replicas
                    self.in_sync[number] = one.replicas
                answers.append(
                    AlterPartitionReassignmentsResponsePartition(
                        partition_index=number, error_code=self.refuses, error_message="because"
                    )
                )
        topics = [AlterPartitionReassignmentsResponseTopic(name="orders", partitions=answers)]
        return AlterPartitionReassignmentsResponse(responses=topics)

    def _alter_configs(self, request):
        (resource,) = request.resources
        return IncrementalAlterConfigsResponse(
            responses=[
                IncrementalAlterConfigsResponseResource(
                    resource_type=resource.resource_type, resource_name=resource.resource_name
                )
            ]
        )

    def _describe_partitions(self, request):
        assert [one.name for one in request.topics] == ["orders"]
        first = 0 if request.cursor is None else request.cursor.partition_index
        partition = DescribeTopicPartitionsResponsePartition(
            partition_index=first, eligible_leader_replicas=self.eligible.get(first)
        )
        cursor = None
        if first < 3:
            cursor = DescribeTopicPartitionsResponseNextCursor(
                topic_name="orders", partition_index=first + 1
            )
        topic = DescribeTopicPartitionsResponseTopic(name="orders", partitions=[partition])
        return DescribeTopicPartitionsResponse(topics=[topic], next_cursor=cursor)

    def _elect(self, request):
        self.elections += 1
        numbers = (
            [0, 1, 2]
            if request.topic_partitions is None
            else [number for topic in request.topic_partitions for number in topic.partitions]
        )
        codes = {0: 84, 1: 0, 2: 80, 3: 83}
        results = [
            ElectLeadersResponsePartition(
                partition_id=number, error_code=codes[number], error_message="so it is"
            )
            for number in numbers
        ]
        topics = [ElectLeadersResponseTopic(topic="orders", partition_result=results)]
        return ElectLeadersResponse(replica_election_results=topics)

    def asked(self, name: str):
        return [one for one in self.requests if type(one).__name__ == f"{name}Request"]


@pytest.fixture
def cluster(monkeypatch):
    monkeypatch.setattr(running.logs, "configure", lambda _level: None)
    monkeypatch.setattr(cluster_moves, "_POLL_S", 0.01)
    started = Cluster()
    yield started
    started.close()


def run(broker: Cluster, *arguments: str):
    prefix = ["cluster", "--bootstrap-server", broker.address, "--timeout", "5"]
    return CliRunner().invoke(trioq, [*prefix, *arguments])


def rows(result) -> list[list[str]]:
    assert result.exit_code == 0, result.output
    return [line.split("\t") for line in result.stdout.splitlines()]


def test_describe_shows_brokers_and_what_is_the_matter(cluster):
    cluster.moving = {1: ([2, 3], [3], [])}
    shown = rows(run(cluster, "describe"))
    port = str(cluster.port)
    assert shown[:4] == [
        ["1", "127.0.0.1", port, "r1", "no", "up", "1", "1", "-"],
        ["2", "127.0.0.1", port, "r0", "yes", "up", "1", "2", "-"],
        ["3", "127.0.0.1", port, "r1", "no", "up", "1", "2", "-"],
        ["4", "-", "-", "-", "no", "down", "0", "2", "-"],
    ]
    assert shown[4:] == [
        ["orders", "1", "2", "2,3", "2", "3", "-", "under min ISR 2, moving"],
        ["orders", "2", "3", "3,4", "3", "-", "-", "under min ISR 2, under-replicated"],
        ["orders", "3", "-", "4", "4", "-", "-", "offline: waits for 4"],
    ]
    everything = rows(run(cluster, "describe", "--partitions"))[4:]
    assert [one[1] for one in everything] == ["0", "1", "2", "3"]
    assert everything[0][-1] == "well"


def test_describe_says_that_there_is_no_controller(cluster):
    cluster.controller_id = -1
    done = run(cluster, "describe", "--json")
    assert done.exit_code == 0
    assert "a majority of the ZooKeeper servers" in done.stderr
    assert json.loads(done.stdout)["controller_id"] is None


def test_describe_for_programs(cluster):
    cluster.moving = {1: ([2, 3], [3], [])}
    told = json.loads(run(cluster, "describe", "--json").output)
    assert (told["cluster_id"], told["controller_id"], told["partitions"]) == ("c", 2, 4)
    assert [one["state"] for one in told["brokers"]] == ["up", "up", "up", "down"]
    numbers = {
        name: [one["partition"] for one in told[name]]
        for name in ("offline", "under_min_isr", "under_replicated", "reassignments")
    }
    assert numbers == {
        "offline": [3],
        "under_min_isr": [1, 2, 3],
        "under_replicated": [2, 3],
        "reassignments": [1],
    }
    assert told["reassignments"][0]["adding"] == [3]


def test_a_dry_run_of_a_drain_tells_what_would_move(cluster):
    assert rows(run(cluster, "drain", "4", "--dry-run")) == [
        ["orders", "2", "3,4", "3,2", "2"],
    ], "nobody could copy the partition without a leader"
    told = json.loads(run(cluster, "drain", "4", "--dry-run", "--json").output)
    assert told[0] == {
        "topic": "orders", "partition": 2, "replicas": [3, 4], "planned": [3, 2], "copies": [2],
    }  # fmt: skip
    assert not cluster.asked("AlterPartitionReassignments")


def test_an_offline_partition_waits_for_all_that_could_lead(cluster):
    cluster.replicas[3], cluster.eligible[3] = [4, 5], [4, 5]
    shown = rows(run(cluster, "describe"))
    assert shown[-1][-1] == "offline: waits for 4 or 5"


def test_replicas_whose_logs_have_failed_are_shown(cluster):
    cluster.offline |= {1: [3], 3: [2, 4]}
    cluster.replicas[3], cluster.in_sync[3] = [2, 4], [2]
    shown = rows(run(cluster, "describe"))
    assert [one[-1] for one in shown[:4]] == ["-", "1", "1", "-"]
    assert shown[4][-1] == "log failed on 3, under min ISR 2, under-replicated"
    assert shown[-1][-1] == "offline: waits for 2 (log failed)"
    told = json.loads(run(cluster, "describe", "--json").output)
    assert [one["failed"] for one in told["brokers"]] == [0, 1, 1, 0]
    assert [(one["partition"], one["failed"]) for one in told["failed"]] == [(1, [3]), (3, [2])]


def test_a_drain_moves_what_can_be_moved_and_says_what_cannot(cluster):
    result = run(cluster, "drain", "4")
    assert result.exit_code == 1
    assert cluster.replicas == {0: [1, 2], 1: [2, 3], 2: [3, 2], 3: [4]}
    assert "1 partitions were moved, but 1 stay on broker 4" in result.stderr
    assert "orders-3 is offline: waits for 4" in result.stderr


def test_a_drain_ends_when_nothing_is_left_and_lifts_its_throttle(cluster):
    cluster.leaders[3] = 1
    result = run(cluster, "drain", "4", "--throttle", "50M")
    assert result.exit_code == 0, result.output
    assert "broker 4 holds no replicas; 2 partitions were moved" in result.stderr
    assert cluster.replicas == {0: [1, 2], 1: [2, 3], 2: [3, 2], 3: [1]}
    begun, ended = cluster.asked("IncrementalAlterConfigs")
    for request, operation, value in ((begun, 0, str(50 * 1024**2)), (ended, 1, None)):
        (resource,) = request.resources
        assert (resource.resource_type, resource.resource_name) == (4, "")
        assert {one.name for one in resource.configs} == THROTTLED
        assert {(one.config_operation, one.value) for one in resource.configs} == {
            (operation, value)
        }


def test_a_drain_that_is_refused_says_why_and_how_to_lift_the_throttle(cluster):
    cluster.refuses, cluster.leaders[3] = 39, 1
    result = run(cluster, "drain", "4", "--throttle", "1M")
    assert result.exit_code == 1
    assert "moving orders-2 (2 of 2 are refused): INVALID_REPLICA_ASSIGNMENT: because" in (
        result.stderr
    )
    assert "trioq config alter broker --delete leader.replication" in result.stderr
    assert len(cluster.asked("IncrementalAlterConfigs")) == 1


@pytest.mark.parametrize(
    ("arguments", "expected", "status"),
    [
        (["drain", "9"], "there is no broker 9: the cluster has 1, 2, 3, 4", 2),
        (["drain", "4", "--throttle", "fast"], "no rate", 2),
        (["drain", "4", "--throttle", "12"], "no rate", 2),
        (["drain"], "Missing argument", 2),
        (["elect-leaders", "--unclean"], "name the topics", 2),
    ],
)
def test_mistakes(cluster, arguments, expected, status):
    result = run(cluster, *arguments)
    assert result.exit_code == status
    assert expected in result.stderr


def test_a_broker_without_room_elsewhere_stays(cluster):
    cluster.replicas[0] = [1, 2, 3]
    result = run(cluster, "drain", "3")
    assert result.exit_code == 1
    assert "orders-0 has 3 replicas, and without broker 3 there are 2 brokers" in result.stderr


def test_rebalance_moves_waits_and_elects(cluster):
    cluster.replicas = {0: [1, 2], 1: [1, 2], 2: [1, 2], 3: [1, 2]}
    cluster.leaders = dict.fromkeys(range(4), 1)
    planned = rows(run(cluster, "rebalance", "--dry-run"))
    assert not cluster.asked("AlterPartitionReassignments")
    result = run(cluster, "rebalance")
    assert rows(result) == planned
    held = [one for replicas in cluster.replicas.values() for one in replicas]
    assert list(map(held.count, (1, 2, 3))) == [2, 4, 2], "2 is alone in its rack"
    first = [replicas[0] for replicas in cluster.replicas.values()]
    assert max(map(first.count, (1, 2, 3))) == 2
    (elected,) = cluster.asked("ElectLeaders")
    (topic,) = elected.topic_partitions
    assert topic.partitions == [n for n in range(4) if cluster.replicas[n][0] != 1]
    assert "partitions were moved" in result.stderr


def test_rebalance_waits_for_its_turn(cluster):
    cluster.moving, cluster.keep_moving = {1: ([2, 3], [3], [])}, True
    result = run(cluster, "rebalance")
    assert result.exit_code == 1
    assert "1 partitions are being moved already, orders-1 among them" in result.stderr


def test_leaders_are_elected_and_what_cannot_be_is_told(cluster):
    result = run(cluster, "elect-leaders")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "orders\t1\telected",
        "orders\t2\tPREFERRED_LEADER_NOT_AVAILABLE: so it is",
    ]
    result = run(cluster, "elect-leaders", "--topic", "orders", "--unclean", "--json")
    assert [one["error"] for one in json.loads(result.stdout)] == [
        None, "PREFERRED_LEADER_NOT_AVAILABLE", "ELIGIBLE_LEADERS_NOT_AVAILABLE",
    ]  # fmt: skip
    kinds = [one.election_type for one in cluster.asked("ElectLeaders")]
    assert kinds == [0, 1]


def test_a_terminal_is_shown_no_optional_column_that_is_empty(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(output.sys, "stdout", Terminal())
    rows = [("orders", None, None), ("copy", 3, None)]
    output.print_table("t", ["topic", "adding", "removing"], rows, optional=["adding", "removing"])
    shown = output.sys.stdout.getvalue()
    assert "adding" in shown
    assert "removing" not in shown


def test_a_terminal_sees_how_far_the_moves_are(cluster, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(cluster_moves.sys, "stderr", terminal)
    with cluster_moves._bar(12) as show:
        show(5)
    assert "5/12" in terminal.getvalue()


def test_a_drain_that_is_interrupted_leaves_its_throttle_and_says_so(cluster, monkeypatch):
    cluster.keep_moving, cluster.leaders[3] = True, 1

    listed = []

    async def sleep(_seconds):
        listed.append(True)
        signal.raise_signal(signal.SIGINT)
        await anyio.sleep_forever()

    monkeypatch.setattr(cluster_moves, "anyio", types.SimpleNamespace(sleep=sleep))
    result = run(cluster, "drain", "4", "--throttle", "1M")
    assert result.exit_code == 130
    assert listed
    assert "what was begun goes on, and so does its throttle" in result.stderr
    assert len(cluster.asked("IncrementalAlterConfigs")) == 1
