/* test_links.c - shares are fair, add up to what there is, and every byte arrives. */
#include "test.h"

#include <math.h>

#include "base/prng.h"
#include "sim/links.h"

enum { NODES = 6 };

static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-6 * fabs(b) + 1e-9;
}

static void open_links(struct links *links, struct faulty *f, double rate)
{
    double rates[NODES];

    faulty_init(f, -1);
    for (int i = 0; i < NODES; i++)
        rates[i] = rate;
    assert_int_equal(links_init(links, &f->alloc, rates, NODES), MC_OK);
}

static void close_links(struct links *links, struct faulty *f)
{
    links_fini(links);
    assert_int_equal(f->held, 0);
}

static void add(struct links *links, uint32_t from, uint32_t to, double bytes, double rate_max)
{
    const struct flow flow = {
        .from = from, .to = to, .bytes = bytes, .rate_max = rate_max, .whom = links->count
    };
    assert_int_equal(links_add(links, &flow), MC_OK);
}

static void test_two_flows_from_one_node_get_a_half_each(void **state)
{
    (void)state;
    struct links links;
    struct faulty f;
    struct flow flow;

    open_links(&links, &f, 100);
    add(&links, 0, 1, 100, 0);
    add(&links, 0, 2, 50, 0);
    assert_true(near(links.flows[0].rate, 50) && near(links.flows[1].rate, 50));
    assert_int_equal(links_due(&links), 1000000000);
    links_advance(&links, 1000000000);
    assert_true(links_done(&links, &flow));
    assert_int_equal(flow.to, 2);
    assert_false(links_done(&links, &flow));
    assert_true(near(links.flows[0].rate, 100)); /* all of it is now the other's */
    assert_int_equal(links_due(&links), 1500000000);
    links_advance(&links, 1500000000);
    assert_true(links_done(&links, &flow));
    assert_int_equal(links_due(&links), UINT64_MAX);
    assert_true(near(links.moved, 150));
    close_links(&links, &f);
}

/* Three into node 1; one of them shares its own line with another: max-min gives 25 and 25, 75/2 each. */
static void test_what_a_slower_flow_leaves_goes_to_the_others(void **state)
{
    (void)state;
    struct links links;
    struct faulty f;

    open_links(&links, &f, 100);
    add(&links, 0, 1, 1e6, 0);
    add(&links, 2, 1, 1e6, 0);
    add(&links, 3, 1, 1e6, 10); /* has a rate of its own */
    assert_true(near(links.flows[2].rate, 10));
    assert_true(near(links.flows[0].rate, 45) && near(links.flows[1].rate, 45));
    add(&links, 0, 4, 1e6, 0);
    assert_true(near(links.flows[0].rate, 45) && near(links.flows[3].rate, 55));
    close_links(&links, &f);
}

static double used(const struct links *links, uint32_t node, bool out)
{
    double sum = 0;

    for (uint32_t i = 0; i < links->count; i++)
        if ((out ? links->flows[i].from : links->flows[i].to) == node)
            sum += links->flows[i].rate;
    return sum;
}

/* Max-min: every flow is as fast as its own rate, or one of its ends is full and it is none of the slower
 * ones there. */
