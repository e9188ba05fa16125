#if defined(__linux__)
#define _GNU_SOURCE
#endif
#include "socket_io_impl.h"

#include <errno.h>
#include <limits.h>
#include <sys/socket.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/resource.h>
#include <sys/sendfile.h>
#endif

int trioq_send_flags(void) {
#if defined(MSG_NOSIGNAL)
    return MSG_NOSIGNAL;
#else
    return 0; /* Python ignores SIGPIPE */
#endif
}

int trioq_more_flag(void) {
#if defined(MSG_MORE)
    return MSG_MORE;
#else
    return 0;
#endif
}

int trioq_iov_max(void) {
#if defined(IOV_MAX)
    return IOV_MAX;
#else
    return 1024;
#endif
}

ssize_t trioq_sendfile(int out_fd, int in_fd, int64_t position, size_t count) {
#if defined(__linux__)
    off_t offset = (off_t)position;
    return sendfile(out_fd, in_fd, &offset, count);
#else
    uint8_t piece[16384];
    size_t moved = 0;
    while (moved < count) {
        size_t wanted = count - moved < sizeof(piece) ? count - moved : sizeof(piece);
        ssize_t got = pread(in_fd, piece, wanted, (off_t)(position + (int64_t)moved));
        if (got <= 0) {
            return moved > 0 ? (ssize_t)moved : got;
        }
        ssize_t sent = send(out_fd, piece, (size_t)got, trioq_send_flags());
        if (sent < 0) {
            return moved > 0 ? (ssize_t)moved : sent;
        }
        moved += (size_t)sent;
        if (sent < got) {
            break;
        }
    }
    return (ssize_t)moved;
#endif
}

ssize_t trioq_pwritev(int fd, const struct iovec *buffers, int count, int64_t position) {
#if defined(__linux__)
    return pwritev(fd, buffers, count, (off_t)position);
#else
    for (int i = 0; i < count; i++) {
        if (buffers[i].iov_len > 0) {
            return pwrite(fd, buffers[i].iov_base, buffers[i].iov_len, (off_t)position);
        }
    }
    return 0;
#endif
}

int64_t trioq_sleeps(void) {
#if defined(__linux__)
    struct rusage usage;
    return getrusage(RUSAGE_THREAD, &usage) == 0 ? (int64_t)usage.ru_nvcsw : -1;
#else
    return -1;
#endif
}
