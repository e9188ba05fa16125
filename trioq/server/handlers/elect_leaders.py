"""ElectLeaders (key 43), versions 0-2.

Behaviour:
- preferred (0): the first of the replicas leads, if it is in sync: else
  PREFERRED_LEADER_NOT_AVAILABLE
- unclean (1): where there is no leader, the live replica whose log reaches furthest leads, although
  records may be lost: ELIGIBLE_LEADERS_NOT_AVAILABLE where none is alive
- ELECTION_NOT_NEEDED for what is led so already; left out of the answer when all partitions were
  asked for
- NOT_CONTROLLER on top where no broker is the controller

Version notes: 1 the type of election (KIP-460).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trioq.errors import ElectionNotNeeded, InvalidRequest, KafkaError
from trioq.server.handlers.admin_timeout import timeout_s
from trioq.types import TopicPartition
from trioq.wire.messages.elect_leaders import (
    ElectLeadersRequest,
    ElectLeadersResponse,
    ElectLeadersResponsePartition,
    ElectLeadersResponseTopic,
)

if TYPE_CHECKING:
    from trioq.server.context import Context, Request

_PREFERRED = 0
_UNCLEAN = 1


async def handle_elect_leaders(ctx: Context, request: Request) -> ElectLeadersResponse:
    """Elect. Cancelled: each partition has another leader or not."""
    message = request.decode(ElectLeadersRequest)
    if message.election_type not in {_PREFERRED, _UNCLEAN}:
        return _answer_all(message, InvalidRequest.code, request.api_version)
    asked = None
    if message.topic_partitions is not None:
        asked = [
            TopicPartition(one.topic, number)
            for one in message.topic_partitions
            for number in one.partitions
        ]
    try:
        elected = await ctx.topic_admin.elect_leaders(
            asked,
            unclean=message.election_type == _UNCLEAN,
            timeout_s=timeout_s(message.timeout_ms),
        )
    except KafkaError as refused:
        return _answer_all(message, refused.code, request.api_version)
    topics: dict[str, ElectLeadersResponseTopic] = {}
    for partition, error in elected:
        if asked is None and isinstance(error, ElectionNotNeeded):
            continue
        topic = topics.setdefault(partition.topic, ElectLeadersResponseTopic(topic=partition.topic))
        topic.partition_result.append(
            ElectLeadersResponsePartition(
                partition_id=partition.partition,
                error_code=0 if error is None else error.code,
                error_message=None if error is None else str(error),
            )
        )
    return ElectLeadersResponse(replica_election_results=list(topics.values()))


def _answer_all(message: ElectLeadersRequest, code: int, version: int) -> ElectLeadersResponse:
    """One error for everything: on top where the version has it, and for each partition."""
    return ElectLeadersResponse(
        error_code=code if version >= 1 else 0,
        replica_election_results=[
            ElectLeadersResponseTopic(
                topic=one.topic,
                partition_result=[
                    ElectLeadersResponsePartition(
                        partition_id=number, error_code=code, error_message=None
                    )
                    for number in one.partitions
                ],
            )
            for one in message.topic_partitions or ()
        ],
    )
