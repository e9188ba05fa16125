/* A histogram of nanoseconds with 1,024 buckets for each power of two (error below 0.1 %).
 *
 * bench/histogram.py reads what histogram_print writes, and knows the same bucket numbers.
 */
#ifndef BENCH_HISTOGRAM_H
#define BENCH_HISTOGRAM_H

#include "common.h"

enum { SUB_BITS = 10, SUB_BUCKETS = 1 << SUB_BITS, HISTOGRAM_BUCKETS = (65 - SUB_BITS) * SUB_BUCKETS };

typedef struct {
    uint64_t *buckets;
    uint64_t largest;
} Histogram;

static inline Histogram histogram_new(void) {
    return (Histogram){allocate(HISTOGRAM_BUCKETS, sizeof(uint64_t)), 0};
}

/* Values below 2,048 have a bucket each; above, the 11 leading bits choose it. */
static inline size_t histogram_bucket(uint64_t value) {
    if (value < 2 * SUB_BUCKETS) return (size_t)value;
    int shift = 63 - __builtin_clzll(value) - SUB_BITS;
    return (size_t)shift * SUB_BUCKETS + (size_t)(value >> shift);
}

static inline void histogram_add(Histogram *h, uint64_t value) {
    h->buckets[histogram_bucket(value)]++;
    if (value > h->largest) h->largest = value;
}

/* [[bucket, count], ...] of the buckets in use. */
static inline void histogram_print(const Histogram *h) {
    const char *separator = "";
    printf("[");
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++)
        if (h->buckets[i]) {
            printf("%s[%zu, %llu]", separator, i, (unsigned long long)h->buckets[i]);
            separator = ", ";
        }
    printf("]");
}

#endif
