/*
 * cmd.h - what the commands share: exit codes, and how they speak.
 *
 * Standard output carries the answer and nothing else; everything else goes to standard error, one
 * line that begins with "mooncake COMMAND: ".
 */
#ifndef CMD_CMD_H
#define CMD_CMD_H

#include <stdbool.h>

#include "base/buf.h"

/** Every command's exit codes; `mooncake --help` lists them. */
enum {
    CMD_OK = 0,
    CMD_FAILED = 1,        /* a file, a model, memory, or writing the output */
    CMD_USAGE = 2,         /* the arguments, the environment or the config file */
    CMD_INTERRUPTED = 130, /* SIGINT: what was done until then is on standard output */
    CMD_TERMINATED = 143   /* SIGTERM, likewise */
};

struct command {
    const char *name, *summary;
    int (*main)(int argc, char **argv); /* argv[0] is the command's name */
    void (*help)(struct buf *out);
};

extern const struct command command_serve, command_run, command_gateway, command_worker,
    command_node, command_master, command_stats, command_bench, command_sim, command_trace;

/** All of mooncake: argv[1] names the command. Returns an exit code. */
int command_main(int argc, char **argv);

/** Print "mooncake <name>: <text>" and a newline to standard error. */
void command_complain(const char *name, const char *format, ...) MC_PRINTF(2, 3);

/** Write all of `text` to standard output and flush it; false, with a complaint, if that fails. */
bool command_write(const char *name, const char *text, size_t size);

/** Print what `help` writes; an exit code. */
int command_print(const char *name, void (*help)(struct buf *out));

#endif /* CMD_CMD_H */
