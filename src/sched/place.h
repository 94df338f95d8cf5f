/*
 * place.h - the view of one decision: the cluster as one request finds it.
 *
 * Filled by view_open() in the scheduler's own arrays; valid until the next one.
 */
#ifndef SCHED_PLACE_H
#define SCHED_PLACE_H

#include "sched/state.h"

/* What prefill_ns() said last; kind 0: nothing that holds for another row. */
struct place_answer {
    uint32_t kind;
    uint64_t tokens, reused, ns;
};

struct place {
    mc_sched *sched;
    const struct mc_sched_request *request;
    struct pane *pane;   /* the rows */
    struct mc_view view; /* its context is this struct */
    struct mc_view_columns columns;
    struct mc_view_work work; /* once it was asked for */
    struct place_answer prefill;
    uint64_t other_ns; /* usual from a prefill's end to the first token; 0: not looked at */
    uint64_t to_hold;  /* memory that decode needs, tokens */
    double
        stall; /* share that joins at the same time add to a step where it is decoded (joins.h); 0: not looked at */
    uint64_t pool_tokens; /* prefix in the store nodes together */
    uint64_t pool_most;   /* of these, the row that has most of it; UINT64_MAX: none has any */
};

/** Look at the cluster for `request`. */
void place_view(struct place *place, mc_sched *sched, const struct mc_sched_request *request);

struct instance *place_instance(const struct place *place, uint64_t row);

/** The row of an instance, or UINT64_MAX. */
uint64_t place_row(const struct place *place, uint64_t id);

/** What it knows itself, or another one of its model, or the nominal costs. */
const struct cost *place_prefill_cost(const struct place *place, uint64_t row);
const struct cost *place_step_cost(const struct place *place, uint64_t row);

/** The decision is a refusal: nothing of a placement is left in it but what was predicted. */
void place_refuse(struct mc_decision *decision, uint32_t reason, uint64_t retry_after_ns);

/** May it decode this request, leaving aside whether it has memory now? And has it memory? */
static inline bool place_can_decode(const struct place *place, uint64_t row)
{
    const struct mc_view_instance *i = &place->pane->rows[row];
    const uint64_t most = i->kv_tokens_max, tokens = place->request->tokens;

    return (i->role & MC_ROLE_DECODE) != 0 && (i->flags & MC_VIEW_DRAINING) == 0 &&
           i->id != place->request->barred_decode &&
           (most == 0 || tokens < most); /* and one more */
}

static inline bool place_has_memory(const struct place *place, uint64_t row)
{
    const struct mc_view_instance *i = &place->pane->rows[row];
    const uint64_t most = i->kv_tokens_max;
    const uint64_t need = most < place->to_hold ? most : place->to_hold;

    return most == 0 || i->free_tokens >= need;
}

/* What the request needs where it is decoded, for who asks of all instances. */
struct place_room {
    double tokens, to_hold;
    bool is_small; /* no instance is too small for it: berths tell all */
};

static inline struct place_room place_room(const struct place *place)
{
    const uint64_t tokens = place->request->tokens, least = place->pane->least_tokens_max;

    return (struct place_room){ (double)tokens, (double)place->to_hold,
                                tokens < least && place->to_hold <= least };
}

/** Both of the above, but for who is barred, if it is small. */
static inline bool place_fits(const struct place *place, const struct place_room *room,
                              uint64_t row)
{
    return room->is_small ? place->pane->berths[row].free_tokens >= room->to_hold
                          : place_can_decode(place, row) && place_has_memory(place, row);
}

/** What its next step would take with this request in it. */
static inline double place_step_s(const struct place *place, const struct place_room *room,
                                  uint64_t row)
{
    const struct berth *b = &place->pane->berths[row];

    return (b->seconds + b->each * (b->context + room->tokens)) * place->pane->step_paces[row];
}

/** The row with the shortest step of those that have room, a free slot before others; UINT64_MAX: none has room. */
uint64_t place_best_decoder(const struct place *place, uint64_t prefill);

#endif /* SCHED_PLACE_H */
