/*
 * file.h - whole files: mapped (weights) or read (configuration).
 *
 * Threads: a mapping may be read by any thread; open and close by one.
 * Memory:  a mapping is the kernel's page cache, shared by every process that maps the file.
 * Errors:  texts name the path and the system's reason.
 */
#ifndef OS_FILE_H
#define OS_FILE_H

#include <stdbool.h>

#include <mooncake/status.h>

struct os_map {
    const void *data; /* NULL when size is 0 */
    size_t size;      /* bytes */
};

/**
 * Map a regular file for reading.
 *
 * map_p  set to a mapping that os_map_close() ends. A file that another process truncates while it
 *        is mapped kills the reader with SIGBUS: replace model files by rename, never in place.
 *
 * Returns MC_OK, MC_E_NOT_FOUND, MC_E_IO, MC_E_NOMEM (address space) or MC_E_FORMAT (not a regular
 * file).
 */
mc_status os_map_open(const char *path, struct os_map *map_p, struct mc_error *error);

/** Safe on `{ 0 }`. */
void os_map_close(struct os_map *map);

/**
 * Read a whole file of at most `size_max` bytes.
 *
 * data_p  set to *size_p bytes with a NUL behind them, owned by the caller (alloc_free).
 *
 * Returns MC_OK, MC_E_NOT_FOUND, MC_E_IO, MC_E_FORMAT (not a regular file), MC_E_RANGE (larger than
 * size_max) or MC_E_NOMEM.
 */
mc_status os_file_read(const char *path, size_t size_max, const struct mc_alloc *alloc,
                       char **data_p, size_t *size_p, struct mc_error *error);

/** Whether `path` is there and is a directory. */
bool os_is_directory(const char *path);

/** Whether users other than its owner and its group may read or write `path`. */
bool os_is_open_to_others(const char *path);

/** Whether `path` is there and is a pipe. Asked without opening it: a writer may be waiting. */
bool os_is_pipe(const char *path);

#endif /* OS_FILE_H */
