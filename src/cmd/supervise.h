/*
 * supervise.h - which process of this machine to start, restart, stop or kill, and when.
 *
 * Children start in the order of their start rank, each rank when all of the one before are up. One that
 * exits is started again after 100 ms, 200 ms ... 5 s; one that dies too often while young ends the whole,
 * and at once one that fails by itself before it was ever up: it would fail for the same reason again.
 * One that somebody stopped (SIGSTOP) for longer than stall_ns is killed and started again, because to its
 * peers it is dead. Stopping goes by stop rank, each rank when the one before has left, with a time
 * for each after which it is killed.
 *
 * Life:    supervise_init -> (supervise_event, supervise_take*)*
 * Threads: one. No input or output, no clock: the same code decides under test and in serve.c.
 * Memory:  children are the caller's array; nothing is allocated.
 */
#ifndef CMD_SUPERVISE_H
#define CMD_SUPERVISE_H

#include <stdbool.h>
#include <stdint.h>

enum supervise_state {
    SUPERVISE_DOWN,     /* not running; starts when its turn or its time has come */
    SUPERVISE_STARTING, /* runs, has not said that it is ready */
    SUPERVISE_UP,
    SUPERVISE_LEFT, /* gone, and not to be started again */
};

struct supervise_child {
    uint32_t start_rank, stop_rank; /* the caller's */

    enum supervise_state state; /* the rest is supervise.c's */
    bool was_up;                /* its addresses are known: later starts wait for nobody */
    uint32_t failures;          /* in a row, each after a short life */
    uint64_t since_ns;          /* in this state */
    uint64_t start_ns;          /* DOWN: not before */
    uint64_t stopped_ns;        /* since when SIGSTOP holds it; 0: it does not */
    bool told;                  /* to end, by a signal */
    bool killed;                /* by us */
};

struct supervise_options {
    uint64_t stall_ns;     /* 0: a stopped child is left alone */
    uint64_t grace_ns;     /* of a stop rank */
    uint64_t start_ns;     /* a child that is not ready by then is killed */
    uint64_t young_ns;     /* a life shorter than this is a failure */
    uint32_t failures_max; /* in a row */
};

struct supervise {
    struct supervise_child *children; /* borrowed; [count] */
    uint32_t count;
    struct supervise_options options;
    uint64_t now_ns;
    bool stopping, killing, said_up;
    uint32_t stop_rank; /* being stopped */
    uint64_t stop_since_ns;
    int code; /* exit code of the whole: 0, or CMD_FAILED after giving up */
};

enum supervise_event_kind {
    SUPERVISE_TICK,      /* time passed */
    SUPERVISE_READY,     /* the child said so */
    SUPERVISE_EXITED,    /* value: its exit code, or 128 + the signal */
    SUPERVISE_STOPPED,   /* somebody sent it SIGSTOP */
    SUPERVISE_CONTINUED, /* and SIGCONT */
    SUPERVISE_STOP,      /* the user asks: end in order; again: at once */
};

enum supervise_action_kind {
    SUPERVISE_START,   /* the child; then it is STARTING */
    SUPERVISE_TERM,    /* SIGTERM to the child */
    SUPERVISE_KILL,    /* SIGKILL to the child; `why` */
    SUPERVISE_ALL_UP,  /* for the first time */
    SUPERVISE_GIVE_UP, /* the child fails too often: the whole ends; `why` */
    SUPERVISE_DONE,    /* nothing runs any more: exit with `code` */
};

struct supervise_action {
    enum supervise_action_kind kind;
    uint32_t child;
    const char *why; /* static; NULL where there is nothing to say */
};

/** Fields of children that are the caller's are set; the others become their start. */
void supervise_init(struct supervise *s, struct supervise_child *children, uint32_t count,
                    const struct supervise_options *options, uint64_t now_ns);

/** Tell what happened. `child` is not read for TICK and STOP. */
void supervise_event(struct supervise *s, enum supervise_event_kind kind, uint32_t child, int value,
                     uint64_t now_ns);

/** What is to be done next; false: nothing. To be taken until there is nothing, after each event. */
bool supervise_take(struct supervise *s, struct supervise_action *action_p);

/** When a TICK is due at the latest; UINT64_MAX: not. */
uint64_t supervise_due(const struct supervise *s);

#endif /* CMD_SUPERVISE_H */
