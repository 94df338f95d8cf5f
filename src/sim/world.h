/* world.h - the insides of a simulation, shared by the files that each do one part of a request's way. */
#ifndef SIM_WORLD_H
#define SIM_WORLD_H

#include "sim/agenda.h"
#include "sim/links.h"
#include "sim/sim.h"

#define NOBODY UINT32_MAX

enum event_kind {
    EVENT_ARRIVE,       /* whom: request */
    EVENT_ASK,          /* request: all of its prompt is here */
    EVENT_RETURN,       /* request: refused before, it comes back */
    EVENT_QUEUE,        /* request: the decision has reached the prefill instance */
    EVENT_PULL,         /* request: the first byte of its pull */
    EVENT_PULL_LATE,    /* request: computing what is pulled would be done by now */
    EVENT_READ,         /* request: its blocks are back from SSD */
    EVENT_PREFILL_NEXT, /* instance: a chunk is done, or it can begin another request */
    EVENT_PREFILL_END,  /* request */
    EVENT_SEND,         /* request: the first byte of its KVCache to the decode node */
    EVENT_LOADED,       /* request: it is in VRAM */
    EVENT_STEP,         /* instance: its batch's stretch is over, or its step */
    EVENT_FLOW,         /* links: one is through */
    EVENT_CHANGE,       /* whom: of options.changes */
    EVENT_SAMPLE,
    EVENT_TICK, /* the scheduler asked for it */
};

enum flow_kind { FLOW_PULL, FLOW_SEND, FLOW_REPLICA }; /* whom: request, request, copy */

/** A hot prefix on its way: the first blocks of a request. */
struct copy {
    uint32_t to, request, blocks; /* blocks 0: this record is free */
};

enum stage {
    STAGE_OUTSIDE,  /* not arrived, or over */
    STAGE_DECIDING, /* kept by the scheduler */
    STAGE_QUEUE,    /* on its way to, or at, the prefill instance */
    STAGE_PREFILL,
    STAGE_MOVE, /* to the decode node, and into its VRAM */
    STAGE_WAIT, /* for a place in the batch */
    STAGE_DECODE,
    STAGE_AWAY, /* refused, and told when to come back */
    STAGES
};

/** What a request is doing. Its past is in its record. */
struct life {
    uint64_t attempt;       /* the scheduler's id of it; 0: none */
    uint64_t order;         /* in the queue, lower first */
    uint64_t done_tokens;   /* prefilled in chunks so far, reused ones included */
    uint64_t pull_ns;       /* a pull may take so long; 0: any time */
    uint64_t read_until_ns; /* what it reuses is back from SSD; 0: it was not there */
    uint32_t next, before;  /* in the list of its instance */
    uint32_t own_blocks;    /* reused from the prefill instance itself: pinned there */
    uint32_t pull_blocks;   /* reused in all, the pulled ones included */
    uint32_t kept_blocks;   /* that the decode node had: pinned there, and not sent */
    uint32_t turn;          /* events of other turns are not for it */
    uint16_t stage;         /* enum stage */
    uint8_t holds_own, holds_pull, holds_kept; /* pins are there */
    uint8_t pulling, reading;                  /* what it waits for before its prefill */
    uint8_t sending, computed;                 /* the KVCache is on its way; its prefill is over */
    uint8_t listed;                            /* at its instance */
    uint8_t taken;                             /* it was placed before, and lost its instance */
};

struct list {
    uint32_t first, last, count;
};

struct instance {
    uint32_t role, stages, node; /* node: of links */
    bool alive;
    uint32_t turn;
    struct mc_cost cost; /* of one node */

    bool has_blocks; /* that others may pull */
    bool keeps;      /* a decode node: what it was sent stays in its DRAM; nobody hears of it */
    struct tier dram, ssd; /* of blocks; ssd.capacity 0: none */
    uint64_t ssd_free_ns;

