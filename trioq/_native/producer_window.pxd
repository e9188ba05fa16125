"""The producer window for the other native modules; the contract is in producer_window.pyi."""

from libc.stdint cimport int32_t, int64_t


cdef enum:
    WINDOW_BATCHES_C = 5
    MAX_SEQUENCE_C = 0x7FFFFFFF


cdef struct WindowBatch:
    int32_t first_sequence
    int32_t last_sequence
    int64_t base_offset
    int64_t last_offset
    int64_t timestamp_ms


cdef class ProducerEntry:
    cdef readonly int32_t epoch
    cdef readonly int32_t last_sequence
    cdef readonly int64_t last_offset
    cdef readonly int64_t last_timestamp_ms
    cdef readonly int32_t coordinator_epoch
    cdef readonly int64_t txn_first_offset
    cdef readonly int64_t known_sequences
    cdef int count                              # of batches in the window
    cdef WindowBatch[WINDOW_BATCHES_C] batches  # oldest first


cdef class StagedEntry:
    cdef readonly int64_t base_offset
    cdef readonly int64_t last_offset
    cdef readonly object producer_id
    cdef readonly ProducerEntry previous


cdef class ProducerWindows:
    cdef public dict _entries
    cdef public list _staged
    cdef public dict _ongoing
    cdef public list _ended

    # The entry that a plain batch of this epoch and first sequence continues; None if it does not.
    cdef ProducerEntry continued(self, object producer_id, int32_t epoch, int32_t first_sequence)
    cdef int put(
        self, object producer_id, ProducerEntry previous, ProducerEntry entry, int64_t base_offset,
        int64_t last_offset,
    ) except -1


cdef ProducerEntry next_entry(
    ProducerEntry previous, int32_t epoch, int32_t first_sequence, int32_t last_sequence,
    int64_t base_offset, int64_t last_offset, int64_t timestamp_ms, bint is_transactional,
)
