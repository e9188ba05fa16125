# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
# cython: nonecheck=True
"""Fetched batches and their records, opened when touched; the contract is in record_view.pyi.

The bytes are held by a buffer (`_Bytes`) for as long as something points into it, so that every
pointer stays valid. Every read is bounded (see record_parse.pxd), each time it is done: nothing
breaks if the bytes change against the contract. Attributes that are None, in an object that was
made by `__new__` alone, are AttributeErrors (nonecheck).
"""

cimport cython
from cpython.buffer cimport (
    PyBUF_SIMPLE,
    PyBuffer_FillInfo,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint32_t

from trioq._native.batch_header cimport (
    APPEND_TIME_BIT,
    BATCH_LENGTH_AT,
    CODEC_MASK,
    CONTROL_BIT,
    HEADER_BYTES_C,
    HIGHEST_CODEC,
    LOG_OVERHEAD_C,
    MAGIC_AT,
    MAGIC_V2,
    TRANSACTIONAL_BIT,
    BatchHeader,
    batch_crc,
    parse_header,
)
from trioq._native.bigendian cimport load_i16, load_i32
from trioq._native.gil cimport RELEASE_ABOVE_BYTES
from trioq._native.record_parse cimport (
    NONE,
    NOT_INCREASING,
    TOO_FEW,
    TRAILING,
    RecordView,
    bytes_or_none,
    parse_record,
    wrapped_sum,
)
from trioq._native.records cimport Walk, decode_headers, fault_error

from types import GenericAlias

from trioq.errors import (
    CorruptMessage,
    InvalidRecord,
    KafkaError,
    UnsupportedCompressionType,
    UnsupportedForMessageFormat,
)


cdef int64_t MAX_OFFSET = 0x7FFFFFFFFFFFFFFF
cdef Py_ssize_t CONTROL_KEY_BYTES = 4  # version and type
cdef int16_t ABORT_MARKER = 0


@cython.final
cdef class _Bytes:
    # A buffer, held until nothing points into it.
    cdef Py_buffer view

    def __cinit__(self, data):
        PyObject_GetBuffer(data, &self.view, PyBUF_SIMPLE)

    def __dealloc__(self):
        PyBuffer_Release(&self.view)


@cython.final
cdef class _Origin:
    # What the batches of one read have in common.
    cdef str topic
    cdef int32_t partition
    cdef object decompress
    cdef object key_deserializer
    cdef object value_deserializer


cdef inline object _deserialized(object deserialize, object field):
    return field if deserialize is None or field is None else deserialize(field)


# ---- one batch ----


cdef struct Survey:
    # What is known of the records of a batch once they were checked.
    Walk walk
    Py_ssize_t start_position  # of the first record to show
    int32_t count              # of records to show


cdef Survey _survey(
    const uint8_t* data, const uint8_t* end, int32_t record_count, int32_t last_offset_delta,
    int64_t first_delta,
) noexcept nogil:
    # Checks all records; those with an offset delta below first_delta are not shown.
    cdef Survey survey
    cdef RecordView record
    cdef const uint8_t* p = data
    cdef int32_t index
    cdef int32_t previous = -1
    survey.walk.fault = NONE
    survey.start_position = end - data
    survey.count = 0
    for index in range(record_count):
        survey.walk.index = index
        if p == end:
            survey.walk.fault = TOO_FEW
            return survey
        survey.walk.fault = parse_record(p, end, &record)
        if survey.walk.fault != NONE:
            return survey
        if record.offset_delta <= previous or record.offset_delta > last_offset_delta:
            survey.walk.fault = NOT_INCREASING
            return survey
        previous = record.offset_delta
        if record.offset_delta >= first_delta:
            if survey.count == 0:
                survey.start_position = p - data
            survey.count += 1
        p = record.end
    if p != end:
        survey.walk.index = record_count
        survey.walk.fault = TRAILING
    return survey


@cython.final
@cython.freelist(16)
cdef class RecordBatchView:
    cdef _Origin _origin
    cdef readonly BatchHeader header
    cdef _Bytes _bytes          # what _data points into: all fetched bytes, or decompressed ones
    cdef const uint8_t* _data   # of the records; decompressed once _is_open
    cdef const uint8_t* _end
    cdef const uint8_t* _start  # of the first record to show, once _is_open
    cdef int32_t _first_delta
    cdef int32_t _count         # of records to show; -1: not known yet
    cdef bint _is_open
    cdef tuple _headers         # of the record decoded last: the next mostly has the same keys

    def __init__(self):
        raise TypeError("a RecordBatchView comes from read_batches")

    def __reduce__(self):
        raise TypeError("a RecordBatchView cannot be copied or pickled: take its values")

    @classmethod
    def __class_getitem__(cls, item):
        return GenericAlias(cls, item)

    @property
    def topic(self):
        return self._origin.topic

    @property
    def partition(self):
        return self._origin.partition

    @property
    def start_offset(self):
        return self.header.base_offset + self._first_delta

    @property
    def last_offset(self):
        return self.header.base_offset + self.header.last_offset_delta

    @property
    def next_offset(self):
        return self.header.base_offset + self.header.last_offset_delta + 1

    @property
    def leader_epoch(self):
        return self.header.leader_epoch

    @property
    def size_bytes(self):
        return self.header.size_bytes

    cpdef open(self):
        cdef _Bytes held = self._bytes
        cdef const uint8_t* data = self._data
        cdef const uint8_t* end = self._end
        cdef BatchHeader header = self.header
        cdef Survey survey
        if self._is_open:
            return
        if header.attributes & CODEC_MASK:
            held = _Bytes(self._decompressed())
            data = <const uint8_t*>held.view.buf
            end = data + held.view.len
        if end - data > RELEASE_ABOVE_BYTES:
            with nogil:
                survey = _survey(
                    data, end, header.record_count, header.last_offset_delta, self._first_delta
                )
        else:
            survey = _survey(
                data, end, header.record_count, header.last_offset_delta, self._first_delta
            )
        if survey.walk.fault != NONE:
            raise InvalidRecord(f"{self._place()}: {fault_error(survey.walk)}")
        if self._is_open:  # by another thread meanwhile
            return
        self._bytes = held
        self._data = data
        self._end = end
        self._start = data + survey.start_position
        self._count = survey.count
        self._is_open = True

    cdef object _decompressed(self):
        cdef Py_ssize_t size = self._end - self._data
        cdef object payload = memoryview(_Window.of(self._bytes, self._data, size))
        try:
            return self._origin.decompress(self.header.attributes & CODEC_MASK, payload)
        except InvalidRecord as error:
            raise InvalidRecord(f"{self._place()}: {error}") from error
        finally:
            payload.release()

    cdef str _place(self):
        return (
            f"{self._origin.topic}-{self._origin.partition}, batch at offset "
            f"{self.header.base_offset}"
        )

    cdef int _next(self, const uint8_t** p, RecordView* record) except -1:
        # The record at p[0], which then points behind it.
        if p[0] >= self._end or parse_record(p[0], self._end, record) != NONE:
            raise InvalidRecord(f"{self._place()}: the bytes changed while they were read")
        p[0] = record.end
        return 0

    def __len__(self):
        if self._count < 0:
            self.open()
        return self._count

    def __iter__(self):
        cdef _Records records = _Records.__new__(_Records)
        self.open()
        records.batch = self
        records.p = self._start
        records.left = self._count
        return records

    @property
    def offsets(self):
        cdef RecordView record
        cdef const uint8_t* p
        cdef int32_t _
        cdef list found
        if self.header.record_count == <int64_t>self.header.last_offset_delta + 1:
            return range(self.start_offset, self.next_offset)
        self.open()
        found = []
        p = self._start
        for _ in range(self._count):
            self._next(&p, &record)
            found.append(self.header.base_offset + record.offset_delta)
        return found

    def keys(self):
        cdef RecordView record
        cdef const uint8_t* p
        cdef int32_t _
        cdef list found = []
        cdef object deserialize = self._origin.key_deserializer
        self.open()
        p = self._start
        for _ in range(self._count):
            self._next(&p, &record)
            field = bytes_or_none(record.key, record.key_length)
            found.append(_deserialized(deserialize, field))
        return found

    def values(self):
        cdef RecordView record
        cdef const uint8_t* p
        cdef int32_t _
        cdef list found = []
        cdef object deserialize = self._origin.value_deserializer
        self.open()
        p = self._start
        for _ in range(self._count):
            self._next(&p, &record)
            field = bytes_or_none(record.value, record.value_length)
            found.append(_deserialized(deserialize, field))
        return found

    def timestamps(self):
        cdef RecordView record
        cdef const uint8_t* p
        cdef int32_t _
        cdef list found = []
        self.open()
        p = self._start
        for _ in range(self._count):
            self._next(&p, &record)
            found.append(self._timestamp(record.timestamp_delta))
        return found

    def headers(self):
        cdef RecordView record
        cdef const uint8_t* p
        cdef int32_t _
        cdef list found = []
        self.open()
        p = self._start
        for _ in range(self._count):
            self._next(&p, &record)
            found.append(self._decode_headers(&record))
        return found

    cdef int64_t _timestamp(self, int64_t delta):
        if self.header.attributes & APPEND_TIME_BIT:
            return self.header.max_timestamp
        return wrapped_sum(self.header.base_timestamp, delta)

    cdef tuple _decode_headers(self, RecordView* record):
        if record.header_count == 0:
            return ()
        self._headers = decode_headers(record, self._headers)
        return self._headers

    def __repr__(self):
        return (
            f"<RecordBatchView {self._origin.topic}-{self._origin.partition} offsets "
            f"{self.start_offset} to {self.last_offset}>"
        )


@cython.final
cdef class _Window:
    # Part of a _Bytes as a read-only buffer of its own.
    cdef _Bytes held
    cdef const uint8_t* start
    cdef Py_ssize_t length

    @staticmethod
    cdef _Window of(_Bytes held, const uint8_t* start, Py_ssize_t length):
        cdef _Window window = _Window.__new__(_Window)
        window.held = held
        window.start = start
        window.length = length
        return window

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, <void*>self.start, self.length, 1, flags)


