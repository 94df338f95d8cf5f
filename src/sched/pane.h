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

/* What is queued, as time goes by: struct cluster_queue, at its pace now. */
struct clock {
    uint64_t queue_ns, first_ns, since_ns;
};

/* What else time or a request changes in a row. */
struct line {
    uint64_t send_until_ns, receive_until_ns;
    uint64_t report_until_ns; /* UINT64_MAX: no report is believed */
    uint32_t role;            /* of the row, before a request is looked at */
    uint16_t paced;           /* bits of enum line_paced */
    bool busy;                /* it is in the pane's list of these */
};

enum line_paced { LINE_PACED_PREFILL = 1, LINE_PACED_STEP = 2, LINE_PACED_QUEUE = 4 };

/* What work costs there: its own costs, or those it borrows. */
struct price {
    double prefill[5], step[3]; /* cost.h: terms */
    double prefill_pace, step_pace;
    const struct cost *prefill_cost, *step_cost; /* cost_nominal: nobody knows */
};

/* Who could decode one more, in one go through memory. */
struct berth {
    double seconds; /* of a step with one more sequence, less what its context adds */
    double each;    /* token of context adds */
    double pace;
    uint64_t context;     /* tokens */
    uint64_t free_tokens; /* UINT64_MAX: no limit; 0 where nothing more is decoded */
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

/* Of a row that is paced: whose costs change as time goes by. */
struct paces {
    struct pace prefill, step;
    uint64_t queue_ns, first_ns; /* without pace */
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
    struct line *lines;                  /* [count] */
    struct price *prices;                /* [count] */
    struct price_link *links;            /* [count] */
    struct paces *paces;                 /* [count] */
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

/** Who has blocks of the request, and how many of them in a row from the first. */
void pane_match(struct pane *pane, const struct kv_match *match, uint64_t block_tokens);

/** What this request cannot have prefilled there: where it is `barred` (0: none), or too long. */
void pane_bend(struct pane *pane, uint64_t tokens, uint64_t barred);

/** Of a row that knows links of this kind. */
double price_transfer(const struct price_link *link, enum cost_link kind, uint64_t bytes);

#endif /* SCHED_PANE_H */
