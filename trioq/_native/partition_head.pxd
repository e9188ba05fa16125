"""What every request asks of a partition, for the other native modules; see partition_head.pyi."""

from libc.stdint cimport int32_t, int64_t, uint8_t

from trioq._native.ack_queue cimport AckQueue
from trioq._native.log_tail cimport LogTail


cdef class PartitionHead:
    cdef public LogTail log
    cdef public bint is_leader
    cdef public int32_t leader_epoch
    cdef public bint is_closed
    cdef public bint _takes_acks_one
    cdef public bint _takes_acks_all
    cdef public bint _acks_all_wait
    cdef public bint _takes_compressed
    cdef public Py_ssize_t _lane_max_bytes
    cdef public int64_t _before_max_ms
    cdef public int64_t _after_max_ms
    cdef public int64_t _bytes_since_progress
    cdef public bint _is_end_known
    cdef public object _writer
    cdef public dict _listeners
    cdef readonly AckQueue _acks_one
    cdef readonly AckQueue _acks_all


cdef class PartitionTable:
    cdef object find
    cdef dict topics            # name as bytes -> {number: PartitionHead}
    cdef bytes last_name
    cdef dict last_topic

    # The partition if it is hosted here and open, else None.
    cdef PartitionHead partition(self, const uint8_t* name, Py_ssize_t name_bytes, int32_t number)
