"""Records inside a v2 batch (uncompressed), for the other native modules."""

from libc.stdint cimport int32_t, int64_t, uint8_t


cdef enum:
    MIN_RECORD_BYTES = 7  # seven fields of one byte each


cdef struct RecordView:
    # Pointers into the borrowed data; lengths are -1 for null.
    const uint8_t* end
    const uint8_t* key
    const uint8_t* value
    const uint8_t* headers
    int64_t timestamp_delta
    int32_t offset_delta
    int32_t key_length
    int32_t value_length
    int32_t header_count


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
