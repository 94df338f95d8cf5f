/* host.c - the boot id, from proc; limits. */
#define _GNU_SOURCE
#include "os/host.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

bool os_boot_id(char text[37])
{
    const int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t n = -1;

    if (fd >= 0) {
        do
            n = read(fd, text, 36);
        while (n < 0 && errno == EINTR);
        close(fd);
    }
    text[n == 36 ? 36 : 0] = '\0';
    return n == 36;
}

uint64_t os_descriptors_raise(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return 0;
    const rlim_t before = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        return before;
    return limit.rlim_cur;
}
