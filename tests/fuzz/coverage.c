/* Coverage of native code for libFuzzer, where the compiler is gcc. Preloaded by runner.py; engine.py
 * connects it.
 *
 * At every edge gcc calls __sanitizer_cov_trace_pc (-fsanitize-coverage=trace-pc), which libFuzzer
 * has dropped: each place counts in one of its 8-bit counters instead. Comparisons (trace-cmp) are
 * handed on to libFuzzer, which is loaded later, by tail calls: it goes by the caller's address. */

#include <stdint.h>

enum { SLOT_BITS = 15, SLOTS = 1 << SLOT_BITS };

uint8_t trioq_counters[SLOTS];
uintptr_t trioq_places[SLOTS][2]; /* address and flags, as libFuzzer wants a table of them */

void __sanitizer_cov_trace_pc(void) {
    uint64_t place = (uintptr_t)__builtin_return_address(0);
    trioq_counters[(place * UINT64_C(0x9E3779B97F4A7C15)) >> (64 - SLOT_BITS)]++;
}

#define COMPARISON(name, type)                                                          \
    static void ignore_##name(type left, type right) { (void)left, (void)right; }       \
    void (*trioq_##name)(type, type) = ignore_##name;                                   \
    void __sanitizer_cov_trace_##name(type left, type right) { trioq_##name(left, right); }

COMPARISON(cmp1, uint8_t)
COMPARISON(cmp2, uint16_t)
COMPARISON(cmp4, uint32_t)
COMPARISON(cmp8, uint64_t)
COMPARISON(const_cmp1, uint8_t)
COMPARISON(const_cmp2, uint16_t)
COMPARISON(const_cmp4, uint32_t)
COMPARISON(const_cmp8, uint64_t)
COMPARISON(cmpf, float) /* libFuzzer does not trace these two */
COMPARISON(cmpd, double)

static void ignore_switch(uint64_t value, uint64_t *cases) { (void)value, (void)cases; }
void (*trioq_switch)(uint64_t, uint64_t *) = ignore_switch;
void __sanitizer_cov_trace_switch(uint64_t value, uint64_t *cases) { trioq_switch(value, cases); }

int trioq_slots(void) {
    for (int i = 0; i < SLOTS; i++) {
        trioq_places[i][0] = (uintptr_t)(i + 1);
    }
    return SLOTS;
}
