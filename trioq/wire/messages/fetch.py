"""Fetch (key 1): read record batches.

4: transactions. 5: log start offset. 7: fetch sessions (KIP-227). 9: leader epochs.
10: zstd. 11: the consumer's rack and the replica it should read from (KIP-392). 12:
diverging epochs. 13: topics by id, not name. 15: the follower's state in a tag instead
of `replica_id`. 16: where the leader is now (KIP-951).
"""

from __future__ import annotations

from trioq.types import ZERO_TOPIC_ID, TopicId
from trioq.wire.kinds import INT8, INT16, INT32, INT64, RECORDS, STRING, UUID
from trioq.wire.primitives import Records
from trioq.wire.schema import Message, Struct, array, wire


class FetchRequestReplicaState(Struct):
    replica_id: int = wire(INT32, default=-1)
    replica_epoch: int = wire(INT64, default=-1)


class FetchRequestPartition(Struct):
    partition: int = wire(INT32, default=0)
    current_leader_epoch: int = wire(INT32, default=-1, since=9, ignorable=True)
    fetch_offset: int = wire(INT64, default=0)
    last_fetched_epoch: int = wire(INT32, default=-1, since=12)
    log_start_offset: int = wire(INT64, default=-1, since=5, ignorable=True)
    partition_max_bytes: int = wire(INT32, default=0)


class FetchRequestTopic(Struct):
    topic: str = wire(STRING, default="", until=12, ignorable=True)
    topic_id: TopicId = wire(UUID, default=ZERO_TOPIC_ID, since=13, ignorable=True)
    partitions: list[FetchRequestPartition] = wire(array(FetchRequestPartition), factory=list)


class FetchRequestForgottenTopic(Struct):
    topic: str = wire(STRING, default="", until=12, ignorable=True)
    topic_id: TopicId = wire(UUID, default=ZERO_TOPIC_ID, since=13, ignorable=True)
    partitions: list[int] = wire(array(INT32), factory=list)


class FetchRequest(Message, versions=(4, 16), flexible=12, hot=True):
    cluster_id: str | None = wire(STRING, default=None, since=12, nullable=0, tag=0, ignorable=True)
    replica_id: int = wire(INT32, default=-1, until=14)
    replica_state: FetchRequestReplicaState | None = wire(
        FetchRequestReplicaState, default=None, since=15, tag=1
    )
    max_wait_ms: int = wire(INT32, default=0)
    min_bytes: int = wire(INT32, default=0)
    max_bytes: int = wire(INT32, default=0x7FFFFFFF)
    isolation_level: int = wire(INT8, default=0)
    session_id: int = wire(INT32, default=0, since=7, ignorable=True)
    session_epoch: int = wire(INT32, default=-1, since=7, ignorable=True)
    topics: list[FetchRequestTopic] = wire(array(FetchRequestTopic), factory=list)
    forgotten_topics_data: list[FetchRequestForgottenTopic] = wire(
        array(FetchRequestForgottenTopic), factory=list, since=7
    )
    rack_id: str = wire(STRING, default="", since=11, ignorable=True)


class FetchResponseDivergingEpoch(Struct):
    epoch: int = wire(INT32, default=-1)
    end_offset: int = wire(INT64, default=-1)


class FetchResponseCurrentLeader(Struct):
    leader_id: int = wire(INT32, default=-1)
    leader_epoch: int = wire(INT32, default=-1)


class FetchResponseSnapshotId(Struct):
    end_offset: int = wire(INT64, default=-1)
    epoch: int = wire(INT32, default=-1)


class FetchResponseAbortedTransaction(Struct):
    producer_id: int = wire(INT64, default=0)
    first_offset: int = wire(INT64, default=0)


class FetchResponsePartition(Struct):
    partition_index: int = wire(INT32, default=0)
    error_code: int = wire(INT16, default=0)
    high_watermark: int = wire(INT64, default=0)
    last_stable_offset: int = wire(INT64, default=-1)
    log_start_offset: int = wire(INT64, default=-1, since=5, ignorable=True)
    diverging_epoch: FetchResponseDivergingEpoch | None = wire(
        FetchResponseDivergingEpoch, default=None, since=12, tag=0
    )
    current_leader: FetchResponseCurrentLeader | None = wire(
        FetchResponseCurrentLeader, default=None, since=12, tag=1
    )
    snapshot_id: FetchResponseSnapshotId | None = wire(
        FetchResponseSnapshotId, default=None, since=12, tag=2
    )
    aborted_transactions: list[FetchResponseAbortedTransaction] | None = wire(
        array(FetchResponseAbortedTransaction), factory=list, nullable=0
    )
    preferred_read_replica: int = wire(INT32, default=-1, since=11)
    records: Records = wire(RECORDS, default=None, nullable=0)


class FetchResponseTopic(Struct):
    topic: str = wire(STRING, default="", until=12, ignorable=True)
    topic_id: TopicId = wire(UUID, default=ZERO_TOPIC_ID, since=13, ignorable=True)
    partitions: list[FetchResponsePartition] = wire(array(FetchResponsePartition), factory=list)


class FetchResponseNodeEndpoint(Struct):
    node_id: int = wire(INT32, default=0)
    host: str = wire(STRING, default="")
    port: int = wire(INT32, default=0)
    rack: str | None = wire(STRING, default=None, nullable=0)


class FetchResponse(Message, versions=(4, 16), flexible=12, hot=True):
    throttle_time_ms: int = wire(INT32, default=0)
    error_code: int = wire(INT16, default=0, since=7, ignorable=True)
    session_id: int = wire(INT32, default=0, since=7)
    responses: list[FetchResponseTopic] = wire(array(FetchResponseTopic), factory=list)
    node_endpoints: list[FetchResponseNodeEndpoint] = wire(
        array(FetchResponseNodeEndpoint), factory=list, since=16, tag=0
    )