    struct list queue;       /* for prefill */
    struct list active;      /* being prefilled */
    bool working;            /* cannot begin another one or another chunk now */
    uint64_t *stage_free_ns; /* owned; [stages], of a pipeline */

    struct list waiting; /* for a place in the batch */
    struct batch batch;
    uint64_t vram_used, vram_max; /* tokens */
    uint64_t load_free_ns;        /* DRAM to VRAM, one after the other */
    double stall_s;               /* of the batch, not yet in a step */
    double late_s; /* coupled: prompts held the batch up for so long since its last step */
    double step_s; /* coupled: of the step under way that has prompts in it */
};

struct sim {
    struct sim_options options;
    const struct mc_alloc *alloc;
    struct sim_node node;
    struct agenda agenda;
    struct links links;
    uint32_t links_turn;
    mc_sched *sched;
    uint64_t now_ns, tick_ns;
    bool failed; /* memory */

    struct instance *instances; /* owned; [instances_max] */
    uint32_t instance_count, instances_max;
    uint32_t
        pool; /* the instance that only holds blocks; NOBODY: prefill instances hold their own */
    struct life *lives;         /* owned; [trace count] */
    struct sim_record *records; /* owned; likewise */
    uint32_t *attempts;         /* owned; [attempts_max]: whose the scheduler's id - 1 is */
    uint64_t attempt_count, attempts_max;
    struct mc_key *keys;             /* owned; [block_ids] */
    uint32_t *replicas;              /* owned; [block_ids]: instances that have each block */
    struct mc_key *scratch;          /* owned; [scratch_max]: keys of one event */
    uint32_t scratch_max, block_max; /* block_max: of one request */
    struct mc_decision *decisions;   /* owned; [decisions_max]: taken and not acted on */
    uint32_t decision_count, decisions_max;
    struct copy *copies; /* owned; [copies_max] */
    uint32_t copies_max;
    uint32_t deciding;          /* the request that the scheduler was asked about last */
    struct batch_stretch *gaps; /* owned; [gaps_max] */
    uint32_t gaps_max;
    struct sim_sample *samples; /* owned; [samples_max] */
    uint32_t sample_count, samples_max;

    uint32_t arrived, over; /* requests */
    uint32_t counts[STAGES];
    uint32_t finished, refused;
    uint64_t uses; /* of blocks: the clock of tiers */
    uint64_t copied_blocks;
    uint64_t hit_tokens, prompt_tokens, events, gap_count, gaps_late;
    uint64_t gap_buckets[128];
    double wasted_s;
};

/* ---------------------------------------------------------------------------- world.c: time and lists */

void world_add(sim *s, uint64_t ns, enum event_kind kind, uint32_t whom, uint32_t turn);
void world_stage(sim *s, uint32_t request, enum stage stage);
uint64_t world_after(const sim *s, double seconds);

void list_add(sim *s, struct list *list, uint32_t request);
void list_remove(sim *s, struct list *list, uint32_t request);

static inline const struct sim_request *request_of(const sim *s, uint32_t request)
{
    return &s->options.trace->requests[request];
}

static inline uint32_t output_of(const sim *s, uint32_t request)
{
    const uint32_t output = request_of(s, request)->output, most = s->options.output_max;
    return most && output > most ? most : output;
}

static inline double kv_bytes(const sim *s, uint64_t tokens)
{
    return (double)tokens * s->node.kv_token_bytes;
}

/* ------------------------------------------------------------------------- decide.c: with the scheduler */

void decide_instance(sim *s, uint32_t instance);
void decide_request(sim *s, uint32_t request);
/** One event for the scheduler, and what it decides. */
mc_status decide_event(sim *s, const struct mc_sched_event *event);
void decide_progress(sim *s, uint32_t kind, uint32_t request, uint32_t instance,
                     struct mc_sched_progress progress);
void decide_tick(sim *s);

/** It is over: the scheduler hears of it, and all that it held is free. */
void request_over(sim *s, uint32_t request, enum sim_outcome outcome, uint32_t status);

