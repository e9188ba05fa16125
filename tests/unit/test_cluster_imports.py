"""What only a broker of a cluster needs is not imported by a single one."""

from __future__ import annotations

import subprocess
import sys

_SCRIPT = """
import sys, tempfile, trio
from trioq.broker import Broker
from trioq.config import BrokerConfig

async def serve(config):
    broker = Broker(config)
    async with trio.open_nursery() as nursery:
        await nursery.start(broker.run)
        for_clusters = [
            name for name in sys.modules
            if name.startswith(("trioq.cluster", "kazoo", "trioq.metastore.zookeeper"))
        ]
        for_clusters += {
            "trioq.net.peer", "trioq.controller.controller", "trioq.controller.reviewer",
            "trioq.replication.isr_keeper", "trioq.replication.fetchers",
            "trioq.replication.fetcher_state", "trioq._native.replica_run",
        } & set(sys.modules)
        assert not for_clusters, for_clusters
        assert broker.context.forward is None
        assert broker.context.gate is None
        broker.stop()

with tempfile.TemporaryDirectory() as path:
    trio.run(serve, BrokerConfig.from_mapping(
        {"log.dirs": path, "listeners": "PLAINTEXT://127.0.0.1:0"}))
"""


def test_a_single_broker_imports_nothing_of_clusters():
    result = subprocess.run(
        [sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
