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


cdef enum:
    INDEX_ENTRY_BYTES = 8       # trioq.storage.offset_index.ENTRY_BYTES


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

    def _write_ordinary(self, double slow_s, int64_t bulk_bytes, int64_t highest_delta):
        cdef list staged = self._staged
        cdef Py_ssize_t count = len(staged)
        cdef int64_t length = 0
        cdef int64_t interval_bytes
        cdef double seconds
        cdef Staged first, last, one
        cdef SegmentTail segment
        cdef WriteMode writer
        cdef list items, group
        log_dir, config = self.log_dir, self.config
        items = self.segments.items
        writer = <WriteMode?>log_dir.writer
        if count == 0 or not items or self._writing is not None or self._edges is None:
            return False
        if writer.is_threaded or writer.is_alert:
            return False
        if config.flush_policy != "os" or config.preallocate:
            return False
        segment = <SegmentTail?>items[len(items) - 1]
        if not segment.is_open_for_append or segment.size <= 0:
            return False
        for one in staged:
            length += one.size_bytes
        first = <Staged?>staged[0]
        last = <Staged?>staged[count - 1]
        if length >= bulk_bytes or length > <int64_t>config.segment_bytes - segment.size:
            return False
        if last.last_offset - segment.base_offset > highest_delta:
            return False
        if (
            (<Py_ssize_t>segment.offsets.entries + 1) * INDEX_ENTRY_BYTES
            > <int64_t>config.segment_index_bytes
        ):
            return False
        if segment.first_timestamp < 0 or first.max_timestamp < 0:
            return False                # its age is counted in the broker's time
        if (
            first.max_timestamp - segment.first_timestamp
            > <int64_t>config.segment_ms - <int64_t>segment.roll_jitter_ms
        ):
            return False
        shared = log_dir.files.file_of(segment)
        interval_bytes = config.index_interval_bytes
        seconds = shared.file.pwritev(staged, segment.size)
        if seconds > slow_s:
            writer.note_slow(seconds, length)
        group, self._staged = staged, []
        if segment.size == segment.synced_size:
            self._unsynced.append(segment)
        for one in group:
            segment.add_one(one.size_bytes, one.last_offset, one.max_timestamp, interval_bytes)
        if first.leader_epoch >= 0:
            epochs = self._epochs
            if epochs is None or <int32_t>epochs.latest_epoch < last.leader_epoch:
                self._note_epochs(first, last, group)
        self.written_end_offset = last.last_offset + 1
        self.log_dir.unwritten_bytes -= length
        if self._producers is not None:
            self._producers.commit(self.written_end_offset)
        self._edges.add(self.written_end_offset, segment)
        return True

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
