"""Requests of groups on one connection: what waits for what, and what happens at its end."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from tests.unit.groups_support import ScriptedGroups, group_context
from tests.unit.server_harness import Client, Harness, serving
from trioq.coordinator.group_requests import JoinResult, LeaveResult, SyncResult
from trioq.errors import KafkaError
from trioq.server.handlers.registry import served_apis
from trioq.wire.api_keys import APIS, ApiKey
from trioq.wire.framing import request_frame
from trioq.wire.messages.heartbeat import HeartbeatRequest
from trioq.wire.messages.join_group import JoinGroupRequest
from trioq.wire.messages.leave_group import LeaveGroupRequest
from trioq.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from trioq.wire.messages.offset_fetch import OffsetFetchRequest
from trioq.wire.messages.sync_group import SyncGroupRequest

pytestmark = pytest.mark.trio

GROUPS = (
    ApiKey.JOIN_GROUP,
    ApiKey.SYNC_GROUP,
    ApiKey.LEAVE_GROUP,
    ApiKey.HEARTBEAT,
    ApiKey.OFFSET_COMMIT,
    ApiKey.OFFSET_FETCH,
)
VERSION = 3
"""Of every request here: all of them have it, none is flexible in it."""


async def send(client: Client, key: ApiKey, message: Any, correlation_id: int) -> None:
    frame = request_frame(key, VERSION, correlation_id, "c", message)
    await client.send(b"".join(frame))  # type: ignore[arg-type]


async def receive(client: Client, key: ApiKey, correlation_id: int) -> Any:
    answered, body = await client.response()
    assert answered == correlation_id
    return APIS[key].response_class.decode(memoryview(body), 0, len(body), VERSION)


def use(harness: Harness, groups: ScriptedGroups) -> None:
    """Give the running server its coordinator, image and configuration."""
    ctx: Any = harness.server._ctx
    given = group_context(groups)
    ctx.groups, ctx.config = groups, given.config
    ctx.image_source = given


def serving_groups() -> Any:
    apis = served_apis()
    return serving(apis={key: apis[key] for key in GROUPS})


def commit() -> OffsetCommitRequest:
    partition = OffsetCommitRequestPartition(partition_index=0, committed_offset=1)
    topic = OffsetCommitRequestTopic(name="orders", partitions=[partition])
    return OffsetCommitRequest(group_id="g", topics=[topic])


def names(groups: ScriptedGroups) -> list[str]:
    return [asked[0] for asked in groups.asked]


async def test_nothing_is_handled_while_a_member_waits_for_its_rebalance() -> None:
    groups = ScriptedGroups(heartbeat=None)
    async with serving_groups() as harness:
        use(harness, groups)
        client = await harness.connect()
        other = await harness.connect()
        await send(client, ApiKey.JOIN_GROUP, JoinGroupRequest(group_id="g"), 1)
        await send(client, ApiKey.HEARTBEAT, HeartbeatRequest(group_id="g"), 2)
        await send(client, ApiKey.LEAVE_GROUP, LeaveGroupRequest(group_id="g"), 3)
        await send(client, ApiKey.SYNC_GROUP, SyncGroupRequest(group_id="g"), 4)
        await send(client, ApiKey.HEARTBEAT, HeartbeatRequest(group_id="g"), 5)
        await harness.until(lambda: len(groups.replies) == 1)
        # Another connection is served, which shows that the first one is not, not yet.
        await send(other, ApiKey.HEARTBEAT, HeartbeatRequest(group_id="g"), 1)
        await receive(other, ApiKey.HEARTBEAT, 1)
        assert names(groups) == ["join_group", "heartbeat"]

        groups.replies[0](JoinResult(1, "consumer", "range", "m", False, "m"))
        assert (await receive(client, ApiKey.JOIN_GROUP, 1)).generation_id == 1
        assert (await receive(client, ApiKey.HEARTBEAT, 2)).error_code == 0
        await harness.until(lambda: len(groups.replies) == 2)
        assert names(groups)[2:] == ["heartbeat", "leave_group"]
        groups.replies[1]([LeaveResult("m", None, None)])
        assert (await receive(client, ApiKey.LEAVE_GROUP, 3)).members[0].error_code == 0
        await harness.until(lambda: len(groups.replies) == 3)
        assert names(groups)[4:] == ["sync_group"]
        groups.replies[2](SyncResult(None, None, b"part"))
        assert (await receive(client, ApiKey.SYNC_GROUP, 4)).assignment == b"part"
        assert (await receive(client, ApiKey.HEARTBEAT, 5)).error_code == 0


async def test_commits_share_their_wait_and_a_fetch_reads_what_was_committed() -> None:
    groups = ScriptedGroups(heartbeat=None, fetch_offsets={})
    async with serving_groups() as harness:
        use(harness, groups)
        client = await harness.connect()
        await send(client, ApiKey.OFFSET_COMMIT, commit(), 1)
        await send(client, ApiKey.OFFSET_COMMIT, commit(), 2)
        await send(client, ApiKey.HEARTBEAT, HeartbeatRequest(group_id="g"), 3)
        await send(client, ApiKey.OFFSET_FETCH, OffsetFetchRequest(group_id="g"), 4)
        await harness.until(lambda: len(groups.asked) == 3)
        assert names(groups) == ["commit_offsets", "commit_offsets", "heartbeat"]
        groups.replies[1](None)
        await trio.testing.wait_all_tasks_blocked()
        assert "fetch_offsets" not in names(groups)
        groups.replies[0](None)
        for number, key in enumerate(
            (ApiKey.OFFSET_COMMIT, ApiKey.OFFSET_COMMIT, ApiKey.HEARTBEAT, ApiKey.OFFSET_FETCH)
        ):
            await receive(client, key, number + 1)
        assert names(groups)[3:] == ["fetch_offsets"]


async def test_members_that_wait_are_let_go_when_the_broker_stops() -> None:
    groups = ScriptedGroups()
    async with serving_groups() as harness:
        use(harness, groups)
        joins, syncs = await harness.connect(), await harness.connect()
        await send(joins, ApiKey.JOIN_GROUP, JoinGroupRequest(group_id="g", member_id="m"), 1)
        await send(syncs, ApiKey.SYNC_GROUP, SyncGroupRequest(group_id="g"), 1)
        await harness.until(lambda: len(groups.replies) == 2)
        with trio.fail_after(60):
            await harness.server.drain(10)
        answer = await receive(joins, ApiKey.JOIN_GROUP, 1)
        assert (answer.error_code, answer.member_id) == (16, "m")
        assert (await receive(syncs, ApiKey.SYNC_GROUP, 1)).error_code == 16
        assert await joins.is_closed()


async def test_a_member_whose_connection_ends_leaves_nothing_behind() -> None:
    groups = ScriptedGroups()
    async with serving_groups() as harness:
        use(harness, groups)
        client = await harness.connect()
        await send(client, ApiKey.JOIN_GROUP, JoinGroupRequest(group_id="g"), 1)
        await harness.until(lambda: len(groups.replies) == 1)
        await client.stream.aclose()
        await harness.until(lambda: harness.reactor.connection_count == 0)
        late: KafkaError | JoinResult = JoinResult(1, "consumer", "range", "m", False, "m")
        groups.replies[0](late)
        other = await harness.connect()
        groups.answers["heartbeat"] = None
        await send(other, ApiKey.HEARTBEAT, HeartbeatRequest(group_id="g"), 9)
        assert (await receive(other, ApiKey.HEARTBEAT, 9)).error_code == 0