# ---- one record ----


@cython.final
@cython.freelist(64)
cdef class Record:
    cdef readonly RecordBatchView batch
    cdef readonly int64_t offset
    cdef RecordView _view
    cdef _Bytes _bytes  # what _view points into
    cdef object _key    # once touched
    cdef object _value
    cdef bint _has_key, _has_value

    def __init__(self):
        raise TypeError("a Record comes from a RecordBatchView")

    def __reduce__(self):
        raise TypeError("a Record cannot be copied or pickled: take its key and value")

    @classmethod
    def __class_getitem__(cls, item):
        return GenericAlias(cls, item)

    @property
    def topic(self):
        return self.batch._origin.topic

    @property
    def partition(self):
        return self.batch._origin.partition

    @property
    def leader_epoch(self):
        return self.batch.header.leader_epoch

    @property
    def timestamp(self):
        return self.batch._timestamp(self._view.timestamp_delta)

    @property
    def timestamp_type(self):
        return 1 if self.batch.header.attributes & APPEND_TIME_BIT else 0

    @property
    def key(self):
        if not self._has_key:
            field = bytes_or_none(self._view.key, self._view.key_length)
            self._key = _deserialized(self.batch._origin.key_deserializer, field)
            self._has_key = True
        return self._key

    @property
    def value(self):
        if not self._has_value:
            field = bytes_or_none(self._view.value, self._view.value_length)
            self._value = _deserialized(self.batch._origin.value_deserializer, field)
            self._has_value = True
        return self._value

    @property
    def raw_key(self):
        return bytes_or_none(self._view.key, self._view.key_length)

    @property
    def raw_value(self):
        return bytes_or_none(self._view.value, self._view.value_length)

    @property
    def headers(self):
        return self.batch._decode_headers(&self._view)

    def __repr__(self):
        return (
            f"<Record {self.topic}-{self.partition} offset {self.offset}: "
            f"key {_shown(self.raw_key)}, value {_shown(self.raw_value)}>"
        )


