/* client_state.h - what client.c and the files of the ops share. */
#ifndef STORE_CLIENT_STATE_H
#define STORE_CLIENT_STATE_H

#include "store/core/client.h"
#include "store/core/due.h"

enum item_state {
    ITEM_ASK,    /* the master is to be asked (again) */
    ITEM_PLACED, /* places are known, transfers to be ordered */
    ITEM_MOVING,
    ITEM_READY, /* put: written, to be committed */
    ITEM_DONE,
};

struct client_item {
    uint64_t length;
    uint64_t token[2]; /* 0, 0: none that the master may know */
    void *scratch;
    size_t scratch_size;
    mc_status failed;          /* of the last replica that failed */
    uint8_t state;             /* enum item_state */
    uint8_t replicas, replica; /* known; get: at which we are */
    uint8_t moving, written;   /* bits: replicas */
    uint8_t rounds;            /* begun anew */
};

enum request_state { REQUEST_RUNS, REQUEST_STOPS, REQUEST_FINAL };

enum ask_use { ASK_MAIN = 1, ASK_RENEW, ASK_ASIDE };

struct client_ops;

struct store_request {
    const struct client_ops *ops;
    struct store_call call;
    void *user;
    uint32_t slot, serial;
    enum request_state state;
    mc_status status; /* the outcome, known when it stops */
    uint64_t deadline_ns;

    size_t base;                 /* first item of the part at hand */
    uint32_t n;                  /* items in it */
    struct client_item *items;   /* [part_max], of the part */
    struct mc_replica *replicas; /* [part_max x replicas_each] */
    uint32_t replicas_each, part_max;
    struct mc_range *parts; /* [parts_max]: of one transfer */
    uint32_t *asked;        /* [part_max]: items in the question that is out */
    uint32_t asked_count;

    uint64_t ask_tag, renew_tag; /* 0: none is out */
    uint64_t sent_ns, renew_sent_ns;
    uint64_t retry_at, renew_at; /* 0: not */
    uint32_t asked_before, moving;
    uint32_t fulls;        /* in a row: the master had no room */
    bool committing;       /* put: the question that is out is the commit */
    struct mc_lease lease; /* get: over the part; put: epoch and end of its tokens */
    uint64_t lease_ns;
};

struct store_client {
    struct store_client_options o;
    const struct store_client_out *out;
    uint64_t now;
    bool up;
    store_request **slots;   /* [requests_max] */
    uint32_t *serials;       /* [requests_max] */
    struct due due;          /* slots */
    void *say;               /* [batch_max] list elements */
    struct mc_key *say_keys; /* [batch_max] */
    uint64_t aside;          /* questions whose answers nobody waits for */
    uint64_t epoch;          /* of the master that answered last */
    struct store_client_figures total;
};

enum { SAY_MAX = 80, GET_REPLICAS = 4, ROUNDS_MAX = 4 };

enum next {
    NEXT_WAIT,  /* for an answer, a transfer, a time */
    NEXT_AGAIN, /* look again */
    NEXT_DONE,  /* the part at hand is done */
};

struct client_ops {
    size_t item_size, status_offset;
    bool has_status;
    /** A part of call->items begins; may make it shorter. May be NULL. */
    void (*begin)(store_client *c, store_request *r);
    enum next (*next)(store_client *c, store_request *r);
    void (*answered)(store_client *c, store_request *r, const void *message);
    enum wire_kind answer; /* the kind of an answer that is no outcome */
    void (*moved)(store_client *c, store_request *r, uint32_t item, uint32_t replica,
                  mc_status status);
    /** It is quiet and ends otherwise than well. May be NULL. */
    void (*abandon)(store_client *c, store_request *r);
    /** The part at hand is done. May be NULL. */
    void (*end)(store_client *c, store_request *r);
    /** Half of the lease is over. May be NULL. */
    void (*renew)(store_client *c, store_request *r);
    void (*renewed)(store_client *c, store_request *r, const void *message);
};

extern const struct client_ops client_ops_get, client_ops_put, client_ops_allot, client_ops_exist,
    client_ops_remove, client_ops_lookup, client_ops_lease_renew, client_ops_commit,
    client_ops_revoke, client_ops_allot_renew;

/** Item i of the part at hand, in the caller's array. */
void *client_item_at(const store_request *r, uint32_t i);
/** Write the item's status and count it as done. */
void client_item_done(store_client *c, store_request *r, uint32_t i, mc_status status);

/** Ask the master; the request waits for the answer. */
enum next client_ask(store_client *c, store_request *r, enum wire_kind kind, const void *message);
/** Ask for longer, beside the question that is out. */
void client_ask_renew(store_client *c, store_request *r, enum wire_kind kind, const void *message);
/** Ask and look at no answer. */
void client_aside(store_client *c, enum wire_kind kind, const void *message);

/** Order a transfer of item i and this replica; r->parts are set. */
mc_status client_move(store_client *c, store_request *r, uint32_t i, uint32_t replica,
                      enum mc_op op, size_t parts);
bool client_scratch(store_client *c, struct client_item *item, size_t size);
void client_scratch_free(store_client *c, struct client_item *item);

/** Look at the request again at `at_ns`, if nothing happens before. */
void client_retry(store_client *c, store_request *r, uint64_t at_ns);

/* request.c, for client.c: */

mc_status *request_status_at(const store_request *r, size_t index);
/** The part of the items that begins at r->base. */
void request_part(store_client *c, store_request *r);
/** As far as it goes without waiting. */
void request_advance(store_client *c, store_request *r);
void request_set_due(store_client *c, const store_request *r);
void request_due(store_client *c, store_request *r);
void request_answered(store_client *c, const struct store_client_event *event);
void request_moved(store_client *c, const struct store_client_event *event);
/** End with `status`, once no transfer is under way. */
void request_stop(store_client *c, store_request *r, mc_status status);

/** The lists that answers share. `nodes` beside the replicas tell their engines. */
uint32_t client_take_replicas(store_client *c, struct wire_list replicas, struct wire_list nodes,
                              struct mc_replica *replicas_p, uint32_t max);

#endif /* STORE_CLIENT_STATE_H */
