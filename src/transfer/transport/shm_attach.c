/* shm_attach.c - memory of another process that it cannot share: copied by the kernel. */
#define _GNU_SOURCE
#include "transfer/transport/shm_queue.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/error.h"

#ifndef PR_SET_PTRACER
#define PR_SET_PTRACER 0x59616d61
#define PR_SET_PTRACER_ANY ((unsigned long)-1)
#endif

bool shm_attach_proves(int pid, uint64_t address, const void *expected, size_t size)
{
    uint8_t seen[64];
    const struct iovec here = { .iov_base = seen, .iov_len = size };
    const struct iovec there = { .iov_base = (void *)(uintptr_t)address, .iov_len = size };

    assert(size <= sizeof(seen));
    return pid > 0 && process_vm_readv(pid, &here, 1, &there, 1, 0) == (ssize_t)size &&
           memcmp(seen, expected, size) == 0;
}

bool shm_attach_probe(struct mc_error *error)
{
    static const char word[] = "mooncake";

    if (shm_attach_proves(getpid(), (uint64_t)(uintptr_t)word, word, sizeof(word)))
        return true;
    error_set(error, MC_E_UNSUPPORTED, "process_vm_readv: %s", strerror(errno));
    return false;
}

/* Yama's scope 1: only ancestors may, unless a process names others; 2 and 3 cannot be asked. */
void shm_attach_allow(void)
{
    const int fd = open("/proc/sys/kernel/yama/ptrace_scope", O_RDONLY | O_CLOEXEC);
    char scope = '0';

    if (fd < 0)
        return;
    if (read(fd, &scope, 1) == 1 && scope == '1')
        prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
    close(fd);
}

mc_status shm_attach_copy(int pid, enum mc_op op, void *local, uint64_t address, uint64_t length,
                          struct mc_error *error)
{
    for (uint64_t done = 0; done < length;) {
        const struct iovec here = { .iov_base = (char *)local + done, .iov_len = length - done };
        const struct iovec there = { .iov_base = (void *)(uintptr_t)(address + done),
                                     .iov_len = length - done };
        const ssize_t moved = op == MC_READ ? process_vm_readv(pid, &here, 1, &there, 1, 0)
                                            : process_vm_writev(pid, &here, 1, &there, 1, 0);
        if (moved > 0)
            done += (uint64_t)moved;
        else if (moved < 0 && errno == ESRCH)
            return error_set(error, MC_E_PEER, "the process is gone");
        else if (moved == 0 || errno != EINTR)
            return error_set(error, MC_E_IO, "cross-memory attach: %s",
                             moved == 0 ? "nothing moved" : strerror(errno));
    }
    return MC_OK;
}
