/* test_counters.c - figures under their names: sorted, chosen by prefix, bounded. */
#include "test.h"

#include <stdio.h>
#include <string.h>

#include "net/counters.h"
#include "os/sysalloc.h"

static const char *const ways[] = { "up", "down" };
static const struct metric_label way = { "way", ways, 2 };

#define DEMO_METRICS(X) \
    X(zeal, "zeal", GAUGE, NONE, NULL, NULL, "Zeal.") \
    X(moved, "moved", COUNTER, BYTES, NULL, &way, "Moved.")
enum { DEMO_METRICS(METRIC_ENUM) };
static const struct metric rows[] = { DEMO_METRICS(METRIC_ROW) };

static const struct wire_slice all = { NULL, 0 };

static void test_figures_are_listed_by_name(void **state)
{
    (void)state;
    struct net_counters c;

    net_counters_init(&c, &all);
    net_counters_add(&c, "b", 2);
    net_counters_add(&c, "c", 3);
    net_counters_add(&c, "a", 1);
    assert_int_equal(c.count, 3);
    for (uint64_t i = 0; i < 3; i++)
        assert_int_equal(c.items[i].value, i + 1);
    assert_int_equal(net_counters_value(&c, "b"), 2);
    assert_int_equal(net_counters_value(&c, "bb"), 0);
}

static void test_only_what_begins_as_asked_is_kept(void **state)
{
    (void)state;
    const struct wire_slice prefix = { "pa", 2 }; /* no NUL behind it is read */
    struct net_counters c;

    net_counters_init(&c, &prefix);
    net_counters_add(&c, "p", 1);
    net_counters_add(&c, "pages", 2);
    net_counters_add(&c, "past", 3);
    assert_int_equal(c.count, 2);
    assert_int_equal(net_counters_value(&c, "p"), 0);
}

static void test_a_series_is_named_as_for_prometheus(void **state)
{
    (void)state;
    struct metrics metrics;
    struct net_counters c;

    assert_int_equal(metrics_init(&metrics, rows, 2, "mooncake_demo", os_alloc()), MC_OK);
    metric_set(&metrics, METRIC_zeal, 0, 7);
    metric_add(&metrics, METRIC_moved, 1, 9);
    net_counters_init(&c, &all);
    net_counters_add_metrics(&c, &metrics);
    assert_int_equal(c.count, 3);
    assert_string_equal(c.items[0].name, "demo_moved{way=\"down\"}");
    assert_int_equal(c.items[0].value, 9);
    assert_string_equal(c.items[1].name, "demo_moved{way=\"up\"}");
    assert_int_equal(net_counters_value(&c, "demo_zeal"), 7);
    metrics_fini(&metrics);
}

static void test_more_than_fit_are_left_out(void **state)
{
    (void)state;
    struct net_counters c;
    char name[16];

    net_counters_init(&c, &all);
    for (int i = 0; i < NET_COUNTERS_MAX + 3; i++) {
        (void)snprintf(name, sizeof(name), "n%05d", i);
        net_counters_add(&c, name, 1);
    }
    assert_int_equal(c.count, NET_COUNTERS_MAX);
    assert_int_equal(net_counters_value(&c, "n00000"), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_figures_are_listed_by_name),
        cmocka_unit_test(test_only_what_begins_as_asked_is_kept),
        cmocka_unit_test(test_a_series_is_named_as_for_prometheus),
        cmocka_unit_test(test_more_than_fit_are_left_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
