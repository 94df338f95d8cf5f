/*
 * cluster.h - what the scheduler knows of instances and of the requests that it placed.
 *
 * An instance's figures come from its last load report, while that report's lease lasts, corrected by what
 * was placed and ended since; without one they are what was placed and has not ended, alone. So the
 * figures are right at once after a placement, and a burst does not herd to one instance.
 *
 * Life:    cluster_init -> ... -> cluster_fini
 * Threads: one.
 * Memory:  all of it is taken at init (untouched until used). Instances and requests are cells that do not
 *          move; a cell's number is its name here. CLUSTER_NONE is nobody.
 * Errors:  init MC_E_NOMEM; events: as mc_sched_step() says, the state is then as before.
 */
#ifndef SCHED_CLUSTER_H
#define SCHED_CLUSTER_H

#include "sched/service.h"

#define CLUSTER_NONE UINT32_MAX

/** What a set of requests adds up to. */
struct work {
    uint64_t count, tokens, ns;
};

struct
    member { /* of a list of requests: at a prefill instance, what is worked on first; at a decode instance */
    uint32_t before, after;
};

struct instance {
    struct mc_sched_instance info;
    struct cost cost;
    struct service service; /* learns cost.prefill */
    bool used, draining;
    uint64_t last_ns; /* last given a request; 0: never */
    uint64_t joined_ns;

    bool reported;             /* `load` is believed, until load_until_ns */
    bool ever_reported;        /* there was one, maybe before */
    struct mc_sched_load load; /* as reported, less what has ended since; latest is never 0 */
    uint64_t load_ns, load_until_ns;

    uint32_t prefill_first, prefill_last; /* requests placed here, until their prefill ends */
    struct work prefill, prefill_known;   /* of these; of those among them that the load knows */
    uint32_t prefill_blind;               /* of these: how many are blind */
    uint64_t working_since_ns;            /* since when the first of them could be worked on */

    uint32_t decode_first, decode_last; /* requests placed here, until they end */
    struct work
        decode_extra; /* of these: count and prompt tokens of what load.running leaves out */
    double joined,
        joined_long; /* by joins.c: placed here to decode; of these, long prompts; faded */
    uint64_t joined_at_ns;
    uint64_t reserved_tokens; /* of these: what load.free_tokens leaves out */

    uint64_t send_until_ns, receive_until_ns; /* its network is booked */

    bool settles; /* it is in the list of services that are still to learn a row */
    uint32_t settle_before, settle_after;
};

enum request_stage { STAGE_QUEUED, STAGE_PREFILL, STAGE_PREFILLED, STAGE_DECODE };

struct request {
    uint64_t id;
    uint32_t
        next; /* in its bucket; while free: the next free one; while aborted: the next aborted */
    uint32_t prefill, decode; /* instances; CLUSTER_NONE: not there any more */
    struct member at_prefill, at_decode;
    enum request_stage stage;
    bool prefill_known, running_known, reserved_known; /* the load report counts it */
    bool predicted;                                    /* ttft_ns means something */
    uint64_t order;                                    /* in the prefill queue, lower first */
    uint64_t tokens, to_compute, to_hold; /* prompt; less what is reused; memory for decode */
    uint64_t prefill_ns, ttft_ns;         /* predicted */
    uint64_t placed_ns, spent_ns;         /* spent: its prefill took, once that ended */
    uint64_t prefilled_ns;                /* its prefill ended; 0: nobody said so */
    uint64_t prefill_id, decode_id;       /* the instances, also when they are gone */
    uint64_t tbt_slo_ns; /* stages.c holds it to that when its prefill ends; 0: to nothing */

    /* admit.c's */
    uint64_t arrived_ns, due_ns, begun_ns; /* begun: its first token came, once STAGE_DECODE */
    uint64_t raw_ttft_ns, raw_tbt_ns;      /* predicted, without margins; 0: not known */
    uint64_t other_ns;                     /* of raw_ttft */
    uint64_t output_max, output_hint, output_tokens; /* the last is expected */
    uint32_t shadow; /* refused ones that would have come behind it */
    uint64_t join;   /* its mark in the calendar, until it has joined (joins.h) */
    bool waited;     /* others were before it */
    bool blind;      /* placed before anybody's prefill costs were known: prefill_ns is not one */
};

struct cluster {
    const struct mc_alloc *alloc; /* borrowed */
    struct instance *instances;   /* owned; [instances_max] */
    uint32_t *order;              /* owned; [count]: cells by rising id */
    uint32_t instances_max, count;
    uint32_t decoders; /* of these: who decodes */

