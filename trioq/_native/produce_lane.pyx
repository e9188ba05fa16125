# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
"""Produce requests as nearly all are, from bytes to a staged batch; see produce_lane.pyi."""

cimport cython
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t

from trioq._native.batch_header cimport (
    APPEND_TIME_BIT,
    ATTRIBUTES_AT,
    BASE_SEQUENCE_AT,
    BASE_TIMESTAMP_AT,
    BATCH_LENGTH_AT,
    CODEC_MASK,
    CONTROL_BIT,
    CRC_AT,
    DELETE_HORIZON_BIT,
    HEADER_BYTES_C,
    HIGHEST_CODEC,
    LAST_OFFSET_DELTA_AT,
    LOG_OVERHEAD_C,
    MAGIC_AT,
    MAGIC_V2,
    MAX_TIMESTAMP_AT,
    PRODUCER_EPOCH_AT,
    PRODUCER_ID_AT,
    RECORD_COUNT_AT,
    TRANSACTIONAL_BIT,
    UNUSED_ATTRIBUTES,
    batch_crc,
)
from trioq._native.bigendian cimport load_i16, load_i32, load_i64, load_u32
from trioq._native.gil cimport RELEASE_ABOVE_BYTES
from trioq._native.hot_request cimport SingleProduce, produce_answer, read_produce
from trioq._native.log_tail cimport LogTail
from trioq._native.partition_head cimport PartitionHead, PartitionTable
from trioq._native.producer_window cimport (
    MAX_SEQUENCE_C,
    ProducerEntry,
    ProducerWindows,
    next_entry,
)
from trioq._native.records cimport Walk, walk
from trioq._native.response_ring cimport ReadyAnswer, ResponseRing

from trioq.errors import RequestTimedOut


cdef enum:
    ACKS_ALL = -1
    ACKS_ONE = 1
    ZSTD = 4
    FIRST_VERSION_WITH_ZSTD = 7
    # What a batch of a client that is neither transactional nor odd has not.
    UNUSUAL_ATTRIBUTES = (
        UNUSED_ATTRIBUTES | APPEND_TIME_BIT | TRANSACTIONAL_BIT | CONTROL_BIT | DELETE_HORIZON_BIT
    )

cdef double LOOK_S = 0.1        # how often it is looked who has waited for too long


cdef bint _is_whole(const uint8_t* p, Py_ssize_t size_bytes) noexcept nogil:
    # The CRC is right, and so are the records where they can be seen.
    cdef Walk walked
    if batch_crc(p, size_bytes) != load_u32(p + CRC_AT):
        return False
    if load_i16(p + ATTRIBUTES_AT) & CODEC_MASK:
        return True
    walked = walk(p + HEADER_BYTES_C, p + size_bytes, load_i32(p + RECORD_COUNT_AT))
    return walked.fault == 0


cdef bint _is_sound(
    const uint8_t* p, Py_ssize_t size_bytes, PartitionHead partition, int version
) noexcept:
    # All that check_produced and must_prepare look at; False leaves it to them to say what is wrong.
    cdef int16_t attributes
    cdef int32_t record_count
    cdef int codec
    cdef bint is_whole
    if size_bytes < HEADER_BYTES_C or size_bytes > partition._lane_max_bytes:
        return False
    if p[MAGIC_AT] != MAGIC_V2 or load_i32(p + BATCH_LENGTH_AT) != size_bytes - LOG_OVERHEAD_C:
        return False
    attributes = load_i16(p + ATTRIBUTES_AT)
    record_count = load_i32(p + RECORD_COUNT_AT)
    if attributes & UNUSUAL_ATTRIBUTES or record_count <= 0:
        return False
    if load_i32(p + LAST_OFFSET_DELTA_AT) != record_count - 1:
        return False
    codec = attributes & CODEC_MASK
    if codec and not (
        partition._takes_compressed
        and codec <= HIGHEST_CODEC
        and (codec != ZSTD or version >= FIRST_VERSION_WITH_ZSTD)
    ):
        return False
    if size_bytes <= RELEASE_ABOVE_BYTES:
        return _is_whole(p, size_bytes)
    with nogil:
        is_whole = _is_whole(p, size_bytes)
    return is_whole


cdef bint _is_timely(const uint8_t* p, PartitionHead partition, int64_t now_ms) noexcept:
    cdef int64_t greatest = load_i64(p + MAX_TIMESTAMP_AT)
    cdef int64_t base = load_i64(p + BASE_TIMESTAMP_AT)
    if greatest > now_ms and greatest - now_ms > partition._after_max_ms:
        return False
    return base < 0 or base >= now_ms or now_ms - base <= partition._before_max_ms


