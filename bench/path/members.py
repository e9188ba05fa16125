"""Consumer groups of one member each, and what their members send all day."""

from __future__ import annotations

import contextlib
import time
from typing import Final, NamedTuple

from bench.errors import BenchError
from bench.path.ask import TIMEOUT_S, Asker
from bench.path.frames import CLIENT_ID, MARKED_OFFSET, Template, request_frame
from bench.path.process import BrokerProcess
from bench.path.work import Work
from trioq.wire.api_keys import ApiKey
from trioq.wire.messages.heartbeat import HeartbeatRequest
from trioq.wire.messages.join_group import (
    JoinGroupRequest,
    JoinGroupRequestProtocol,
    JoinGroupResponse,
)
from trioq.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from trioq.wire.messages.sync_group import (
    SyncGroupRequest,
    SyncGroupRequestAssignment,
    SyncGroupResponse,
)

HEARTBEAT_VERSION: Final = 3
OFFSET_COMMIT_VERSION: Final = 7
NOT_YET: Final = frozenset({14, 15, 16})
"""Codes of a coordinator that is loading, or not known yet."""

SESSION_TIMEOUT_MS: Final = 300_000
REBALANCE_TIMEOUT_MS: Final = 60_000
PROTOCOL_TYPE: Final = "consumer"


class Member(NamedTuple):
    """A group's only member."""

    group_id: str
    member_id: str
    generation: int


def join_groups(broker: BrokerProcess, name: str, count: int) -> list[Member]:
    """So many groups, each with a member that has its assignment.

    All join at once, because brokers wait a few seconds for others before a first rebalance.
    """
    with contextlib.ExitStack() as stack:
        askers = [stack.enter_context(Asker(broker)) for _ in range(count)]
        members = [Member(f"{name}-{number:04d}", "", -1) for number in range(count)]
        waiting = list(range(count))
        end = time.monotonic() + TIMEOUT_S
        while waiting:
            for number in waiting:
                askers[number].send(ApiKey.JOIN_GROUP, _join(members[number].group_id))
            refused = []
            for number in waiting:
                joined = askers[number].receive(ApiKey.JOIN_GROUP, JoinGroupResponse)
                if joined.error_code in NOT_YET:
                    refused.append(number)
                elif joined.error_code:
                    raise BenchError(f"no member of a group: error {joined.error_code}")
                else:
                    members[number] = members[number]._replace(
                        member_id=joined.member_id, generation=joined.generation_id
                    )
            if refused and time.monotonic() > end:
                raise BenchError("the coordinator is not ready")
            if refused:
                time.sleep(0.2)
            waiting = refused
        for asker, member in zip(askers, members, strict=True):
            _sync(asker, member)
    return members


def _join(group_id: str) -> JoinGroupRequest:
    return JoinGroupRequest(
        group_id=group_id,
        session_timeout_ms=SESSION_TIMEOUT_MS,
        rebalance_timeout_ms=REBALANCE_TIMEOUT_MS,
        protocol_type=PROTOCOL_TYPE,
        protocols=[JoinGroupRequestProtocol(name="range", metadata=b"")],
    )


def _sync(asker: Asker, member: Member) -> None:
    assignment = SyncGroupRequestAssignment(member_id=member.member_id, assignment=b"all")
    request = SyncGroupRequest(
        group_id=member.group_id,
        generation_id=member.generation,
        member_id=member.member_id,
        assignments=[assignment],
    )
    response = asker.ask(ApiKey.SYNC_GROUP, request, SyncGroupResponse)
    if response.error_code:
        raise BenchError(f"no assignment: error {response.error_code}")


def heartbeat_template(members: list[Member]) -> Template:
    """A heartbeat per connection."""
    bodies = [
        HeartbeatRequest(
            group_id=one.group_id, generation_id=one.generation, member_id=one.member_id
        ).encode(HEARTBEAT_VERSION)
        for one in members
    ]
    frames = _equally_long(ApiKey.HEARTBEAT, HEARTBEAT_VERSION, bodies)
    # length, correlation id, throttle time, error code
    return Template(b"".join(frames), len(frames[0]), error_at=4 + 4 + 4)


def commit_template(topic: str, work: Work, members: list[Member]) -> Template:
    """A commit of all partitions per connection; the first offset grows with each."""
    bodies = []
    for one in members:
        partitions = [
            OffsetCommitRequestPartition(
                partition_index=number, committed_offset=number or MARKED_OFFSET
            )
            for number in range(work.partitions)
        ]
        bodies.append(
            OffsetCommitRequest(
                group_id=one.group_id,
                generation_id_or_member_epoch=one.generation,
                member_id=one.member_id,
                topics=[OffsetCommitRequestTopic(name=topic, partitions=partitions)],
            ).encode(OFFSET_COMMIT_VERSION)
        )
    frames = _equally_long(ApiKey.OFFSET_COMMIT, OFFSET_COMMIT_VERSION, bodies)
    # length, correlation id, throttle time, topics, name, partitions, index, error code
    error_at = 4 + 4 + 4 + 4 + 2 + len(topic) + 4 + 4
    return Template(
        b"".join(frames),
        len(frames[0]),
        records=work.partitions,
        offset_at=frames[0].index(MARKED_OFFSET.to_bytes(8, "big")),
        offset_step=1,
        offset_end=1 << 40,
        error_at=error_at,
    )


def _equally_long(key: ApiKey, version: int, bodies: list[bytes]) -> list[bytes]:
    """Frames; client ids make up for member ids of different lengths."""
    longest = max(map(len, bodies))
    return [
        request_frame(key, version, body, CLIENT_ID + b"-" * (longest - len(body)))
        for body in bodies
    ]
