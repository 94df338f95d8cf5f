/* bench_pattern.h - bytes that say where they belong, to check that they came there. Pure; any thread. */
#ifndef CMD_BENCH_PATTERN_H
#define CMD_BENCH_PATTERN_H

#include <stdbool.h>
#include <stdint.h>

/** The bytes that belong at [offset, offset + length): a function of where they are. */
void bench_pattern(uint8_t *bytes, uint64_t offset, uint64_t length);

/** Whether they are there; *wrong_p is where the first 8 of them that differ begin. */
bool bench_pattern_is(const uint8_t *bytes, uint64_t offset, uint64_t length, uint64_t *wrong_p);

#endif /* CMD_BENCH_PATTERN_H */
