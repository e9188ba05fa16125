"""Records inside a v2 batch (uncompressed), for the other native modules."""

from libc.stdint cimport int32_t, int64_t, uint8_t

from trioq._native.record_parse cimport RecordView


cdef enum:
    MIN_RECORD_BYTES = 7  # seven fields of one byte each


cdef struct Walk:
    int fault         # 0, or an index into the messages of records.pyx
    int32_t index     # of the record at fault


cdef Walk walk(const uint8_t* data, const uint8_t* end, int32_t record_count) noexcept nogil
cdef Walk walk_unlocked(const uint8_t* data, Py_ssize_t length, int32_t record_count) noexcept
cdef object fault_error(Walk result)
cdef list decode(
    const uint8_t* data, const uint8_t* end, int32_t record_count, int32_t last_offset_delta,
    int64_t base_offset, int64_t base_timestamp, object append_time, type record_type,
)
cdef tuple decode_headers(RecordView* record, tuple previous)
