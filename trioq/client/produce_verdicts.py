"""What a broker's answer to a batch means for it. Pure."""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from trioq.errors import (
    BrokerNotAvailable,
    DuplicateSequenceNumber,
    FencedLeaderEpoch,
    InvalidProducerEpoch,
    KafkaStorageError,
    LeaderNotAvailable,
    MessageTooLarge,
    NetworkException,
    NotEnoughReplicasAfterAppend,
    NotLeaderOrFollower,
    OutOfOrderSequenceNumber,
    RecordListTooLarge,
    ReplicaNotAvailable,
    RequestTimedOut,
    UnknownLeaderEpoch,
    UnknownProducerId,
    UnknownTopicOrPartition,
    error_class,
)


class Verdict(Enum):
    """What to do with a batch that was answered."""

    WRITTEN = auto()
    WRITTEN_BEFORE = auto()
    """It was, by an earlier attempt; nobody knows the offset any more."""
    RETRY = auto()
    RETRY_UNCERTAIN = auto()
    """As RETRY, but it may have been written."""
    RETRY_ELSEWHERE = auto()
    """The leader is another, or not known."""
    OUT_OF_ORDER = auto()
    """A batch before it is missing: see IdempotenceState."""
    PRODUCER_UNKNOWN = auto()
    """The broker has lost what it knew of the producer: a new epoch is needed."""
    SPLIT = auto()
    FAIL = auto()


_VERDICTS: Final = {
    0: Verdict.WRITTEN,
    DuplicateSequenceNumber.code: Verdict.WRITTEN_BEFORE,
    RequestTimedOut.code: Verdict.RETRY_UNCERTAIN,
    NotEnoughReplicasAfterAppend.code: Verdict.RETRY_UNCERTAIN,
    NetworkException.code: Verdict.RETRY_UNCERTAIN,
    **dict.fromkeys(
        (
            UnknownTopicOrPartition.code,
            LeaderNotAvailable.code,
            NotLeaderOrFollower.code,
            BrokerNotAvailable.code,
            ReplicaNotAvailable.code,
            KafkaStorageError.code,
            FencedLeaderEpoch.code,
            UnknownLeaderEpoch.code,
        ),
        Verdict.RETRY_ELSEWHERE,
    ),
    OutOfOrderSequenceNumber.code: Verdict.OUT_OF_ORDER,
    UnknownProducerId.code: Verdict.PRODUCER_UNKNOWN,
    InvalidProducerEpoch.code: Verdict.PRODUCER_UNKNOWN,
}

_TOO_LARGE: Final = frozenset({MessageTooLarge.code, RecordListTooLarge.code})


def judge(error_code: int, record_count: int, *, is_idempotent: bool) -> Verdict:
    """What the answer `error_code` means for a batch of `record_count` records."""
    if error_code in _TOO_LARGE:
        return Verdict.SPLIT if record_count > 1 else Verdict.FAIL
    verdict = _VERDICTS.get(error_code)
    if verdict is None:
        return Verdict.RETRY if error_class(error_code).retriable else Verdict.FAIL
    if verdict in {Verdict.OUT_OF_ORDER, Verdict.PRODUCER_UNKNOWN} and not is_idempotent:
        return Verdict.FAIL
    return verdict
