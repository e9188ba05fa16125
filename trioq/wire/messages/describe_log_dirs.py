"""DescribeLogDirs (key 35): sizes of partitions by log directory.

`topics` null means all. 3: an error for the whole response. 4: size of the volume.
"""

from __future__ import annotations

from trioq.wire.kinds import BOOL, INT16, INT32, INT64, STRING
from trioq.wire.schema import Message, Struct, array, wire


class DescribeLogDirsRequestTopic(Struct):
    topic: str = wire(STRING, default="")
    partitions: list[int] = wire(array(INT32), factory=list)


class DescribeLogDirsRequest(Message, versions=(1, 4), flexible=2):
    topics: list[DescribeLogDirsRequestTopic] | None = wire(
        array(DescribeLogDirsRequestTopic), factory=list, nullable=0
    )


class DescribeLogDirsResponsePartition(Struct):
    partition_index: int = wire(INT32, default=0)
    partition_size: int = wire(INT64, default=0)
    offset_lag: int = wire(INT64, default=0)
    is_future_key: bool = wire(BOOL, default=False)


class DescribeLogDirsResponseTopic(Struct):
    name: str = wire(STRING, default="")
    partitions: list[DescribeLogDirsResponsePartition] = wire(
        array(DescribeLogDirsResponsePartition), factory=list
    )


class DescribeLogDirsResponseLogDir(Struct):
    error_code: int = wire(INT16, default=0)
    log_dir: str = wire(STRING, default="")
    topics: list[DescribeLogDirsResponseTopic] = wire(
        array(DescribeLogDirsResponseTopic), factory=list
    )
    total_bytes: int = wire(INT64, default=-1, since=4, ignorable=True)
    usable_bytes: int = wire(INT64, default=-1, since=4, ignorable=True)


class DescribeLogDirsResponse(Message, versions=(1, 4), flexible=2):
    throttle_time_ms: int = wire(INT32, default=0)
    error_code: int = wire(INT16, default=0, since=3, ignorable=True)
    results: list[DescribeLogDirsResponseLogDir] = wire(
        array(DescribeLogDirsResponseLogDir), factory=list
    )
