/*
 * pane.h - the rows of a view, kept from one decision to the next.
 *
 * A decision looks at every instance, and nearly all of them are as the last decision left them. So rows stay, and
 * at a decision only three things are done: what the cluster says has changed is filled in anew, times that go by
 * are counted down for all (a few bytes each), and what depends on the request is set and undone next time. There is a
 * pane for each model that was asked for lately; a pane that lost count is filled from scratch. A row has the
 * same bytes either way.
 *
 * Life:    panes_init -> pane_open* -> panes_fini
 * Threads: one.
 * Memory:  all at init, untouched until used; about 500 bytes for each instance and pane.
 */
#ifndef SCHED_PANE_H
#define SCHED_PANE_H

#include "kv/index.h"
#include "sched/cluster.h"

enum { PANES = 8, PANE_KINDS = 15 };

/* What is queued, as time goes by: struct cluster_queue, as two numbers whose larger one tells. */
struct clock {
    int64_t until_ns; /* when it is done, if the first one is not late */
    int64_t least_ns; /* what is left when that one is late */
};

/* The same, where costs have a pace, which changes as time goes by: shares are cost_pace_share()'s, the rest is without
 * pace. */
struct tick {
    double prefill_share, step_share, queue_share;
    double queue_s, first_s; /* first_s: infinite where nothing is queued */
    double step_s;           /* of its running batch */
    uint64_t since_ns;
};

/* What else time or a request changes in a row. */
struct line {
    uint64_t send_until_ns, receive_until_ns;
    uint64_t report_until_ns; /* UINT64_MAX: no report is believed */
    uint32_t role;            /* of the row, before a request is looked at */
    uint16_t paced;           /* bits of enum line_paced */
    bool busy;                /* it is in the pane's list of these */
};

enum line_paced { LINE_PACED_PREFILL = 1, LINE_PACED_STEP = 2 };

/* What work costs there, without pace: its own costs, or those it borrows. */
struct price {
    double terms[5];         /* of cost_prefill_terms() */
    const struct cost *cost; /* cost_nominal: nobody knows */
};
struct step_price {
    double terms[3]; /* of cost_step_terms() */
    const struct cost *cost;
};

/* Who could decode one more, in one go through memory: two to a cache line. */
struct berth {
    double
        seconds; /* of a step with one more sequence, less what its context adds, without pace; infinite where nothing
                     * more is decoded */
    double each; /* token of context adds */
    double context;     /* tokens */
    double free_tokens; /* infinite: no limit; 0 likewise */
};

/* How bytes come to it, and from it, of its own knowledge. */
struct price_link {
    double t0_s, bytes_per_s, load_bytes_per_s; /* given; bytes_per_s 0: not */
    double learnt[2][2];                        /* by enum cost_link */
    uint64_t token_bytes;
    bool knows[2];
};

/* Instances of a cluster are mostly alike: rows of one kind have the same costs, so what was computed for one
 * need not be for the next, nor its costs be fetched. 0: it is like no other, or its pace changes. */
struct kinds {
    uint8_t prefill, link;
};

struct pane {
    uint64_t model;
    bool filled;
    uint64_t members, changes; /* of the cluster: as far as it was taken in */
    uint64_t used_at;          /* number of the decision */

    uint32_t count;
    uint32_t *cells;                     /* [count]: of each row */
    uint32_t *row_of;                    /* [instances_max]: of each cell, or CLUSTER_NONE */
    struct mc_view_instance *rows;       /* [count], by id */
    struct clock *clocks;                /* [count] */
    struct tick *ticks;                  /* [count] */
    uint64_t *queues;                    /* [count]: queue_ns, or MC_VIEW_NEVER */
    uint64_t *cannot;                    /* [count]: MC_VIEW_NEVER, if it cannot prefill, or 0 */
    struct line *lines;                  /* [count] */
    struct price *prices;                /* [count]: of a prefill */
    struct step_price *steps;            /* [count] */
    double *prefill_paces, *step_paces;  /* [count]: now */
    struct price_link *links;            /* [count] */
    uint64_t *lasts;                     /* [count]: last_ns */
    uint64_t *rest;                      /* [count]: see view_work() */
    uint64_t *taken_in;                  /* [count]: `changes` when it was filled last */
    uint8_t *knows;                      /* [count]: bits of enum pane_knows, stores too */
    struct berth *berths;                /* [count] */
    uint8_t *slots;                      /* [count]: a place in the batch is free */
    struct kinds *kinds;                 /* [count] */
    uint8_t *alike;                      /* [count]: as struct mc_view says of kinds */
    double prefill_kinds[PANE_KINDS][5]; /* terms; kind 1 is the first */
    struct price_link link_kinds[PANE_KINDS];
    uint8_t prefill_kind_count, link_kind_count;
    uint32_t lenders[4]; /* rows: the first that knows, not a store; CLUSTER_NONE: none */
    bool all_know;       /* nobody borrows a price */
    uint32_t paced;      /* rows that are */
    uint64_t epoch;      /* of the shares of ticks */
    uint32_t prefills;   /* rows with MC_ROLE_PREFILL */
    uint32_t *holders;   /* [holder_count]: rows that have blocks of the request, rising */
    uint32_t holder_count;
    bool bent;                      /* roles are not those of the lines */
    uint64_t least_tokens_max;      /* of working memory, of any row; UINT64_MAX: no limit */
    uint64_t first_report_until_ns; /* at most the earliest of the lines' */
    uint32_t *busy;                 /* [busy_count]: rows that send or receive, maybe others */
    uint32_t busy_count;
};

enum pane_knows { KNOWS_PREFILL = 1, KNOWS_STEP = 2, KNOWS_LOCAL = 4, KNOWS_REMOTE = 8 };

struct panes {
    const struct mc_alloc *alloc; /* borrowed */
    struct pane all[PANES];
    uint32_t instances_max;
    uint64_t decisions;
};

/** MC_OK or MC_E_NOMEM; panes_fini() either way. */
mc_status panes_init(struct panes *panes, const struct mc_alloc *alloc, uint32_t instances_max);
void panes_fini(struct panes *panes); /* safe on zeroes */

/** The rows for requests of `model`, as they are now; no holders, roles as without a request. */
struct pane *pane_open(struct panes *panes, struct cluster *cluster, uint64_t model,
                       uint64_t now_ns);

/** Who has blocks of the request, and how many of them in a row from the first. Returns the tokens of the most. */
uint64_t pane_match(struct pane *pane, const struct kv_match *match, uint64_t block_tokens);

/** What a prompt of `tokens` takes everywhere to prefill, of which `reused` are there: [count]. */
void pane_price(const struct pane *pane, uint64_t tokens, uint64_t reused, uint64_t *ns_p);

/** What this request cannot have prefilled there: where it is `barred` (0: none), or too long. */
void pane_bend(struct pane *pane, uint64_t tokens, uint64_t barred);

/** Of a row that knows links of this kind. */
double price_transfer(const struct price_link *link, enum cost_link kind, uint64_t bytes);

#endif /* SCHED_PANE_H */
