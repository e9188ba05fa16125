/* CRC-32C in three ways, one choice at run time.
 *
 * table          slicing-by-8, everywhere; the meaning of the other two.
 * sse4.2+pclmul  three interleaved streams of the crc32 instruction (its latency is three cycles, its
 *                throughput one), joined by carry-less multiplication.
 * armv8          the same three streams with crc32cx, joined by tables.
 *
 * Registers hold bit-reflected polynomials: bit 31 of a 32-bit word is x^0. Joining streams needs
 * "crc of A followed by n bytes" = crc(A) * x^(8n) mod P. Functions are compiled for their
 * instructions by target attributes, so the file needs no compiler flags.
 */
#include "crc32c_impl.h"

#include <string.h>

#define POLYNOMIAL UINT32_C(0x82F63B78)

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define TRIOQ_CRC_X86 1
#elif defined(__aarch64__) && !defined(__AARCH64EB__) && (defined(__GNUC__) || defined(__clang__))
#define TRIOQ_CRC_ARM 1
#endif

/* Bytes per stream; a round takes three streams. Tests walk sizes around these. */
#define LONG_STREAM 2048
#define SHORT_STREAM 256

static uint32_t table[8][256];

/* ---- polynomial arithmetic, for the constants only ---- */

/* a * b mod P. */
static uint32_t multiply(uint32_t a, uint32_t b) {
    uint32_t product = 0;
    for (int bit = 31; bit >= 0; bit--) {
        if ((a >> bit) & 1) {
            product ^= b;
        }
        b = (b >> 1) ^ ((b & 1) ? POLYNOMIAL : 0);
    }
    return product;
}

/* x^exponent mod P. */
static uint32_t power_of_x(uint64_t exponent) {
    uint32_t result = UINT32_C(1) << 31; /* x^0 */
    uint32_t square = UINT32_C(1) << 30; /* x^1 */
    for (; exponent != 0; exponent >>= 1) {
        if (exponent & 1) {
            result = multiply(result, square);
        }
        square = multiply(square, square);
    }
    return result;
}

/* ---- table ---- */

static void build_table(void) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++) {
            crc = (crc >> 1) ^ ((crc & 1) ? POLYNOMIAL : 0);
        }
        table[0][byte] = crc;
    }
    for (uint32_t byte = 0; byte < 256; byte++) {
        for (int slice = 1; slice < 8; slice++) {
            uint32_t previous = table[slice - 1][byte];
            table[slice][byte] = (previous >> 8) ^ table[0][previous & 0xFF];
        }
    }
}

static uint32_t update_table(uint32_t crc, const uint8_t *data, size_t length) {
    crc = ~crc;
    for (; length >= 8; length -= 8, data += 8) {
        uint32_t low = crc ^ ((uint32_t)data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16 |
                              (uint32_t)data[3] << 24);
        crc = table[7][low & 0xFF] ^ table[6][(low >> 8) & 0xFF] ^ table[5][(low >> 16) & 0xFF] ^
              table[4][low >> 24] ^ table[3][data[4]] ^ table[2][data[5]] ^ table[1][data[6]] ^
              table[0][data[7]];
    }
    for (; length > 0; length--, data++) {
        crc = (crc >> 8) ^ table[0][(crc ^ *data) & 0xFF];
    }
    return ~crc;
}

#if defined(TRIOQ_CRC_X86) || defined(TRIOQ_CRC_ARM)
static inline uint64_t load_u64(const uint8_t *data) {
    uint64_t value;
    memcpy(&value, data, sizeof(value));
    return value;
}
#endif

/* ---- x86-64: SSE4.2 and PCLMULQDQ ---- */

#if defined(TRIOQ_CRC_X86)
#include <immintrin.h>

#define X86_TARGET __attribute__((target("sse4.2,pclmul")))

/* Constants that move a stream's crc past the bytes that follow it: [0] past two streams, [1] past one. */
static uint64_t long_shift[2];
static uint64_t short_shift[2];

/* crc32(0, clmul(a, k)) = a * k * x^33 mod P: one x from the odd width of the reflected product and
 * x^32 from the instruction. So k = x^(8n - 33) moves a past n bytes. */
static uint64_t shift_constant(uint64_t bytes) { return power_of_x(8 * bytes - 33); }

static void build_x86_constants(void) {
    long_shift[0] = shift_constant(2 * LONG_STREAM);
    long_shift[1] = shift_constant(LONG_STREAM);
    short_shift[0] = shift_constant(2 * SHORT_STREAM);
    short_shift[1] = shift_constant(SHORT_STREAM);
}

X86_TARGET static inline uint64_t three_streams(uint64_t crc, const uint8_t *data, size_t stream,
                                                const uint64_t shift[2]) {
    uint64_t first = crc, second = 0, third = 0;
    const uint8_t *end = data + stream;
    for (; data < end; data += 16) {
        first = _mm_crc32_u64(first, load_u64(data));
        second = _mm_crc32_u64(second, load_u64(data + stream));
        third = _mm_crc32_u64(third, load_u64(data + 2 * stream));
        first = _mm_crc32_u64(first, load_u64(data + 8));
        second = _mm_crc32_u64(second, load_u64(data + stream + 8));
        third = _mm_crc32_u64(third, load_u64(data + 2 * stream + 8));
    }
    __m128i moved_first = _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)first),
                                               _mm_cvtsi64_si128((long long)shift[0]), 0);
    __m128i moved_second = _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)second),
                                                _mm_cvtsi64_si128((long long)shift[1]), 0);
    uint64_t moved = (uint64_t)_mm_cvtsi128_si64(_mm_xor_si128(moved_first, moved_second));
    return _mm_crc32_u64(0, moved) ^ third;
}

