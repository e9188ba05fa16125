# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
# cython: nonecheck=True
"""Fetched batches and their records, opened when touched; the contract is in record_view.pyi.

The bytes are held by a buffer (HeldBytes) for as long as something points into it, so that every
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
from libc.stdint cimport int32_t, int64_t, uint8_t

from trioq._native.batch_header cimport APPEND_TIME_BIT, CODEC_MASK, HEADER_BYTES_C, BatchHeader
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

from trioq.errors import InvalidRecord


@cython.final
cdef class HeldBytes:

    def __cinit__(self, data):
        PyObject_GetBuffer(data, &self.view, PyBUF_SIMPLE)

    def __dealloc__(self):
        PyBuffer_Release(&self.view)


@cython.final
cdef class Origin:
    pass


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
        cdef HeldBytes held = self._bytes
        cdef const uint8_t* data = self._data
        cdef const uint8_t* end = self._end
        cdef BatchHeader header = self.header
        cdef Survey survey
        if self._is_open:
            return
        if header.attributes & CODEC_MASK:
            held = HeldBytes(self._decompressed(held, data, end - data))
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

    cdef object _decompressed(self, HeldBytes held, const uint8_t* data, Py_ssize_t size_bytes):
        cdef object payload = memoryview(_Window.of(held, data, size_bytes))
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
    # Part of a HeldBytes as a read-only buffer of its own.
    cdef HeldBytes held
    cdef const uint8_t* start
    cdef Py_ssize_t length

    @staticmethod
    cdef _Window of(HeldBytes held, const uint8_t* start, Py_ssize_t length):
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
    cdef HeldBytes _bytes  # what _view points into
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


# ---- for the reader of responses ----


cdef RecordBatchView new_view(
    Origin origin, HeldBytes held, BatchHeader header, const uint8_t* p, int32_t first_delta
):
    cdef RecordBatchView batch = RecordBatchView.__new__(RecordBatchView)
    batch._origin = origin
    batch.header = header
    batch._bytes = held
    batch._data = p + HEADER_BYTES_C
    batch._end = p + header.size_bytes
    batch._start = batch._end
    batch._first_delta = first_delta
    batch._count = -1
    if header.record_count == <int64_t>header.last_offset_delta + 1:
        batch._count = header.record_count - first_delta
    batch._headers = ()
    return batch
