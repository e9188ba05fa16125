# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
"""Splits a receive buffer into request frames; the contract is in frames.pyi."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.string cimport memcmp

from trioq._native.bigendian cimport load_i32

from trioq.errors import ProtocolViolation


cdef enum:
    LENGTH_BYTES_C = 4

LENGTH_BYTES = LENGTH_BYTES_C


cdef object _refusal(int64_t length, int64_t max_frame_bytes, const uint8_t* p, Py_ssize_t there):
    # `there`: bytes readable at p, the length field included.
    if there >= 4 and (
        memcmp(p, b"GET ", 4) == 0
        or memcmp(p, b"POST", 4) == 0
        or memcmp(p, b"PUT ", 4) == 0
        or memcmp(p, b"HEAD", 4) == 0
        or memcmp(p, b"OPTI", 4) == 0
    ):
        looks = ": this looks like an HTTP request, the listener speaks Kafka's protocol"
    elif there >= 2 and p[0] == 0x16 and p[1] == 0x03:
        looks = ": this looks like a TLS hello, the listener speaks plain text"
    else:
        looks = ""
    if length <= 0:
        return ProtocolViolation(f"frame length {length} is not positive{looks}")
    return ProtocolViolation(f"frame length {length} is over the limit of {max_frame_bytes}{looks}")


def split(buf, Py_ssize_t start, Py_ssize_t end, int64_t max_frame_bytes, Py_ssize_t max_frames):
    cdef Py_buffer view
    cdef const uint8_t* p
    cdef int64_t length
    cdef Py_ssize_t needed = 0
    cdef list frames = []
    PyObject_GetBuffer(buf, &view, PyBUF_SIMPLE)
    try:
        if start < 0 or end < start or end > view.len:
            raise ValueError(f"[{start}, {end}) is outside the buffer of {view.len} bytes")
        while end - start >= LENGTH_BYTES_C:
            p = <const uint8_t*>view.buf + start
            length = load_i32(p)
            if length <= 0 or length > max_frame_bytes:
                raise _refusal(length, max_frame_bytes, p, end - start)
            needed = LENGTH_BYTES_C + length
            if needed > end - start or max_frames <= 0:
                break
            frames.append((start + LENGTH_BYTES_C, start + needed))
            start += needed
            max_frames -= 1
            needed = 0
    finally:
        PyBuffer_Release(&view)
    return frames, start, needed
