#define _GNU_SOURCE
#include "ready_impl.h"

#include <errno.h>

#ifdef __linux__

#include <poll.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif

enum { SIGNAL_SET_BYTES = 8 };

/* epoll_wait() counts in milliseconds; epoll_pwait2() came with Linux 5.11, and not to every libc. */
static int wait_for(int epoll_fd, struct epoll_event *found, int wait_us) {
    static int is_missing;
    struct timespec wait = {.tv_sec = wait_us / 1000000, .tv_nsec = wait_us % 1000000 * 1000L};
    if (wait_us > 0 && !is_missing) {
        struct {
            int64_t seconds, nanoseconds;
        } longest = {wait.tv_sec, wait.tv_nsec};
        int count = (int)syscall(SYS_epoll_pwait2, epoll_fd, found, TRIOQ_MOST_READY, &longest, NULL,
                                 (size_t)SIGNAL_SET_BYTES);
        if (count >= 0 || (errno != ENOSYS && errno != EPERM)) return count;
        is_missing = 1;
    }
    if (wait_us > 0) {
        struct pollfd one = {.fd = epoll_fd, .events = POLLIN};
        int count = ppoll(&one, 1, &wait, NULL);
        if (count <= 0) return count;
    }
    return epoll_wait(epoll_fd, found, TRIOQ_MOST_READY, 0);
}

int trioq_ready(int epoll_fd, trioq_ready_event *events, int wait_us) {
    struct epoll_event found[TRIOQ_MOST_READY];
    int count = wait_for(epoll_fd, found, wait_us);
    for (int i = 0; i < count; i++) {
        events[i].fd = found[i].data.fd;
        events[i].mask = found[i].events;
    }
    return count;
}

#else

int trioq_ready(int epoll_fd, trioq_ready_event *events, int wait_us) {
    (void)epoll_fd, (void)events, (void)wait_us;
    errno = ENOSYS;
    return -1;
}

#endif
