/* test_learn.c - what predictions are off by, what prompts cost, and promises: each by itself. */
#include "test.h"

#include <math.h>
#include <stdlib.h>

#include "base/prng.h"
#include "sched/booking.h"
#include "sched/learn.h"
#include "sched/service.h"

static const uint64_t MS = 1000000, S = 1000000000;

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static void test_quantiles_are_those_of_the_last_values(void **state)
{
    (void)state;
    struct quantiles q = { 0 };
    struct prng prng = { .seed = 1 };
    double all[1000], last[QUANTILES_MAX];

    assert_true(quantiles_at(&q, 0.5) == 0);
    for (uint32_t i = 0; i < 1000; i++) {
        all[i] = prng_below(&prng, 50); /* many equal ones */
        quantiles_add(&q, all[i]);
        const uint32_t count = i + 1 < QUANTILES_MAX ? i + 1 : QUANTILES_MAX;
        assert_int_equal(q.count, count);
        memcpy(last, all + i + 1 - count, count * sizeof(*last));
        qsort(last, count, sizeof(*last), by_value);
        assert_memory_equal(q.sorted, last, count * sizeof(*last));
        assert_true(quantiles_at(&q, 0) == last[0] && quantiles_at(&q, 1) == last[count - 1]);
    }
}

static void test_the_usual_is_not_moved_by_one_that_was_held_up(void **state)
{
    (void)state;
    struct usual u = { 0 };

    assert_true(usual_value(&u, 0) == 0);
    usual_learn(&u, 0, 0.2); /* the first of all finds everything cold */
    for (int i = 0; i < 3; i++)
        usual_learn(&u, 0, 0.002);
    assert_true(usual_value(&u, 0) == 0.002);
    for (int i = 0; i < 20; i++)
        usual_learn(&u, 0, i % 5 ? 0.003 : 30);
    assert_true(usual_value(&u, 0) == 0.003);
    assert_true(usual_value(&u, 30 * S) == 0.0015); /* no news for 30 s */
}

static void test_what_is_usual_for_a_length(void **state)
{
    (void)state;
    struct usual_line u;

    usual_line_init(&u);
    for (uint64_t i = 0; i < 50; i++) {
        const uint64_t tokens = i % 3 ? 200 : 20000;

        if (i == 4)
            assert_true(usual_line_value(&u, 0, 200) == 0); /* too little was seen */
        usual_line_learn(&u, 0, tokens, i == 40 ? 30 : 0.01 + 1e-5 * (double)tokens);
    }
    assert_true(fabs(usual_line_value(&u, 0, 200) - 0.012) < 0.001);
    assert_true(fabs(usual_line_value(&u, 0, 20000) - 0.21) < 0.02);
    assert_true(fabs(usual_line_value(&u, 0, 10000) - 0.11) < 0.02);
    assert_true(usual_line_value(&u, 30 * S, 200) == usual_line_value(&u, 0, 200) / 2);
}

/* A bad second, then one of that size every five seconds for two minutes. */
static void test_few_a_minute_do_not_keep_a_bad_second_in_mind(void **state)
{
    (void)state;
    struct bands b = { 0 };

    for (int i = 0; i < 100; i++)
        bands_learn(&b, S, 500 * MS, 2000 * MS);
    assert_true(bands_margin(&b, S, 500 * MS, 0.95, 0.3).high == 4);
    for (uint64_t i = 1; i <= 24; i++)
        bands_learn(&b, (1 + 5 * i) * S, 500 * MS, 500 * MS);
    assert_true(bands_margin(&b, 121 * S, 500 * MS, 0.95, 0.3).high < 1.5);
}

static void test_margins_come_from_the_size_then_its_neighbours_and_fade(void **state)
{
    (void)state;
    struct bands b = { 0 };

    struct margin m = bands_margin(&b, 0, 100 * MS, 0.95, 0.3);
    assert_true(m.low == 0.7 && m.mid == 1 && m.high == 1.3); /* nothing seen */
    for (int i = 0; i < 40; i++)
        bands_learn(&b, 0, 10 * MS, (uint64_t)(i % 2 ? 20 : 30) * MS);
    m = bands_margin(&b, 0, 12 * MS, 0.95, 0.3);
    assert_true(m.low == 2 && m.high == 3);
    const struct margin longer = bands_margin(&b, 0, 200 * MS, 0.95, 0.3);
    assert_true(longer.high < m.high && longer.high > 1); /* a part of it */
    const struct margin later = bands_margin(&b, 300 * S, 12 * MS, 0.95, 0.3);
    assert_true(later.high < 1.01 && later.low > 0.99);
    for (int i = 0; i < 40; i++) /* a stopped clock or machine moves it only so far */
        bands_learn(&b, 0, 10 * MS, 1000 * S);
    assert_true(bands_margin(&b, 0, 12 * MS, 0.95, 0.3).high <= 20);
}

/* Three prompts a step, all given to the worker at once: each is inside for long, and costs 10 ms + 1 ms a token. */
static void test_costs_are_learnt_from_ends_not_from_waiting(void **state)
{
    (void)state;
    struct cost cost;
    struct service service = { 0 };
    struct prng prng = { .seed = 2 };
    const struct mc_cost nothing = { 0 };
    uint64_t now_ns = 0;

    cost_init(&cost, &nothing);
    for (uint64_t n = 10; n <= 80; n += 10) /* measured alone */
        cost_learn_prefill(&cost, n, 0, (10 + n) * MS);
    for (int step = 0; step < 200; step++) {
        uint64_t tokens[3], ms = 0;

        for (int i = 0; i < 3; i++) {
            tokens[i] = 10 + prng_below(&prng, 90);
            ms += 10 + tokens[i];
        }
        now_ns += ms * MS;
        for (int i = 0; i < 3; i++) /* hand-offs: 3 ms each */
            service_end(&service, &cost, now_ns + (uint64_t)i * 3 * MS, tokens[i], 0, 2000 * MS);
    }
    service_settle(&service, &cost, now_ns + S);
    const double ms = cost_prefill(&cost, 50, 0) * cost_prefill_pace(&cost, now_ns) * 1e3;
    assert_true(ms > 50 && ms < 72);
    assert_true(cost_prefill_pace(&cost, now_ns + 600 * S) < 1.01); /* it fades */
}

