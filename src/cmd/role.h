/*
 * role.h - what master, node, worker, gateway and serve have in common: settings, log, secret, the loop,
 * signals, and the line that says "ready" to who started them.
 *
 * Life:    role_read -> role_begin -> (the role opens) -> role_ready -> role_run -> (the role closes)
 *          -> role_end
 * Threads: one, but for the log, which any thread may write. Where standard error does not block, as under
 *          `serve`, lines that nobody takes are lost and counted, and the next one says so.
 * Errors:  texts name flag, variable, line or file.
 */
#ifndef CMD_ROLE_H
#define CMD_ROLE_H

#include <mooncake/transfer.h>

#include "base/setting.h"
#include "os/loop.h"
#include "os/signals.h"

/* clang-format off */
#define ROLE_SETTINGS(X)                                                                            \
    X(secret_file, "secret-file", 0, TEXT, NULL, 0, 0, NULL, "FILE", "Trust",                       \
      "The secret that all roles of a cluster share: this file's bytes, 16 to 1024.")               \
    X(insecure, "insecure", 0, BOOL, "false", 0, 0, NULL, NULL, "Trust",                            \
      "Listen beyond loopback without a secret.")                                                   \
    X(log_level, "log-level", 0, CHOICE, "info", 0, 0, "error|warn|info|debug", "LEVEL", "Other",   \
      "What is told on standard error.")                                                            \
    X(ready_fd, "ready-fd", 0, U32, "0", 0, 1048576, NULL, "N", "Other",                            \
      "Write one line to this descriptor once ready; 0: none. For whoever starts this process.")    \
    X(config, "config", 0, TEXT, NULL, 0, 0, NULL, "FILE", "Other",                                 \
      "Read settings from this file, too.")                                                         \
    X(print_config, "print-config", 0, ACTION, NULL, 0, 0, NULL, NULL, "Other",                     \
      "Print the settings in force, as a config file, and end.")                                    \
    X(help, "help", 'h', ACTION, NULL, 0, 0, NULL, NULL, "Other", "Print this and end.")
/* clang-format on */

/** The head of every role's options. */
struct role_common {
    ROLE_SETTINGS(SETTING_FIELD)
};

/** What was asked for, and what must live as long as it does. `{ 0 }` is a valid start. */
struct role_asked {
    const struct mc_alloc *alloc; /* borrowed */
    struct settings settings;
    struct setting_list operands;
    char *config_text; /* owned */
};

/** A role's command line. */
struct role_table {
    const char *name;           /* "master" */
    const struct setting *rows; /* [count] */
    size_t count;
    uint32_t operands;        /* how many it takes */
    const char *operand_help; /* what to say when there are others */
    /** Optional: refuse what contradicts itself. */
    mc_status (*check)(const void *options, const struct settings *settings,
                       struct mc_error *error);
    void (*help)(struct buf *out);
};

/**
 * Read arguments [1, argc), environment and config file into `options`, which begins with a struct
 * role_common. Help and --print-config are printed here.
 *
 * Returns -1: go on; else the exit code, and role_asked_fini() is due in both cases.
 */
int role_read(const struct role_table *table, int argc, char **argv, void *options,
              struct role_asked *asked);

void role_asked_fini(struct role_asked *asked);

/** For a table's check: whether `text` (NULL: not given) reads as host:port. The error names the flag. */
mc_status role_check_address(const char *flag, const char *text, struct mc_error *error);

/** The same of --master, which may name more than one, separated by ';'. */
mc_status role_check_masters(const char *text, struct mc_error *error);

struct role {
    const char *name;                 /* borrowed */
    const struct mc_alloc *alloc;     /* borrowed */
    const struct role_common *common; /* borrowed */
    os_loop *loop;                    /* owned */
    struct mc_log log;
    char *secret; /* owned; [secret_size]; NULL: none */
    size_t secret_size;
    struct os_signals signals;
    /** Called at the first SIGINT or SIGTERM: begin to end, and call role_stop() when done. NULL: stop at
     * once. A second one stops at once anyway. */
    void (*drain)(void *user);
    void *user;
    int asked_to_end;      /* how often */
    _Atomic uint32_t lost; /* lines of the log that nobody took */
    int signal;            /* the first */
    int code;
};

/** Returns -1: begun; else an exit code, after a complaint. role_end() is due in both cases. */
int role_begin(struct role *role, const char *name, const struct role_common *common,
               const struct mc_alloc *alloc);

/** Say on standard error and to --ready-fd that it is ready; `format` gives "key=value key=value". */
void role_ready(struct role *role, const char *format, ...) MC_PRINTF(2, 3);

/** Turn the loop until role_stop(); the exit code: 0 after a signal that asked to end. */
int role_run(struct role *role);

/** From the loop's thread. */
void role_stop(struct role *role, int code);

/** Safe on `{ 0 }` and half-begun. */
void role_end(struct role *role);

#endif /* CMD_ROLE_H */
