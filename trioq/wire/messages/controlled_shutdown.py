"""ControlledShutdown (key 7): a broker that is about to stop asks the controller to take its roles.

Between brokers, never advertised. 2: the broker's epoch. Later versions of Kafka have no such API.
"""

from __future__ import annotations

from trioq.wire.kinds import INT16, INT32, INT64, STRING
from trioq.wire.schema import Message, Struct, array, wire


class ControlledShutdownRequest(Message, versions=(0, 3), flexible=3):
    broker_id: int = wire(INT32, default=0)
    broker_epoch: int = wire(INT64, default=-1, since=2, ignorable=True)


class ControlledShutdownResponsePartition(Struct):
    topic_name: str = wire(STRING, default="")
    partition_index: int = wire(INT32, default=0)


class ControlledShutdownResponse(Message, versions=(0, 3), flexible=3):
    error_code: int = wire(INT16, default=0)
    remaining_partitions: list[ControlledShutdownResponsePartition] = wire(
        array(ControlledShutdownResponsePartition), factory=list
    )
