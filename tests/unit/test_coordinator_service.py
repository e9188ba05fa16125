"""What a broker imports for groups, and when."""

from __future__ import annotations

import subprocess
import sys

_SCRIPT = """
import sys, tempfile, trio, uuid
from trioq.broker import Broker
from trioq.config import BrokerConfig

lazy = {"trioq.coordinator." + name for name in
        ("coordinator", "group", "group_state", "consumer_group_state", "registry", "upkeep")}
lazy.add("trioq.metastore.group_layout")

async def serve(config, when_ready):
    broker = Broker(config)
    async with trio.open_nursery() as nursery:
        await nursery.start(broker.run)
        await when_ready(broker.context.groups)
        broker.stop()

async def nothing(groups):
    assert not lazy & set(sys.modules), lazy & set(sys.modules)

async def commit(groups):
    from trioq.coordinator.offset_requests import CommitRequest, NewOffset
    told, done = [], trio.Event()
    def reply(error):
        told.append(error)
        done.set()
    offsets = [NewOffset(uuid.uuid4(), 0, 1)]
    groups.commit_offsets(CommitRequest("g", -1, "", None, offsets), reply)
    await done.wait()
    assert told == [None]

async def found(groups):
    assert [group.group_id for group in groups.list_groups()] == ["g"]

with tempfile.TemporaryDirectory() as path:
    config = BrokerConfig.from_mapping(
        {"log.dirs": path, "listeners": "PLAINTEXT://127.0.0.1:0"})
    trio.run(serve, config, nothing)
    trio.run(serve, config, nothing)
    trio.run(serve, config, commit)
    assert "trioq.coordinator.group_state" in sys.modules
    assert "trioq.coordinator.consumer_group_state" not in sys.modules
    trio.run(serve, config, found)
"""


def test_groups_are_imported_with_the_first_of_them():
    result = subprocess.run(
        [sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
