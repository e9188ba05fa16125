"""Produce (key 0): append record batches.

Versions 0 to 2 carry record formats before v2; they are advertised, because older
librdkafka takes a higher minimum for a lack of compression, and answered with
UNSUPPORTED_VERSION. 1: throttle time. 2: append time. 3: transactional id. 5: log start
offset. 7: zstd. 8: errors per record and a message (KIP-467). 10: where the leader is
now, with NOT_LEADER_OR_FOLLOWER (KIP-951). 11: transactions may be abortable. With
acks=0 there is no response.
"""

from __future__ import annotations

from trioq.wire.kinds import INT16, INT32, INT64, RECORDS, STRING
from trioq.wire.primitives import Records
from trioq.wire.schema import Message, Struct, array, wire


class ProduceRequestPartition(Struct):
    index: int = wire(INT32, default=0)
    records: Records = wire(RECORDS, default=None, nullable=0)


class ProduceRequestTopic(Struct):
    name: str = wire(STRING, default="")
    partition_data: list[ProduceRequestPartition] = wire(
        array(ProduceRequestPartition), factory=list
    )


class ProduceRequest(Message, versions=(0, 11), flexible=9, hot=True):
    transactional_id: str | None = wire(STRING, default=None, since=3, nullable=3)
    acks: int = wire(INT16, default=0)
    timeout_ms: int = wire(INT32, default=0)
    topic_data: list[ProduceRequestTopic] = wire(array(ProduceRequestTopic), factory=list)


class ProduceResponseRecordError(Struct):
    batch_index: int = wire(INT32, default=0)
    batch_index_error_message: str | None = wire(STRING, default=None, nullable=0)


class ProduceResponseCurrentLeader(Struct):
    leader_id: int = wire(INT32, default=-1)
    leader_epoch: int = wire(INT32, default=-1)


class ProduceResponsePartition(Struct):
    index: int = wire(INT32, default=0)
    error_code: int = wire(INT16, default=0)
    base_offset: int = wire(INT64, default=0)
    log_append_time_ms: int = wire(INT64, default=-1, since=2, ignorable=True)
    log_start_offset: int = wire(INT64, default=-1, since=5, ignorable=True)
    record_errors: list[ProduceResponseRecordError] = wire(
        array(ProduceResponseRecordError), factory=list, since=8, ignorable=True
    )
    error_message: str | None = wire(STRING, default=None, since=8, nullable=0, ignorable=True)
    current_leader: ProduceResponseCurrentLeader | None = wire(
        ProduceResponseCurrentLeader, default=None, since=10, tag=0
    )


class ProduceResponseTopic(Struct):
    name: str = wire(STRING, default="")
    partition_responses: list[ProduceResponsePartition] = wire(
        array(ProduceResponsePartition), factory=list
    )


class ProduceResponseNodeEndpoint(Struct):
    node_id: int = wire(INT32, default=0)
    host: str = wire(STRING, default="")
    port: int = wire(INT32, default=0)
    rack: str | None = wire(STRING, default=None, nullable=0)


class ProduceResponse(Message, versions=(0, 11), flexible=9, hot=True):
    responses: list[ProduceResponseTopic] = wire(array(ProduceResponseTopic), factory=list)
    throttle_time_ms: int = wire(INT32, default=0, since=1, ignorable=True)
    node_endpoints: list[ProduceResponseNodeEndpoint] = wire(
        array(ProduceResponseNodeEndpoint), factory=list, since=10, tag=0
    )
