# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
"""What every request asks of a partition; the contract is in partition_head.pyi."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItem
from cpython.object cimport PyObject
from libc.stdint cimport int32_t, uint8_t
from libc.string cimport memcmp

from trioq._native.ack_queue cimport AckQueue


cdef enum:
    MOST_TOPICS = 4096      # that are remembered; with more the memory starts anew


cdef class PartitionHead:

    def __cinit__(self, *_args, **_named):
        self._acks_one = AckQueue()
        self._acks_all = AckQueue()
        self._listeners = {}
        self.leader_epoch = -1


@cython.final
cdef class PartitionTable:

    def __init__(self, find not None):
        self.find = find
        self.topics = {}
        self.last_name = b""
        self.last_topic = {}

    cdef PartitionHead partition(self, const uint8_t* name, Py_ssize_t name_bytes, int32_t number):
        cdef PyObject* known
        cdef object found
        if PyBytes_GET_SIZE(self.last_name) != name_bytes or memcmp(
            PyBytes_AS_STRING(self.last_name), name, name_bytes
        ):
            self.last_name = PyBytes_FromStringAndSize(<const char*>name, name_bytes)
            known = PyDict_GetItem(self.topics, self.last_name)
            self.last_topic = {} if known == NULL else <dict>known
        known = PyDict_GetItem(self.last_topic, number)
        if known != NULL and not (<PartitionHead>known).is_closed:
            return <PartitionHead>known
        try:
            topic = self.last_name.decode()
        except UnicodeDecodeError:
            return None
        found = self.find(topic, number)
        if not isinstance(found, PartitionHead) or (<PartitionHead>found).is_closed:
            self.last_topic.pop(number, None)
            return None
        if not self.last_topic:
            if len(self.topics) >= MOST_TOPICS:
                self.topics.clear()
            self.topics[self.last_name] = self.last_topic
        self.last_topic[number] = found
        return found
