/* test_shadow.c - refused requests are judged when they would have begun, and by what costs were then. */
#include "fixture.h"

#include "sched/cluster.h"
#include "sched/shadow.h"

static const uint64_t SECOND = 1000 * (uint64_t)MS;
enum { MAX = 4, PREFILL = 1, DECODE = 2 };

/* A prefill of n tokens takes n ms; a step 10 ms and 10 ms for each sequence. */
struct house {
    struct faulty faulty;
    struct cluster cluster;
    struct shadows shadows;
    uint32_t prefill, decode;
    uint64_t last; /* request */
};

static uint32_t join(struct house *h, uint64_t id, uint32_t role)
{
    const struct mc_sched_instance info = {
        .id = id,
        .role = role,
        .kv_tokens_max = 1 << 20,
        .sequences_max = 64,
        .cost = { .p1 = 1e-3, .d0 = 10e-3, .d1 = 10e-3, .bytes_per_s = 1e9 }
    };
    uint32_t cell = CLUSTER_NONE;

    assert_int_equal(cluster_instance(&h->cluster, &info, &cell), MC_OK);
    return cell;
}

static void open_house(struct house *h)
{
    *h = (struct house){ .last = 0 };
    faulty_init(&h->faulty, -1);
    assert_int_equal(cluster_init(&h->cluster, &h->faulty.alloc, 8, 16), MC_OK);
    assert_int_equal(shadows_init(&h->shadows, &h->faulty.alloc, MAX), MC_OK);
    h->prefill = join(h, PREFILL, MC_ROLE_PREFILL);
    h->decode = join(h, DECODE, MC_ROLE_DECODE);
}

static void close_house(struct house *h)
{
    shadows_fini(&h->shadows);
    cluster_fini(&h->cluster);
    assert_int_equal(h->faulty.held, 0);
}

static uint32_t placed(struct house *h, uint64_t now_ns, uint64_t order)
{
    const struct request request = { .id = ++h->last,
                                     .prefill = h->prefill,
                                     .decode = h->decode,
                                     .prefill_id = PREFILL,
                                     .decode_id = DECODE,
                                     .order = order,
                                     .tokens = 1000,
                                     .to_compute = 1000,
                                     .to_hold = 1008,
                                     .prefill_ns = SECOND,
                                     .shadow = CLUSTER_NONE };
    return cluster_place(&h->cluster, now_ns, &request);
}

/* Refused at `now_ns`, of 1,000 tokens: its prefill would take a second. */
static void refused(struct house *h, uint64_t now_ns, uint32_t behind, uint64_t order,
                    struct mc_sched_slo slo)
{
    const struct shadow shadow = { .prefill = h->prefill,
                                   .decode = h->decode,
                                   .prefill_id = PREFILL,
                                   .decode_id = DECODE,
                                   .arrived_ns = now_ns,
                                   .tokens = 1000,
                                   .other_ns = 100 * MS,
                                   .order = order,
                                   .step_factor = 1,
                                   .slo = slo };
    shadow_add(&h->shadows, &h->cluster, now_ns, behind, &shadow);
}

/* Its prefill is over. */
static void done(struct house *h, uint64_t now_ns, uint32_t cell)
{
    cluster_prefill_end(&h->cluster, cell, now_ns);
    shadow_release(&h->shadows, &h->cluster, now_ns, cell, true);
}

static struct mc_sched_slo ttft(uint64_t ns)
{
    return (struct mc_sched_slo){ .ttft_ns = ns };
}

#define assert_judged(h, count, good) \
    do { \
        assert_int_equal((h)->shadows.judged, count); \
        assert_int_equal((h)->shadows.met, good); \
    } while (0)

static void test_with_nobody_before_it_one_is_judged_at_once(void **state)
{
    (void)state;
    struct house h;

    open_house(&h);
    refused(&h, SECOND, CLUSTER_NONE, 0, ttft(1100 * (uint64_t)MS)); /* a second, and the way */
    assert_judged(&h, 1, 1);
    refused(&h, SECOND, CLUSTER_NONE, 0, ttft(1099 * (uint64_t)MS));
    assert_judged(&h, 2, 1);
    close_house(&h);
}

