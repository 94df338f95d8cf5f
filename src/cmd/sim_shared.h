/* sim_shared.h - what the commands of `mooncake sim` stand on. Errors are said on standard error. */
#ifndef CMD_SIM_SHARED_H
#define CMD_SIM_SHARED_H

#include "cmd/figures.h"
#include "sim/sim.h"

/** To the end, or until a signal comes: MC_E_CANCELLED. */
mc_status sim_run_all(sim *sim, struct mc_error *error);

bool sim_write_file(const char *path, const struct buf *text);

/** A row that was measured once, of `n` things. */
void sim_figure(struct bench *bench, const char *name, const char *metric, const char *unit,
                double value, uint64_t n);

/** "mooncake sim --trace ..." */
void sim_join_words(int argc, char **argv, char *text, size_t size);

#endif /* CMD_SIM_SHARED_H */
