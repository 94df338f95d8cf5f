/* sim_shared.c - running to the end, files, figures: for all that `mooncake sim` does. */
#include "cmd/sim_shared.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "cmd/cmd.h"
#include "cmd/interrupt.h"

enum { SLICE = 256 }; /* requests between two looks at signals */

mc_status sim_run_all(sim *s, struct mc_error *error)
{
    mc_status status;

    do {
        status = interrupt_pending() ? error_set(error, MC_E_CANCELLED, "interrupted")
                                     : sim_run(s, SLICE, error);
    } while (status == MC_PENDING);
    return status;
}

bool sim_write_file(const char *path, const struct buf *text)
{
    FILE *file = text->failed ? NULL : fopen(path, "w");
    bool done = file && fwrite(text->data, 1, text->size, file) == text->size;

    if (file)
        done = fclose(file) == 0 && done;
    if (!done)
        command_complain("sim", "cannot write %s: %s", path, strerror(errno));
    return done;
}

void sim_figure(struct bench *bench, const char *name, const char *metric, const char *unit,
                double value, uint64_t n)
{
    bench_figure(bench, &(struct figure){ .name = name,
                                          .metric = metric,
                                          .unit = unit,
                                          .value = value,
                                          .min = value,
                                          .max = value,
                                          .n = n });
}

void sim_join_words(int argc, char **argv, char *text, size_t size)
{
    size_t at = (size_t)snprintf(text, size, "mooncake");

    for (int i = 0; i < argc && at < size; i++)
        at += (size_t)snprintf(text + at, size - at, " %s", argv[i]);
}
