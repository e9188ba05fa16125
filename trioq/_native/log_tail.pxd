"""The end of a log for the other native modules; the contract is in log_tail.pyi."""

from libc.stdint cimport int32_t, int64_t, uint8_t


cdef class Staged:
    cdef Py_buffer view                 # of what holds the batch; held until this is gone
    cdef uint8_t* data
    cdef readonly Py_ssize_t size_bytes
    cdef readonly int64_t base_offset
    cdef readonly int64_t last_offset
    cdef readonly int64_t max_timestamp
    cdef readonly int32_t leader_epoch


cdef class DirtyLogs:
    cdef public Py_ssize_t unwritten_bytes
    cdef public dict dirty


cdef class WriteMode:
    cdef public bint is_threaded
    cdef public bint is_alert


cdef class LogTail:
    cdef public int64_t log_start_offset
    cdef public int64_t high_watermark
    cdef public int64_t log_end_offset
    cdef public int64_t written_end_offset
    cdef public int64_t synced_end_offset
    cdef public bint failed
    cdef public list _staged
    cdef public object _producers
    cdef public bint _are_windows_whole
    cdef readonly DirtyLogs log_dir
    cdef public object _writing
    cdef public object _edges

    # Stage the batch of `size_bytes` at `position` of `holder`; returns its base offset.
    cdef int64_t stage(
        self, object holder, Py_ssize_t position, Py_ssize_t size_bytes, int32_t last_offset_delta,
        int64_t max_timestamp, int32_t leader_epoch,
    ) except -1
    # Stage a batch that has its offsets and epoch, and keeps them.
    cdef int stage_copy(
        self, object holder, Py_ssize_t position, Py_ssize_t size_bytes, int64_t base_offset,
        int64_t last_offset, int64_t max_timestamp, int32_t leader_epoch,
    ) except -1


cdef class SegmentTail:
    cdef public int64_t base_offset
    cdef public int64_t size
    cdef public int64_t synced_size
    cdef public int64_t bytes_since_index
    cdef public int64_t first_timestamp
    cdef public int64_t max_timestamp
    cdef public int64_t max_timestamp_offset

    cdef int add_one(
        self, Py_ssize_t size_bytes, int64_t last_offset, int64_t max_timestamp,
        int64_t interval_bytes,
    ) except -1
