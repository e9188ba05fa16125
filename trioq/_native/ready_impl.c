#define _GNU_SOURCE
#include "ready_impl.h"

#include <errno.h>

#ifdef __linux__

#include <poll.h>
#include <sys/epoll.h>
#include <time.h>

int trioq_ready(int epoll_fd, trioq_ready_event *events, int wait_us) {
    struct epoll_event found[TRIOQ_MOST_READY];
    if (wait_us > 0) {
        /* epoll_wait() counts in milliseconds, and epoll_pwait2() is not everywhere yet. */
        struct pollfd one = {.fd = epoll_fd, .events = POLLIN};
        struct timespec wait = {.tv_sec = wait_us / 1000000, .tv_nsec = wait_us % 1000000 * 1000L};
        int count = ppoll(&one, 1, &wait, NULL);
        if (count <= 0) return count;
    }
    int count = epoll_wait(epoll_fd, found, TRIOQ_MOST_READY, 0);
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
