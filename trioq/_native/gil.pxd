"""When native calls give up the interpreter lock."""

cdef enum:
    # Up to this much work keeps the lock: giving it away can cost the loop milliseconds to get it
    # back, and 64 KiB take microseconds. Longer work runs over borrowed buffers without it.
    RELEASE_ABOVE_BYTES = 65536