    struct request *requests; /* owned; [requests_max] */
    uint32_t *buckets;        /* owned; [bucket_mask + 1] */
    uint32_t bucket_mask, requests_max, request_count;
    uint32_t free_request, used_requests; /* as in kv/index.c */
    uint64_t latest;                      /* the largest request id seen */

    uint64_t *ids; /* owned; [count]: of `order` */
    uint32_t
        *changed; /* owned; [changed_mask + 1], a ring: cells whose figures changed, newest last */
    uint32_t changed_mask;
    uint64_t changes;                   /* ever put there */
    uint64_t priced;                    /* of these, cluster_price() has looked at */
    uint64_t members;                   /* raised when who there is, or what somebody is, changed */
    uint32_t settle_first, settle_last; /* by when their prompts ended */
};

mc_status cluster_init(struct cluster *cluster, const struct mc_alloc *alloc,
                       uint32_t instances_max, uint32_t requests_max);

/** All zero is allowed. */
void cluster_fini(struct cluster *cluster);

/* -------------------------------------------------------------------------------------- instances */

/** The cell of an id, or CLUSTER_NONE. */
uint32_t cluster_find(const struct cluster *cluster, uint64_t id);

/** Joined or changed. MC_OK, MC_E_ARG, MC_E_FULL. */
mc_status cluster_instance(struct cluster *cluster, const struct mc_sched_instance *info,
                           uint32_t *cell_p);

/** Forget it. Its requests are the caller's to end before. */
void cluster_instance_gone(struct cluster *cluster, uint32_t cell);

void cluster_load(struct cluster *cluster, uint32_t cell, uint64_t now_ns,
                  const struct mc_sched_load *load);

/** Stop believing a report whose lease is over. */
void cluster_expire(struct cluster *cluster, uint32_t cell, uint64_t now_ns);

/** What is shown of it may be another thing now. Whoever writes to a struct instance says so, or calls what does. */
void cluster_touch(struct cluster *cluster, uint32_t cell);

/** A prompt ended there: its service may keep a row back. And: learn those that time has settled. */
void cluster_settle_later(struct cluster *cluster, uint32_t cell);
void cluster_settle(struct cluster *cluster, uint64_t now_ns);

/** What is queued at an instance, by its own costs, without their pace. */
struct cluster_queue {
    uint64_t ns, first_ns; /* all; of these, the first that we placed (UINT64_MAX: none) */
    uint64_t since_ns;     /* since when it is worked on */
};
struct cluster_queue cluster_queue(const struct cluster *cluster, uint32_t cell);

/** Of those whose costs became known: price what was placed there before they were. */
void cluster_price(struct cluster *cluster);

/** Until it could begin the next prefill. */
uint64_t cluster_queue_ns(const struct cluster *cluster, uint32_t cell, uint64_t now_ns);

/** What of its queue, by its own costs without pace, is behind a request of this order. */
uint64_t cluster_behind_ns(const struct cluster *cluster, uint32_t cell, uint64_t order);

/** Who would be prefilled just before a request of this order, or CLUSTER_NONE. */
uint32_t cluster_before(const struct cluster *cluster, uint32_t cell, uint64_t order);

/** As struct mc_view_instance names them. */
struct cluster_figures {
    uint64_t queued, queued_tokens, running, context_tokens, free_tokens;
};
struct cluster_figures cluster_figures(const struct cluster *cluster, uint32_t cell);

/* --------------------------------------------------------------------------------------- requests */

/** The cell of an id, or CLUSTER_NONE. */
uint32_t cluster_request(const struct cluster *cluster, uint64_t id);

/** Is there room for one more? */
bool cluster_has_room(const struct cluster *cluster);

/** Placed: `request`'s ids, instances and figures are set; copied. There is room. */
uint32_t cluster_place(struct cluster *cluster, uint64_t now_ns, const struct request *request);

/** Its prefill has begun, has ended, it joined the batch. */
void cluster_prefill_begin(struct cluster *cluster, uint32_t cell, uint64_t now_ns);
void cluster_prefill_end(struct cluster *cluster, uint32_t cell, uint64_t now_ns);
void cluster_decode_begin(struct cluster *cluster, uint32_t cell);

/** All that it held is free; the cell leaves the table, and is the caller's until cluster_request_free(). */
void cluster_end(struct cluster *cluster, uint32_t cell, uint64_t now_ns);
void cluster_request_free(struct cluster *cluster, uint32_t cell);

#endif /* SCHED_CLUSTER_H */
