# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
"""The header of a v2 batch, decoded; the contract is in batch_header.pyi."""

cimport cython
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t

from trioq._native.bigendian cimport (
    load_i16,
    load_i32,
    load_i64,
    load_u32,
    store_i16,
    store_i32,
    store_i64,
    store_u32,
)


@cython.final
@cython.freelist(64)
cdef class BatchHeader:

    def __init__(self):
        raise TypeError("a BatchHeader comes from peek, validate or scan")

    @property
    def codec(self):
        return self.attributes & CODEC_MASK

    @property
    def timestamp_type(self):
        return 1 if self.attributes & APPEND_TIME_BIT else 0

    @property
    def is_transactional(self):
        return (self.attributes & TRANSACTIONAL_BIT) != 0

    @property
    def is_control(self):
        return (self.attributes & CONTROL_BIT) != 0

    @property
    def has_delete_horizon(self):
        return (self.attributes & DELETE_HORIZON_BIT) != 0

    @property
    def has_producer_id(self):
        return self.producer_id >= 0

    @property
    def last_offset(self):
        return <object>self.base_offset + self.last_offset_delta

    @property
    def next_offset(self):
        return <object>self.base_offset + self.last_offset_delta + 1

    @property
    def last_sequence(self):
        if self.base_sequence < 0:
            return self.base_sequence
        return (<int64_t>self.base_sequence + self.last_offset_delta) & 0x7FFFFFFF

    def __repr__(self):
        return (
            f"BatchHeader(position={self.position}, size_bytes={self.size_bytes}, "
            f"base_offset={self.base_offset}, last_offset_delta={self.last_offset_delta}, "
            f"record_count={self.record_count}, attributes={self.attributes:#x}, "
            f"leader_epoch={self.leader_epoch}, producer_id={self.producer_id}, "
            f"producer_epoch={self.producer_epoch}, base_sequence={self.base_sequence})"
        )


cdef BatchHeader parse_header(const uint8_t* p, Py_ssize_t position):
    # The 61 bytes at p.
    cdef BatchHeader header = BatchHeader.__new__(BatchHeader)
    header.position = position
    header.size_bytes = <Py_ssize_t>load_i32(p + BATCH_LENGTH_AT) + LOG_OVERHEAD_C
    header.base_offset = load_i64(p + BASE_OFFSET_AT)
    header.leader_epoch = load_i32(p + LEADER_EPOCH_AT)
    header.magic = <int8_t>p[MAGIC_AT]
    header.crc = load_u32(p + CRC_AT)
    header.attributes = load_i16(p + ATTRIBUTES_AT)
    header.last_offset_delta = load_i32(p + LAST_OFFSET_DELTA_AT)
    header.base_timestamp = load_i64(p + BASE_TIMESTAMP_AT)
    header.max_timestamp = load_i64(p + MAX_TIMESTAMP_AT)
    header.producer_id = load_i64(p + PRODUCER_ID_AT)
    header.producer_epoch = load_i16(p + PRODUCER_EPOCH_AT)
    header.base_sequence = load_i32(p + BASE_SEQUENCE_AT)
    header.record_count = load_i32(p + RECORD_COUNT_AT)
    return header


cdef void store_header(
    uint8_t* p, Py_ssize_t size_bytes, int64_t base_offset, int32_t leader_epoch,
    int16_t attributes, int64_t base_timestamp, int64_t max_timestamp, int64_t producer_id,
    int16_t producer_epoch, int32_t base_sequence, int32_t record_count,
) noexcept nogil:
    store_i64(p + BASE_OFFSET_AT, base_offset)
    store_i32(p + BATCH_LENGTH_AT, <int32_t>(size_bytes - LOG_OVERHEAD_C))
    store_i32(p + LEADER_EPOCH_AT, leader_epoch)
    p[MAGIC_AT] = MAGIC_V2
    store_i16(p + ATTRIBUTES_AT, attributes)
    store_i32(p + LAST_OFFSET_DELTA_AT, record_count - 1)
    store_i64(p + BASE_TIMESTAMP_AT, base_timestamp)
    store_i64(p + MAX_TIMESTAMP_AT, max_timestamp)
    store_i64(p + PRODUCER_ID_AT, producer_id)
    store_i16(p + PRODUCER_EPOCH_AT, producer_epoch)
    store_i32(p + BASE_SEQUENCE_AT, base_sequence)
    store_i32(p + RECORD_COUNT_AT, record_count)
    store_u32(p + CRC_AT, batch_crc(p, size_bytes))
