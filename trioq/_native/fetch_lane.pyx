# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
"""Fetches of one partition; the contract is in fetch_lane.pyi.

Every length is compared with the bytes left once, explicitly, before anything is touched.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.math cimport ceil
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t
from libc.string cimport memcpy

from trioq._native.bigendian cimport load_i32, load_i64, store_i16, store_i32, store_i64
from trioq._native.hot_request cimport Cursor, no_tags, put_uvarint, read_length
from trioq._native.log_tail cimport LogTail
from trioq._native.partition_head cimport PartitionHead, PartitionTable
from trioq._native.producer_window cimport ProducerWindows
from trioq._native.response_ring cimport OPEN_C, ANSWERED_C, CANCELLED_C, ResponseRing, RingEntry

from trioq.errors import BrokerBug


cdef enum:
    FIRST_WITH_START_OFFSET = 5
    FIRST_WITH_SESSIONS = 7
    FIRST_WITH_LEADER_EPOCH = 9
    FIRST_WITH_RACK = 11
    FIRST_FLEXIBLE = 12
    NO_SESSION = -1
    NONE = -1
    LONGEST_HEAD = 128      # without the topic's name
    TICKS_PER_S = 100       # how often polls may end; see server/waiting_fetch.py
    LEAST_WAIT_MS = 100
    MOST_WAIT_MS = 60000


@cython.final
cdef class FetchEntry(RingEntry):

    def __init__(self):
        raise TypeError("a FetchEntry comes from a FetchLane")

    @property
    def topic(self):
        return self.topic_bytes.decode()

    # ---- reading ----

    cdef bint look(self) except -1:
        cdef PartitionHead partition = self.partition
        cdef LogTail log = partition.log
        cdef ProducerWindows producers
        cdef int64_t end
        self.region = None
        if not partition.is_leader or partition.is_closed or log.failed:
            return False
        if self.current_leader_epoch >= 0 and self.current_leader_epoch != partition.leader_epoch:
            return False
        if log._producers is None:
            return False
        producers = <ProducerWindows?>log._producers
        if producers._ongoing or producers._ended:
            return False
        end = log.high_watermark        # no transaction is open: the last stable offset too
        if self.fetch_offset < log.log_start_offset or self.fetch_offset > log.log_end_offset:
            return False
        if self.fetch_offset < end:
            try:
                self.region = log.read(
                    self.fetch_offset, self.max_bytes, end_offset=end, min_one_batch=True
                )
            except BrokerBug:
                raise
            except Exception:
                return False            # the general way meets it again, and says what it is
        return True

    cdef bint is_cold(self) except -1:
        # True if `look` would wait for the disk, or fail.
        cdef PartitionHead partition = self.partition
        cdef LogTail log = partition.log
        if log.failed or self.fetch_offset >= log.high_watermark:
            return False
        try:
            return log.cold_place(self.fetch_offset, 0) is not None
        except BrokerBug:
            raise
        except Exception:
            return True                 # the general way meets it again, and says what it is

    cdef int settle(self) except -1:
        cdef PartitionHead partition = self.partition
        cdef LogTail log = partition.log
        cdef bint flexible = self.api_version >= FIRST_FLEXIBLE
        cdef Py_ssize_t name_bytes = PyBytes_GET_SIZE(self.topic_bytes)
        cdef Py_ssize_t tail_bytes = 3 if flexible else 0
        cdef Py_ssize_t region_bytes = 0 if self.region is None else self.region.length
        cdef bytes head = PyBytes_FromStringAndSize(NULL, LONGEST_HEAD + name_bytes + tail_bytes)
        cdef uint8_t* first = <uint8_t*>PyBytes_AS_STRING(head)
        cdef uint8_t* p = first + 4
        store_i32(p, self.correlation_id)
        p += 4
        if flexible:
            p[0] = 0                                    # tagged fields of the header
            p += 1
        store_i32(p, 0)                                 # throttle time
        p += 4
        if self.api_version >= FIRST_WITH_SESSIONS:
            store_i16(p, 0)                             # error code
            store_i32(p + 2, 0)                         # session id
            p += 6
        if flexible:
            p[0] = 2                                    # one topic
            p = put_uvarint(p + 1, name_bytes + 1)
        else:
            store_i32(p, 1)
            store_i16(p + 4, <int16_t>name_bytes)
            p += 6
        memcpy(p, PyBytes_AS_STRING(self.topic_bytes), name_bytes)
        p += name_bytes
        if flexible:
            p[0] = 2                                    # one partition
            p += 1
        else:
            store_i32(p, 1)
            p += 4
        store_i32(p, self.number)
        store_i16(p + 4, 0)                             # error code
        store_i64(p + 6, log.high_watermark)
        store_i64(p + 14, log.high_watermark)           # the last stable offset
        p += 22
        if self.api_version >= FIRST_WITH_START_OFFSET:
            store_i64(p, log.log_start_offset)
            p += 8
        # Aborted transactions: none, or for those who read what is not committed null.
        if flexible:
            p[0] = 1 if self.read_committed else 0
            p += 1
        else:
            store_i32(p, 0 if self.read_committed else NONE)
            p += 4
        if self.api_version >= FIRST_WITH_RACK:
            store_i32(p, NONE)                          # preferred read replica
            p += 4
        if flexible:
            p = put_uvarint(p, region_bytes + 1)
        else:
            store_i32(p, <int32_t>region_bytes)
            p += 4
        store_i32(first, <int32_t>(p - first - 4 + region_bytes + tail_bytes))
        self.length = p - first + region_bytes + tail_bytes
        if self.region is None:
            if flexible:
                p[0] = p[1] = p[2] = 0                  # tagged fields
            self.parts = head[: p - first + tail_bytes]
        elif flexible:
            self.parts = (head[: p - first], self.region, b"\0\0\0")
        else:
            self.parts = (head[: p - first], self.region)
        self.region = None
        self.state = ANSWERED_C
        return 0

    # ---- waiting ----

    cdef int park(self, int32_t max_wait_ms) except -1:
        cdef FetchLane lane = self.lane
        cdef double end_s = lane.ctx.clock.monotonic_s() + max_wait_ms / 1000.0
        self.tick = <int64_t>ceil(end_s * TICKS_PER_S)
        waiting = lane.ticks.get(self.tick)
        if waiting is None:
            waiting = lane.ticks[self.tick] = {}
            lane.ctx.deadlines.add(self.tick / <double>TICKS_PER_S, lane.end_due)
        waiting[self] = None
        self.partition._listeners[self] = None
        self.on_drain = self.answer
        return 0

    cdef int leave(self) except -1:
        cdef dict waiting
        self.on_drain = None
        if self.tick is not None:
            waiting = self.lane.ticks.get(self.tick)
            if waiting is not None:
                waiting.pop(self, None)
            self.partition._listeners.pop(self, None)
            self.tick = None
        return 0

    def progressed(self, _partition, int64_t new_bytes):
        self.needed_bytes -= new_bytes
        if self.needed_bytes <= 0 or new_bytes == 0:
            self.answer()

    def answer(self):
        if self.state != OPEN_C:
            return
        self.leave()
        if self.look():
            self.settle()
        else:
            parts, length = self.lane.general(self)
            self.parts = parts
            self.length = length
            self.state = ANSWERED_C
        (<ResponseRing>self.connection).finished(self)

    def cancel(self):
        if self.state == OPEN_C:
            self.leave()
            self.state = CANCELLED_C
        elif type(self.parts) is not bytes and self.parts is not None:
            for part in self.parts:
                if hasattr(part, "file"):
                    part.file.release()
        self.parts = None


@cython.final
cdef class FetchLane:

    def __init__(self, PartitionTable table not None, ctx, general not None):
        self.table = table
        self.ctx = ctx
        self.general = general
        self.ticks = {}

    def end_due(self):
        cdef FetchEntry fetch
        cdef double now_s = self.ctx.clock.monotonic_s()
        for tick in [tick for tick in self.ticks if tick / <double>TICKS_PER_S <= now_s]:
            waiting = self.ticks.pop(tick)
            for fetch in list(waiting):
                fetch.answer()

    cdef bint take(
        self, ResponseRing connection, const uint8_t* p, const uint8_t* end, int version,
        int32_t correlation_id, Py_ssize_t size_bytes,
    ) except -1:
        cdef bint flexible = version >= FIRST_FLEXIBLE
        cdef Cursor c
        cdef int32_t max_wait_ms, min_bytes, max_bytes, number, partition_max_bytes
        cdef int32_t current_leader_epoch = -1
        cdef int64_t name_bytes, fetch_offset, length
        cdef int isolation
        cdef Py_ssize_t i
        cdef const uint8_t* name
        cdef FetchEntry fetch
        cdef PartitionHead partition
        c.p = p
        c.end = end
        if c.end - c.p < 17 + 8 * (version >= FIRST_WITH_SESSIONS):
            return False
        if load_i32(c.p) >= 0:                          # a follower
            return False
        max_wait_ms = load_i32(c.p + 4)
        min_bytes = load_i32(c.p + 8)
        max_bytes = load_i32(c.p + 12)
        isolation = c.p[16]
        c.p += 17
        if version >= FIRST_WITH_SESSIONS:
            if load_i32(c.p) != 0 or load_i32(c.p + 4) != NO_SESSION:
                return False
            c.p += 8
        if read_length(&c, flexible, 4) != 1:
            return False
        name_bytes = read_length(&c, flexible, 2)
        if name_bytes < 0 or name_bytes > 0x7FFF or name_bytes > c.end - c.p:
            return False
        name = c.p
        c.p += name_bytes
        if read_length(&c, flexible, 4) != 1:
            return False
        if c.end - c.p < (
            16
            + 8 * (version >= FIRST_WITH_START_OFFSET)
            + 4 * (version >= FIRST_WITH_LEADER_EPOCH)
            + 4 * flexible
        ):
            return False
        number = load_i32(c.p)
        c.p += 4
        if version >= FIRST_WITH_LEADER_EPOCH:
            current_leader_epoch = load_i32(c.p)
            c.p += 4
        fetch_offset = load_i64(c.p)
        c.p += 8
        if flexible:
            if load_i32(c.p) != NONE:                   # last fetched epoch
                return False
            c.p += 4
        if version >= FIRST_WITH_START_OFFSET:
            c.p += 8
        partition_max_bytes = load_i32(c.p)
        c.p += 4
        if not (no_tags(&c, flexible) and no_tags(&c, flexible)):
            return False
        if version >= FIRST_WITH_SESSIONS and read_length(&c, flexible, 4) != 0:
            return False                                # forgotten topics
        if version >= FIRST_WITH_RACK:
            length = read_length(&c, flexible, 2)
            if length < 0 or length > c.end - c.p:
                return False
            if length and self.ctx.config.replica_selector_class is not None:
                return False                            # another replica may be nearer
            for i in range(length):
                if c.p[i] > 0x7F:
                    return False                        # it may not be UTF-8
            c.p += length
        if not no_tags(&c, flexible) or c.p != c.end:
            return False
        if isolation > 1 or min_bytes < 0 or max_bytes < 0 or partition_max_bytes < 0:
            return False
        partition = self.table.partition(name, name_bytes, number)
        if partition is None:
            return False
        fetch = FetchEntry.__new__(FetchEntry)
        fetch.lane = self
        fetch.partition = partition
        fetch.topic_bytes = self.table.last_name
        fetch.number = number
        fetch.api_version = version
        fetch.correlation_id = correlation_id
        fetch.current_leader_epoch = current_leader_epoch
        fetch.read_committed = isolation == 1
        fetch.fetch_offset = fetch_offset
        fetch.max_bytes = min(
            partition_max_bytes, min(max_bytes, <int64_t>self.ctx.config.fetch_max_bytes)
        )
        fetch.connection = connection
        if fetch.is_cold() or not fetch.look():
            return False
        if fetch.region is None and min_bytes > 0 and max_wait_ms > 0:
            if max_wait_ms < LEAST_WAIT_MS or max_wait_ms > MOST_WAIT_MS:
                return False
            fetch.needed_bytes = min_bytes
            fetch.park(max_wait_ms)
            fetch.parked_bytes = size_bytes
            connection.ring.append(fetch)
            connection.parked_count += 1
            connection.parked_bytes += size_bytes
            return True
        if fetch.region is not None and fetch.region.length < min_bytes and max_wait_ms > 0:
            fetch.region.file.release()
            return False
        fetch.settle()
        connection.ring.append(fetch)
        connection.mark_dirty()
        return True
