/* file.c - open, check, map or read; the descriptor never outlives the call. */
#define _GNU_SOURCE
#include "os/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/error.h"

static mc_status fail(const char *path, const char *what, int reason, struct mc_error *error)
{
    const mc_status status = reason == ENOENT || reason == ENOTDIR ? MC_E_NOT_FOUND
                             : reason == ENOMEM                    ? MC_E_NOMEM
                                                                   : MC_E_IO;

    return error_set(error, status, "%s: cannot %s: %s", path, what, strerror(reason));
}

static mc_status open_regular(const char *path, int *fd_p, size_t *size_p, struct mc_error *error)
{
    /* O_NONBLOCK: opening a fifo that nobody writes must answer, not wait. */
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;

    if (fd < 0)
        return fail(path, "open", errno, error);
    if (fstat(fd, &st) != 0) {
        const int reason = errno;
        close(fd);
        return fail(path, "read its size", reason, error);
    }
    if (!S_ISREG(st.st_mode)) {
        close(fd);
        return error_set(error, MC_E_FORMAT, "%s: not a regular file", path);
    }
    *fd_p = fd;
    *size_p = (size_t)st.st_size;
    return MC_OK;
}

mc_status os_map_open(const char *path, struct os_map *map_p, struct mc_error *error)
{
    int fd;
    size_t size;
    mc_status status = open_regular(path, &fd, &size, error);

    if (status != MC_OK)
        return status;
    void *data = NULL;
    if (size > 0) {
        data = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
        if (data == MAP_FAILED)
            status = fail(path, "map", errno, error);
    }
    close(fd);
    if (status == MC_OK)
        *map_p = (struct os_map){ data, size };
    return status;
}

void os_map_close(struct os_map *map)
{
    if (map->data)
        munmap((void *)(uintptr_t)map->data, map->size);
    *map = (struct os_map){ 0 };
}

static mc_status read_all(int fd, const char *path, char *data, size_t size, struct mc_error *error)
{
    for (size_t done = 0; done < size;) {
        const ssize_t n = read(fd, data + done, size - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail(path, "read", errno, error);
        if (n == 0)
            return error_set(error, MC_E_IO, "%s: ends at byte %zu, expected %zu", path, done,
                             size);
        done += (size_t)n;
    }
    return MC_OK;
}

mc_status os_file_read(const char *path, size_t size_max, const struct mc_alloc *alloc,
                       char **data_p, size_t *size_p, struct mc_error *error)
{
    int fd;
    size_t size;
    mc_status status = open_regular(path, &fd, &size, error);

    if (status != MC_OK)
        return status;
    char *data = NULL;
    if (size > size_max)
        status = error_set(error, MC_E_RANGE, "%s: %zu bytes; at most %zu are accepted", path, size,
                           size_max);
    else if (!(data = alloc_bytes(alloc, size + 1)))
        status = error_set(error, MC_E_NOMEM, "%s: out of memory for %zu bytes", path, size);
    else
        status = read_all(fd, path, data, size, error);
    close(fd);
    if (status != MC_OK) {
        if (data)
            alloc_free(alloc, data);
        return status;
    }
    data[size] = '\0';
    *data_p = data;
    *size_p = size;
    return MC_OK;
}

bool os_is_directory(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool os_is_open_to_others(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && (st.st_mode & (S_IROTH | S_IWOTH)) != 0;
}

bool os_is_pipe(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISFIFO(st.st_mode);
}
