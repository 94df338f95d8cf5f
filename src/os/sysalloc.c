/* sysalloc.c - malloc, realloc and free behind the allocator table; madvise. */
#define _GNU_SOURCE
#include "os/sysalloc.h"

#include <stdlib.h>
#include <sys/mman.h>

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

void os_advise_huge(void *p, size_t size)
{
    const uintptr_t piece = (uintptr_t)2 << 20;
    const uintptr_t begin = ((uintptr_t)p + piece - 1) / piece * piece;
    const uintptr_t end = ((uintptr_t)p + size) / piece * piece;

    if (begin < end)
        (void)madvise((void *)begin, end - begin, MADV_HUGEPAGE);
}
