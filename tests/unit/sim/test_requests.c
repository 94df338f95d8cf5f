/* test_requests.c - traces in memory, their statistics, pools, cluster texts, and traces that are made. */
#include "world.h"

#include <math.h>

#include "sim/generate.h"
#include "sim/pool.h"
#include "sim/requests.h"
#include "sim/tracestats.h"

static void test_blocks_are_numbered_and_times_begin_at_the_first_request(void **state)
{
    (void)state;
    const uint64_t a[] = { 900, 17, 5 }, b[] = { 900, 17, 6 };
    const struct trace_request x = {
        .arrival_ns = 5000, .input_tokens = 1300, .output_tokens = 0, .hash_ids = a, .hash_count = 3
    };
    const struct trace_request y = {
        .arrival_ns = 7000, .input_tokens = 1536, .output_tokens = 9, .hash_ids = b, .hash_count = 3
    };
    struct requests r;
    struct faulty f;

    faulty_init(&f, -1);
    requests_init(&r, 512, &f.alloc);
    assert_int_equal(requests_add(&r, &x), MC_OK);
    assert_int_equal(requests_add(&r, &y), MC_OK);
    const struct sim_trace t = requests_trace(&r);
    assert_int_equal(t.count, 2);
    assert_int_equal(t.requests[0].arrival_ns, 0);
    assert_int_equal(t.requests[1].arrival_ns, 2000);
    assert_int_equal(t.requests[0].block_count, 2); /* the third is not whole */
    assert_int_equal(t.requests[0].output, 1);
    assert_int_equal(t.requests[1].block_count, 3);
    assert_int_equal(t.block_ids, 3);
    assert_int_equal(t.blocks[t.requests[1].first_block + 1], t.blocks[1]);
    assert_int_equal(t.blocks[t.requests[1].first_block + 2], 2);
    requests_fini(&r);
    assert_int_equal(f.held, 0);
}

static void test_a_trace_may_be_larger_than_its_room(void **state)
{
    (void)state;
    uint64_t ids[64];
    mc_status status = MC_OK;
    struct requests r;
    struct faulty f;

    faulty_init(&f, -1);
    requests_init(&r, 16, &f.alloc);
    r.room = (struct requests_room){ .bytes = 1 << 20, .request_bytes = 1000, .block_bytes = 100 };
    for (uint32_t i = 0; status == MC_OK && i < 10000; i++) {
        for (uint32_t n = 0; n < 64; n++)
            ids[n] = i * 64 + n;
        status = requests_add(
            &r, &(struct trace_request){
                    .input_tokens = 1024, .output_tokens = 1, .hash_ids = ids, .hash_count = 64 });
    }
    assert_int_equal(status, MC_E_RANGE);
    assert_in_range(r.count * UINT64_C(1000) + r.id_count * UINT64_C(100), 500000, 1 << 20);
    requests_fini(&r);
    assert_int_equal(f.held, 0);
}

static void test_a_trace_without_memory_leaves_nothing_behind(void **state)
{
    (void)state;
    uint64_t ids[64];

    for (int k = 0;; k++) {
        struct requests r;
        struct faulty f;
        mc_status status = MC_OK;

        faulty_init(&f, k);
        requests_init(&r, 16, &f.alloc);
        for (uint32_t i = 0; status == MC_OK && i < 600; i++) {
            for (uint32_t n = 0; n < 64; n++)
                ids[n] = i * 64 + n;
            status = requests_add(&r, &(struct trace_request){ .input_tokens = 1024,
                                                               .output_tokens = 1,
                                                               .hash_ids = ids,
                                                               .hash_count = 64 });
        }
        requests_fini(&r);
        assert_int_equal(f.held, 0);
        if (status == MC_OK)
            break;
        assert_int_equal(status, MC_E_NOMEM);
    }
}

/* Three requests: 3 blocks; the same and one more; another one. */
static void three(struct play *p)
{
    play_init(p, "1P+1D");
    play_add(p, 0, 350, 10, 1, 3);
    play_add(p, 3, 450, 20, 1, 4);
    play_add(p, 3, 250, 30, 2, 0);
}

