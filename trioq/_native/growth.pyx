# cython: language_level=3, embedsignature=True
"""Grows a bytearray without writing to it; the contract is in growth.pyi."""

from cpython.bytearray cimport PyByteArray_GET_SIZE, PyByteArray_Resize


def grow(bytearray buffer not None, Py_ssize_t size_bytes):
    if size_bytes < 0:
        raise ValueError(f"cannot grow by {size_bytes} bytes")
    PyByteArray_Resize(buffer, PyByteArray_GET_SIZE(buffer) + size_bytes)
