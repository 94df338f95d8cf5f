/*
 * family.h - the processes of `mooncake serve`: who they are, their arguments, their pipes.
 *
 * Each member is this program again with another command. It runs in a process group of its own, dies with
 * its parent whatever kills that, says "ready key=value ..." on a pipe once it is, and its output comes
 * through another one, line by line with its name before each.
 *
 * Life:    family_open -> (family_start, family_reap)* -> family_close
 * Threads: one, the loop's.
 */
#ifndef CMD_FAMILY_H
#define CMD_FAMILY_H

#include <sys/types.h>

#include "cmd/serve_options.h"
#include "cmd/supervise.h"
#include "os/loop.h"

enum { FAMILY_MAX = 260, MEMBER_ARGUMENTS = 64, MEMBER_TEXT = 6144, MEMBER_LINE = 4096 };

enum member_role { MEMBER_MASTER, MEMBER_NODE, MEMBER_GATEWAY, MEMBER_WORKER };

struct family;

struct member {
    struct family *family; /* whose it is */
    uint32_t index;
    enum member_role role;
    const char *work;              /* of a worker: "prefill", "decode", "both"; else NULL */
    char name[24];                 /* "prefill-1" */
    pid_t pid;                     /* 0: does not run */
    struct os_watch output, ready; /* fd -1: closed */
    char line[MEMBER_LINE], ready_line[512];
    size_t line_size, ready_size;
    char address[96], control[96]; /* as it said; "" before */
};

struct family_events {
    void (*ready)(void *user, uint32_t member);
    void (*exited)(void *user, uint32_t member, int code); /* 128 + signal, if one killed it */
    void (*stopped)(void *user, uint32_t member, bool stopped);
};

struct family {
    const struct serve_options *options; /* borrowed */
    const char *model;                   /* borrowed */
    os_loop *loop;                       /* borrowed */
    const struct family_events *events;  /* borrowed */
    void *user;
    uint32_t count;
    struct member members[FAMILY_MAX];
    struct supervise_child children[FAMILY_MAX]; /* ranks, by member */
};

/** Who will be there. Nothing is started. */
void family_open(struct family *family, const struct serve_options *options, const char *model,
                 os_loop *loop, const struct family_events *events, void *user);

/** Start a member that does not run. MC_OK or MC_E_IO. */
mc_status family_start(struct family *family, uint32_t member, struct mc_error *error);

/** A signal to a member that runs. */
void family_signal(const struct family *family, uint32_t member, int number);

/** SIGCHLD came: look at all, call events. */
void family_reap(struct family *family);

/** The first member of a role. */
const struct member *family_first(const struct family *family, enum member_role role);

/** Pipes only: nobody runs any more. */
void family_close(struct family *family);

#endif /* CMD_FAMILY_H */