static void test_statistics_of_three_requests(void **state)
{
    (void)state;
    static struct play p;
    struct tracestats s;
    const struct mc_cost cost = { .p0 = 1, .p1 = 0.001 };

    three(&p);
    assert_int_equal(tracestats_make(&p.trace, &cost, &p.faulty.alloc, &s), MC_OK);
    assert_int_equal(s.requests, 3);
    assert_true(fabs(s.span_s - 3) < 1e-9 && fabs(s.input.mean - 350) < 1e-9);
    assert_int_equal(s.input_tokens, 1050);
    assert_int_equal(s.output_tokens, 60);
    assert_int_equal(s.stamps, 2);
    assert_true(fabs(s.burst.most - 2) < 1e-9);
    assert_int_equal(s.accesses, 9);
    assert_int_equal(s.rank[0], 2);
    assert_int_equal(s.first_blocks, 2);
    assert_true(fabs(s.hit_blocks - 3.0 / 9) < 1e-9 && fabs(s.hit_tokens - 300.0 / 1050) < 1e-9);
    assert_true(fabs(s.reusing - 1.0 / 3) < 1e-9);
    assert_int_equal(s.two_parents, 0);
    assert_true(fabs(s.compute_s - 4.05) < 1e-9);
    for (int k = 0; k < 3; k++) {
        faulty_init(&p.faulty, k);
        assert_int_equal(tracestats_make(&p.trace, &cost, &p.faulty.alloc, &s), MC_E_NOMEM);
        assert_int_equal(p.faulty.held, 0);
    }
}

static void test_a_pool_hits_what_it_can_hold(void **state)
{
    (void)state;
    static struct play p;
    struct pool_hits hits;

    three(&p);
    assert_int_equal(pool_replay(&p.trace, 1000000, TIER_LRU, false, &p.faulty.alloc, &hits),
                     MC_OK);
    assert_int_equal(hits.hit_tokens, 300);
    assert_int_equal(hits.tokens, 1050);
    assert_int_equal(pool_replay(&p.trace, 200, TIER_LRU, false, &p.faulty.alloc, &hits), MC_OK);
    assert_int_equal(hits.hit_blocks, 0); /* the beginning went out first */
    assert_int_equal(pool_replay(&p.trace, 99, TIER_LRU, false, &p.faulty.alloc, &hits), MC_OK);
    assert_int_equal(hits.hit_blocks, 0);
    /* Half a block behind each prompt takes the room of a whole one. */
    assert_int_equal(pool_replay(&p.trace, 1000000, TIER_LRU, true, &p.faulty.alloc, &hits), MC_OK);
    assert_int_equal(hits.hit_tokens, 300);
    uint64_t alone = 0, beside = 0;
    for (uint64_t capacity = 100; capacity <= 1000; capacity += 100) {
        assert_int_equal(pool_replay(&p.trace, capacity, TIER_LRU, false, &p.faulty.alloc, &hits),
                         MC_OK);
        alone += hits.hit_tokens;
        assert_int_equal(pool_replay(&p.trace, capacity, TIER_LRU, true, &p.faulty.alloc, &hits),
                         MC_OK);
        beside += hits.hit_tokens;
    }
    assert_true(beside < alone && beside > 0);
    assert_int_equal(p.faulty.held, 0);
}

static void test_clusters_are_read(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",    "P",      "0P",      "3",      "3X",  "3P+",   "3P+2",
        "+3P", "2P0+1D", "2P65+1D", "99999P", "1D2", "3P 2D", "1P+1P+1P+1P+1P+1P+1P+1P+1P"
    };
    struct sim_group groups[SIM_GROUPS_MAX];
    struct mc_error error = { 0 };
    uint32_t count = 77;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (sim_cluster_read(bad[i], groups, &count, &error) != MC_E_FORMAT)
            fail_msg("\"%s\" was read", bad[i]);
        assert_int_equal(count, 77);
        assert_true(error.text[0] != '\0');
    }
    assert_int_equal(sim_cluster_read("10P+2p4+6D", groups, &count, &error), MC_OK);
    assert_int_equal(count, 3);
    assert_int_equal(groups[0].count, 10);
    assert_int_equal(groups[1].stages, 4);
    assert_int_equal(groups[2].role, MC_ROLE_DECODE);
    assert_int_equal(sim_cluster_read("16C", groups, &count, &error), MC_OK);
    assert_int_equal(groups[0].role, MC_ROLE_BOTH);
}

static mc_status keep(void *user, const struct trace_request *request)
{
    return requests_add(user, request);
}

static void assert_same_request(const struct sim_request *a, const struct sim_request *b)
{
    assert_int_equal(a->arrival_ns, b->arrival_ns);
    assert_int_equal(a->first_block, b->first_block);
    assert_int_equal(a->block_count, b->block_count);
    assert_int_equal(a->input, b->input);
    assert_int_equal(a->output, b->output);
}

