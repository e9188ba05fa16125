"""The producer window against a model that keeps everything and copies itself before each step."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from trioq.errors import (
    DuplicateSequenceNumber,
    InvalidProducerEpoch,
    InvalidTxnState,
    KafkaError,
    OutOfOrderSequenceNumber,
    TransactionCoordinatorFenced,
)
from trioq.storage.producer_state import Duplicate, EndMarker, ProducerState

WRAP = 2**31


class Header(NamedTuple):
    producer_id: int
    producer_epoch: int
    base_sequence: int
    last_offset_delta: int = 0
    is_transactional: bool = False
    is_control: bool = False

    @property
    def last_sequence(self) -> int:
        if self.base_sequence < 0:
            return -1
        return (self.base_sequence + self.last_offset_delta) % WRAP

    def sequences(self) -> list[int]:
        return [(self.base_sequence + i) % WRAP for i in range(self.last_offset_delta + 1)]


@dataclass
class Producer:
    """Every batch of the epoch, and every sequence, in order."""

    epoch: int
    batches: list[tuple[list[int], int, int, int]] = field(default_factory=list)
    sequences: list[int] = field(default_factory=list)
    timestamp: int = -1
    coordinator_epoch: int = -1
    txn_first_offset: int = -1


@dataclass
class Model:
    producers: dict[int, Producer] = field(default_factory=dict)
    ended: list[tuple[int, int]] = field(default_factory=list)  # first offset, marker's offset

    def verdict(self, header: Header) -> Duplicate | type[KafkaError] | None:
        known = self.producers.get(header.producer_id)
        if known is None:
            return None
        wanted = header.sequences()
        if header.producer_epoch < known.epoch:
            return InvalidProducerEpoch
        if header.producer_epoch > known.epoch:
            if header.base_sequence != 0:
                return OutOfOrderSequenceNumber
        else:
            for sequences, base, last, timestamp in known.batches[-5:]:
                if sequences == wanted:
                    return Duplicate(base, last, timestamp)
            expected = (known.sequences[-1] + 1) % WRAP if known.sequences else 0
            if wanted[0] != expected:
                for start in range(len(known.sequences) - len(wanted) + 1):
                    if known.sequences[start : start + len(wanted)] == wanted:
                        return DuplicateSequenceNumber
                return OutOfOrderSequenceNumber
        if known.txn_first_offset >= 0 and not header.is_transactional:
            return InvalidTxnState
        return None

    def append(self, header: Header, base: int, timestamp: int) -> None:
        producer = self.producers.setdefault(header.producer_id, Producer(header.producer_epoch))
        if producer.epoch != header.producer_epoch:
            producer.epoch = header.producer_epoch
            producer.batches = []
            producer.sequences = []
        last = base + header.last_offset_delta
        producer.batches.append((header.sequences(), base, last, timestamp))
        producer.sequences += header.sequences()
        producer.timestamp = timestamp
        if header.is_transactional and producer.txn_first_offset < 0:
            producer.txn_first_offset = base

    def end(self, header: Header, offset: int, timestamp: int, marker: EndMarker) -> int | None:
        producer = self.producers.setdefault(header.producer_id, Producer(header.producer_epoch))
        if producer.epoch != header.producer_epoch:
            producer.epoch = header.producer_epoch
            producer.batches = []
            producer.sequences = []
        producer.timestamp = timestamp
        producer.coordinator_epoch = marker.coordinator_epoch
        first, producer.txn_first_offset = producer.txn_first_offset, -1
        if first < 0:
            return None
        self.ended.append((first, offset))
        return first

    def after_restart(self) -> Model:
        """What a snapshot keeps: the last batch of each producer."""
        kept = copy.deepcopy(self)
        kept.ended = []
        for producer in kept.producers.values():
            producer.batches = producer.batches[-1:]
            producer.sequences = list(producer.batches[-1][0]) if producer.batches else []
            if producer.batches:
                sequences, base, last, _ = producer.batches[0]
                producer.batches = [(sequences, base, last, producer.timestamp)]
        return kept

    def shown(self) -> list[tuple[int, ...]]:
        return [
            (
                producer_id,
                producer.epoch,
                producer.sequences[-1] if producer.sequences else -1,
                producer.timestamp,
                producer.coordinator_epoch,
                producer.txn_first_offset,
            )
            for producer_id, producer in sorted(self.producers.items())
        ]


class ProducerWindowMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.state = ProducerState()
        self.model = Model()
        self.staged: list[tuple[int, int, Model]] = []  # base, end, the model before
        self.end_offset = 0
        self.committed_end = 0
        self.high_watermark = 0
        self.clock = 1_000

    @initialize(at=st.sampled_from([0, 2**40]))
    def start(self, at: int) -> None:
        self.end_offset = self.committed_end = self.high_watermark = at

    def judge(self, header: Header) -> bool:
        """Compare verdicts; True if the batch may be appended."""
        expected = self.model.verdict(header)
        try:
            got = self.state.check(header)
        except KafkaError as error:
            assert type(error) is expected, (error, expected)
            return False
        assert got == expected
        return got is None

    def take(self, header: Header, *, applied: bool) -> None:
        before = copy.deepcopy(self.model)
        base, self.end_offset = self.end_offset, self.end_offset + header.last_offset_delta + 1
        self.clock += 7
        self.model.append(header, base, self.clock)
        if applied:
            self.state.apply(header, base, self.clock)
            self.committed_end = self.end_offset
        else:
            self.state.stage(header, base, self.clock)
            self.staged.append((base, self.end_offset, before))

    @rule(
        producer_id=st.integers(0, 2),
        records=st.integers(1, 4),
        behind=st.sampled_from(
            [0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 9, 12, -1, -2, -(2**30), WRAP // 2]
        ),
        new_epoch=st.sampled_from([0, 0, 0, 0, 0, 0, 0, 1, -1, 2]),
        first=st.sampled_from([None, None, None, 0, WRAP - 3, WRAP - 1]),
        is_transactional=st.sampled_from([False, False, True]),
        applied=st.booleans(),
    )
    def produce(
        self,
        producer_id: int,
        records: int,
        behind: int,
        new_epoch: int,
        first: int | None,
        is_transactional: bool,
        applied: bool,
    ) -> None:
        """A batch that starts `behind` sequences before the next one."""
        known = self.model.producers.get(producer_id)
        epoch = max(0, (known.epoch if known else 0) + new_epoch)
        if first is None:
            following = known.sequences[-1] + 1 if known and known.sequences else 0
            first = (following - behind) % WRAP
        is_transactional |= bool(known and known.txn_first_offset >= 0 and behind != 1)
        header = Header(producer_id, epoch, first, records - 1, is_transactional)
        if self.judge(header):
            self.take(header, applied=applied and not self.staged)

    @rule(producer_id=st.integers(0, 2), sizes=st.lists(st.integers(1, 3), min_size=3, max_size=7))
    def produce_run(self, producer_id: int, sizes: list[int]) -> None:
        """Batches in sequence, as a producer sends them without waiting."""
        for records in sizes:
            known = self.model.producers.get(producer_id)
            first = (known.sequences[-1] + 1) % WRAP if known and known.sequences else 0
            in_txn = bool(known and known.txn_first_offset >= 0)
            header = Header(producer_id, known.epoch if known else 0, first, records - 1, in_txn)
            assert self.judge(header)
            self.take(header, applied=False)

    @rule(producer_id=st.integers(0, 2), records=st.integers(1, 3), in_txn=st.booleans())
    def bump_epoch(self, producer_id: int, records: int, in_txn: bool) -> None:
        known = self.model.producers.get(producer_id)
        in_txn |= bool(known and known.txn_first_offset >= 0)
        header = Header(producer_id, known.epoch + 1 if known else 0, 0, records - 1, in_txn)
        assert self.judge(header)
        self.take(header, applied=False)

    @rule(order=st.permutations([0, 1, 2]), ends=st.permutations([0, 1, 2]))
    def transactions(self, order: list[int], ends: list[int]) -> None:
        """All three begin or go on, two of them end."""
        for producer_id in order:
            self.bump_epoch(producer_id, 1, in_txn=True)
        for producer_id in ends[:2]:
            known = self.model.producers[producer_id]
            self.end_transaction(producer_id, 0, max(0, known.coordinator_epoch), is_abort=True)

    @rule(data=st.data(), producer_id=st.integers(0, 2))
    def retry(self, data: st.DataObject, producer_id: int) -> None:
        """Exactly a batch that was appended in this epoch, however long ago."""
        known = self.model.producers.get(producer_id)
        if known and known.batches:
            sequences, *_ = data.draw(st.sampled_from(known.batches[-8:]))
            assert not self.judge(
                Header(producer_id, known.epoch, sequences[0], len(sequences) - 1)
            )

    @rule(
        producer_id=st.integers(0, 2),
        new_epoch=st.sampled_from([0, 0, 0, 1, -1]),
        coordinator_epoch=st.integers(0, 3),
        is_abort=st.booleans(),
    )
    def end_transaction(
        self, producer_id: int, new_epoch: int, coordinator_epoch: int, is_abort: bool
    ) -> None:
        known = self.model.producers.get(producer_id)
        epoch = max(0, (known.epoch if known else 0) + new_epoch)
        marker = EndMarker(coordinator_epoch, is_abort)
        refused: type[KafkaError] | None = None
        if known and epoch < known.epoch:
            refused = InvalidProducerEpoch
        elif known and coordinator_epoch < known.coordinator_epoch:
            refused = TransactionCoordinatorFenced
        try:
            self.state.check_marker(producer_id, epoch, marker)
        except KafkaError as error:
            assert type(error) is refused
            return
        assert refused is None
        header = Header(producer_id, epoch, -1, 0, is_transactional=True, is_control=True)
        before = copy.deepcopy(self.model)
        offset, self.end_offset = self.end_offset, self.end_offset + 1
        self.clock += 7
        first = self.model.end(header, offset, self.clock, marker)
        completed = self.state.stage(header, offset, self.clock, marker)
        self.staged.append((offset, self.end_offset, before))
        if first is None:
            assert completed is None
        else:
            still_open = [p.txn_first_offset for p in self.model.producers.values()]
            stable = min((o for o in still_open if o >= 0), default=offset + 1)
            assert completed == (producer_id, first, offset, is_abort, stable)

    @rule(records=st.integers(1, 3))
    def produce_plain(self, records: int) -> None:
        header = Header(-1, -1, -1, records - 1)
        assert self.state.check(header) is None
        assert self.state.stage(header, self.end_offset, self.clock) is None
        self.staged.append((self.end_offset, self.end_offset + records, copy.deepcopy(self.model)))
        self.end_offset += records

    @precondition(lambda self: self.staged)
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        count = data.draw(st.integers(1, len(self.staged)))
        self.committed_end = self.staged[count - 1][1]
        del self.staged[:count]
        self.state.commit(self.committed_end)

    @precondition(lambda self: self.staged)
    @rule(data=st.data())
    def rollback(self, data: st.DataObject) -> None:
        first = data.draw(st.integers(0, len(self.staged) - 1))
        self.end_offset, _, before = self.staged[first]
        ended = [t for t in before.ended if t in self.model.ended]  # some passed by since
        self.model = before
        self.model.ended = ended
        del self.staged[first:]
        self.state.rollback(self.end_offset)

    @rule(data=st.data())
    def high_watermark_moves(self, data: st.DataObject) -> None:
        self.high_watermark = data.draw(st.integers(self.high_watermark, self.committed_end))
        self.state.on_high_watermark(self.high_watermark)
        for model in (self.model, *(before for _, _, before in self.staged)):
            model.ended = [t for t in model.ended if t[1] >= self.high_watermark]

    def snapshot_at(self, count: int) -> tuple[bytes, Model]:
        """A snapshot that leaves out all but the first `count` staged batches."""
        if count < len(self.staged):
            offset, _, model = self.staged[count]
        else:
            offset, model = self.end_offset, self.model
        return self.state.snapshot(offset), model

    @rule(data=st.data())
    def snapshot(self, data: st.DataObject) -> None:
        encoded, model = self.snapshot_at(data.draw(st.integers(0, len(self.staged))))
        loaded = ProducerState()
        loaded.load(encoded)
        assert loaded.active_producers() == model.shown()
        assert loaded.snapshot(self.end_offset) == encoded

    @rule(data=st.data())
    def restart(self, data: st.DataObject) -> None:
        """From the snapshot; the log keeps what the snapshot covers."""
        count = data.draw(st.integers(0, len(self.staged)))
        encoded, model = self.snapshot_at(count)
        if count < len(self.staged):
            self.end_offset = self.staged[count][0]
        self.committed_end = max(self.committed_end, self.end_offset)
        self.state.load(encoded)
        self.model = model.after_restart()
        self.staged = []

    @precondition(lambda self: not self.staged)
    @rule(idle_ms=st.sampled_from([10, 50, 200]))
    def expire(self, idle_ms: int) -> None:
        """Two sweeps with nothing between forget whoever is idle and in no transaction."""
        self.state.remove_expired(self.clock, idle_ms)
        before = len(self.state)
        gone = [
            producer_id
            for producer_id, producer in self.model.producers.items()
            if producer.timestamp <= self.clock - idle_ms and producer.txn_first_offset < 0
        ]
        for producer_id in gone:
            self.model.producers.pop(producer_id)
        self.state.remove_expired(self.clock, idle_ms)
        assert len(self.state) == len(self.model.producers) <= before

    @invariant()
    def shows_the_same(self) -> None:
        assert self.state.active_producers() == self.model.shown()
        firsts = [p.txn_first_offset for p in self.model.producers.values()]
        unstable = [o for o in firsts if o >= 0] + [first for first, _ in self.model.ended]
        assert self.state.first_unstable_offset() == min(unstable, default=None)


ProducerWindowMachine.TestCase.settings = settings(
    max_examples=150, stateful_step_count=60, deadline=None
)
TestProducerWindow = ProducerWindowMachine.TestCase
