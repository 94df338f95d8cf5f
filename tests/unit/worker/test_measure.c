/* test_measure.c - a worker times itself, and gives way to whatever comes. */
#include "house.h"

#include "os/clock.h"

struct measuring {
    bool answered;
    mc_status status;
    bool stopped;
    uint32_t prompts, steps, reused;
};

static void on_measured(void *user, mc_status status, const struct wire_frame *frame)
{
    struct measuring *m = user;
    struct wire_measured message;
    struct wire_measure_row row;
    struct mc_error error = { 0 };

    m->answered = true;
    m->status = status == MC_OK ? net_take(frame, WIRE_MEASURED, &message, &error) : status;
    if (m->status != MC_OK)
        return;
    m->stopped = message.stopped;
    while (wire_measure_row_next(&message.rows, &row)) {
        assert_true(row.tokens > 0 && row.duration_ns > 0);
        assert_true(row.sequences <= 16);
        m->prompts += row.sequences == 0;
        m->steps += row.sequences != 0;
        m->reused += row.reused > 0;
    }
}

static void ask(struct house *h, uint32_t guest, struct measuring *m, uint64_t budget_ns)
{
    const struct wire_measure message = { .budget_ns = budget_ns };

    *m = (struct measuring){ .status = MC_PENDING };
    assert_int_equal(net_ask(h->guests[guest].conn, WIRE_MEASURE, &message,
                             os_now_ns() + UINT64_C(30000000000), on_measured, m, NULL),
                     MC_OK);
}

static void nobody_waits(void *user, mc_status status, const struct wire_frame *frame)
{
    (void)user;
    (void)status;
    (void)frame;
}

static const uint64_t LONG_NS = 20000000000;  /* over before, or the test fails */
static const uint64_t PLENTY_NS = 1000000000; /* for some of the plan, also where others work */

/* The first is asked for prompts, the second for steps, the third for both. */
static bool is_enough(uint32_t which, const struct measuring *m)
{
    return (which == 1 || m->prompts >= 4) && (which != 0 || m->reused > 0) &&
           (which != 1 || m->steps >= 4);
}

static void test_each_times_what_its_role_does_and_gives_all_back(void **state)
{
    (void)state;
    struct house *h = house_pair(64, false);
    const struct worker_options both = house_options("both", MC_ROLE_BOTH);
    struct measuring m[3];

    house_add(h, &both);
    for (uint32_t i = 0; i < 3; i++) {
        uint64_t budget_ns = PLENTY_NS;

        do { /* longer, where a second is not enough for anything */
            ask(h, i, &m[i], budget_ns);
            house_until(h, m[i].answered);
            assert_int_equal(m[i].status, MC_OK);
            assert_false(m[i].stopped);
            budget_ns *= 2;
        } while (!is_enough(i, &m[i]) && budget_ns <= LONG_NS);
    }
    assert_true(m[0].prompts >= 4 && m[0].reused > 0);
    assert_int_equal(m[0].steps, 0);
    assert_true(m[1].steps >= 4);
    assert_int_equal(m[1].prompts, 0);
    assert_true(m[2].prompts >= 4);
    house_until(h, house_is_empty(h));
    house_close(h);
}

static void test_whatever_comes_ends_it(void **state)
{
    (void)state;
    struct house *h = house_open();
    const struct worker_options both = house_options("both", MC_ROLE_BOTH);
    const struct wire_measure stop = { .stop = true };
    struct measuring m, again;

    house_add(h, &both);
    ask(h, 0, &m, LONG_NS);
    ask(h, 0, &again, LONG_NS); /* one at a time */
    house_until(h, again.answered);
    assert_int_equal(again.status, MC_E_BUSY);
    assert_false(m.answered);
    struct client *c = house_client(h, 1, 90, 8);
    c->decode = 0;
    house_ask(c);
    house_until(h, m.answered);
    assert_true(m.status == MC_OK && m.stopped);
    ask(h, 0, &again, LONG_NS); /* there is work */
    house_until(h, again.answered);
    house_until(h, client_done(c));
    assert_int_equal(again.status, MC_E_BUSY);
    assert_right(c);
    house_until(h, house_is_empty(h));

    ask(h, 0, &m, LONG_NS);
    ask(h, 0, &again, LONG_NS);
    house_until(h, again.answered);
    assert_int_equal(net_ask(h->guests[0].conn, WIRE_MEASURE, &stop, 0, nobody_waits, NULL, NULL),
                     MC_OK);
    house_until(h, m.answered);
    assert_true(m.status == MC_OK && m.stopped);
    house_until(h, house_is_empty(h));
    house_close(h);
}

static void test_a_worker_that_ends_takes_it_along(void **state)
{
    (void)state;
    struct house *h = house_pair(64, false);
    struct measuring m[2];

    for (uint32_t i = 0; i < 2; i++) {
        ask(h, i, &m[i], LONG_NS);
        for (int turn = 0; turn < 5; turn++)
            house_turn(h);
        assert_false(m[i].answered);
    }
    house_lose_last(h);
    assert_true(m[1].answered && m[1].status != MC_OK);
    house_close(h);
    assert_true(m[0].answered);
}

/* Whatever fails, there is an answer, or the connection ends, and all is given back. */
static void sweep(enum mc_role role)
{
    static struct faulty f;
    struct house *h = house_open();
    struct worker_options o = house_options("w", role);
    struct measuring m;
    uint32_t failed = 0, ill = 0;

    faulty_init(&f, -1);
    o.alloc = &f.alloc;
    house_add(h, &o);
    for (long k = 0; k < 30; k++) {
        f.fail_at = f.calls + k;
        ask(h, 0, &m, 20000000);
        house_until(h, m.answered);
        failed += f.calls > f.fail_at;
        ill += m.status != MC_OK;
        f.fail_at = -1;
        house_until(h, h->guests[0].conn != NULL);
        house_until(h, house_is_empty(h));
    }
    ask(h, 0, &m, 20000000); /* the first thing is timed however long it takes */
    house_until(h, m.answered);
    assert_true(m.status == MC_OK && !m.stopped && m.prompts + m.steps > 0);
    assert_true(failed > 2 && ill > 0); /* what could not be timed is left out */
    house_close(h);
    assert_int_equal(f.held, 0);
}

static void test_measuring_without_memory_ends_and_gives_all_back(void **state)
{
    (void)state;
    sweep(MC_ROLE_PREFILL);
    sweep(MC_ROLE_DECODE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_times_what_its_role_does_and_gives_all_back),
        cmocka_unit_test(test_whatever_comes_ends_it),
        cmocka_unit_test(test_a_worker_that_ends_takes_it_along),
        cmocka_unit_test(test_measuring_without_memory_ends_and_gives_all_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
