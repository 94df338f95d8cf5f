/* sim_command.h - what `mooncake sim` hands on: `sim paper` and `sim --replay`. Errors are said on standard error. */
#ifndef CMD_SIM_COMMAND_H
#define CMD_SIM_COMMAND_H

/** `mooncake sim paper`: arguments as of main(), but for the program. An exit code. */
int sim_paper_main(int argc, char **argv);

/** What `mooncake sim --replay` reads and writes. */
struct sim_replay_output {
    const char *file, *json, *commit; /* json, commit: may be NULL */
    const char *command;              /* as it was called */
};

/** An exit code: 0, the same decisions; 1, others, or a file that cannot be read to its end. */
int sim_replay_main(const struct sim_replay_output *output);

#endif /* CMD_SIM_COMMAND_H */
