/* bytes.h - little-endian numbers of one to eight bytes, for events and records. Pure; any thread. */
#ifndef SCHED_BYTES_H
#define SCHED_BYTES_H

#include <stddef.h>
#include <stdint.h>

static inline void bytes_put(uint8_t *p, uint64_t value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        p[i] = (uint8_t)(value >> 8 * i);
}

static inline uint64_t bytes_get(const uint8_t *p, size_t bytes)
{
    uint64_t value = 0;

    for (size_t i = 0; i < bytes; i++)
        value |= (uint64_t)p[i] << 8 * i;
    return value;
}

#endif /* SCHED_BYTES_H */
