#if defined(__linux__)
#define _GNU_SOURCE
#endif
#include "socket_io_impl.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
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

static int accept_any(int fd, struct sockaddr *address, socklen_t *size) {
#if defined(__linux__)
    return accept4(fd, address, size, SOCK_NONBLOCK | SOCK_CLOEXEC);
#else
    int accepted = accept(fd, address, size);
    if (accepted >= 0 && (fcntl(accepted, F_SETFL, O_NONBLOCK) < 0 ||
                          fcntl(accepted, F_SETFD, FD_CLOEXEC) < 0)) {
        int error = errno;
        close(accepted);
        errno = error;
        return -1;
    }
    return accepted;
#endif
}

int trioq_accept(int fd, char host[TRIOQ_HOST_SIZE], int *port) {
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } address;
    socklen_t size = sizeof(address);
    int accepted = accept_any(fd, &address.any, &size);
    host[0] = 0;
    *port = 0;
    if (accepted < 0) {
        return -1;
    }
    if (address.any.sa_family == AF_INET) {
        inet_ntop(AF_INET, &address.v4.sin_addr, host, TRIOQ_HOST_SIZE);
        *port = ntohs(address.v4.sin_port);
    } else if (address.any.sa_family == AF_INET6) {
        inet_ntop(AF_INET6, &address.v6.sin6_addr, host, TRIOQ_HOST_SIZE);
        *port = ntohs(address.v6.sin6_port);
    }
    return accepted;
}

int64_t trioq_sleeps(void) {
#if defined(__linux__)
    struct rusage usage;
    return getrusage(RUSAGE_THREAD, &usage) == 0 ? (int64_t)usage.ru_nvcsw : -1;
#else
    return -1;
#endif
}
