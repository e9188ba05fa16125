# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
"""What a producer does for every record; the contracts are in send_path.pyi."""

cimport cython
from cpython.dict cimport PyDict_GetItem
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.object cimport PyObject
from libc.stdint cimport int32_t, int64_t
from posix.time cimport CLOCK_REALTIME, clock_gettime, timespec

from trioq._native.batch_builder cimport BatchBuilder
from trioq._native.murmur2 cimport partition_of_key


cdef extern from "Python.h":
    object PySequence_Fast(object sequence, const char* message)
    Py_ssize_t PySequence_Fast_GET_SIZE(object sequence)
    PyObject* PySequence_Fast_GET_ITEM(object sequence, Py_ssize_t index)


cdef inline int64_t _now_ms() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_REALTIME, &now)
    return <int64_t>now.tv_sec * 1000 + now.tv_nsec // 1000000


@cython.final
@cython.freelist(64)
@cython.no_gc  # a batch never refers to its deliveries, so that there are no cycles
cdef class Delivery:
    cdef public object batch
    cdef public int32_t index

    def __init__(self, batch, int32_t index):
        self.batch = batch
        self.index = index

    def __await__(self):
        return self.batch.deliver(self).__await__()

    @property
    def is_done(self):
        return self.batch.is_settled(self)


cdef inline Delivery _delivery(object batch, int32_t index):
    cdef Delivery made = Delivery.__new__(Delivery)
    made.batch = batch
    made.index = index
    return made


cdef class TopicRoute:
    cdef readonly list batches
    cdef public int32_t sticky
    cdef readonly bint hashes_keys

    def __init__(self, int32_t partition_count, *, bint hashes_keys):
        self.batches = [None] * partition_count
        self.sticky = -1
        self.hashes_keys = hashes_keys

    # The open batch that a record with this key and partition belongs into, or NULL: borrowed.
    cdef PyObject* _open(self, object key, object partition) except? NULL:
        cdef Py_ssize_t index = self.sticky
        cdef PyObject* batch
        if partition is not None:
            index = partition
        elif key is not None:
            if not self.hashes_keys:
                return NULL
            index = partition_of_key(key, <int32_t>PyList_GET_SIZE(self.batches))
        if index < 0 or index >= PyList_GET_SIZE(self.batches):
            return NULL
        batch = PyList_GET_ITEM(self.batches, index)
        return NULL if batch is <PyObject*>None else batch


cdef class SendPath:
    cdef readonly dict routes
    cdef object _slow
    cdef object _key_serializer
    cdef object _value_serializer

    def __init__(self, slow, *, key_serializer=None, value_serializer=None):
        self.routes = {}
        self._slow = slow
        self._key_serializer = key_serializer
        self._value_serializer = value_serializer

    @classmethod
    def __class_getitem__(cls, _):
        return cls

    def send_nowait(
        self, str topic not None, value=None, *, key=None, headers=(), partition=None,
        timestamp_ms=None,
    ):
        cdef PyObject* route
        cdef PyObject* found = NULL
        cdef BatchBuilder batch
        cdef int32_t index
        cdef int64_t timestamp = _now_ms() if timestamp_ms is None else timestamp_ms
        if self._value_serializer is not None and value is not None:
            value = self._value_serializer(value)
        if self._key_serializer is not None and key is not None:
            key = self._key_serializer(key)
        route = PyDict_GetItem(self.routes, topic)
        if route is not NULL:
            found = (<TopicRoute>route)._open(key, partition)
            if found is not NULL:
                batch = <BatchBuilder>found
                index = batch._append(key, value, headers, timestamp)
                if index >= 0:
                    return _delivery(batch, index)
        return self._slow(topic, value, key, headers, partition, timestamp)

    def append_values(
        self, str topic not None, values, keys, int64_t timestamp_ms, Py_ssize_t start,
        dict touched not None, partition=None,
    ):
        cdef object value_items = PySequence_Fast(values, b"values are a sequence")
        cdef object key_items = None
        cdef object key = None
        cdef object value
        cdef PyObject* found
        cdef PyObject* last = NULL
        cdef TopicRoute route
        cdef BatchBuilder batch
        cdef Py_ssize_t index = start
        if keys is not None:
            key_items = PySequence_Fast(keys, b"keys are a sequence")
        found = PyDict_GetItem(self.routes, topic)
        if found is NULL:
            return index
        route = <TopicRoute>found
        # Lists may be changed by serializers and odd buffers: looked at every time.
        while index < PySequence_Fast_GET_SIZE(value_items):
            value = <object>PySequence_Fast_GET_ITEM(value_items, index)
            if self._value_serializer is not None and value is not None:
                value = self._value_serializer(value)
            if key_items is not None:
                if index >= PySequence_Fast_GET_SIZE(key_items):
                    break
                key = <object>PySequence_Fast_GET_ITEM(key_items, index)
                if self._key_serializer is not None and key is not None:
                    key = self._key_serializer(key)
            found = route._open(key, partition)
            if found is NULL:
                break
            batch = <BatchBuilder>found
            if batch._append(key, value, (), timestamp_ms) < 0:
                break
            if found is not last:
                touched[batch] = None
                last = found
            index += 1
        return index


def now_ms():
    return _now_ms()
