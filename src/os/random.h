/* random.h - chance from the system: for nonces, incarnations, tokens and seeds. Any thread. */
#ifndef OS_RANDOM_H
#define OS_RANDOM_H

#include <stddef.h>
#include <stdint.h>

/** Fill with bytes that nobody can guess. Never fails: a system that cannot is one to stop on. */
void os_random(void *bytes, size_t size);

/** 64 such bits, never 0, which everywhere means "none". */
uint64_t os_random_u64(void);

#endif /* OS_RANDOM_H */
