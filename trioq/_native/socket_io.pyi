"""System calls on non-blocking sockets and on files.

Buffers are borrowed until return. A call that may move more than 64 KiB releases the interpreter
lock, a smaller one keeps it. Interrupted calls are repeated after Python's signal handlers ran.
Errors other than "would block" are OSError; a range outside its buffer is ValueError.
"""

from typing import TypeVar

from typing_extensions import Buffer

_AnyBuffer = TypeVar("_AnyBuffer", bound=Buffer)

IOV_MAX: int
"""Most buffers one gathered system call takes."""

def accept(fd: int) -> tuple[int, str, int] | None:
    """Accept a connection of a non-blocking listening socket: its descriptor, which is the
    caller's, non-blocking and not inherited, and the peer's host and port; None would block.

    The interpreter lock is kept: beside a busy thread of Python a broker would lose it for
    milliseconds with every connection.
    """

def recv_into(fd: int, buf: Buffer, start: int, length: int) -> int:
    """Receive at most `length` bytes into buf[start:]: bytes received, 0 at EOF, -1 would block."""

def send(fd: int, buf: Buffer, start: int, length: int, more: bool = False) -> int:
    """Send buf[start:start+length]: bytes taken, possibly fewer; -1 would block.

    With `more` the kernel may wait for what follows at once, to put both in one packet.
    """

def sendmsg(fd: int, buffers: list[_AnyBuffer], first_offset: int, more: bool = False) -> int:
    """Send the buffers in one call, without the first `first_offset` bytes of the first one.

    `more` as in `send`. Buffers beyond IOV_MAX are left for a later call. Returns bytes taken,
    possibly fewer than given (0 only when there is nothing to send); -1 would block.
    """

def sendfile(out_fd: int, in_fd: int, position: int, count: int) -> int:
    """Send bytes [position, position + count) of a file, or as many as the socket takes.

    Returns bytes taken; 0 at the file's end; -1 would block.
    """

def pwritev_all(fd: int, buffers: list[_AnyBuffer], position: int) -> float:
    """Write all buffers, in order, from `position` on.

    Returns the seconds that the system's calls took, without any wait for the interpreter lock, and
    on Linux for more than 64 KiB 0 where none of them had to wait for anything but the processor.
    Short writes are continued. After an OSError any part may have been written.
    """

def pread_into(fd: int, buf: Buffer, position: int, length: int) -> int:
    """Read `length` bytes at `position` into the start of `buf`; fewer only at the file's end."""
