"""murmur2, for the modules that choose partitions."""

from libc.stdint cimport int32_t, uint8_t, uint32_t

cdef uint32_t murmur2_of(const uint8_t* data, Py_ssize_t length) noexcept nogil

# The partition of a record with this key among `partition_count` > 0.
cdef int32_t partition_of_key(object key, int32_t partition_count) except -1
