# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
"""What is known of each idempotent producer; the contract is in producer_window.pyi."""

cimport cython
from cpython.dict cimport PyDict_GetItem
from cpython.object cimport PyObject
from libc.stdint cimport int32_t, int64_t


WINDOW_BATCHES = WINDOW_BATCHES_C


@cython.final
@cython.freelist(512)
cdef class ProducerEntry:

    def __init__(
        self,
        int32_t epoch,
        int32_t last_sequence,
        int64_t last_offset,
        int64_t last_timestamp_ms,
        int32_t coordinator_epoch,
        int64_t txn_first_offset,
        int64_t known_sequences,
        tuple window not None,
    ):
        cdef WindowBatch* batch
        if len(window) > WINDOW_BATCHES_C:
            raise ValueError(f"a window of {len(window)} batches")
        self.epoch = epoch
        self.last_sequence = last_sequence
        self.last_offset = last_offset
        self.last_timestamp_ms = last_timestamp_ms
        self.coordinator_epoch = coordinator_epoch
        self.txn_first_offset = txn_first_offset
        self.known_sequences = known_sequences
        self.count = 0
        for one in window:
            batch = &self.batches[self.count]
            (
                batch.first_sequence, batch.last_sequence, batch.base_offset, batch.last_offset,
                batch.timestamp_ms,
            ) = one
            self.count += 1

    @property
    def window(self):
        return tuple([
            (
                self.batches[i].first_sequence,
                self.batches[i].last_sequence,
                self.batches[i].base_offset,
                self.batches[i].last_offset,
                self.batches[i].timestamp_ms,
            )
            for i in range(self.count)
        ])

    def __repr__(self):
        return (
            f"ProducerEntry(epoch={self.epoch}, last_sequence={self.last_sequence}, "
            f"last_offset={self.last_offset}, known_sequences={self.known_sequences}, "
            f"txn_first_offset={self.txn_first_offset}, window={self.window})"
        )


cdef ProducerEntry next_entry(
    ProducerEntry previous, int32_t epoch, int32_t first_sequence, int32_t last_sequence,
    int64_t base_offset, int64_t last_offset, int64_t timestamp_ms, bint is_transactional,
):
    cdef ProducerEntry entry = ProducerEntry.__new__(ProducerEntry)
    cdef WindowBatch* batch
    cdef int kept = 0
    cdef int first_kept, i
    entry.epoch = epoch
    entry.last_sequence = last_sequence
    entry.last_offset = last_offset
    entry.last_timestamp_ms = timestamp_ms
    entry.coordinator_epoch = -1
    entry.txn_first_offset = -1
    entry.known_sequences = last_offset - base_offset + 1
    if previous is not None:
        if base_offset <= previous.last_offset:
            raise AssertionError("a batch is appended below the producer's last one")
        entry.coordinator_epoch = previous.coordinator_epoch
        entry.txn_first_offset = previous.txn_first_offset
        if epoch == previous.epoch and previous.count:
            entry.known_sequences += previous.known_sequences
            kept = min(previous.count, WINDOW_BATCHES_C - 1)
            first_kept = previous.count - kept
            for i in range(kept):
                entry.batches[i] = previous.batches[first_kept + i]
    if entry.txn_first_offset < 0 and is_transactional:
        entry.txn_first_offset = base_offset
    batch = &entry.batches[kept]
    batch.first_sequence = first_sequence
    batch.last_sequence = last_sequence
    batch.base_offset = base_offset
    batch.last_offset = last_offset
    batch.timestamp_ms = timestamp_ms
    entry.count = kept + 1
    return entry


def appended_entry(
    ProducerEntry previous,
    int32_t epoch,
    int32_t first_sequence,
    int32_t last_sequence,
    int64_t base_offset,
    int64_t last_offset,
    int64_t timestamp_ms,
    *,
    bint is_transactional,
):
    return next_entry(
        previous, epoch, first_sequence, last_sequence, base_offset, last_offset, timestamp_ms,
        is_transactional,
    )


@cython.final
@cython.no_gc
@cython.freelist(512)
cdef class StagedEntry:

    def __init__(self):
        raise TypeError("a StagedEntry comes from ProducerWindows")


cdef class ProducerWindows:

    def __cinit__(self):
        self._entries = {}
        self._staged = []
        self._ongoing = {}
        self._ended = []

    cdef ProducerEntry continued(self, object producer_id, int32_t epoch, int32_t first_sequence):
        cdef PyObject* found = PyDict_GetItem(self._entries, producer_id)
        cdef ProducerEntry entry
        if found == NULL:
            return None
        entry = <ProducerEntry>found
        if epoch != entry.epoch or entry.txn_first_offset >= 0:
            return None
        if first_sequence != (
            entry.last_sequence + 1 if entry.last_sequence != MAX_SEQUENCE_C else 0
        ):
            return None
        return entry

    cdef int put(
        self, object producer_id, ProducerEntry previous, ProducerEntry entry, int64_t base_offset,
        int64_t last_offset,
    ) except -1:
        cdef StagedEntry staged = StagedEntry.__new__(StagedEntry)
        staged.base_offset = base_offset
        staged.last_offset = last_offset
        staged.producer_id = producer_id
        staged.previous = previous
        self._staged.append(staged)
        self._entries[producer_id] = entry
        return 0

    def put_staged(
        self,
        producer_id not None,
        ProducerEntry previous,
        ProducerEntry entry not None,
        int64_t base_offset,
        int64_t last_offset,
    ):
        self.put(producer_id, previous, entry, base_offset, last_offset)

    def commit(self, int64_t end_offset):
        cdef list staged = self._staged
        cdef Py_ssize_t count = len(staged)
        cdef Py_ssize_t done = 0
        if count and (<StagedEntry>staged[count - 1]).last_offset < end_offset:
            staged.clear()
            return
        while done < count and (<StagedEntry>staged[done]).last_offset < end_offset:
            done += 1
        if done:
            del staged[:done]