/* ------------------------------------------------------------------------------- blocks.c: the memory */

mc_status blocks_open(sim *s, struct instance *instance);
void blocks_close(struct instance *instance);
/** How many blocks from its start are there. */
uint32_t blocks_matched(const sim *s, const struct instance *instance, uint32_t request);
/** Hold what it reuses, here and at the holder. */
void blocks_hold(sim *s, uint32_t request);
/** How many blocks of its prefix are somewhere. */
uint32_t blocks_matched_anywhere(const sim *s, uint32_t request);
/** The instance is gone, and all it had. */
void blocks_lose(sim *s, uint32_t instance);
void blocks_release_own(sim *s, uint32_t request);
void blocks_release_pull(sim *s, uint32_t request);
/** Its first `count` blocks are at `instance` now; the scheduler hears what is new and what had to go. */
void blocks_store(sim *s, uint32_t instance, uint32_t request, uint32_t count);
/** Hold so much less (coupled instances: their KVCache shares VRAM with the batch). */
/** What its decode node has of it is held there until it is in VRAM, and needs not be sent. */
void blocks_hold_kept(sim *s, uint32_t request);
void blocks_release_kept(sim *s, uint32_t request);
/** All of it is there now, and stays while there is room. */
void blocks_keep(sim *s, uint32_t request);
void blocks_limit(sim *s, uint32_t instance, uint64_t tokens);

/* ------------------------------------------------------------------------------------------ prefill.c */

void prefill_queue(sim *s, uint32_t request);
void prefill_read(sim *s, uint32_t request);
void prefill_kick(sim *s, uint32_t instance);
void prefill_next(sim *s, uint32_t instance);
void prefill_end(sim *s, uint32_t request);
double prefill_seconds(const struct instance *instance, uint64_t tokens, uint64_t reused);

/* --------------------------------------------------------------------------------------------- move.c */

void move_flow_add(sim *s, const struct flow *flow);
void move_flows(sim *s, uint32_t turn);
void move_plan(sim *s);
void move_pull(sim *s, uint32_t request);
void move_pull_late(sim *s, uint32_t request);
void move_send(sim *s, uint32_t request);
void move_send_stop(sim *s, uint32_t request);
/** The first blocks of a request, from one instance to another. */
void move_copy(sim *s, uint32_t from, uint32_t to, uint32_t request, uint32_t blocks);
/** One that is no longer under way. */
void move_copy_end(sim *s, uint32_t copy);
/** The prefill begins: with streaming, so does the sending. */
void move_stream(sim *s, uint32_t request, double seconds);
void move_computed(sim *s, uint32_t request);

/* ------------------------------------------------------------------------------------------- decode.c */

void decode_arrive(sim *s, uint32_t request);
void decode_turn(sim *s, uint32_t instance);
/** Common to decode and coupled: those whose last token is there leave. */
void decode_leave(sim *s, uint32_t instance);
void decode_run(sim *s, uint32_t instance);
void decode_count_gaps(sim *s, const struct batch *batch, uint32_t log_first, uint32_t members,
                       uint32_t waited);
/** Tokens of VRAM from its beginning to its end; and is there room for them, and for one more sequence? */
uint64_t decode_need(const sim *s, uint32_t request);
bool decode_has_room(const sim *s, const struct instance *instance, uint32_t request);

/* ------------------------------------------------------------------------------------------ coupled.c */

void coupled_kick(sim *s, uint32_t instance);
void coupled_step(sim *s, uint32_t instance);

/* ------------------------------------------------------------------------------------------ changes.c */

void change_happens(sim *s, uint32_t change);
/** Its instance is gone: place it again, or give it up. */
void change_lost(sim *s, uint32_t request);
/** Its KVCache was at an instance that is gone. */
void change_unsent(sim *s, uint32_t request);

/* ------------------------------------------------------------------------------------------- sample.c */

void sample_take(sim *s);

#endif /* SIM_WORLD_H */
