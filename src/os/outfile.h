/*
 * outfile.h - a file that is written from its beginning to its end by one writer, as it comes.
 *
 * What os_outfile_write() took is the kernel's: the end of the process does not lose it, that of the machine may.
 *
 * Threads: one at a time. Memory: none. Errors: texts name the path and the system's reason.
 */
#ifndef OS_OUTFILE_H
#define OS_OUTFILE_H

#include <stddef.h>

#include <mooncake/status.h>

/**
 * Create `path` for its owner to read and write; it must not be there.
 *
 * fd_p  owned: os_outfile_close().
 *
 * Returns MC_OK, MC_E_EXISTS or MC_E_IO.
 */
mc_status os_outfile_open(const char *path, int *fd_p, struct mc_error *error);

/** All of it, or MC_E_IO with the system's reason; a part of it may be there then. */
mc_status os_outfile_write(int fd, const void *bytes, size_t size, struct mc_error *error);

/** -1 is allowed. */
void os_outfile_close(int fd);

#endif /* OS_OUTFILE_H */
