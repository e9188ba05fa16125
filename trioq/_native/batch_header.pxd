"""The v2 batch header for the other native modules. Layout: trioq/record/layout.py.

Nothing is checked here: the caller has made sure of the 61 bytes, or of the whole batch.
"""

from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint32_t

from trioq._native.crc32c cimport crc32c_extend


cdef enum:
    BASE_OFFSET_AT = 0
    BATCH_LENGTH_AT = 8
    LEADER_EPOCH_AT = 12
    MAGIC_AT = 16
    CRC_AT = 17
    ATTRIBUTES_AT = 21
    LAST_OFFSET_DELTA_AT = 23
    BASE_TIMESTAMP_AT = 27
    MAX_TIMESTAMP_AT = 35
    PRODUCER_ID_AT = 43
    PRODUCER_EPOCH_AT = 51
    BASE_SEQUENCE_AT = 53
    RECORD_COUNT_AT = 57
    HEADER_BYTES_C = 61
    LOG_OVERHEAD_C = 12  # base offset and batch length: what batch length does not count
    MAGIC_V2 = 2
    CODEC_MASK = 0x07
    HIGHEST_CODEC = 4
    APPEND_TIME_BIT = 0x08
    TRANSACTIONAL_BIT = 0x10
    CONTROL_BIT = 0x20
    DELETE_HORIZON_BIT = 0x40
    UNUSED_ATTRIBUTES = 0xFF80


cdef class BatchHeader:
    cdef readonly Py_ssize_t position
    cdef readonly Py_ssize_t size_bytes
    cdef readonly int64_t base_offset
    cdef readonly int32_t leader_epoch
    cdef readonly int8_t magic
    cdef readonly uint32_t crc
    cdef readonly int16_t attributes
    cdef readonly int32_t last_offset_delta
    cdef readonly int64_t base_timestamp
    cdef readonly int64_t max_timestamp
    cdef readonly int64_t producer_id
    cdef readonly int16_t producer_epoch
    cdef readonly int32_t base_sequence
    cdef readonly int32_t record_count


# The 61 bytes at p; `position` is where the caller found them.
cdef BatchHeader parse_header(const uint8_t* p, Py_ssize_t position)


# Length, CRC and all other fields of the batch of `size_bytes` at p whose records are there.
cdef void store_header(
    uint8_t* p, Py_ssize_t size_bytes, int64_t base_offset, int32_t leader_epoch,
    int16_t attributes, int64_t base_timestamp, int64_t max_timestamp, int64_t producer_id,
    int16_t producer_epoch, int32_t base_sequence, int32_t record_count,
) noexcept nogil


# What the CRC of the batch at p ought to be.
cdef inline uint32_t batch_crc(const uint8_t* p, Py_ssize_t size_bytes) noexcept nogil:
    return crc32c_extend(0, p + ATTRIBUTES_AT, size_bytes - ATTRIBUTES_AT)