/* A trace made of a trace is like it: rate, lengths, reuse. */
static void test_what_is_made_is_like_what_was_learnt(void **state)
{
    (void)state;
    const struct mc_cost cost = { .p1 = 1 };
    struct requests first, second, third;
    struct trace_fit fit;
    struct tracestats a, b;
    struct faulty f;

    faulty_init(&f, -1);
    requests_init(&first, TRACE_BLOCK_TOKENS, &f.alloc);
    requests_init(&second, TRACE_BLOCK_TOKENS, &f.alloc);
    requests_init(&third, TRACE_BLOCK_TOKENS, &f.alloc);
    trace_fit_plain(&fit, 5, 6000, 100, 0.5);
    assert_int_equal(trace_generate(&fit, 4000, 1, &f.alloc, keep, &first), MC_OK);
    struct sim_trace trace = requests_trace(&first);
    assert_int_equal(trace_fit_make(&trace, &f.alloc, &fit), MC_OK);
    assert_int_equal(tracestats_make(&trace, &cost, &f.alloc, &a), MC_OK);
    assert_true(fabs(a.rate - 5) < 0.5 && fabs(fit.sessions - 0.5) < 0.1);
    assert_int_equal(a.two_parents, 0);
    assert_int_equal(trace_generate(&fit, 4000, 2, &f.alloc, keep, &second), MC_OK);
    trace = requests_trace(&second);
    assert_int_equal(tracestats_make(&trace, &cost, &f.alloc, &b), MC_OK);
    assert_true(fabs(b.rate / a.rate - 1) < 0.1);
    assert_true(fabs(b.input.mean / a.input.mean - 1) < 0.25);
    assert_true(fabs(b.output.mean / a.output.mean - 1) < 0.1);
    assert_true(fabs(b.hit_tokens - a.hit_tokens) < 0.1);
    assert_true(fabs(b.reusing - a.reusing) < 0.1);
    assert_int_equal(b.two_parents, 0);
    /* the same seed: the same trace */
    assert_int_equal(trace_generate(&fit, 4000, 2, &f.alloc, keep, &third), MC_OK);
    assert_int_equal(third.block_count, second.block_count);
    assert_int_equal(third.count, second.count);
    for (uint32_t i = 0; i < third.count; i++) /* there is padding between them */
        assert_same_request(&third.requests[i], &second.requests[i]);
    assert_memory_equal(third.blocks, second.blocks, third.block_count * sizeof(*third.blocks));
    requests_fini(&first);
    requests_fini(&second);
    requests_fini(&third);
    assert_int_equal(f.held, 0);
}

static mc_status nothing(void *user, const struct trace_request *request)
{
    (void)user;
    (void)request;
    return MC_OK;
}

static void test_making_without_memory_leaves_nothing_behind(void **state)
{
    (void)state;
    static struct play p;
    struct trace_fit fit;

    trace_fit_plain(&fit, 1, 20000, 10, 0.3);
    for (int k = 0;; k++) {
        struct faulty f;
        faulty_init(&f, k);
        const mc_status status = trace_generate(&fit, 200, 1, &f.alloc, nothing, NULL);
        assert_int_equal(f.held, 0);
        if (status == MC_OK)
            break;
        assert_int_equal(status, MC_E_NOMEM);
    }
    three(&p);
    for (int k = 0; k < 9; k++) {
        faulty_init(&p.faulty, k);
        assert_int_equal(trace_fit_make(&p.trace, &p.faulty.alloc, &fit), MC_E_NOMEM);
        assert_int_equal(p.faulty.held, 0);
    }
}

static void test_a_line_is_what_the_reader_reads(void **state)
{
    (void)state;
    const uint64_t ids[] = { 1, 22 };
    const struct trace_request r = { .arrival_ns = 1234567000,
                                     .input_tokens = 600,
                                     .output_tokens = 7,
                                     .hash_ids = ids,
                                     .hash_count = 2 };
    struct faulty f;

    faulty_init(&f, -1);
    struct buf out = BUF_INIT(&f.alloc);
    trace_line(&r, &out);
    assert_string_equal(out.data, "{\"timestamp\": 1234.567, \"input_length\": 600, "
                                  "\"output_length\": 7, \"hash_ids\": [1, 22]}\n");
    buf_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks_are_numbered_and_times_begin_at_the_first_request),
        cmocka_unit_test(test_a_trace_may_be_larger_than_its_room),
        cmocka_unit_test(test_a_trace_without_memory_leaves_nothing_behind),
        cmocka_unit_test(test_statistics_of_three_requests),
        cmocka_unit_test(test_a_pool_hits_what_it_can_hold),
        cmocka_unit_test(test_clusters_are_read),
        cmocka_unit_test(test_what_is_made_is_like_what_was_learnt),
        cmocka_unit_test(test_making_without_memory_leaves_nothing_behind),
        cmocka_unit_test(test_a_line_is_what_the_reader_reads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
