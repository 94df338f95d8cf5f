/* test_replicate.c - hot prefixes: what tips a copy, where it goes, what bounds and damps it. */
#include "fixture.h"

enum { BLOCKS = 40, BLOCK = 16 };

struct asked {
    struct mc_decision placed, copy; /* copy.kind 0: none */
};

static struct asked ask(struct play *p, const struct mc_key *keys, uint64_t blocks)
{
    const struct mc_sched_event event = { .kind = MC_EVENT_REQUEST,
                                          .request = { .id = ++p->last_request,
                                                       .tokens = blocks * BLOCK + 5,
                                                       .keys = keys,
                                                       .key_count = blocks } };
    struct asked a = { 0 };
    struct mc_decision d[4];
    size_t count = 0;

    assert_int_equal(play_step(p, event), MC_OK);
    assert_int_equal(mc_sched_take(p->sched, d, 4, &count), MC_OK);
    assert_in_range(count, 1, 2);
    a.placed = d[0];
    assert_int_equal(d[0].kind, MC_DECIDE_PLACE);
    assert_int_equal(d[0].request, p->last_request);
    if (count == 2) {
        a.copy = d[1];
        assert_int_equal(d[1].kind, MC_DECIDE_REPLICATE);
        assert_int_equal(d[1].reason, MC_REASON_HOT_PREFIX);
        assert_int_equal(d[1].request, 0);
        assert_memory_equal(d[1].keys, keys, d[1].key_count * sizeof(*keys));
        assert_int_equal(d[1].pull_tokens, d[1].key_count * BLOCK);
    }
    return a;
}

static void end(struct play *p, uint64_t request)
{
    assert_int_equal(play_progress(p, MC_EVENT_REQUEST_END, request, 1), MC_OK);
}

/* Two workers, and `nodes` of a pool, the first of which has all. */
static void open_pool(struct play *p, const char *replication, const struct mc_key *keys,
                      uint64_t nodes)
{
    play_open(p, &(struct mc_sched_options){ .replication = replication });
    play_join(p, 1, MC_ROLE_BOTH);
    play_join(p, 2, MC_ROLE_BOTH);
    for (uint64_t i = 0; i < nodes; i++)
        play_join(p, 10 + i, MC_ROLE_STORE);
    play_stored(p, 10, keys, BLOCKS);
    p->now_ns = 1000000000;
}

/* Ask once in 100 ms until a copy is ordered; how often that was. */
static uint32_t until_copied(struct play *p, const struct mc_key *keys, uint64_t blocks,
                             uint32_t most, struct mc_decision *copy_p)
{
    for (uint32_t i = 1; i <= most; i++) {
        const struct asked a = ask(p, keys, blocks);
        end(p, p->last_request);
        p->now_ns += 100 * (uint64_t)MS;
        if (a.copy.kind != 0) {
            *copy_p = a.copy;
            return i;
        }
    }
    return 0;
}

static void test_what_is_pulled_often_is_copied_within_the_pool(void **state)
{
    (void)state;
    struct play p;
    struct mc_key keys[BLOCKS];
    struct mc_decision copy;

    play_keys(keys, BLOCKS, 1);
    open_pool(&p, "", keys, 3);
    /* Each pull takes as long as a copy would: at the eighth, which is as many as are wanted. The deepest of the
     * depths that are looked at, within what is reused: 32 of 39. */
    assert_in_range(until_copied(&p, keys, BLOCKS, 50, &copy), 8, 9);
    assert_int_equal(copy.holder, 10);
    assert_int_equal(copy.prefill, 11);
    assert_int_equal(copy.key_count, 32);
    assert_true(copy.score > 0 && copy.predicted.transfer_ns > 0);
    play_stored(&p, 11, keys, 32);

    /* There are two of them: the third has to be earned twice over, and not within five seconds. */
    const uint64_t then = p.now_ns;
    assert_in_range(until_copied(&p, keys, BLOCKS, 100, &copy), 9, 60);
    assert_true(p.now_ns - then >= 4900 * (uint64_t)MS);
    assert_int_equal(copy.prefill, 12);
    play_stored(&p, 12, keys, 32);
    assert_int_equal(until_copied(&p, keys, BLOCKS, 300, &copy), 0); /* all have it */
    assert_int_equal(play_stats(&p).replicated, 2);
    play_close(&p);
}

static void test_what_is_asked_for_seldom_is_left_where_it_is(void **state)
{
    (void)state;
    struct play p;
    struct mc_key keys[BLOCKS];
    struct mc_decision copy;

    play_keys(keys, BLOCKS, 1);
    open_pool(&p, "", keys, 3);
    for (int i = 0; i < 60; i++) { /* one in 15 s: four to a window */
        assert_int_equal(until_copied(&p, keys, BLOCKS, 1, &copy), 0);
        p.now_ns += 15000 * (uint64_t)MS;
    }
    play_close(&p);

    open_pool(&p, NULL, keys, 3); /* off */
    assert_int_equal(until_copied(&p, keys, BLOCKS, 100, &copy), 0);
    play_close(&p);
    open_pool(&p, "off", keys, 3);
    assert_int_equal(until_copied(&p, keys, BLOCKS, 100, &copy), 0);
    play_close(&p);
    open_pool(&p, "", keys, 1); /* nowhere else to go */
    assert_int_equal(until_copied(&p, keys, BLOCKS, 100, &copy), 0);
    play_close(&p);
}

