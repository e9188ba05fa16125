"""What a fetch is told of a leader that changed, in every version of Fetch."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from trioq.errors import FencedLeaderEpoch
from trioq.server.fetch_answer import FetchAnswer
from trioq.server.fetch_sessions import FollowedPartition
from trioq.types import ZERO_TOPIC_ID
from trioq.wire.messages.fetch import FetchResponse


class FencingPartition:
    """A partition whose leader epoch has grown since the client looked."""

    def read(self, *_: Any, **__: Any) -> NoReturn:
        raise FencedLeaderEpoch


def context() -> Any:
    broker = SimpleNamespace(endpoints={"PLAINTEXT": ("localhost", 9092)}, rack=None)
    topic = SimpleNamespace(partitions=[SimpleNamespace(leader=1, leader_epoch=7)])
    return SimpleNamespace(
        partitions=SimpleNamespace(find=lambda *_: FencingPartition()),
        image=SimpleNamespace(topics={"orders": topic}, brokers={1: broker}),
    )


@pytest.mark.parametrize("version", range(FetchResponse.FIRST_VERSION, 17))
def test_a_fenced_epoch_is_answered_with_what_the_version_has_of_the_leader(version: int) -> None:
    request: Any = SimpleNamespace(
        api_version=version, connection=SimpleNamespace(listener_name="PLAINTEXT")
    )
    answer = FetchAnswer(
        context(),
        request,
        session_id=0,
        max_bytes=1 << 20,
        read_committed=False,
        is_incremental=False,
    )
    assert answer.read(FollowedPartition("orders", ZERO_TOPIC_ID, 0, 5, 1 << 20, 6, -1))
    body = answer.response().encode(version)
    told = FetchResponse.decode(memoryview(body), 0, len(body), version)
    (partition,) = told.responses[0].partitions
    assert partition.error_code == FencedLeaderEpoch.code
    leader = partition.current_leader
    known = None if leader is None else (leader.leader_id, leader.leader_epoch)
    assert known == ((1, 7) if version >= 12 else None)
    endpoints = [(one.node_id, one.host, one.port) for one in told.node_endpoints]
    assert endpoints == ([(1, "localhost", 9092)] if version >= 16 else [])
