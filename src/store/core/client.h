/*
 * client.h - requests to the pool, as state machines: ask the master, order transfers, verify, fail over.
 *
 * Life:    store_client_open -> (store_client_begin -> store_client_step* -> store_client_free)* ->
 *          store_client_close
 * Threads: one.
 * Memory:  a request's at begin, from the allocator; nothing later. The items of a call, and the memory
 *          that they name, are borrowed until the request is final.
 * Errors:  what master and nodes say is an event. A lost connection is waited for, and what was asked is
 *          asked again; a master that restarted makes tokens and leases stale, and the request begins anew.
 *
 * What is kept, whatever happens:
 *   - Bytes that are handed out were verified, and read under a lease that held when the last of them had
 *     come (or a place given away could lend a new payload to an old header).
 *   - Final means quiet: no transfer of the request is under way. A put that ends otherwise is revoked.
 */
#ifndef STORE_CLIENT_H
#define STORE_CLIENT_H

#include <mooncake/store.h>

#include "wire/msg.h"

typedef struct store_client store_client;   /* opaque */
typedef struct store_request store_request; /* opaque */

struct store_client_options {
    const struct mc_alloc *alloc; /* borrowed until close; required */
    struct mc_identity host;      /* of this machine; zeros: not said */
    uint64_t timeout_ns;          /* of calls without a deadline; default 5 s */
    uint64_t lease_ns;            /* of a get's lookups and a put's tokens; default: the master's */
    uint32_t requests_max;        /* default 1024, at most 65535 */
    uint32_t items_max;           /* in a call; default 4096, at most 65536 */
    uint32_t batch_max;           /* in a message; default and at most 4096 */
};

enum store_op {
    STORE_GET,         /* struct mc_get */
    STORE_PUT,         /* struct mc_put */
    STORE_EXIST,       /* struct mc_exist */
    STORE_REMOVE,      /* struct mc_remove */
    STORE_LOOKUP,      /* struct mc_lookup */
    STORE_LEASE_RENEW, /* struct mc_lease */
    STORE_ALLOT,       /* struct mc_allot */
    STORE_COMMIT,      /* struct mc_commit */
    STORE_REVOKE,      /* struct mc_commit */
    STORE_ALLOT_RENEW, /* struct mc_token */
};

/** As the functions of mooncake/store.h take them. */
struct store_call {
    enum store_op op;
    void *items; /* [count], of the op's type */
    size_t count;
    struct mc_placement placement; /* PUT, ALLOT */
    uint64_t lease_ns;             /* LOOKUP, LEASE_RENEW, ALLOT_RENEW */
    uint32_t flags;                /* LOOKUP */
    uint64_t deadline_ns;
};

enum store_client_event_kind {
    STORE_CLIENT_TICK,
    STORE_CLIENT_UP,     /* a connection to a master is there */
    STORE_CLIENT_DOWN,   /* it is gone; what was asked over it gets no answer */
    STORE_CLIENT_ANSWER, /* to what was asked with tag `id`; status MC_OK: `message` of kind `wire` */
    STORE_CLIENT_MOVED, /* the transfer `id` is final with `status`: nothing touches its memory */
};

struct store_client_event {
    enum store_client_event_kind kind;
    uint64_t id;
    mc_status status;
    uint32_t wire;
    const void *message;
};

/** What the client wants done, at once; called inside begin, cancel and step. None may call the client. */
struct store_client_out {
    /** MC_OK: one STORE_CLIENT_ANSWER with `tag`, or STORE_CLIENT_DOWN, follows. */
    mc_status (*ask)(void *user, uint64_t tag, enum wire_kind kind, const void *message);
    /** Nobody waits for that answer any more. */
    void (*forget)(void *user, uint64_t tag);
    /** A node's engine, to be opened by its name. The id for struct mc_xfer; 0: cannot be had. */
    uint32_t (*segment)(void *user, uint64_t node, struct wire_slice name, uint64_t incarnation);
    /** Registered memory for headers and sums; NULL: none now. */
    void *(*scratch)(void *user, size_t size);
    void (*scratch_free)(void *user, void *scratch, size_t size);
    /** Move the parts, one after another, from or to the place's start. MC_OK: STORE_CLIENT_MOVED follows
     * (with `tag`). The replica and parts are borrowed during the call. */
    mc_status (*move)(void *user, uint64_t tag, enum mc_op op, const struct mc_replica *replica,
                      const struct mc_range *parts, size_t count, uint64_t deadline_ns);
    /** Stop a transfer; STORE_CLIENT_MOVED follows when it is quiet. */
    void (*stop)(void *user, uint64_t tag);
    /** 128 random bits, not all 0. */
    void (*draw)(void *user, uint64_t token[2]);
    /** The request is final; it lives until store_client_free(). */
    void (*done)(void *user, store_request *request);
    void *user;
};

/** MC_OK, MC_E_RANGE or MC_E_NOMEM. */
mc_status store_client_open(const struct store_client_options *options, store_client **client_p);
/** All requests were freed. NULL is allowed. */
void store_client_close(store_client *client);

/**
 * Begin. `user` is kept for store_request_user().
 *
 * Returns MC_OK (done will be called, never inside this), MC_E_FULL (requests_max), MC_E_RANGE (items_max,
 * replicas), MC_E_UNSUPPORTED (a placement that this release does not know) or MC_E_NOMEM.
 */
mc_status store_client_begin(store_client *client, const struct store_call *call, void *user,
                             uint64_t now_ns, const struct store_client_out *out,
                             store_request **request_p);

/** It ends with MC_E_CANCELLED once it is quiet, which may be now; final ones stay as they are. */
void store_client_cancel(store_client *client, store_request *request, uint64_t now_ns,
                         const struct store_client_out *out);

/** Free a final request. */
void store_client_free(store_client *client, store_request *request);

/** Give leases back; where there is no connection they expire. */
void store_client_release(store_client *client, const struct mc_lease *leases, size_t count,
                          const struct store_client_out *out);

void store_client_step(store_client *client, const struct store_client_event *event,
                       uint64_t now_ns, const struct store_client_out *out);

/** When a tick is due; UINT64_MAX: not before something happens. */
uint64_t store_client_next_ns(const store_client *client);

/** MC_PENDING, or the outcome for good. */
mc_status store_request_status(const store_request *request);
void *store_request_user(const store_request *request);

struct store_client_figures {
    uint64_t requests; /* now */
    uint64_t get_hits, get_misses, get_failed, put_stored, put_existed, put_failed;
    uint64_t get_bytes, put_bytes, corrupt, failovers, asked_again;
};

void store_client_figures(const store_client *client, struct store_client_figures *figures_p);

#endif /* STORE_CLIENT_H */
