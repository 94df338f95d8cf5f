/* bench_pattern.c - what the bytes of a bench must be, wherever they are. */
#include "cmd/bench_pattern.h"

#include <string.h>

#include "base/prng.h"

static uint64_t pattern_word(uint64_t index)
{
    return prng_mix(index);
}

void bench_pattern(uint8_t *bytes, uint64_t offset, uint64_t length)
{
    for (uint64_t i = 0; i < length;) {
        const uint64_t word = pattern_word((offset + i) / 8), skip = (offset + i) % 8;
        const uint64_t most = 8 - skip, n = length - i < most ? length - i : most;
        memcpy(bytes + i, (const uint8_t *)&word + skip, n);
        i += n;
    }
}

bool bench_pattern_is(const uint8_t *bytes, uint64_t offset, uint64_t length, uint64_t *wrong_p)
{
    for (uint64_t i = 0; i < length;) {
        const uint64_t word = pattern_word((offset + i) / 8), skip = (offset + i) % 8;
        const uint64_t most = 8 - skip, n = length - i < most ? length - i : most;
        if (memcmp(bytes + i, (const uint8_t *)&word + skip, n) != 0) {
            *wrong_p = offset + i;
            return false;
        }
        i += n;
    }
    return true;
}
