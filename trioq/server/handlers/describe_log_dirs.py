"""DescribeLogDirs (key 35), versions 1-4 (KIP-113).

Behaviour:
- every log directory of this broker with the partitions asked for (null: all) and the bytes
  of their segments; partitions that are not here are left out
- one that is offline has KAFKA_STORAGE_ERROR and no partitions
- offset_lag is 0: there are no followers, and no moves between directories, here

Version notes: 3 an error for the whole answer, never set here; 4 size and free bytes of the
directory's volume (KIP-827).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trioq.errors import KafkaStorageError
from trioq.wire.messages.describe_log_dirs import (
    DescribeLogDirsRequest,
    DescribeLogDirsResponse,
    DescribeLogDirsResponseLogDir,
    DescribeLogDirsResponsePartition,
    DescribeLogDirsResponseTopic,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trioq.server.context import Context, Request
    from trioq.storage.log_dir import LogDir


def handle_describe_log_dirs(
    ctx: Context, _request: Request, message: DescribeLogDirsRequest
) -> DescribeLogDirsResponse:
    """Answer from memory, and ask the system about each volume."""
    asked = None
    if message.topics is not None:
        asked = {topic.topic: set(topic.partitions) for topic in message.topics}
    return DescribeLogDirsResponse(
        results=[_describe(log_dir, asked) for log_dir in ctx.log_dirs.dirs]
    )


def _describe(
    log_dir: LogDir, asked: Mapping[str, set[int]] | None
) -> DescribeLogDirsResponseLogDir:
    answer = DescribeLogDirsResponseLogDir(log_dir=log_dir.path)
    if log_dir.error is not None:
        answer.error_code = KafkaStorageError.code
        return answer
    try:
        answer.total_bytes, answer.usable_bytes = log_dir.disk.usage(log_dir.path)
    except OSError as error:
        log_dir.fail(error)
        answer.error_code = KafkaStorageError.code
        return answer
    topics: dict[str, DescribeLogDirsResponseTopic] = {}
    for log in log_dir.logs:
        name, number = log.topic_partition
        if asked is not None and number not in asked.get(name, ()):
            continue
        topic = topics.get(name)
        if topic is None:
            topic = topics[name] = DescribeLogDirsResponseTopic(name=name)
            answer.topics.append(topic)
        topic.partitions.append(
            DescribeLogDirsResponsePartition(partition_index=number, partition_size=log.size_bytes)
        )
    return answer
