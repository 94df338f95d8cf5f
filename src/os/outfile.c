/* outfile.c - create, write all, close. */
#define _GNU_SOURCE
#include "os/outfile.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"

enum { ONLY_OWNER = 0600 };

mc_status os_outfile_open(const char *path, int *fd_p, struct mc_error *error)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, ONLY_OWNER);

    if (fd < 0)
        return error_set(error, errno == EEXIST ? MC_E_EXISTS : MC_E_IO, "%s: cannot create: %s",
                         path, strerror(errno));
    *fd_p = fd;
    return MC_OK;
}

mc_status os_outfile_write(int fd, const void *bytes, size_t size, struct mc_error *error)
{
    const char *at = bytes;

    while (size > 0) {
        const ssize_t written = write(fd, at, size);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return error_set(error, MC_E_IO, "cannot write: %s",
                             written == 0 ? "the device takes no more" : strerror(errno));
        at += written;
        size -= (size_t)written;
    }
    return MC_OK;
}

void os_outfile_close(int fd)
{
    if (fd >= 0)
        close(fd);
}
