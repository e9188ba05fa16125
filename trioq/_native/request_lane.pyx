# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
"""The way of ordinary requests, without an object for each; the contract is in request_lane.pyi.

Every length is compared with the bytes left once, explicitly, before anything is touched.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t
from libc.string cimport memcpy

from trioq._native.bigendian cimport load_i16, load_i32, load_i64, store_i16, store_i32, store_i64
from trioq._native.fetch_lane cimport FetchLane
from trioq._native.hot_request cimport (
    Cursor,
    LONGEST_ANSWER,
    no_tags,
    put_uvarint,
    NULL_LENGTH,
    read_length,
    text_or_none,
)
from trioq._native.kept_answers cimport KeptAnswer, KeptAnswers
from trioq._native.log_tail cimport LogTail
from trioq._native.partition_head cimport PartitionHead, PartitionTable
from trioq._native.produce_lane cimport ProduceLane
from trioq._native.response_ring cimport ResponseRing

from trioq.errors import BrokerBug


cdef enum:
    LENGTH_BYTES = 4
    FIXED_BYTES = 10            # of a request header: key, version, correlation id, client id's length
    PRODUCE = 0
    PRODUCE_FIRST = 3
    PRODUCE_LAST = 11
    PRODUCE_FLEXIBLE = 9
    FETCH = 1
    FETCH_FIRST = 4
    FETCH_LAST = 12             # later ones name topics by id
    FETCH_FLEXIBLE = 12
    LIST_OFFSETS = 2
    LIST_OFFSETS_FIRST = 1
    LIST_OFFSETS_LAST = 8
    LIST_OFFSETS_FLEXIBLE = 6
    FIRST_WITH_ISOLATION = 2
    FIRST_WITH_LEADER_EPOCH = 4
    READ_UNCOMMITTED = 0
    LATEST = -1
    NO_REPLICA = -1
    METADATA = 3
    METADATA_FLEXIBLE = 9
    HEARTBEAT = 12
    HEARTBEAT_LAST = 4
    HEARTBEAT_FLEXIBLE = 4
    FIRST_HEARTBEAT_WITH_THROTTLE = 1
    FIRST_WITH_INSTANCE = 3
    API_VERSIONS = 18
    API_VERSIONS_FLEXIBLE = 3
    NOT_READ_YET = -1
    LONGEST_KEPT_REQUEST = 4096


cdef bytes _answer_of(int32_t correlation_id, bint has_tags, bytes encoded):
    cdef Py_ssize_t length = PyBytes_GET_SIZE(encoded)
    cdef Py_ssize_t head_bytes = 2 * LENGTH_BYTES + has_tags
    cdef bytes frame = PyBytes_FromStringAndSize(NULL, head_bytes + length)
    cdef uint8_t* p = <uint8_t*>PyBytes_AS_STRING(frame)
    store_i32(p, <int32_t>(head_bytes + length - LENGTH_BYTES))
    store_i32(p + LENGTH_BYTES, correlation_id)
    if has_tags:
        p[2 * LENGTH_BYTES] = 0
    memcpy(p + head_bytes, PyBytes_AS_STRING(encoded), length)
    return frame


@cython.final
cdef class RequestLane:

    def __init__(
        self,
        clock not None,
        *,
        Py_ssize_t max_frame_bytes,
        Py_ssize_t max_parked_requests,
        Py_ssize_t max_parked_bytes,
        ProduceLane produce=None,
        FetchLane fetch=None,
        PartitionTable offsets=None,
        KeptAnswers metadata=None,
        image_source=None,
        KeptAnswers versions=None,
        groups_of=None,
    ):
        self.clock = clock
        self.max_frame_bytes = max_frame_bytes
        self.max_parked_requests = max_parked_requests
        self.max_parked_bytes = max_parked_bytes
        self.produce = produce
        self.fetch = fetch
        self.offsets = offsets
        self.metadata = metadata
        self.image_source = image_source
        self.versions = versions
        self.groups_of = groups_of
        self.now_ms = NOT_READ_YET
        self.requests = 0

    def take(
        self, ResponseRing connection not None, view, Py_ssize_t start, Py_ssize_t end,
        int max_frames,
    ):
        cdef Py_buffer borrowed
        PyObject_GetBuffer(view, &borrowed, PyBUF_SIMPLE)
        try:
            if start < 0 or end < start or end > borrowed.len:
                raise ValueError(
                    f"[{start}, {end}) is outside the buffer of {borrowed.len} bytes"
                )
            return self.run(
                connection, view, <const uint8_t*>borrowed.buf, start, end, max_frames
            )
        finally:
            PyBuffer_Release(&borrowed)

    cdef Py_ssize_t run(
        self, ResponseRing connection, object view, const uint8_t* data, Py_ssize_t start,
        Py_ssize_t end, int max_frames,
    ) except -1:
        cdef int32_t length
        self.now_ms = NOT_READ_YET
        while max_frames > 0 and end - start >= LENGTH_BYTES:
            length = load_i32(data + start)
            if length < FIXED_BYTES or length > self.max_frame_bytes:
                break
            if length > end - start - LENGTH_BYTES:
                break
            if (
                connection.is_closing
                or connection.is_finishing
                or connection.barrier_is_open
                or connection.alone_count
                or connection.parked_count >= self.max_parked_requests
                or connection.parked_bytes >= self.max_parked_bytes
            ):
                break
            if not self.take_one(
                connection, view, data, start + LENGTH_BYTES, start + LENGTH_BYTES + length
            ):
                break
            self.requests += 1
            start += LENGTH_BYTES + length
            max_frames -= 1
        return start

    cdef bint take_one(
        self, ResponseRing connection, object view, const uint8_t* data, Py_ssize_t start,
        Py_ssize_t end,
    ) except -1:
        # One frame's body, of at least FIXED_BYTES.
        cdef const uint8_t* p = data + start
        cdef int api_key = load_i16(p)
        cdef int version = load_i16(p + 2)
        cdef int32_t correlation_id = load_i32(p + 4)
        cdef int client_id_bytes = max(0, <int>load_i16(p + 8))
        cdef Py_ssize_t position = start + FIXED_BYTES + client_id_bytes
        cdef Py_ssize_t flexible_from, i
        cdef KeptAnswer kept
        if api_key == PRODUCE:
            if self.produce is None or version < PRODUCE_FIRST or version > PRODUCE_LAST:
                return False
            flexible_from = PRODUCE_FLEXIBLE
        elif api_key == FETCH:
            if self.fetch is None or version < FETCH_FIRST or version > FETCH_LAST:
                return False
            flexible_from = FETCH_FLEXIBLE
        elif api_key == LIST_OFFSETS:
            if (
                self.offsets is None
                or version < LIST_OFFSETS_FIRST
                or version > LIST_OFFSETS_LAST
            ):
                return False
            flexible_from = LIST_OFFSETS_FLEXIBLE
        elif api_key == METADATA:
            if self.metadata is None:
                return False
            flexible_from = METADATA_FLEXIBLE
        elif api_key == HEARTBEAT:
            if self.groups_of is None or version < 0 or version > HEARTBEAT_LAST:
                return False
            flexible_from = HEARTBEAT_FLEXIBLE
        elif api_key == API_VERSIONS:
            if self.versions is None:
                return False
            flexible_from = API_VERSIONS_FLEXIBLE
        else:
            return False
        if position > end:
            return False
        for i in range(client_id_bytes):
            if p[FIXED_BYTES + i] > 0x7F:
                return False            # it may not be UTF-8
        if version >= flexible_from:
            if position >= end or data[position] != 0:
                return False            # tagged fields
            position += 1
        if api_key == PRODUCE:
            if self.now_ms == NOT_READ_YET:
                self.now_ms = self.clock.now_ms()
            return self.produce.take(
                connection, view, data, position, end, version, correlation_id, end - start,
                self.now_ms,
            )
        if api_key == FETCH:
            return self.fetch.take(
                connection, data + position, data + end, version, correlation_id, end - start
            )
        if api_key == LIST_OFFSETS:
            return self.take_list_offsets(
                connection, data + position, data + end, version, correlation_id
            )
        if api_key == HEARTBEAT:
            return self.take_heartbeat(
                connection, data + position, data + end, version, correlation_id
            )
        if end - position > LONGEST_KEPT_REQUEST:
            return False
        if api_key == METADATA:
            kept = self.metadata.lookup(
                self.image_source.image, connection.listener_name, version, data + position,
                end - position,
            )
            if kept is None:
                return False
            connection.answer_now(
                _answer_of(correlation_id, version >= flexible_from, kept.encoded)
            )
            return True
        kept = self.versions.lookup(
            None, connection.listener_name, version, data + position, end - position
        )
        if kept is None:
            return False
        if kept.note is not None:
            connection.client_software = kept.note
        connection.answer_now(_answer_of(correlation_id, False, kept.encoded))
        return True

    cdef bint take_list_offsets(
        self, ResponseRing connection, const uint8_t* p, const uint8_t* end, int version,
        int32_t correlation_id,
    ) except -1:
        # The end of one partition, for a client that reads what is not committed too.
        cdef bint flexible = version >= LIST_OFFSETS_FLEXIBLE
        cdef Cursor c
        cdef const uint8_t* name
        cdef int64_t name_bytes
        cdef int32_t number
        cdef int32_t leader_epoch = -1
        cdef PartitionHead partition
        cdef LogTail log
        cdef uint8_t[LONGEST_ANSWER] head
        cdef uint8_t[LONGEST_ANSWER] tail
        cdef uint8_t* out
        cdef Py_ssize_t head_bytes, tail_bytes
        cdef bytes frame
        c.p = p
        c.end = end
        if c.end - c.p < 5:
            return False
        if load_i32(c.p) != NO_REPLICA:
            return False
        c.p += 4
        if version >= FIRST_WITH_ISOLATION:
            if c.p[0] != READ_UNCOMMITTED:
                return False
            c.p += 1
        if read_length(&c, flexible, 4) != 1:
            return False
        name_bytes = read_length(&c, flexible, 2)
        if name_bytes < 0 or name_bytes > 0x7FFF or name_bytes > c.end - c.p:
            return False
        name = c.p
        c.p += name_bytes
        if read_length(&c, flexible, 4) != 1:
            return False
        if c.end - c.p < 12 + (4 if version >= FIRST_WITH_LEADER_EPOCH else 0):
            return False
        number = load_i32(c.p)
        c.p += 4
        if version >= FIRST_WITH_LEADER_EPOCH:
            leader_epoch = load_i32(c.p)
            c.p += 4
        if load_i64(c.p) != LATEST:
            return False
        c.p += 8
        if not (no_tags(&c, flexible) and no_tags(&c, flexible) and no_tags(&c, flexible)):
            return False
        if c.p != c.end:
            return False
        partition = self.offsets.partition(name, name_bytes, number)
        if partition is None or not partition.is_leader or not partition._is_end_known:
            return False
        if leader_epoch >= 0 and leader_epoch != partition.leader_epoch:
            return False
        log = partition.log
        out = head + LENGTH_BYTES
        store_i32(out, correlation_id)
        out += 4
        if flexible:
            out[0] = 0                                  # tagged fields of the header
            out += 1
        if version >= FIRST_WITH_ISOLATION:
            store_i32(out, 0)                           # throttle time
            out += 4
        if flexible:
            out[0] = 2                                  # one topic
            out = put_uvarint(out + 1, name_bytes + 1)
        else:
            store_i32(out, 1)
            store_i16(out + 4, <int16_t>name_bytes)
            out += 6
        head_bytes = out - head
        out = tail
        if flexible:
            out[0] = 2                                  # one partition
            out += 1
        else:
            store_i32(out, 1)
            out += 4
        store_i32(out, number)
        store_i16(out + 4, 0)                           # error code
        store_i64(out + 6, -1)                          # no timestamp: it is no record
        store_i64(out + 14, log.high_watermark)
        out += 22
        if version >= FIRST_WITH_LEADER_EPOCH:
            store_i32(out, partition.leader_epoch)
            out += 4
        if flexible:
            out[0] = out[1] = out[2] = 0                # tagged fields
            out += 3
        tail_bytes = out - tail
        store_i32(head, <int32_t>(head_bytes + name_bytes + tail_bytes - LENGTH_BYTES))
        frame = PyBytes_FromStringAndSize(NULL, head_bytes + name_bytes + tail_bytes)
        out = <uint8_t*>PyBytes_AS_STRING(frame)
        memcpy(out, head, head_bytes)
        memcpy(out + head_bytes, name, name_bytes)
        memcpy(out + head_bytes + name_bytes, tail, tail_bytes)
        connection.answer_now(frame)
        return True

    cdef bint take_heartbeat(
        self, ResponseRing connection, const uint8_t* p, const uint8_t* end, int version,
        int32_t correlation_id,
    ) except -1:
        # A member that has nothing else to hear than that it lives on.
        cdef bint flexible = version >= HEARTBEAT_FLEXIBLE
        cdef Cursor c
        cdef int32_t generation
        cdef object group_id, member_id
        cdef object instance_id = None
        cdef int64_t length
        cdef uint8_t[16] answer
        cdef uint8_t* out = answer
        c.p = p
        c.end = end
        group_id = read_text(&c, flexible)
        if group_id is None or c.end - c.p < 4:
            return False
        generation = load_i32(c.p)
        c.p += 4
        member_id = read_text(&c, flexible)
        if member_id is None:
            return False
        if version >= FIRST_WITH_INSTANCE:
            length = read_length(&c, flexible, 2)
            if length != NULL_LENGTH:
                if length < 0 or length > c.end - c.p:
                    return False
                instance_id = text_or_none(c.p, length)
                if instance_id is None:
                    return False
                c.p += length
        if not no_tags(&c, flexible) or c.p != c.end:
            return False
        try:
            error = self.groups_of.groups.heartbeat(group_id, generation, member_id, instance_id)
        except BrokerBug:
            raise
        except Exception:
            return False                                # the general way meets it again
        if error is not None:
            return False
        if version >= FIRST_HEARTBEAT_WITH_THROTTLE:
            store_i32(out, 0)                           # throttle time
            out += 4
        store_i16(out, 0)                               # error code
        out += 2
        if flexible:
            out[0] = 0                                  # tagged fields
            out += 1
        connection.answer_now(
            _answer_of(
                correlation_id, flexible,
                PyBytes_FromStringAndSize(<const char*>answer, out - answer),
            )
        )
        return True


cdef object read_text(Cursor* c, bint flexible):
    # A string that is neither null nor malformed, else None.
    cdef int64_t length = read_length(c, flexible, 2)
    if length < 0 or length > c.end - c.p:
        return None
    c.p += length
    return text_or_none(c.p - length, length)
