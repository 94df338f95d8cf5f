/*
 * shared.h - memory that other processes of this machine can map once they are given its descriptor.
 *
 * Life:    os_shared_open -> os_shared_close. Threads: any. Memory: pages are taken and zeroed before
 * open returns: never a name in a file system, nothing of it outlives its processes.
 */
#ifndef OS_SHARED_H
#define OS_SHARED_H

#include <stddef.h>
#include <stdint.h>

#include <mooncake/status.h>

struct os_shared {
    void *address; /* [size], aligned to a page */
    size_t size;   /* whole pages */
    int fd;        /* a memfd, sealed against growing and shrinking */
};

/**
 * size  bytes, > 0; rounded up to pages.
 * node  of memory, preferred; -1: any.
 *
 * Returns MC_OK, MC_E_NOMEM (memory, or what the machine allows to share), MC_E_FULL (descriptors) or
 * MC_E_IO.
 */
mc_status os_shared_open(size_t size, int node, struct os_shared *shared_p, struct mc_error *error);

/** Unmap and close. Safe on `{ .fd = -1 }`. */
void os_shared_close(struct os_shared *shared);

#endif /* OS_SHARED_H */