static void test_what_many_prompts_share_is_copied_and_no_more(void **state)
{
    (void)state;
    struct play p;
    struct mc_key keys[BLOCKS], own[BLOCKS];
    struct mc_decision copy = { 0 };

    play_keys(keys, BLOCKS, 1);
    open_pool(&p, "", keys, 2);
    for (uint8_t chain = 2; chain < 60 && copy.kind == 0; chain++) {
        play_keys(own, BLOCKS,
                  chain); /* 24 blocks in common, then its own, which the pool has too */
        memcpy(own, keys, 24 * sizeof(*keys));
        play_stored(&p, 10, own, BLOCKS);
        (void)until_copied(&p, own, BLOCKS, 1, &copy);
    }
    assert_int_equal(copy.key_count, 24);
    play_close(&p);
}

static void test_between_instances_it_goes_to_the_shortest_queue(void **state)
{
    (void)state;
    struct play p;
    struct mc_key keys[BLOCKS];
    struct asked a = { 0 };

    play_keys(keys, BLOCKS, 1);
    /* Own prefixes only: others compute again what instance 1 has. */
    play_open(&p, &(struct mc_sched_options){ .policy = "round-robin",
                                              .policy_parameters = "pull=0",
                                              .replication = "asked=6" });
    for (uint64_t id = 1; id <= 4; id++)
        play_join(&p, id, MC_ROLE_BOTH);
    play_stored(&p, 1, keys, BLOCKS);
    p.now_ns = 1000000000;
    const struct mc_sched_event load = {
        .kind = MC_EVENT_LOAD,
        .load = { .id = 2, .lease_ns = UINT64_MAX, .queued = 1, .queued_tokens = 9000 }
    };
    assert_int_equal(play_step(&p, load), MC_OK);
    for (int i = 0; i < 30 && a.copy.kind == 0; i++)
        a = ask(&p, keys, BLOCKS);
    assert_int_equal(a.copy.kind, MC_DECIDE_REPLICATE);
    assert_int_equal(a.copy.holder, 1);
    /* 2 has a queue, and it is not the one that has just been given the prompt. */
    assert_int_not_equal(a.copy.prefill, 2);
    assert_int_not_equal(a.copy.prefill, a.placed.prefill);
    play_close(&p);
}

static void test_no_more_than_the_rate_allows(void **state)
{
    (void)state;
    struct play p;
    struct mc_key keys[8][BLOCKS];
    uint32_t copies = 0;

    play_keys(keys[0], BLOCKS, 1);
    open_pool(&p, "rate=0.5,asked=2", keys[0], 2);
    for (uint8_t c = 0; c < 8; c++) {
        play_keys(keys[c], BLOCKS, (uint8_t)(c + 1));
        play_stored(&p, 10, keys[c], 6); /* the index of this test is small */
    }
    for (int turn = 0; turn < 1000; turn++) { /* ten seconds, eight prefixes, all hot */
        copies += ask(&p, keys[turn % 8], 6).copy.kind != 0;
        end(&p, p.last_request);
        p.now_ns += 10 * MS;
    }
    assert_in_range(copies, 3, 6);
    assert_int_equal(play_stats(&p).replicated, copies);
    play_close(&p);
}

static void test_a_copy_that_is_not_taken_is_counted_as_lost(void **state)
{
    (void)state;
    struct play p;
    struct mc_key keys[BLOCKS];
    struct mc_decision d;
    size_t count;

    play_keys(keys, BLOCKS, 1);
    open_pool(&p, "asked=1,gain=0.1", keys, 2);
    for (int i = 0; i < 2; i++) {
        const struct mc_sched_event event = {
            .kind = MC_EVENT_REQUEST,
            .request = { .id = ++p.last_request, .tokens = 700, .keys = keys, .key_count = BLOCKS }
        };
        assert_int_equal(play_step(&p, event), MC_OK);
    }
    assert_int_equal(play_stats(&p).decisions_lost, 2); /* the first placement, and its copy */
    assert_int_equal(mc_sched_take(p.sched, &d, 1, &count), MC_OK);
    assert_int_equal(d.kind, MC_DECIDE_PLACE);
    assert_int_equal(mc_sched_take(p.sched, &d, 1, &count), MC_E_NOT_FOUND); /* quiet for now */
    play_close(&p);
}

static void test_parameters_are_read(void **state)
{
    (void)state;
    struct faulty faulty;
    struct mc_error error = { 0 };
    mc_sched *sched = NULL;

    faulty_init(&faulty, -1);
    const struct mc_sched_options options = { .alloc = &faulty.alloc, .replication = "rate=0" };
    assert_int_equal(mc_sched_open(&options, &sched, &error), MC_E_ARG);
    assert_non_null(strstr(error.text, "replication"));
    assert_int_equal(faulty.held, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_pulled_often_is_copied_within_the_pool),
        cmocka_unit_test(test_what_is_asked_for_seldom_is_left_where_it_is),
        cmocka_unit_test(test_what_many_prompts_share_is_copied_and_no_more),
        cmocka_unit_test(test_between_instances_it_goes_to_the_shortest_queue),
        cmocka_unit_test(test_no_more_than_the_rate_allows),
        cmocka_unit_test(test_a_copy_that_is_not_taken_is_counted_as_lost),
        cmocka_unit_test(test_parameters_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