@cython.final
cdef class ProduceLane:

    def __init__(self, PartitionTable table not None, refuse not None, ctx not None):
        self.table = table
        self.refuse = refuse
        self.ctx = ctx
        self.waited_for = {}

    cdef int watch(self, PartitionHead partition) except -1:
        if partition not in self.waited_for:
            self.waited_for[partition] = None
            if len(self.waited_for) == 1:
                self.look_later(self.ctx.clock.monotonic_s())
        return 0

    cdef int look_later(self, double now_s) except -1:
        self.ctx.deadlines.add(now_s + LOOK_S, self.look_due)
        return 0

    def look_due(self):
        cdef PartitionHead partition
        cdef double now_s = self.ctx.clock.monotonic_s()
        for partition in list(self.waited_for):
            if not partition._acks_all.expire(now_s, RequestTimedOut):
                del self.waited_for[partition]
        if self.waited_for:
            self.look_later(now_s)

    cdef bint take(
        self, ResponseRing connection, object view, const uint8_t* data, Py_ssize_t position,
        Py_ssize_t end, int version, int32_t correlation_id, Py_ssize_t size_bytes, int64_t now_ms,
    ) except -1:
        cdef SingleProduce asked
        cdef PartitionHead partition
        cdef LogTail log
        cdef ProducerWindows producers = None
        cdef ProducerEntry previous = None
        cdef ProducerEntry entry = None
        cdef ReadyAnswer answer
        cdef object producer_id = None
        cdef const uint8_t* p
        cdef int32_t delta, first_sequence, epoch
        cdef int64_t base_offset, last_offset, max_timestamp
        if not read_produce(data + position, data + end, version, &asked):
            return False
        partition = self.table.partition(asked.name, asked.name_bytes, asked.partition)
        if partition is None:
            return False
        if not (
            (asked.acks == ACKS_ONE and partition._takes_acks_one)
            or (asked.acks == ACKS_ALL and partition._takes_acks_all)
        ):
            return False
        log = partition.log
        p = asked.records
        if log.failed or partition._writer.is_threaded:
            return False
        if not _is_sound(p, asked.records_bytes, partition, version):
            return False
        if not _is_timely(p, partition, now_ms):
            return False
        delta = load_i32(p + LAST_OFFSET_DELTA_AT)
        base_offset = log.log_end_offset
        last_offset = base_offset + delta
        max_timestamp = load_i64(p + MAX_TIMESTAMP_AT)
        if load_i64(p + PRODUCER_ID_AT) >= 0:
            epoch = load_i16(p + PRODUCER_EPOCH_AT)
            first_sequence = load_i32(p + BASE_SEQUENCE_AT)
            if epoch < 0 or first_sequence < 0 or not log._are_windows_whole:
                return False
            if log._producers is None:
                return False
            producers = <ProducerWindows?>log._producers
            producer_id = load_i64(p + PRODUCER_ID_AT)
            previous = producers.continued(producer_id, epoch, first_sequence)
            if previous is None:
                return False
            entry = next_entry(
                previous, epoch, first_sequence,
                <int32_t>((<int64_t>first_sequence + delta) & MAX_SEQUENCE_C),
                base_offset, last_offset, max_timestamp, False,
            )
        answer = ReadyAnswer.__new__(ReadyAnswer)
        answer.api_version = version
        answer.correlation_id = correlation_id
        answer.end_offset = last_offset + 1
        answer.due_s = 0
        if asked.acks == ACKS_ALL and partition._acks_all_wait:
            answer.due_s = connection._reactor.now_s + max(1, asked.timeout_ms) / 1000.0
            self.watch(partition)
        answer.refuse = self.refuse
        answer.partition = partition
        answer.frame = produce_answer(
            version, correlation_id, asked.name, asked.name_bytes, asked.partition, base_offset, -1,
            log.log_start_offset,
        )
        # From here on nothing is refused.
        log.stage(
            view, p - data, asked.records_bytes, delta, max_timestamp, partition.leader_epoch
        )
        if producers is not None:
            producers.put(producer_id, previous, entry, base_offset, last_offset)
        partition._bytes_since_progress += asked.records_bytes
        connection.answer_later(answer, size_bytes)
        if asked.acks == ACKS_ONE:
            partition._acks_one.add_answer(answer)
        else:
            partition._acks_all.add_answer(answer)
        return True
