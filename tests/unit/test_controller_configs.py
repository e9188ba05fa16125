"""Altering configs of topics and brokers."""

from __future__ import annotations

import pytest

from tests.unit.test_controller_topics import NewTopic, opened
from trioq.controller.config_changes import (
    ConfigChange,
    ConfigOperation,
    ConfigResource,
)
from trioq.errors import InvalidConfig, InvalidRequest, UnknownTopicOrPartition

pytestmark = pytest.mark.trio

SET, DELETE, APPEND, SUBTRACT = ConfigOperation
TOPIC = ConfigResource(2, "t")
BROKER = ConfigResource(4, "1")
ALL_BROKERS = ConfigResource(4, "")


@pytest.fixture
async def cluster(tmp_path):
    async with opened(tmp_path / "metastore.sqlite") as cluster:
        await cluster.create(NewTopic("t", 2, configs={"retention.ms": "5"}))
        yield cluster
        assert await cluster.reloaded() == cluster.image


def config_of(cluster):
    return dict(cluster.image.topics["t"].config)


async def change(cluster, resource, *changes):
    (result,) = await cluster.admin.incremental_alter_configs([(resource, changes)])
    assert result.resource == resource
    return result.error


async def test_replacing_drops_what_is_not_named(cluster):
    before = cluster.image.topics["t"]
    (result,) = await cluster.admin.alter_configs([(TOPIC, {"cleanup.policy": "delete"})])
    assert result == (TOPIC, None)
    assert config_of(cluster) == {"cleanup.policy": "delete"}
    assert cluster.image.topics["t"].partitions == before.partitions
    (result,) = await cluster.admin.alter_configs([(TOPIC, {})])
    assert result.error is None
    assert config_of(cluster) == {}


async def test_single_values_are_set_and_unset(cluster):
    assert await change(cluster, TOPIC, ConfigChange("segment.bytes", SET, " 2000000 ")) is None
    assert config_of(cluster) == {"retention.ms": "5", "segment.bytes": "2000000"}
    assert await change(cluster, TOPIC, ConfigChange("retention.ms", DELETE, None)) is None
    assert config_of(cluster) == {"segment.bytes": "2000000"}
    assert await change(cluster, TOPIC, ConfigChange("retention.ms", DELETE, None)) is None


async def test_lists_grow_and_shrink(cluster):
    assert await change(cluster, TOPIC, ConfigChange("cleanup.policy", APPEND, "delete")) is None
    assert config_of(cluster)["cleanup.policy"] == "delete"
    error = await change(cluster, TOPIC, ConfigChange("cleanup.policy", SUBTRACT, "delete"))
    assert type(error) is InvalidConfig
    error = await change(cluster, TOPIC, ConfigChange("retention.ms", APPEND, "1"))
    assert type(error) is InvalidConfig
    assert "not a list" in str(error)


@pytest.mark.parametrize(
    ("resource", "changes", "error"),
    [
        (ConfigResource(2, "missing"), [], UnknownTopicOrPartition),
        (ConfigResource(8, "x"), [], InvalidRequest),
        (ConfigResource(4, "9"), [], InvalidRequest),
        (ConfigResource(4, "01"), [], InvalidRequest),
        (TOPIC, [ConfigChange("retention.mz", SET, "1")], InvalidConfig),
        (TOPIC, [ConfigChange("retention.mz", DELETE, None)], InvalidConfig),
        (TOPIC, [ConfigChange("retention.ms", SET, None)], InvalidConfig),
        (TOPIC, [ConfigChange("retention.ms", SET, "x")], InvalidConfig),
        (TOPIC, [ConfigChange("retention.ms", 9, "1")], InvalidRequest),
        (
            TOPIC,
            [ConfigChange("retention.ms", SET, "1"), ConfigChange("retention.ms", DELETE, None)],
            InvalidRequest,
        ),
        (BROKER, [ConfigChange("node.id", SET, "3")], InvalidConfig),
        (BROKER, [ConfigChange("no.such.key", SET, "3")], InvalidConfig),
    ],
)
async def test_wrong_changes_are_refused_and_others_made(cluster, resource, changes, error):
    right = (ALL_BROKERS, [ConfigChange("log.retention.ms", SET, "7")])
    results = await cluster.admin.incremental_alter_configs([(resource, changes), right])
    assert type(results[0].error) is error
    assert results[1].error is None
    assert config_of(cluster) == {"retention.ms": "5"}
    assert cluster.image.broker_configs == {"": {"log.retention.ms": "7"}}


async def test_a_resource_twice_in_a_request(cluster):
    results = await cluster.admin.alter_configs([(TOPIC, {}), (TOPIC, {})])
    assert [type(result.error) for result in results] == [InvalidRequest] * 2


async def test_validate_only_changes_nothing(cluster):
    changes = [(TOPIC, [ConfigChange("retention.ms", SET, "6")])]
    (result,) = await cluster.admin.incremental_alter_configs(changes, validate_only=True)
    assert result.error is None
    (result,) = await cluster.admin.alter_configs([(TOPIC, {"x": "y"})], validate_only=True)
    assert type(result.error) is InvalidConfig
    assert config_of(cluster) == {"retention.ms": "5"}


async def test_brokers_have_their_own_and_common_values(cluster):
    assert await change(cluster, BROKER, ConfigChange("log.retention.ms", SET, "1")) is None
    assert await change(cluster, ALL_BROKERS, ConfigChange("log.retention.ms", SET, "2")) is None
    assert (
        await change(cluster, ALL_BROKERS, ConfigChange("log.segment.bytes", SET, "2000000"))
        is None
    )
    assert cluster.image.broker_configs == {
        "1": {"log.retention.ms": "1"},
        "": {"log.retention.ms": "2", "log.segment.bytes": "2000000"},
    }
    assert await change(cluster, BROKER, ConfigChange("log.retention.ms", DELETE, None)) is None
    assert cluster.image.broker_configs["1"] == {}


async def test_configs_survive_a_restart(tmp_path):
    path = tmp_path / "metastore.sqlite"
    async with opened(path) as cluster:
        await cluster.create(NewTopic("t"))
        await change(cluster, TOPIC, ConfigChange("retention.ms", SET, "8"))
        await change(cluster, BROKER, ConfigChange("log.retention.ms", SET, "9"))
    async with opened(path) as cluster:
        assert config_of(cluster) == {"retention.ms": "8"}
        assert cluster.image.broker_configs == {"1": {"log.retention.ms": "9"}}
        assert await change(cluster, BROKER, ConfigChange("log.retention.ms", SET, "10")) is None
