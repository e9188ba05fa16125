"""Asks brokers how far their logs reach, for elections among replicas that may have lost some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Final, cast

from trioq import logs
from trioq.controller.election_state import LogEnd
from trioq.errors import PeerUnreachable
from trioq.net.peer import Peers
from trioq.types import TopicPartition
from trioq.wire.messages.offset_for_leader_epoch import (
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochRequestPartition,
    OffsetForLeaderEpochRequestTopic,
    OffsetForLeaderEpochResponse,
)

_log = logs.get_logger("trioq.cluster")

_VERSION: Final = 4
_ANY_REPLICA: Final = -2
"""Kafka's "debugging consumer": answered by every replica from its own log."""

_NO_EPOCH: Final = -1
_LAST_EPOCH: Final = 2**31 - 1
_TIMEOUT_S: Final = 5.0


async def ask_log_ends(
    peers: Peers, broker_id: int, partitions: Sequence[TopicPartition]
) -> Mapping[TopicPartition, LogEnd]:
    """How far the logs of a broker reach; what it does not tell is left out.

    Raises nothing but Cancelled.
    """
    by_topic = groupby(sorted(partitions), key=lambda one: one.topic)
    request = OffsetForLeaderEpochRequest(
        replica_id=_ANY_REPLICA,
        topics=[
            OffsetForLeaderEpochRequestTopic(
                topic=topic,
                partitions=[
                    OffsetForLeaderEpochRequestPartition(
                        partition=one.partition,
                        current_leader_epoch=_NO_EPOCH,
                        leader_epoch=_LAST_EPOCH,
                    )
                    for one in ones
                ],
            )
            for topic, ones in by_topic
        ],
    )
    try:
        answer = await peers.call(broker_id, request, api_version=_VERSION, timeout_s=_TIMEOUT_S)
    except PeerUnreachable as error:
        _log.warning("a log's end is not known", reason=str(error))
        return {}
    response = cast("OffsetForLeaderEpochResponse", answer)
    return {
        TopicPartition(topic.topic, one.partition): LogEnd(one.leader_epoch, one.end_offset)
        for topic in response.topics
        for one in topic.partitions
        if not one.error_code
    }
