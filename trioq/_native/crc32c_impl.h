/* CRC-32C (Castagnoli, reflected polynomial 0x82F63B78) with the implementation chosen at run time. */
#ifndef TRIOQ_CRC32C_IMPL_H
#define TRIOQ_CRC32C_IMPL_H

#include <stddef.h>
#include <stdint.h>

typedef uint32_t (*trioq_crc32c_update)(uint32_t crc, const uint8_t *data, size_t length);

/* Builds the tables and picks the fastest implementation; call once, before anything else. */
void trioq_crc32c_init(void);

/* Extends `crc` (0 to start) over `data`; any alignment, any length. */
uint32_t trioq_crc32c(uint32_t crc, const uint8_t *data, size_t length);

/* "sse4.2+pclmul", "armv8" or "table". */
const char *trioq_crc32c_name(void);

/* The implementation of that name, or NULL where this machine cannot run it. */
trioq_crc32c_update trioq_crc32c_named(const char *name);

#endif
