/* sysalloc.h - the system's malloc as a struct mc_alloc; what a NULL allocator means everywhere. */
#ifndef OS_SYSALLOC_H
#define OS_SYSALLOC_H

#include <mooncake/status.h>

/** Static; any thread. */
const struct mc_alloc *os_alloc(void);

#endif /* OS_SYSALLOC_H */
