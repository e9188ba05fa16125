"""Small system calls on sockets for the other native modules; the interpreter lock is kept."""

from libc.stdint cimport uint8_t


# Bytes taken or received; -1 when it would block, -2 for an error, which the next call of the
# functions of socket_io.pyi meets again.
cdef ssize_t send_some(int fd, const uint8_t* data, size_t length) noexcept
cdef ssize_t receive_some(int fd, uint8_t* into, size_t length) noexcept
