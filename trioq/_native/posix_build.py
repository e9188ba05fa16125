"""cffi build of trioq._native._posix (skeleton)."""

from cffi import FFI

ffibuilder = FFI()
ffibuilder.cdef("int trioq_posix_abi(void);")
ffibuilder.set_source("trioq._native._posix", "int trioq_posix_abi(void) { return 1; }")
