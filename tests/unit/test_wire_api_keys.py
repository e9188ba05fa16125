"""The table of APIs, against the ranges decided for this broker, and against the declarations."""

from __future__ import annotations

import subprocess
import sys

import pytest

from trioq.wire.api_keys import APIS, Api, ApiKey
from trioq.wire.kinds import NEVER

SERVED = {
    0: ("Produce", 0, 11),
    1: ("Fetch", 4, 16),
    2: ("ListOffsets", 1, 8),
    3: ("Metadata", 0, 13),
    7: ("ControlledShutdown", 0, 3),
    8: ("OffsetCommit", 2, 9),
    9: ("OffsetFetch", 1, 9),
    10: ("FindCoordinator", 0, 5),
    11: ("JoinGroup", 0, 9),
    12: ("Heartbeat", 0, 4),
    13: ("LeaveGroup", 0, 5),
    14: ("SyncGroup", 0, 5),
    15: ("DescribeGroups", 0, 6),
    16: ("ListGroups", 0, 5),
    18: ("ApiVersions", 0, 4),
    19: ("CreateTopics", 2, 7),
    20: ("DeleteTopics", 1, 6),
    21: ("DeleteRecords", 0, 2),
    22: ("InitProducerId", 0, 4),
    23: ("OffsetForLeaderEpoch", 2, 4),
    32: ("DescribeConfigs", 1, 4),
    33: ("AlterConfigs", 0, 2),
    35: ("DescribeLogDirs", 1, 4),
    37: ("CreatePartitions", 0, 3),
    42: ("DeleteGroups", 0, 2),
    43: ("ElectLeaders", 0, 2),
    44: ("IncrementalAlterConfigs", 0, 1),
    45: ("AlterPartitionReassignments", 0, 0),
    46: ("ListPartitionReassignments", 0, 0),
    47: ("OffsetDelete", 0, 0),
    60: ("DescribeCluster", 0, 1),
    61: ("DescribeProducers", 0, 0),
    68: ("ConsumerGroupHeartbeat", 0, 1),
    69: ("ConsumerGroupDescribe", 0, 1),
    75: ("DescribeTopicPartitions", 0, 0),
}

# The first version with compact lengths and tagged fields.
FLEXIBLE_FROM = {
    0: 9,
    1: 12,
    2: 6,
    3: 9,
    7: 3,
    8: 8,
    9: 6,
    10: 3,
    11: 6,
    12: 4,
    13: 4,
    14: 4,
    15: 5,
    16: 3,
    18: 3,
    19: 5,
    20: 4,
    21: 2,
    22: 2,
    23: 4,
    32: 4,
    33: 2,
    35: 2,
    37: 2,
    42: 2,
    43: 2,
    44: 1,
    45: 0,
    46: 0,
    47: NEVER,
    60: 0,
    61: 0,
    68: 0,
    69: 0,
    75: 0,
}

DECLARED_BEYOND = {2: (1, 11), 22: (0, 5)}
"""Where the declared versions are not the ones in the table."""


def test_the_ranges_that_are_served() -> None:
    table = {key: (api.name, api.min_version, api.max_version) for key, api in APIS.items()}
    assert table == SERVED
    hidden = {key for key, api in APIS.items() if not api.advertised}
    assert hidden == {ApiKey.CONTROLLED_SHUTDOWN}


def test_flexible_versions() -> None:
    assert {key: api.flexible_from for key, api in APIS.items()} == FLEXIBLE_FROM


def test_only_produce_implements_less_than_it_advertises() -> None:
    less = {key for key, api in APIS.items() if api.implemented_min != api.min_version}
    assert less == {ApiKey.PRODUCE}
    assert not APIS[0].implements(2)
    assert APIS[0].implements(3)
    assert APIS[0].implements(11)
    assert not APIS[0].implements(12)


@pytest.mark.parametrize("api", APIS.values(), ids=lambda api: api.name)
def test_declarations_agree_with_the_table(api: Api) -> None:
    for cls in (api.request_class, api.response_class):
        declared = (cls.FIRST_VERSION, cls.LAST_VERSION)
        expected = DECLARED_BEYOND.get(api.key, (api.min_version, api.max_version))
        assert declared == expected
        assert api.flexible_from == cls.FLEXIBLE_FROM
        assert api.is_flexible(api.flexible_from)
        assert not api.is_flexible(api.flexible_from - 1)


def test_importing_the_table_imports_no_message() -> None:
    check = (
        "import sys, trioq.wire.api_keys, trioq.wire.framing\n"
        "loaded = [m for m in sys.modules if m.startswith('trioq.wire.messages.')]\n"
        "assert not loaded, loaded\n"
        "trioq.wire.api_keys.APIS[18].request_class\n"
        "assert 'trioq.wire.messages.api_versions' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", check], check=True)
