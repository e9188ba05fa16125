"""Growing a receive buffer without clearing memory that is about to be received into."""

def grow(buffer: bytearray, size_bytes: int) -> None:
    """Append `size_bytes` bytes of unspecified content to `buffer`.

    Large buffers are moved by remapping pages, not by copying. The new bytes must not be
    read, or handed to anybody, before they are written. Raises BufferError while the buffer is
    borrowed, ValueError for a negative size, MemoryError.
    """
