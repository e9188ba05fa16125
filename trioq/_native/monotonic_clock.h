#ifndef TRIOQ_MONOTONIC_CLOCK_H
#define TRIOQ_MONOTONIC_CLOCK_H

#include <stdint.h>
#include <time.h>

/* The clock of time.monotonic(), which needs no interpreter lock. */
static inline int64_t trioq_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

#endif
