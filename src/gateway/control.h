/* control.h - a worker as the gateway's control side knows it; for control.c, workers.c and asks.c alone. */
#ifndef GATEWAY_CONTROL_H
#define GATEWAY_CONTROL_H

#include "gateway/state.h"

/** A connection of the control side: a worker's, or of somebody who asks for figures. */
struct worker {
    struct gateway_control_user user; /* what its connection calls us with */
    gateway *gateway;                 /* borrowed */
    net_conn *conn;
    struct worker *next;
    struct mc_sched_instance as_instance; /* id 0: not registered */
    char name[MC_NAME_MAX + 1];
    char address[MC_NAME_MAX + 1];
    uint64_t incarnation, context_max;
    uint32_t measure_tries;       /* how often it was asked to time itself */
    struct wire_load_report load; /* the last one, for the live page */
    bool timing;                  /* its engine is a model of time */
    bool draining;
    bool late;             /* its lease is over, and this is its last chance */
    uint64_t lease_ns;     /* the last one */
    struct os_timer lease; /* nothing was heard for so long: lost */
};

/** Registered ones. */
uint32_t gateway_workers_count(const gateway *g);

/** It broke the rules or is silent: end the line. It dials again if it can. */
void gateway_worker_drop(struct worker *w, const char *why);

/** It is lost unless it is heard of within. */
void gateway_worker_lease(struct worker *w, uint64_t lease_ns);

/** A report came. When none came from anybody for long, it was not the others who were silent: they get a whole lease. */
void gateway_worker_heard(struct worker *w, uint64_t lease_ns);

/** Its registration, answered here. */
void gateway_worker_enlist(struct worker *w, uint64_t id, const struct wire_worker_register *r);

/** What it says of its load, to the scheduler. */
void gateway_worker_load(struct worker *w, const struct wire_load_report *l);

/** Closing: nobody will answer any more. */
void gateway_asks_forget(gateway *g);

#endif /* GATEWAY_CONTROL_H */