static void test_shares_of_random_flows_are_max_min_fair(void **state)
{
    (void)state;
    struct prng prng = { .seed = 3 };

    for (int round = 0; round < 200; round++) {
        struct links links;
        struct faulty f;
        const uint32_t count = 1 + prng_below(&prng, 40);

        open_links(&links, &f, 100);
        for (uint32_t i = 0; i < count; i++) {
            const uint32_t from = prng_below(&prng, NODES);
            const uint32_t to = (from + 1 + prng_below(&prng, NODES - 1)) % NODES;
            add(&links, from, to, 1e3, prng_below(&prng, 3) ? 0 : 1 + prng_below(&prng, 60));
        }
        for (uint32_t n = 0; n < NODES; n++) {
            assert_true(used(&links, n, true) <= 100.0001);
            assert_true(used(&links, n, false) <= 100.0001);
        }
        for (uint32_t i = 0; i < count; i++) {
            const struct flow *a = &links.flows[i];
            bool held = a->rate_max > 0 && near(a->rate, a->rate_max);

            for (int side = 0; side < 2 && !held; side++) {
                const uint32_t node = side ? a->from : a->to;
                bool largest = true;
                for (uint32_t k = 0; k < count; k++)
                    if ((side ? links.flows[k].from : links.flows[k].to) == node)
                        largest = largest && links.flows[k].rate <= a->rate * 1.000001;
                held = largest && used(&links, node, side) >= 99.999;
            }
            assert_true(held);
        }
        close_links(&links, &f);
    }
}

static void test_every_byte_of_random_flows_arrives(void **state)
{
    (void)state;
    struct prng prng = { .seed = 5 };
    struct links links;
    struct faulty f;
    struct flow flow;
    double sum = 0;
    uint32_t done = 0;
    uint64_t now = 0;

    open_links(&links, &f, 1e9);
    for (uint32_t i = 0; i < 300; i++) {
        const uint32_t from = prng_below(&prng, NODES);
        const double bytes = 1 + prng_below(&prng, 1000000);

        now += prng_below(&prng, 300000);
        while (links_due(&links) <= now) {
            links_advance(&links, links_due(&links));
            while (links_done(&links, &flow))
                done++;
        }
        links_advance(&links, now);
        add(&links, from, (from + 1) % NODES, bytes, 0);
        sum += bytes;
    }
    while (links.count) {
        links_advance(&links, links_due(&links));
        while (links_done(&links, &flow))
            done++;
    }
    assert_int_equal(done, 300);
    assert_true(fabs(links.moved - sum) < 300 * 2); /* two bytes of rounding each */
    close_links(&links, &f);
}

static void test_flows_are_cancelled_by_node_and_by_owner(void **state)
{
    (void)state;
    struct links links;
    struct faulty f;
    struct flow flow;

    open_links(&links, &f, 100);
    add(&links, 0, 1, 1e6, 0);
    add(&links, 2, 3, 1e6, 0);
    add(&links, 4, 0, 1e6, 0);
    assert_true(links_cancel(&links, UINT32_MAX, 0, 1, &flow));
    assert_int_equal(flow.from, 2);
    assert_false(links_cancel(&links, UINT32_MAX, 0, 1, &flow));
    assert_true(links_cancel(&links, 0, 0, 0, &flow));
    assert_true(links_cancel(&links, 0, 0, 0, &flow));
    assert_false(links_cancel(&links, 0, 0, 0, &flow));
    close_links(&links, &f);
}

static void test_without_memory_links_are_as_before(void **state)
{
    (void)state;
    double rates[NODES] = { 1, 1, 1, 1, 1, 1 };

    for (int k = 0; k < 6; k++) {
        struct links links;
        struct faulty f;
        mc_status status;

        faulty_init(&f, k);
        status = links_init(&links, &f.alloc, rates, NODES);
        for (uint32_t i = 0; status == MC_OK && i < 65; i++) {
            const struct flow flow = { .from = 0, .to = 1, .bytes = 1 };
            status = links_add(&links, &flow);
            if (status != MC_OK)
                assert_int_equal(links.count, 64);
        }
        assert_int_equal(status, MC_E_NOMEM);
        links_fini(&links);
        assert_int_equal(f.held, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_flows_from_one_node_get_a_half_each),
        cmocka_unit_test(test_what_a_slower_flow_leaves_goes_to_the_others),
        cmocka_unit_test(test_shares_of_random_flows_are_max_min_fair),
        cmocka_unit_test(test_every_byte_of_random_flows_arrives),
        cmocka_unit_test(test_flows_are_cancelled_by_node_and_by_owner),
        cmocka_unit_test(test_without_memory_links_are_as_before),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
