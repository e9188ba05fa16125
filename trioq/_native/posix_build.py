"""cffi build of trioq._native._posix: advice to the kernel about files.

What a system lacks does nothing here and answers as posix.py documents; each choice between
systems is made in the C below and nowhere else. Functions return 0 or an errno.
"""

from cffi import FFI

ffibuilder = FFI()
ffibuilder.cdef(
    """
    int trioq_resident(int fd, int64_t position, int64_t length);
    int trioq_resident_by_mincore(int fd, int64_t position, int64_t length);
    int trioq_preallocate(int fd, int64_t position, int64_t length);
    int trioq_sync_range(int fd, int64_t position, int64_t length);
    int trioq_advise(int fd, int64_t position, int64_t length, int advice);
    int trioq_read_ahead(int fd, int64_t position, int64_t length);
    void trioq_keep_freed_memory(int top_bytes, int block_bytes);
    """
)
ffibuilder.set_source(
    "trioq._native._posix",
    r"""
#if defined(__linux__)
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#endif
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#if defined(__linux__)
/* cachestat(2), Linux 6.5; the number is the same on every architecture. */
#define TRIOQ_SYS_CACHESTAT 451
struct trioq_cachestat_range { uint64_t off, len; };
struct trioq_cachestat {
    uint64_t nr_cache, nr_dirty, nr_writeback, nr_evicted, nr_recently_evicted;
};

/* Set once the kernel said it has no cachestat (or a sandbox refused it). */
static volatile int cachestat_missing = 0;

#define MINCORE_PAGES 1024
#endif

/* 1 if all pages of the range that lie in the file are in memory, 0 if not, -errno. */
int trioq_resident_by_mincore(int fd, int64_t position, int64_t length) {
#if defined(__linux__)
    struct stat status;
    int64_t page = sysconf(_SC_PAGESIZE);
    unsigned char in_memory[MINCORE_PAGES];
    if (fstat(fd, &status) != 0) {
        return -errno;
    }
    int64_t end = status.st_size - position < length ? status.st_size : position + length;
    int64_t most = MINCORE_PAGES * page;
    for (int64_t start = position - position % page; start < end; start += most) {
        size_t span = (size_t)(end - start < most ? end - start : most);
        void *mapped = mmap(NULL, span, PROT_READ, MAP_SHARED, fd, (off_t)start);
        if (mapped == MAP_FAILED) {
            return -errno;
        }
        int failed = mincore(mapped, span, in_memory) != 0 ? errno : 0;
        munmap(mapped, span);
        if (failed) {
            return -failed;
        }
        for (size_t i = 0; i < (span + page - 1) / page; i++) {
            if (!(in_memory[i] & 1)) {
                return 0;
            }
        }
    }
#endif
    return 1;
}

/* As above, by cachestat where the kernel has it. */
int trioq_resident(int fd, int64_t position, int64_t length) {
#if defined(__linux__)
    if (!cachestat_missing) {
        struct stat status;
        int64_t page = sysconf(_SC_PAGESIZE);
        if (fstat(fd, &status) != 0) {
            return -errno;
        }
        int64_t end = status.st_size - position < length ? status.st_size : position + length;
        if (end <= position) {
            return 1;
        }
        struct trioq_cachestat_range range = {(uint64_t)position, (uint64_t)(end - position)};
        struct trioq_cachestat found = {0};
        if (syscall(TRIOQ_SYS_CACHESTAT, fd, &range, &found, 0) == 0) {
            uint64_t pages = (uint64_t)((end - 1) / page - position / page + 1);
            return found.nr_cache >= pages;
        }
        if (errno != ENOSYS && errno != EPERM && errno != EOPNOTSUPP) {
            return -errno;
        }
        if (errno != EOPNOTSUPP) {
            cachestat_missing = 1;
        }
    }
#endif
    return trioq_resident_by_mincore(fd, position, length);
}

int trioq_preallocate(int fd, int64_t position, int64_t length) {
#if defined(__linux__)
    int result;
    do {
        result = fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)position, (off_t)length);
    } while (result != 0 && errno == EINTR);
    return result == 0 || errno == EOPNOTSUPP || errno == ENOSYS ? 0 : errno;
#else
    return 0;
#endif
}

int trioq_sync_range(int fd, int64_t position, int64_t length) {
#if defined(__linux__)
    int result = sync_file_range(fd, position, length, SYNC_FILE_RANGE_WRITE);
    return result == 0 || errno == ENOSYS ? 0 : errno;
#else
    return 0;
#endif
}

/* advice: 0 will need, 1 will not need, 2 sequential, 3 random. */
int trioq_advise(int fd, int64_t position, int64_t length, int advice) {
#if defined(__linux__)
    static const int advices[] = {
        POSIX_FADV_WILLNEED, POSIX_FADV_DONTNEED, POSIX_FADV_SEQUENTIAL, POSIX_FADV_RANDOM};
    if (advice < 0 || advice > 3) {
        return EINVAL;
    }
    return posix_fadvise(fd, (off_t)position, (off_t)length, advices[advice]);
#elif defined(__APPLE__)
    if (advice == 0) {
        struct radvisory range = {(off_t)position, (int)(length < INT32_MAX ? length : INT32_MAX)};
        return fcntl(fd, F_RDADVISE, &range) == -1 ? errno : 0;
    }
    return advice < 0 || advice > 3 ? EINVAL : 0;
#else
    return advice < 0 || advice > 3 ? EINVAL : 0;
#endif
}

/* Have the allocator keep up to `top_bytes` of freed memory, and serve blocks up to `block_bytes`
 * from it. Only glibc has to be told. */
int trioq_read_ahead(int fd, int64_t position, int64_t length) {
    char unused[64 * 1024];
    int64_t end = position + length;
    trioq_advise(fd, position, length, 0);
    while (position < end) {
        size_t wanted = end - position < (int64_t)sizeof unused ? (size_t)(end - position)
                                                                : sizeof unused;
        ssize_t got = pread(fd, unused, wanted, (off_t)position);
        if (got > 0) {
            position += got;
        } else if (got == 0) {
            break;
        } else if (errno != EINTR) {
            return errno;
        }
    }
    return 0;
}

void trioq_keep_freed_memory(int top_bytes, int block_bytes) {
#if defined(__GLIBC__)
    mallopt(M_TRIM_THRESHOLD, top_bytes);
    mallopt(M_MMAP_THRESHOLD, block_bytes);
#else
    (void)top_bytes, (void)block_bytes;
#endif
}
""",
)
