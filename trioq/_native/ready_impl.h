/* epoll_wait() with microseconds; on systems without epoll it fails with ENOSYS. */
#ifndef TRIOQ_READY_IMPL_H
#define TRIOQ_READY_IMPL_H

#include <stdint.h>

typedef struct {
    int fd;
    uint32_t mask;
} trioq_ready_event;

enum { TRIOQ_MOST_READY = 1024 };

/* Fills `events` with up to TRIOQ_MOST_READY of those that are ready, after waiting for the first for up
 * to `wait_us` (0: not at all). Returns how many, or -1 and errno. */
int trioq_ready(int epoll_fd, trioq_ready_event *events, int wait_us);

#endif