cdef str _shown(object field):
    if field is None or len(field) <= 40:
        return repr(field)
    return f"{field[:40]!r}... ({len(field)} bytes)"


@cython.final
cdef class _Records:
    # Iterates over an opened batch.
    cdef RecordBatchView batch
    cdef const uint8_t* p
    cdef int32_t left

    def __iter__(self):
        return self

    def __length_hint__(self):
        return self.left

    def __next__(self):
        cdef Record record
        if self.left == 0:
            raise StopIteration
        record = Record.__new__(Record)
        self.batch._next(&self.p, &record._view)
        self.left -= 1
        record.batch = self.batch
        record._bytes = self.batch._bytes
        record.offset = self.batch.header.base_offset + record._view.offset_delta
        return record


# ---- many batches ----


cdef bint _is_abort_marker(const uint8_t* data, const uint8_t* end) noexcept nogil:
    # Whether the first record of an uncompressed control batch has the key of one.
    cdef RecordView record
    if data == end or parse_record(data, end, &record) != NONE:
        return False
    if record.key_length < CONTROL_KEY_BYTES:
        return False
    return load_i16(record.key + 2) == ABORT_MARKER


cdef BatchHeader _checked_header(
    const uint8_t* p, Py_ssize_t position, Py_ssize_t size, bint check_crc
):
    # Of the whole batch of `size` bytes at p.
    cdef BatchHeader header
    cdef uint32_t crc
    if p[MAGIC_AT] != MAGIC_V2:
        raise CorruptMessage(f"unknown magic {p[MAGIC_AT]}")
    header = parse_header(p, position)
    if check_crc:
        if size > RELEASE_ABOVE_BYTES:
            with nogil:
                crc = batch_crc(p, size)
        else:
            crc = batch_crc(p, size)
        if crc != header.crc:
            raise CorruptMessage(f"CRC is {header.crc:#010x}, the bytes give {crc:#010x}")
    if (
        header.last_offset_delta < 0
        or header.record_count < 0
        or header.record_count > <int64_t>header.last_offset_delta + 1
    ):
        raise CorruptMessage(
            f"{header.record_count} records with last offset delta {header.last_offset_delta}"
        )
    if header.base_offset < 0 or header.base_offset >= MAX_OFFSET - header.last_offset_delta:
        raise CorruptMessage(f"base offset {header.base_offset} is impossible")
    if (header.attributes & CODEC_MASK) > HIGHEST_CODEC:
        raise UnsupportedCompressionType(f"unknown codec {header.attributes & CODEC_MASK}")
    return header


