# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
"""System calls on sockets and files, with the interpreter lock kept for small ones.

The contract is in socket_io.pyi. Each call compares its range with the buffer once, then calls.
"""

from cpython.buffer cimport (
    PyBUF_SIMPLE,
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.errno cimport EAGAIN, EINTR, EIO, errno
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memset, strerror

from trioq._native.gil cimport RELEASE_ABOVE_BYTES


cdef extern from "<sys/uio.h>" nogil:
    cdef struct iovec:
        void* iov_base
        size_t iov_len


cdef extern from "<sys/socket.h>" nogil:
    cdef struct msghdr:
        iovec* msg_iov
        size_t msg_iovlen
    ssize_t recv(int fd, void* into, size_t length, int flags)
    ssize_t _send "send"(int fd, const void* data, size_t length, int flags)
    ssize_t _sendmsg "sendmsg"(int fd, const msghdr* message, int flags)


cdef extern from "<unistd.h>" nogil:
    ssize_t pread(int fd, void* into, size_t length, int64_t position)


cdef extern from "monotonic_clock.h" nogil:
    int64_t trioq_now_ns()


cdef extern from "socket_io_impl.h" nogil:
    int trioq_send_flags()
    int trioq_iov_max()
    int trioq_more_flag()
    ssize_t trioq_sendfile(int out_fd, int in_fd, int64_t position, size_t count)
    ssize_t trioq_pwritev(int fd, const iovec* buffers, int count, int64_t position)
    int64_t trioq_sleeps()
    enum:
        TRIOQ_HOST_SIZE
    int trioq_accept(int fd, char* host, int* port)


cdef int SEND_FLAGS = trioq_send_flags()
cdef int MORE = trioq_more_flag()

IOV_MAX = trioq_iov_max()


cdef int _check_range(Py_buffer* view, Py_ssize_t start, Py_ssize_t length) except -1:
    if start < 0 or length < 0 or length > view.len - start:
        raise ValueError(f"{length} bytes at {start} are outside the buffer of {view.len} bytes")
    return 0


cdef bint _retry(int error) except *:
    # After a failed call: True to call again, False when it would block; else raises.
    if error == EINTR:
        PyErr_CheckSignals()
        return True
    if error == EAGAIN:  # EWOULDBLOCK is the same number on Linux and macOS
        return False
    raise OSError(error, strerror(error).decode("utf-8", "replace"))


cdef ssize_t send_some(int fd, const uint8_t* data, size_t length) noexcept:
    cdef ssize_t sent = _send(fd, data, length, SEND_FLAGS)
    if sent < 0 and errno != EAGAIN:
        return -2
    return sent


cdef ssize_t receive_some(int fd, uint8_t* into, size_t length) noexcept:
    cdef ssize_t got = recv(fd, into, length, 0)
    if got < 0 and errno != EAGAIN:
        return -2
    return got


def accept(int fd):
    cdef char host[TRIOQ_HOST_SIZE]
    cdef int port
    cdef int accepted
    while True:
        accepted = trioq_accept(fd, host, &port)
        if accepted >= 0:
            return accepted, host.decode("ascii"), port
        if not _retry(errno):
            return None


def recv_into(int fd, buf, Py_ssize_t start, Py_ssize_t length):
    cdef Py_buffer view
    cdef ssize_t got
    cdef uint8_t* into
    cdef int error
    PyObject_GetBuffer(buf, &view, PyBUF_WRITABLE)
    try:
        _check_range(&view, start, length)
        into = <uint8_t*>view.buf + start
        while True:
            if length > RELEASE_ABOVE_BYTES:
                with nogil:
                    got = recv(fd, into, length, 0)
                    error = errno
            else:
                got = recv(fd, into, length, 0)
                error = errno
            if got >= 0:
                return got
            if not _retry(error):
                return -1
    finally:
        PyBuffer_Release(&view)


def send(int fd, buf, Py_ssize_t start, Py_ssize_t length, bint more=False):
    cdef int flags = SEND_FLAGS | MORE if more else SEND_FLAGS
    cdef Py_buffer view
    cdef ssize_t sent
    cdef const uint8_t* data
    cdef int error
    PyObject_GetBuffer(buf, &view, PyBUF_SIMPLE)
    try:
        _check_range(&view, start, length)
        data = <const uint8_t*>view.buf + start
        while True:
            if length > RELEASE_ABOVE_BYTES:
                with nogil:
                    sent = _send(fd, data, length, flags)
                    error = errno
            else:
                sent = _send(fd, data, length, flags)
                error = errno
            if sent >= 0:
                return sent
            if not _retry(error):
                return -1
    finally:
        PyBuffer_Release(&view)


# ---- gathered calls ----


cdef class _Gather:
    """Buffers borrowed for one gathered call, given back when it is deallocated or closed."""

    cdef Py_buffer* views
    cdef iovec* vectors
    cdef Py_ssize_t count       # buffers held
    cdef size_t total_bytes

    def __dealloc__(self):
        self.release()

    cdef void release(self) noexcept:
        cdef Py_ssize_t i
        for i in range(self.count):
            PyBuffer_Release(&self.views[i])
        self.count = 0
        PyMem_Free(self.views)
        PyMem_Free(self.vectors)
        self.views = NULL
        self.vectors = NULL


cdef _Gather _borrow(list buffers, Py_ssize_t limit):
    # The first `limit` buffers.
    cdef _Gather gather = _Gather.__new__(_Gather)
    cdef Py_ssize_t wanted = min(len(buffers), limit)
    cdef Py_ssize_t i
    if wanted == 0:
        return gather
    gather.views = <Py_buffer*>PyMem_Malloc(wanted * sizeof(Py_buffer))
    gather.vectors = <iovec*>PyMem_Malloc(wanted * sizeof(iovec))
    if gather.views == NULL or gather.vectors == NULL:
        raise MemoryError
    for i in range(wanted):
        if i >= len(buffers):
            raise ValueError("the list of buffers changed while it was borrowed")
        PyObject_GetBuffer(buffers[i], &gather.views[i], PyBUF_SIMPLE)
        gather.count = i + 1
        gather.vectors[i].iov_base = gather.views[i].buf
        gather.vectors[i].iov_len = gather.views[i].len
        gather.total_bytes += gather.views[i].len
    return gather


def sendmsg(int fd, list buffers not None, Py_ssize_t first_offset, bint more=False):
    cdef int flags = SEND_FLAGS | MORE if more else SEND_FLAGS
    cdef _Gather gather = _borrow(buffers, trioq_iov_max())
    cdef msghdr message
    cdef ssize_t sent
    cdef int error
    try:
        if gather.count == 0:
            return 0
        if first_offset < 0 or first_offset > gather.views[0].len:
            raise ValueError(f"{first_offset} is outside the first buffer")
        gather.vectors[0].iov_base = <uint8_t*>gather.views[0].buf + first_offset
        gather.vectors[0].iov_len -= first_offset
        gather.total_bytes -= first_offset
        memset(&message, 0, sizeof(message))
        message.msg_iov = gather.vectors
        message.msg_iovlen = gather.count
        while True:
            if gather.total_bytes > RELEASE_ABOVE_BYTES:
                with nogil:
                    sent = _sendmsg(fd, &message, flags)
                    error = errno
            else:
                sent = _sendmsg(fd, &message, flags)
                error = errno
            if sent >= 0:
                return sent
            if not _retry(error):
                return -1
    finally:
        gather.release()


def sendfile(int out_fd, int in_fd, int64_t position, Py_ssize_t count):
    cdef ssize_t sent
    cdef int error
    if position < 0 or count < 0:
        raise ValueError(f"{count} bytes at {position} are no range of a file")
    while True:
        if count > RELEASE_ABOVE_BYTES:
            with nogil:
                sent = trioq_sendfile(out_fd, in_fd, position, count)
                error = errno
        else:
            sent = trioq_sendfile(out_fd, in_fd, position, count)
            error = errno
        if sent >= 0:
            return sent
        if not _retry(error):
            return -1


# ---- files ----


cdef int _write_all(
    int fd, iovec* vectors, Py_ssize_t count, int64_t* position, Py_ssize_t* done
) noexcept nogil:
    # Writes vectors[done:], advancing them and `position` over short writes; 0 or errno.
    cdef ssize_t written
    cdef Py_ssize_t some
    cdef int at_most = trioq_iov_max()
    while True:
        while done[0] < count and vectors[done[0]].iov_len == 0:
            done[0] += 1
        if done[0] == count:
            return 0
        some = count - done[0]
        if some > at_most:
            some = at_most
        written = trioq_pwritev(fd, vectors + done[0], <int>some, position[0])
        if written < 0:
            return errno
        if written == 0:
            return EIO
        position[0] += written
        while written > 0:
            if <size_t>written < vectors[done[0]].iov_len:
                vectors[done[0]].iov_base = <uint8_t*>vectors[done[0]].iov_base + written
                vectors[done[0]].iov_len -= written
                break
            written -= vectors[done[0]].iov_len
            done[0] += 1


cdef int _write_timed(
    int fd, iovec* vectors, Py_ssize_t count, int64_t* position, Py_ssize_t* done, int64_t* took_ns
) noexcept nogil:
    # As _write_all; adds the time that it took to `took_ns`.
    cdef int64_t started_ns = trioq_now_ns()
    cdef int error = _write_all(fd, vectors, count, position, done)
    took_ns[0] += trioq_now_ns() - started_ns
    return error


cdef int _write_long(
    int fd, iovec* vectors, Py_ssize_t count, int64_t* position, Py_ssize_t* done, int64_t* took_ns
) noexcept nogil:
    # As _write_timed, but a call in which the thread never slept counts as none: the disk took
    # none of that time, though other threads may have had the processor for much of it.
    cdef int64_t sleeps = trioq_sleeps()
    cdef int64_t before_ns = took_ns[0]
    cdef int error = _write_timed(fd, vectors, count, position, done, took_ns)
    if sleeps >= 0 and trioq_sleeps() == sleeps:
        took_ns[0] = before_ns
    return error


def pwritev_all(int fd, list buffers not None, int64_t position):
    cdef _Gather gather = _borrow(buffers, len(buffers))
    cdef Py_ssize_t done = 0
    cdef int error
    cdef int64_t took_ns = 0
    try:
        while True:
            if gather.total_bytes > RELEASE_ABOVE_BYTES:
                with nogil:
                    error = _write_long(
                        fd, gather.vectors, gather.count, &position, &done, &took_ns
                    )
            else:
                error = _write_timed(fd, gather.vectors, gather.count, &position, &done, &took_ns)
            if error == 0:
                return took_ns * 1e-9
            if error != EINTR:
                raise OSError(error, strerror(error).decode("utf-8", "replace"))
            PyErr_CheckSignals()
    finally:
        gather.release()


def pread_into(int fd, buf, int64_t position, Py_ssize_t length):
    cdef Py_buffer view
    cdef Py_ssize_t done = 0
    cdef ssize_t got
    cdef int error
    PyObject_GetBuffer(buf, &view, PyBUF_WRITABLE)
    try:
        _check_range(&view, 0, length)
        while done < length:
            if length - done > RELEASE_ABOVE_BYTES:
                with nogil:
                    got = pread(fd, <uint8_t*>view.buf + done, length - done, position + done)
                    error = errno
            else:
                got = pread(fd, <uint8_t*>view.buf + done, length - done, position + done)
                error = errno
            if got == 0:
                break
            if got > 0:
                done += got
            elif error == EINTR:
                PyErr_CheckSignals()
            else:
                raise OSError(error, strerror(error).decode("utf-8", "replace"))
        return done
    finally:
        PyBuffer_Release(&view)