X86_TARGET static uint32_t update_x86(uint32_t crc32, const uint8_t *data, size_t length) {
    uint64_t crc = (uint32_t)~crc32;
    for (; length > 0 && ((uintptr_t)data & 7) != 0; length--, data++) {
        crc = _mm_crc32_u8((uint32_t)crc, *data);
    }
    for (; length >= 3 * LONG_STREAM; length -= 3 * LONG_STREAM, data += 3 * LONG_STREAM) {
        crc = three_streams(crc, data, LONG_STREAM, long_shift);
    }
    for (; length >= 3 * SHORT_STREAM; length -= 3 * SHORT_STREAM, data += 3 * SHORT_STREAM) {
        crc = three_streams(crc, data, SHORT_STREAM, short_shift);
    }
    for (; length >= 8; length -= 8, data += 8) {
        crc = _mm_crc32_u64(crc, load_u64(data));
    }
    for (; length > 0; length--, data++) {
        crc = _mm_crc32_u8((uint32_t)crc, *data);
    }
    return ~(uint32_t)crc;
}
#endif

/* ---- AArch64: the CRC32 extension ---- */

#if defined(TRIOQ_CRC_ARM)
#if defined(__clang__)
#define ARM_TARGET __attribute__((target("crc")))
#define CRC_U64 __builtin_arm_crc32cd
#define CRC_U8 __builtin_arm_crc32cb
#else
#define ARM_TARGET __attribute__((target("+crc")))
#define CRC_U64 __builtin_aarch64_crc32cx
#define CRC_U8 __builtin_aarch64_crc32cb
#endif

#if defined(__linux__)
#include <sys/auxv.h>
#define TRIOQ_HWCAP_CRC32 (1UL << 7)
#endif

typedef uint32_t shift_table[4][256];
static shift_table long_shift;
static shift_table short_shift;

static void build_shift_table(shift_table shift, uint64_t bytes) {
    uint32_t factor = power_of_x(8 * bytes);
    for (uint32_t slice = 0; slice < 4; slice++) {
        for (uint32_t byte = 0; byte < 256; byte++) {
            shift[slice][byte] = multiply(byte << (8 * slice), factor);
        }
    }
}

static inline uint32_t move_past(uint32_t crc, shift_table shift) {
    return shift[0][crc & 0xFF] ^ shift[1][(crc >> 8) & 0xFF] ^ shift[2][(crc >> 16) & 0xFF] ^
           shift[3][crc >> 24];
}

ARM_TARGET static inline uint32_t three_streams(uint32_t crc, const uint8_t *data, size_t stream,
                                                shift_table shift) {
    uint32_t first = crc, second = 0, third = 0;
    const uint8_t *end = data + stream;
    for (; data < end; data += 8) {
        first = CRC_U64(first, load_u64(data));
        second = CRC_U64(second, load_u64(data + stream));
        third = CRC_U64(third, load_u64(data + 2 * stream));
    }
    return move_past(move_past(first, shift) ^ second, shift) ^ third;
}

ARM_TARGET static uint32_t update_arm(uint32_t crc, const uint8_t *data, size_t length) {
    crc = ~crc;
    for (; length > 0 && ((uintptr_t)data & 7) != 0; length--, data++) {
        crc = CRC_U8(crc, *data);
    }
    for (; length >= 3 * LONG_STREAM; length -= 3 * LONG_STREAM, data += 3 * LONG_STREAM) {
        crc = three_streams(crc, data, LONG_STREAM, long_shift);
    }
    for (; length >= 3 * SHORT_STREAM; length -= 3 * SHORT_STREAM, data += 3 * SHORT_STREAM) {
        crc = three_streams(crc, data, SHORT_STREAM, short_shift);
    }
    for (; length >= 8; length -= 8, data += 8) {
        crc = CRC_U64(crc, load_u64(data));
    }
    for (; length > 0; length--, data++) {
        crc = CRC_U8(crc, *data);
    }
    return ~crc;
}
#endif

/* ---- the choice ---- */

static trioq_crc32c_update chosen = update_table;
static const char *chosen_name = "table";

trioq_crc32c_update trioq_crc32c_named(const char *name) {
    if (strcmp(name, "table") == 0) {
        return update_table;
    }
#if defined(TRIOQ_CRC_X86)
    if (strcmp(name, "sse4.2+pclmul") == 0) {
        __builtin_cpu_init();
        if (__builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul")) {
            return update_x86;
        }
    }
#elif defined(TRIOQ_CRC_ARM)
    if (strcmp(name, "armv8") == 0) {
#if defined(__linux__)
        if (getauxval(AT_HWCAP) & TRIOQ_HWCAP_CRC32) {
            return update_arm;
        }
#elif defined(__APPLE__)
        return update_arm; /* every Apple processor has the extension */
#endif
    }
#endif
    return NULL;
}

void trioq_crc32c_init(void) {
    static const char *const preferred[] = {"sse4.2+pclmul", "armv8"};
    build_table();
#if defined(TRIOQ_CRC_X86)
    build_x86_constants();
#elif defined(TRIOQ_CRC_ARM)
    build_shift_table(long_shift, LONG_STREAM);
    build_shift_table(short_shift, SHORT_STREAM);
#endif
    for (size_t i = 0; i < sizeof(preferred) / sizeof(preferred[0]); i++) {
        trioq_crc32c_update update = trioq_crc32c_named(preferred[i]);
        if (update != NULL) {
            chosen = update;
            chosen_name = preferred[i];
            return;
        }
    }
}

uint32_t trioq_crc32c(uint32_t crc, const uint8_t *data, size_t length) {
    return chosen(crc, data, length);
}

const char *trioq_crc32c_name(void) { return chosen_name; }
