/*
 * store.h - a client of the pool from inside: its thread, and how other threads speak to it.
 *
 * Threads: `loop` and all that is marked so belong to the store's own thread. Others post to it, or run
 *          something there with store_run(). `lock` guards what is marked so; it is a leaf.
 */
#ifndef STORE_CLIENT_STORE_H
#define STORE_CLIENT_STORE_H

#include <mooncake/store.h>

#include "net/net.h"
#include "os/lock.h"
#include "os/loop.h"
#include "os/thread.h"
#include "store/client/link.h"
#include "store/client/moves.h"
#include "store/client/peers.h"
#include "store/client/scratch.h"
#include "store/core/client.h"

struct stats_ask;

struct mc_store {
    /* Set at open and then only read. */
    const struct mc_alloc *alloc;
    struct mc_log log;
    mc_transfer *transfer;
    char *masters; /* owned */
    void *secret;  /* owned; NULL: none */
    size_t secret_size;
    char tenant[MC_NAME_MAX + 1], name[MC_NAME_MAX + 1];
    uint64_t timeout_ns;
    uint32_t requests_max, items_max;
    os_loop *loop;
    struct os_thread thread;
    bool threaded;

    struct os_lock lock;
    struct os_condition changed; /* a store_run() is done */
    uint32_t under_way;          /* lock: requests not final */

    /* The loop's. */
    net *net;
    struct link link;
    store_client *core;
    struct store_client_out out;
    struct os_timer timer;
    struct moves moves;
    struct scratch scratch;
    struct peers peers;
    mc_store_request *done, **done_end; /* final, and to be told */
    struct stats_ask *stats;            /* that wait for the master */
    uint64_t stats_tag;
};

/** Call run(argument) in the store's thread and wait until it returned. Not from that thread. */
void store_run(mc_store *store, void (*run)(void *argument), void *argument);

/** Give the core an event, and see to all that follows from it. The loop's. */
void store_step(mc_store *store, const struct store_client_event *event);

/** See to what follows from a call of the core that was no step. The loop's. */
void store_settle(mc_store *store);

/** A `net` of this store's on its loop: another role, the same secret. segment: NULL, none. The loop's, or
 * before it turns. As net_open(). */
mc_status store_net_open(mc_store *store, enum net_role role, const char *segment, net **net_p,
                         struct mc_error *error);

/** A public deadline as a time that can be compared. */
static inline uint64_t store_deadline(uint64_t deadline_ns)
{
    return deadline_ns == MC_FOREVER ? UINT64_MAX : deadline_ns;
}

/** Tags of questions that are not the core's: it never uses them. */
#define STORE_TAG_STATS (UINT64_C(0xfffe) << 48)

/* request.c. The loop's: the core says that it is final. */
void request_done(void *user, store_request *core);
/** Publish what is done. False: nothing was. */
bool request_publish(mc_store *store);

/* stats.c. The loop's. */
void stats_up(mc_store *store);
bool stats_answer(mc_store *store, uint64_t tag, mc_status status, uint32_t wire,
                  const void *message);
void stats_down(mc_store *store);

#endif /* STORE_CLIENT_STORE_H */
