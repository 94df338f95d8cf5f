/* shared.c - memfds: reserved first, so that a machine without room says so instead of SIGBUS later. */
#define _GNU_SOURCE
#include "os/shared.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/error.h"

enum { NODES_MAX = 1024, POLICY_PREFERRED = 1 };

static mc_status reason(struct mc_error *error, int number, size_t size)
{
    const mc_status status = number == EMFILE || number == ENFILE   ? MC_E_FULL
                             : number == ENOMEM || number == ENOSPC ? MC_E_NOMEM
                                                                    : MC_E_IO;

    return error_set(error, status, "%zu bytes of shared memory: %s", size, strerror(number));
}

/* A wish: a kernel without NUMA, or a node that is not there, changes nothing. */
static void prefer_node(void *address, size_t size, int node)
{
    unsigned long mask[NODES_MAX / (8 * sizeof(unsigned long))] = { 0 };
    const size_t bits = 8 * sizeof(unsigned long);

    if (node < 0 || node >= NODES_MAX)
        return;
    mask[(size_t)node / bits] = 1UL << ((size_t)node % bits);
    syscall(SYS_mbind, address, size, POLICY_PREFERRED, mask, (unsigned long)NODES_MAX, 0UL);
}

/* The number behind `key` in a small file of the kernel's; `otherwise` if there is none ("max"). */
static uint64_t kernel_number(const char *path, const char *key, uint64_t otherwise)
{
    char text[4096];
    FILE *file = fopen(path, "re");
    const size_t size = file ? fread(text, 1, sizeof(text) - 1, file) : 0;

    if (file)
        fclose(file);
    text[size] = '\0';
    const char *at = strstr(text, key);
    if (!at)
        return otherwise;
    char *end;
    at += strlen(key);
    const unsigned long long number = strtoull(at, &end, 10);
    return end == at ? otherwise : number;
}

/* Whoever takes the last page is killed, not refused, so what is left is asked before. */
static bool there_is_room(size_t size)
{
    const uint64_t kib = kernel_number("/proc/meminfo", "MemAvailable:", UINT64_MAX / 1024);
    const uint64_t most = kernel_number("/sys/fs/cgroup/memory.max", "", UINT64_MAX);
    const uint64_t all = kernel_number("/sys/fs/cgroup/memory.current", "", 0);
    /* What files left in the cache is given up for it. */
    const uint64_t cache = kernel_number("/sys/fs/cgroup/memory.stat", "inactive_file ", 0);
    const uint64_t used = all > cache ? all - cache : 0;

    return size <= kib * 1024 && (most == UINT64_MAX || (used <= most && size <= most - used));
}

/* fallocate takes the pages and fails where a first touch would kill; populating then only maps them. */
static int take_pages(int fd, void *address, size_t size)
{
    int result;

    do
        result = fallocate(fd, 0, 0, (off_t)size);
    while (result != 0 && errno == EINTR);
    if (result != 0)
        return errno;
#ifdef MADV_POPULATE_WRITE
    if (madvise(address, size, MADV_POPULATE_WRITE) == 0)
        return 0;
#endif
    for (size_t at = 0; at < size; at += 4096) /* a kernel before 5.14 */
        ((volatile char *)address)[at] = 0;
    return 0;
}

mc_status os_shared_open(size_t size, int node, struct os_shared *shared_p, struct mc_error *error)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);

    if (size == 0 || size > SIZE_MAX / 2 - page)
        return error_set(error, MC_E_NOMEM, "%zu bytes of shared memory cannot be", size);
    const size_t rounded = (size + page - 1) / page * page;
    if (!there_is_room(rounded))
        return reason(error, ENOMEM, size);
    const int fd = memfd_create("mooncake", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return reason(error, errno, size);
    void *address = MAP_FAILED;
    int failed = 0;
    if (ftruncate(fd, (off_t)rounded) != 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW))
        failed = errno;
    if (!failed) {
        address = mmap(NULL, rounded, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        failed = address == MAP_FAILED ? errno : 0;
    }
    if (!failed) {
        prefer_node(address, rounded, node);
        failed = take_pages(fd, address, rounded);
    }
    if (failed) {
        if (address != MAP_FAILED)
            munmap(address, rounded);
        close(fd);
        return reason(error, failed, size);
    }
    *shared_p = (struct os_shared){ .address = address, .size = rounded, .fd = fd };
    return MC_OK;
}

void os_shared_close(struct os_shared *shared)
{
    if (shared->fd < 0)
        return;
    munmap(shared->address, shared->size);
    close(shared->fd);
    *shared = (struct os_shared){ .fd = -1 };
}