static void test_one_begins_when_who_was_before_it_is_done(void **state)
{
    (void)state;
    struct house h;

    open_house(&h);
    const uint32_t before = placed(&h, SECOND, 0);
    refused(&h, SECOND, before, 0, ttft(2100 * (uint64_t)MS));
    refused(&h, SECOND, before, 0, ttft(2099 * (uint64_t)MS));
    const uint32_t after = placed(&h, SECOND, 0); /* who comes later does not matter */
    assert_judged(&h, 0, 0);
    done(&h, 2 * SECOND, before);
    assert_judged(&h, 2, 1);
    done(&h, 3 * SECOND, after);
    assert_judged(&h, 2, 1);
    close_house(&h);
}

static void test_tokens_are_held_to_their_slo_by_the_batch_there_is(void **state)
{
    (void)state;
    struct house h;
    const struct mc_sched_slo slo = { .ttft_ns = 9 * SECOND, .tbt_ns = 35 * MS };

    open_house(&h);
    (void)placed(&h, SECOND, 0);
    refused(&h, SECOND, CLUSTER_NONE, 0, slo); /* two sequences: 30 ms */
    assert_judged(&h, 1, 1);
    (void)placed(&h, SECOND, 0);
    refused(&h, SECOND, CLUSTER_NONE, 0, slo); /* three: 40 ms */
    assert_judged(&h, 2, 1);
    close_house(&h);
}

static void test_who_goes_first_by_order_pushes_it_back(void **state)
{
    (void)state;
    struct house h;

    open_house(&h);
    const uint32_t first = placed(&h, SECOND, 10);
    refused(&h, SECOND, first, 20, ttft(3100 * (uint64_t)MS));
    const uint32_t sooner = placed(&h, SECOND, 15);
    const uint32_t later = placed(&h, SECOND, 30);
    done(&h, 2 * SECOND, first);
    assert_judged(&h, 0, 0); /* `sooner` would go before it, `later` not */
    done(&h, 3 * SECOND, sooner);
    assert_judged(&h, 1, 1);
    done(&h, 4 * SECOND, later);
    assert_judged(&h, 1, 1);
    close_house(&h);
}

static void test_what_is_late_already_is_not_pushed_back_again(void **state)
{
    (void)state;
    struct house h;

    open_house(&h);
    const uint32_t first = placed(&h, SECOND, 10);
    refused(&h, SECOND, first, 20, ttft(500 * (uint64_t)MS));
    (void)placed(&h, SECOND, 15);
    done(&h, 2 * SECOND, first);
    assert_judged(&h, 1, 0);
    close_house(&h);
}

static void test_who_was_before_it_may_be_lost(void **state)
{
    (void)state;
    struct house h;

    open_house(&h);
    const uint32_t before = placed(&h, SECOND, 0);
    for (int i = 0; i < 2 * MAX; i++) /* when the table is full the rest is not looked at */
        refused(&h, SECOND, before, 0, ttft(9 * SECOND));
    shadow_release(&h.shadows, &h.cluster, SECOND, before, false); /* aborted */
    assert_judged(&h, 0, 0);
    const uint32_t next = placed(&h, SECOND, 0);
    for (int i = 0; i < 2 * MAX; i++) /* there is room again */
        refused(&h, SECOND, next, 0, ttft(9 * SECOND));
    done(&h, 2 * SECOND, next);
    assert_judged(&h, MAX, MAX);
    close_house(&h);
}

static void test_an_instance_that_is_another_one_now_says_nothing(void **state)
{
    (void)state;
    struct house h;

    open_house(&h);
    refused(&h, SECOND, CLUSTER_NONE, 0, ttft(9 * SECOND));
    cluster_instance_gone(&h.cluster, h.prefill);
    refused(&h, SECOND, CLUSTER_NONE, 0, ttft(9 * SECOND));
    assert_int_equal(join(&h, 7, MC_ROLE_PREFILL), h.prefill); /* its cell is used again */
    refused(&h, SECOND, CLUSTER_NONE, 0, ttft(9 * SECOND));
    assert_judged(&h, 1, 1);
    close_house(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_with_nobody_before_it_one_is_judged_at_once),
        cmocka_unit_test(test_one_begins_when_who_was_before_it_is_done),
        cmocka_unit_test(test_tokens_are_held_to_their_slo_by_the_batch_there_is),
        cmocka_unit_test(test_who_goes_first_by_order_pushes_it_back),
        cmocka_unit_test(test_what_is_late_already_is_not_pushed_back_again),
        cmocka_unit_test(test_who_was_before_it_may_be_lost),
        cmocka_unit_test(test_an_instance_that_is_another_one_now_says_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
