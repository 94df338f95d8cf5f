/*
 * link.h - a connection to the pool's master: dialled, and again after each loss; questions in, decoded
 * answers out. With several masters, the one that is up.
 *
 * Life:    link_open -> (up -> link_ask, link_answer ... -> down)* -> link_close
 * Threads: one, the loop's; before the loop turns also who opens it.
 * Memory:  a record for each question that is out, from the allocator. Messages given to the events are
 *          borrowed during the call.
 * Errors:  a loss is an event; what was asked is then answered by `down` alone.
 */
#ifndef STORE_LINK_H
#define STORE_LINK_H

#include <mooncake/store.h>

#include "net/net.h"

/** All entries set. None is called inside a function of this file. */
struct link_events {
    void (*up)(void *user);
    void (*down)(void *user);
    /** To what was asked with `tag`: MC_OK and the message of `wire`, or why there is none. */
    void (*answer)(void *user, uint64_t tag, mc_status status, uint32_t wire, const void *message);
    /** The master asks (id != 0) or says. */
    void (*message)(void *user, uint64_t id, uint32_t wire, const void *message);
};

enum { LINK_MASTERS_MAX = 8 };

struct link;
struct link_ask;

struct link_master {
    struct link *link;
    net_conn *conn;
    bool told; /* that it is away */
};

/** Fields are link.c's. */
struct link {
    const struct mc_alloc *alloc;
    const struct mc_log *log;
    const struct link_events *events;
    void *user;
    struct link_master masters[LINK_MASTERS_MAX];
    uint32_t count;
    struct link_master *active; /* NULL: none is up */
    struct link_ask *asks;
    char why[200]; /* the last loss, or "" */
};

/**
 * masters  "host:port", more than one separated by ';'.
 * log      borrowed until close, as alloc and events.
 *
 * Returns MC_OK, MC_E_ARG (an address), MC_E_RANGE (too many) or MC_E_NOMEM; then nothing is held.
 */
mc_status link_open(struct link *link, net *n, const char *masters, const struct mc_alloc *alloc,
                    const struct mc_log *log, const struct link_events *events, void *user,
                    struct mc_error *error);

/** What was asked is forgotten, no event comes any more. Safe on `{ 0 }`, and twice. */
void link_close(struct link *link);

static inline bool link_is_up(const struct link *link)
{
    return link->active != NULL;
}

/** MC_OK: `answer` with this tag, or `down`, follows. deadline_ns: 0, none. Else as net_ask(). */
mc_status link_ask(struct link *link, uint64_t tag, enum wire_kind kind, const void *message,
                   uint64_t deadline_ns);

/** Nobody waits for it any more. Unknown: nothing happens. */
void link_forget(struct link *link, uint64_t tag);

/** As net_answer(). */
mc_status link_answer(struct link *link, uint64_t id, enum wire_kind kind, const void *message);

#endif /* STORE_LINK_H */
