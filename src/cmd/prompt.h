/*
 * prompt.h - where a prompt comes from: the argument, a file, standard input.
 *
 * Threads: one. Memory: the text is the caller's. Errors: texts name the file.
 */
#ifndef CMD_PROMPT_H
#define CMD_PROMPT_H

#include <stdio.h>

#include <mooncake/status.h>

enum { PROMPT_BYTES_MAX = 16 << 20 };

/**
 * text  from --prompt, or NULL; "-" reads `input`.
 * path  from --file, or NULL; "-" reads `input`. One of the two is set.
 *
 * text_p  set to [*size_p] bytes as they are, with a NUL behind them; freed with alloc_free().
 *
 * Returns MC_OK, MC_E_NOT_FOUND, MC_E_IO, MC_E_FORMAT, MC_E_RANGE (over PROMPT_BYTES_MAX), MC_E_NOMEM or
 * MC_E_CANCELLED (a signal came while reading).
 */
mc_status prompt_read(const char *text, const char *path, FILE *input, const struct mc_alloc *alloc,
                      char **text_p, size_t *size_p, struct mc_error *error);

#endif /* CMD_PROMPT_H */
