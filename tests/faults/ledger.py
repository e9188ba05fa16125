"""What was acknowledged, and the proof that it is there: in order, once."""

from __future__ import annotations

from tests.faults.client import Client, batch_of

PADDING = 300
OFFSET_OUT_OF_RANGE = 1


class Ledger:
    """The one idempotent producer of one partition, and what it was promised.

    A batch whose answer did not come is `pending`: it may be stored or not, and its retry must
    leave it there once.
    """

    def __init__(self, topic: str, partition: int = 0, *, producer_id: int = 7) -> None:
        self.topic = topic
        self.partition = partition
        self.acknowledged: list[bytes] = []
        self.pending: list[bytes] = []
        self._producer_id = producer_id
        self._sent = 0

    def copy(self) -> Ledger:
        """The same promises, for a copy of the data that goes its own way."""
        twin = Ledger(self.topic, self.partition, producer_id=self._producer_id)
        twin.acknowledged, twin.pending = list(self.acknowledged), list(self.pending)
        twin._sent = self._sent
        return twin

    def send(self, client: Client, batches: int = 1, *, records: int = 2) -> None:
        """Write some batches, each acknowledged before the next."""
        for _ in range(batches):
            self.pending = [
                b"%s-%d-%d " % (self.topic.encode(), self.partition, self._sent + number)
                + b"x" * PADDING
                for number in range(records)
            ]
            self.settle(client)

    def settle(self, client: Client) -> None:
        """Send the pending batch, again if need be, until it is acknowledged."""
        if not self.pending:
            return
        answer = client.produce_batch(
            self.topic,
            batch_of(self.pending, producer=(self._producer_id, 0, self._sent)),
            partition=self.partition,
        )
        assert answer.error_code == 0, f"{self.topic}: error {answer.error_code}"
        assert answer.base_offset == len(self.acknowledged)
        self._sent += len(self.pending)
        self.acknowledged += self.pending
        self.pending = []

    def check(self, client: Client) -> int:
        """Everything acknowledged is there from the log's start on; returns that start."""
        error, start = client.offset(self.topic, -2, partition=self.partition)
        assert error == 0, f"{self.topic}: error {error}"
        found = client.fetch_all(self.topic, start, partition=self.partition)
        if client.offset(self.topic, -2, partition=self.partition)[1] > start:
            return self.check(client)  # retention has just moved the start
        assert found.error_code == 0
        end = start + len(found.records)
        assert [offset for offset, _, _ in found.records] == list(range(start, end))
        possible = self.acknowledged + self.pending
        assert found.values == possible[start:end]
        assert end in (len(self.acknowledged), len(possible))
        return start
