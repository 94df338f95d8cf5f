/* sysalloc.h - memory from the system: malloc as a struct mc_alloc, and hints about large ranges. */
#ifndef OS_SYSALLOC_H
#define OS_SYSALLOC_H

#include <mooncake/status.h>

/** Static; any thread. */
const struct mc_alloc *os_alloc(void);

/** Ask for huge pages behind the whole 2 MiB pieces of a range; a hint, nothing depends on it. */
void os_advise_huge(void *p, size_t size);

#endif /* OS_SYSALLOC_H */