cdef BatchHeader _next_header(
    _Bytes held, Py_ssize_t position, bint check_crc, bint* is_truncated
):
    # Of the batch at `position`; None where it does not lie wholly in the bytes.
    cdef const uint8_t* p = <const uint8_t*>held.view.buf + position
    cdef Py_ssize_t available = held.view.len - position
    cdef Py_ssize_t size
    if available > MAGIC_AT and p[MAGIC_AT] < MAGIC_V2:
        raise UnsupportedForMessageFormat(
            f"message format {p[MAGIC_AT]} is not read: the broker must convert it to v2 batches"
        )
    if available >= LOG_OVERHEAD_C:
        size = <Py_ssize_t>load_i32(p + BATCH_LENGTH_AT) + LOG_OVERHEAD_C
        if size < HEADER_BYTES_C:
            raise CorruptMessage(f"a batch of {size} bytes")
        if size <= available:
            return _checked_header(p, position, size, check_crc)
    is_truncated[0] = True
    return None


@cython.final
cdef class _Aborted:
    # Which producers have an aborted transaction open, while batches are read in order.
    cdef list waiting  # (first offset, producer id), the last offset first
    cdef set open_ids

    cdef bint hides(self, BatchHeader header, const uint8_t* data, const uint8_t* end) except -1:
        if not header.attributes & TRANSACTIONAL_BIT:
            return False
        cdef Py_ssize_t count = len(self.waiting)
        while count and self.waiting[count - 1][0] <= header.base_offset + header.last_offset_delta:
            self.open_ids.add(self.waiting.pop()[1])
            count -= 1
        if header.producer_id not in self.open_ids:
            return False
        if header.attributes & CONTROL_BIT:
            if _is_abort_marker(data, end):
                self.open_ids.discard(header.producer_id)
            return False
        return True


def read_batches(
    data, int64_t start_offset, *, str topic not None, int32_t partition, decompress,
    aborted=None, bint check_crc=True, key_deserializer=None, value_deserializer=None,
):
    cdef _Bytes held = _Bytes(data)
    cdef _Origin origin = _Origin.__new__(_Origin)
    cdef _Aborted aborts = None
    cdef RecordBatchView batch
    cdef BatchHeader header
    cdef Py_ssize_t position = 0
    cdef int64_t next_offset = start_offset
    cdef int64_t delta
    cdef bint is_truncated = False
    cdef list batches = []
    cdef const uint8_t* p
    if start_offset < 0:
        raise ValueError(f"no record has offset {start_offset}")
    origin.topic = topic
    origin.partition = partition
    origin.decompress = decompress
    origin.key_deserializer = key_deserializer
    origin.value_deserializer = value_deserializer
    if aborted:
        aborts = _Aborted.__new__(_Aborted)
        aborts.waiting = sorted(((first, pid) for pid, first in aborted), reverse=True)
        aborts.open_ids = set()
    while position < held.view.len:
        try:
            header = _next_header(held, position, check_crc, &is_truncated)
        except KafkaError as error:
            if next_offset > start_offset:  # a fetch from there meets it again
                break
            raise type(error)(
                f"{topic}-{partition}, fetched from offset {start_offset}: {error}"
            ) from error
        if header is None:
            break
        p = <const uint8_t*>held.view.buf + position
        position += header.size_bytes
        delta = start_offset - header.base_offset
        if aborts is not None and aborts.hides(
            header, p + HEADER_BYTES_C, p + header.size_bytes
        ):
            next_offset = max(next_offset, header.base_offset + header.last_offset_delta + 1)
            continue
        if delta > header.last_offset_delta:
            continue
        next_offset = max(next_offset, header.base_offset + header.last_offset_delta + 1)
        if header.attributes & CONTROL_BIT or header.record_count == 0:
            continue
        batch = RecordBatchView.__new__(RecordBatchView)
        batch._origin = origin
        batch.header = header
        batch._bytes = held
        batch._data = p + HEADER_BYTES_C
        batch._end = p + header.size_bytes
        batch._start = batch._end
        batch._first_delta = <int32_t>max(0, delta)
        batch._count = -1
        if header.record_count == <int64_t>header.last_offset_delta + 1:
            batch._count = header.record_count - batch._first_delta
        batch._headers = ()
        batches.append(batch)
    return batches, next_offset, is_truncated
