/* sim_command.h - what the files of `mooncake sim` share. Errors are said on standard error. */
#ifndef CMD_SIM_COMMAND_H
#define CMD_SIM_COMMAND_H

#include "cmd/figures.h"
#include "sim/sim.h"

/** To the end, or until a signal comes: MC_E_CANCELLED. */
mc_status sim_run_all(sim *sim, struct mc_error *error);

/** `mooncake sim paper`; an exit code. */
int sim_paper_main(int argc, char **argv);

/** What `mooncake sim --replay` reads and writes. */
struct sim_replay_output {
    const char *file, *json, *commit; /* json, commit: may be NULL */
    const char *command;              /* as it was called */
};

/** An exit code: 0, the same decisions; 1, others, or a file that cannot be read to its end. */
int sim_replay_main(const struct sim_replay_output *output);

bool sim_write_file(const char *path, const struct buf *text);

/** A row that was measured once, of `n` things. */
void sim_figure(struct bench *bench, const char *name, const char *metric, const char *unit,
                double value, uint64_t n);

/** "mooncake sim --trace ..." */
void sim_join_words(int argc, char **argv, char *text, size_t size);

#endif /* CMD_SIM_COMMAND_H */