static void test_bookings_are_kept_taken_and_forgotten(void **state)
{
    (void)state;
    struct faulty f;
    struct bookings b;
    bool booked;

    faulty_init(&f, -1);
    assert_int_equal(bookings_init(&b, &f.alloc, 3), MC_OK);
    const uint64_t wait = bookings_make(&b, 0, 7, 1500 * MS, 10 * MS, 300 * S, &booked);
    assert_true(booked);
    assert_int_equal(wait, 2 * S); /* whole seconds */
    assert_int_equal(bookings_due(&b, 7), 2 * S);
    assert_int_equal(bookings_due(&b, 8), 0);
    assert_false(bookings_come(&b, 1 * S, 7)); /* too early */
    assert_false(bookings_come(&b, 2 * S, 8));
    assert_int_equal(bookings_room(&b, 1900 * MS, S).work_ns, 10 * MS);
    assert_int_equal(bookings_room(&b, 100 * MS, S).work_ns, 0); /* not due soon */
    assert_true(bookings_come(&b, 2 * S + 30 * MS, 7));
    assert_false(bookings_come(&b, 2 * S + 30 * MS, 7));
    const double back = b.back;
    bookings_make(&b, 0, 7, 0, 10 * MS, 300 * S, &booked);
    bookings_expire(&b, 5 * S);
    assert_int_equal(b.count, 1);
    bookings_expire(&b, 7 * S); /* it did not come */
    assert_int_equal(b.count, 0);
    assert_true(b.back < back);

    for (uint64_t i = 1; i <= 4; i++) /* a full table promises nothing, but says when */
        assert_true(bookings_make(&b, 10 * S, i, 0, MS, 300 * S, &booked) >= S &&
                    booked == (i < 4));
    bookings_make(&b, 10 * S, 0, 0, MS, 300 * S, &booked);
    assert_false(booked);
    assert_int_equal(bookings_make(&b, 10 * S, 9, 400 * S, MS, 300 * S, &booked), 300 * S);
    assert_false(booked);
    bookings_fini(&b);
    assert_int_equal(f.held, 0);
}

/* Who finds no memory is asked about again and again while it waits here: it came back once. */
static void test_who_is_kept_waiting_came_back_once(void **state)
{
    (void)state;
    struct faulty f;
    struct bookings b;
    bool booked;

    faulty_init(&f, -1);
    assert_int_equal(bookings_init(&b, &f.alloc, 3), MC_OK);
    bookings_make(&b, 0, 7, 0, 10 * MS, 300 * S, &booked);
    assert_true(bookings_come(&b, S, 7));
    const double back = b.back;
    for (uint64_t i = 0; i < 20; i++) {
        bookings_keep(&b, S + i * 100 * MS, 7, 10 * MS);
        assert_true(bookings_come(&b, S + i * 100 * MS, 7));
    }
    assert_true(b.back == back);
    bookings_keep(&b, 4 * S, 7, 10 * MS);
    bookings_expire(&b, 60 * S); /* it gave up */
    assert_int_equal(b.count, 0);
    assert_true(b.back == back);
    bookings_fini(&b);
    assert_int_equal(f.held, 0);
}

static void test_promises_are_made_no_faster_than_they_can_be_kept(void **state)
{
    (void)state;
    struct faulty f;
    struct bookings b;
    struct prng prng = { .seed = 3 };
    bool booked;
    enum { COUNT = 3000 };

    faulty_init(&f, -1);
    assert_int_equal(bookings_init(&b, &f.alloc, COUNT), MC_OK);
    b.back = 1;
    for (uint64_t i = 0; i < COUNT;
         i++) /* 100 a second for 30 s, of 20 ms each: twice what there is */
        bookings_make(&b, i * 10 * MS + prng_below(&prng, 10000000), i + 1, 0, 20 * MS, 300 * S,
                      &booked);
    assert_int_equal(b.count, COUNT);
    for (uint32_t i = 1; i < COUNT; i++)
        assert_true(b.items[i].due_ns >= b.items[i - 1].due_ns);
    for (uint64_t from = 0; from < b.items[COUNT - 1].due_ns; from += 500 * MS) {
        uint64_t work = 0;

        for (uint32_t i = 0; i < COUNT; i++)
            if (b.items[i].due_ns >= from && b.items[i].due_ns < from + 500 * MS)
                work += b.items[i].work_ns;
        assert_true(work <= 500 * MS);
    }
    bookings_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quantiles_are_those_of_the_last_values),
        cmocka_unit_test(test_the_usual_is_not_moved_by_one_that_was_held_up),
        cmocka_unit_test(test_what_is_usual_for_a_length),
        cmocka_unit_test(test_few_a_minute_do_not_keep_a_bad_second_in_mind),
        cmocka_unit_test(test_margins_come_from_the_size_then_its_neighbours_and_fade),
        cmocka_unit_test(test_costs_are_learnt_from_ends_not_from_waiting),
        cmocka_unit_test(test_bookings_are_kept_taken_and_forgotten),
        cmocka_unit_test(test_who_is_kept_waiting_came_back_once),
        cmocka_unit_test(test_promises_are_made_no_faster_than_they_can_be_kept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
