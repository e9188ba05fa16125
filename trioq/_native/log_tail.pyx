# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
"""The part of a log that every batch moves; the contract is in log_tail.pyi."""

cimport cython
from cpython.buffer cimport (
    PyBUF_WRITABLE,
    PyBuffer_FillInfo,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from libc.stdint cimport int32_t, int64_t, uint8_t

from trioq._native.batch_header cimport (
    BASE_OFFSET_AT,
    HEADER_BYTES_C,
    LEADER_EPOCH_AT,
    BatchHeader,
)
from trioq._native.bigendian cimport store_i32, store_i64


@cython.final
@cython.no_gc
@cython.freelist(512)
cdef class Staged:

    def __init__(self):
        raise TypeError("a Staged comes from LogTail")

    def __dealloc__(self):
        PyBuffer_Release(&self.view)

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.data, self.size_bytes, 1, flags)


cdef class DirtyLogs:

    def __cinit__(self, *_args, **_named):
        self.dirty = {}


cdef class WriteMode:
    pass


cdef class LogTail:

    def __cinit__(self, *_args, **_named):
        self._staged = []

    def __init__(self, DirtyLogs log_dir not None):
        self.log_dir = log_dir

    cdef int64_t stage(
        self, object holder, Py_ssize_t position, Py_ssize_t size_bytes, int32_t last_offset_delta,
        int64_t max_timestamp, int32_t leader_epoch,
    ) except -1:
        cdef Staged staged = Staged.__new__(Staged)
        PyObject_GetBuffer(holder, &staged.view, PyBUF_WRITABLE)
        if position < 0 or size_bytes < HEADER_BYTES_C or size_bytes > staged.view.len - position:
            raise ValueError(
                f"no batch of {size_bytes} bytes at {position} of {staged.view.len} bytes"
            )
        staged.data = <uint8_t*>staged.view.buf + position
        staged.size_bytes = size_bytes
        staged.base_offset = self.log_end_offset
        staged.last_offset = staged.base_offset + last_offset_delta
        staged.max_timestamp = max_timestamp
        staged.leader_epoch = leader_epoch
        store_i64(staged.data + BASE_OFFSET_AT, staged.base_offset)
        store_i32(staged.data + LEADER_EPOCH_AT, leader_epoch)
        self.log_dir.dirty[self] = None
        self._staged.append(staged)
        self.log_dir.unwritten_bytes += size_bytes
        self.log_end_offset = staged.last_offset + 1
        return staged.base_offset

    cdef int stage_copy(
        self, object holder, Py_ssize_t position, Py_ssize_t size_bytes, int64_t base_offset,
        int64_t last_offset, int64_t max_timestamp, int32_t leader_epoch,
    ) except -1:
        cdef Staged staged = Staged.__new__(Staged)
        PyObject_GetBuffer(holder, &staged.view, PyBUF_WRITABLE)
        if position < 0 or size_bytes < HEADER_BYTES_C or size_bytes > staged.view.len - position:
            raise ValueError(
                f"no batch of {size_bytes} bytes at {position} of {staged.view.len} bytes"
            )
        staged.data = <uint8_t*>staged.view.buf + position
        staged.size_bytes = size_bytes
        staged.base_offset = base_offset
        staged.last_offset = last_offset
        staged.max_timestamp = max_timestamp
        staged.leader_epoch = leader_epoch
        self.log_dir.dirty[self] = None
        self._staged.append(staged)
        self.log_dir.unwritten_bytes += size_bytes
        self.log_end_offset = last_offset + 1
        return 0

    def _stage(self, batch, BatchHeader header not None, int32_t leader_epoch):
        return self.stage(
            batch, 0, header.size_bytes, header.last_offset_delta, header.max_timestamp,
            leader_epoch,
        )


cdef class SegmentTail:

    cdef int add_one(
        self, Py_ssize_t size_bytes, int64_t last_offset, int64_t max_timestamp,
        int64_t interval_bytes,
    ) except -1:
        if self.size == 0:
            self.first_timestamp = max_timestamp
        if max_timestamp > self.max_timestamp:
            self.max_timestamp = max_timestamp
            self.max_timestamp_offset = last_offset
        if self.bytes_since_index > interval_bytes:
            self._index(last_offset)
            self.bytes_since_index = 0
        self.bytes_since_index += size_bytes
        self.size += size_bytes
        return 0

    def add(
        self, Py_ssize_t size_bytes, int64_t last_offset, int64_t max_timestamp,
        int64_t interval_bytes,
    ):
        self.add_one(size_bytes, last_offset, max_timestamp, interval_bytes)

    def add_group(self, list group not None, int64_t interval_bytes):
        cdef Staged one
        for one in group:
            self.add_one(one.size_bytes, one.last_offset, one.max_timestamp, interval_bytes)


def first_group(list staged not None, int64_t room_bytes, int64_t highest_offset):
    cdef Py_ssize_t count = 0
    cdef int64_t length = 0
    cdef Staged one
    for one in staged:
        if count and (length + one.size_bytes > room_bytes or one.last_offset > highest_offset):
            break
        length += one.size_bytes
        count += 1
    return staged[:count], length
