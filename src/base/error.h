/*
 * error.h - fill a struct mc_error once, where the cause is known; upper layers pass it on.
 *
 * Threads: the error belongs to the caller. Memory: text is copied and cut to fit.
 */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include <mooncake/status.h>

/**
 * Set status and text, and return `status`, so that a failing line reads
 * `return error_set(error, MC_E_FORMAT, "%s: field %s is not a number", path, name);`
 *
 * error  may be NULL (nothing is written). An error that is already set is replaced.
 */
mc_status error_set(struct mc_error *error, mc_status status, const char *format, ...)
    MC_PRINTF(3, 4);

/** Put "prefix: " before the text that is there; returns the error's status (`status` if NULL). */
mc_status error_prefix(struct mc_error *error, mc_status status, const char *format, ...)
    MC_PRINTF(3, 4);

#endif /* BASE_ERROR_H */
