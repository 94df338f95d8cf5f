/* sysalloc.c - malloc, realloc and free behind the allocator table. */
#include "os/sysalloc.h"

#include <stdlib.h>

static void *sys_alloc(void *context, size_t size)
{
    (void)context;
    return malloc(size);
}

static void *sys_resize(void *context, void *p, size_t size)
{
    (void)context;
    return realloc(p, size);
}

static void sys_free(void *context, void *p)
{
    (void)context;
    free(p);
}

const struct mc_alloc *os_alloc(void)
{
    static const struct mc_alloc system = { sys_alloc, sys_resize, sys_free, NULL };

    return &system;
}
