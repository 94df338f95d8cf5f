/* test_calendar.c - what is near a moment, against a list of all joins; and nothing stays of what was taken away. */
#include "test.h"

#include <math.h>

#include "base/prng.h"
#include "sched/calendar.h"

#define assert_near(a, b, by) assert_true(fabs((a) - (b)) <= (by))

static const uint64_t MS = 1000000, S = 1000000000;

static void test_half_of_it_counts_half_a_second_away(void **state)
{
    (void)state;
    struct calendar c = { 0 };

    assert_int_not_equal(calendar_add(&c, 10 * S, 12 * S, 1000), 0);
    assert_near(calendar_near(&c, 12 * S), 1000, 0);
    assert_near(calendar_near(&c, 12 * S + 500 * MS), 500, 0);
    assert_near(calendar_near(&c, 12 * S - 500 * MS), 500, 0);
    assert_near(calendar_near(&c, 13 * S), 250, 0);
    assert_near(calendar_near(&c, 12 * S + 100 * MS), 1000 * exp2(-0.2), 0.01);
    assert_near(calendar_near(&c, 16 * S + 100 * MS), 0, 0);
    assert_near(calendar_near(&c, 7 * S), 0, 0);
    assert_near(calendar_near(&c, 12 * S + 102400 * MS), 0, 0); /* not once more */
}

static void test_what_is_too_far_is_not_counted(void **state)
{
    (void)state;
    struct calendar c = { 0 };

    const uint64_t mark = calendar_add(&c, 1000 * S, 1200 * S, 1000);
    assert_int_equal(mark, 0);
    calendar_remove(&c, 1000 * S, mark, 1000);
    calendar_remove(&c, 1150 * S, mark, 1000);
    for (uint64_t at = 1140 * S; at < 1300 * S; at += 100 * MS)
        assert_near(calendar_near(&c, at), 0, 0);
}

struct join {
    uint64_t at_ns, mark, tokens;
};

static double near_by_list(const struct join *joins, int count, uint64_t at_ns)
{
    double sum = 0;

    for (int i = 0; i < count; i++) {
        const double bins =
            fabs((double)(joins[i].at_ns / (100 * MS)) - (double)(at_ns / (100 * MS)));
        if (joins[i].mark != 0 && bins <= 40)
            sum += (double)joins[i].tokens * exp2(-bins / 5);
    }
    return sum;
}

/* Joins come and go, time goes by, mostly in small steps; far jumps forget everything. */
static void test_it_says_what_a_list_of_all_says(void **state)
{
    (void)state;
    enum { JOINS = 200, STEPS = 4000 };
    static struct join joins[JOINS];
    struct prng prng = { .seed = 5 };
    struct calendar c = { 0 };
    uint64_t now_ns = 0, counted = 0;

    for (int step = 0; step < STEPS; step++) {
        struct join *j = &joins[prng_below(&prng, JOINS)];

        now_ns +=
            prng_below(&prng, 100) == 0 ? prng_below(&prng, 300) * S : prng_below(&prng, 200) * MS;
        if (j->mark != 0) {
            calendar_remove(&c, now_ns, j->mark, j->tokens);
            j->mark = 0;
        } else {
            *j = (struct join){ .at_ns = now_ns + prng_below(&prng, 100) * S + 30 * MS,
                                .tokens = 1 + prng_below(&prng, 100000) };
            j->mark = calendar_add(&c, now_ns, j->at_ns, j->tokens);
        }
        const uint64_t at_ns = now_ns + prng_below(&prng, 90000) * MS;
        const double near = near_by_list(joins, JOINS, at_ns);
        assert_near(calendar_near(&c, at_ns), near, 1e-3 * near + 1);
        counted += near > 0;
    }
    assert_true(counted > STEPS / 4);
    for (int i = 0; i < JOINS; i++)
        calendar_remove(&c, now_ns, joins[i].mark, joins[i].tokens);
    for (int i = 0; i < CALENDAR_BINS; i++)
        assert_int_equal(c.near[i], 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_half_of_it_counts_half_a_second_away),
        cmocka_unit_test(test_what_is_too_far_is_not_counted),
        cmocka_unit_test(test_it_says_what_a_list_of_all_says),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
