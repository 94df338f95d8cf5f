/* fixture.h - a scheduler to play with: events in short form, one decision back. */
#ifndef UNIT_SCHED_FIXTURE_H
#define UNIT_SCHED_FIXTURE_H

#include "test.h"

#include <mooncake/sched.h>

struct play {
    struct faulty faulty;
    mc_sched *sched;
    uint64_t now_ns, last_request;
};

enum { MS = 1000000 };

static inline void play_open(struct play *p, const struct mc_sched_options *options)
{
    struct mc_sched_options o = options ? *options : (struct mc_sched_options){ 0 };
    struct mc_error error = { 0 };

    memset(p, 0, sizeof(*p));
    faulty_init(&p->faulty, -1);
    o.alloc = &p->faulty.alloc;
    o.instances_max = o.instances_max ? o.instances_max : 16;
    o.requests_max = o.requests_max ? o.requests_max : 64;
    o.blocks_max = o.blocks_max ? o.blocks_max : 256;
    if (mc_sched_open(&o, &p->sched, &error) != MC_OK)
        fail_msg("%s", error.text);
}

static inline void play_close(struct play *p)
{
    mc_sched_close(p->sched);
    assert_int_equal(p->faulty.held, 0);
}

static inline mc_status play_step(struct play *p, struct mc_sched_event event)
{
    return mc_sched_step(p->sched, p->now_ns, &event);
}

static inline struct mc_cost play_cost(void)
{
    /* 1 us a token and 1 ms for each prefill; a step is 10 ms and 1 ms a sequence; 1 GB/s. */
    return (struct mc_cost){ .p0 = 1e-3, .p1 = 1e-6, .d0 = 10e-3, .d1 = 1e-3, .bytes_per_s = 1e9 };
}

static inline void play_join(struct play *p, uint64_t id, uint32_t role)
{
    const struct mc_sched_event event = { .kind = MC_EVENT_INSTANCE,
                                          .instance = { .id = id,
                                                        .role = role,
                                                        .kv_tokens_max = 10000,
                                                        .sequences_max = 8,
                                                        .kv_token_bytes = 100,
                                                        .cost = play_cost() } };
    assert_int_equal(play_step(p, event), MC_OK);
}

/** As above, with costs to be learnt. */
static inline void play_join_unknown(struct play *p, uint64_t id, uint32_t role)
{
    const struct mc_sched_event event = { .kind = MC_EVENT_INSTANCE,
                                          .instance = { .id = id,
                                                        .role = role,
                                                        .kv_tokens_max = 10000,
                                                        .sequences_max = 8,
                                                        .kv_token_bytes = 100 } };
    assert_int_equal(play_step(p, event), MC_OK);
}

static inline mc_status play_id(struct play *p, uint32_t kind, uint64_t id)
{
    return play_step(p, (struct mc_sched_event){ .kind = kind, .id = id });
}

static inline mc_status play_progress(struct play *p, uint32_t kind, uint64_t request, uint64_t id)
{
    return play_step(
        p, (struct mc_sched_event){ .kind = kind, .progress = { .request = request, .id = id } });
}

/** The next request, of `tokens` and the first `key_count` of `keys`. */
static inline struct mc_decision play_ask(struct play *p, struct mc_sched_request request)
{
    struct mc_decision decision;
    size_t count = 0;

    request.id = ++p->last_request;
    const struct mc_sched_event event = { .kind = MC_EVENT_REQUEST, .request = request };
    assert_int_equal(play_step(p, event), MC_OK);
    assert_int_equal(mc_sched_take(p->sched, &decision, 1, &count), MC_OK);
    assert_int_equal(count, 1);
    assert_int_equal(decision.request, request.id);
    assert_int_equal(mc_sched_take(p->sched, &decision, 1, &count), MC_E_NOT_FOUND);
    return decision;
}

static inline void play_stored(struct play *p, uint64_t id, const struct mc_key *keys,
                               uint64_t count)
{
    const struct mc_sched_event event = {
        .kind = MC_EVENT_STORED,
        .blocks = { .id = id, .keys = keys, .count = count, .medium = MC_MEDIUM_DRAM }
    };
    assert_int_equal(play_step(p, event), MC_OK);
}

/** A chain of keys: different ones for each `chain`. */
static inline void play_keys(struct mc_key *keys, size_t count, uint8_t chain)
{
    for (size_t i = 0; i < count; i++) {
        memset(&keys[i], 0, sizeof(keys[i]));
        keys[i].bytes[0] = chain;
        keys[i].bytes[1] = (uint8_t)i;
        keys[i].bytes[2] = (uint8_t)(i >> 8);
    }
}

static inline struct mc_sched_stats play_stats(const struct play *p)
{
    struct mc_sched_stats stats;

    assert_int_equal(mc_sched_stats(p->sched, &stats), MC_OK);
    return stats;
}

#endif /* UNIT_SCHED_FIXTURE_H */
