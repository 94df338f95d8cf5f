/* test_demand.c - what is asked for by price, and who has gone on from whom (demand.h, sessions.h). */
#include "test.h"

#include "sched/demand.h"
#include "sched/sessions.h"

static const uint64_t SECOND_NS = 1000000000;

static void nothing_asked_for_is_waited_for(void **state)
{
    const struct demand d = { .seen_s = 0 };

    (void)state;
    assert_true(demand_cheaper(&d, 1) == 0);
    assert_true(demand_wait(&d, 3, 30, 30, 4) == 3);
}

/* Ten seconds of work a second cheap, thirty dear. */
static struct demand offered(void)
{
    struct demand d = { .seen_s = 0 };

    for (uint64_t s = 1; s <= 60; s++) {
        demand_add(&d, s * SECOND_NS, 0.1, 1);
        demand_add(&d, s * SECOND_NS, 10, 3);
    }
    return d;
}

static void shares_rise_with_the_price(void **state)
{
    const struct demand d = offered();

    (void)state;
    assert_true(demand_cheaper(&d, 0.01) == 0);
    assert_true(demand_cheaper(&d, 0.1) < 0.2);
    assert_true(demand_cheaper(&d, 1) > 0.2 && demand_cheaper(&d, 1) < 0.3);
    assert_true(demand_cheaper(&d, 10) > 0.5 && demand_cheaper(&d, 10) < 0.7);
    assert_true(demand_cheaper(&d, 1000) > 0.99);
}

/* One second of cheap work each second on two instances takes half of them while the dear one waits. */
static void the_dear_wait_for_those_who_overtake(void **state)
{
    const struct demand d = offered();

    (void)state;
    assert_true(demand_wait(&d, 0, 30, 30, 2) == 0); /* nobody there: it begins at once */
    const double wait = demand_wait(&d, 2, 18, 30, 2);
    assert_true(wait > 3.5 && wait < 4.5);
    assert_true(demand_wait(&d, 2, 0, 30, 2) == 2); /* who has no patience is not overtaken */
    assert_true(demand_wait(&d, 2, 18, 30, 2) > demand_wait(&d, 2, 18, 30, 8));
}

static void what_was_asked_for_fades(void **state)
{
    struct demand d = offered();
    const double before = demand_cheaper(&d, 1);

    (void)state;
    for (uint64_t s = 1200; s <= 1260; s++)
        demand_add(&d, s * SECOND_NS, 10, 3);
    assert_true(demand_cheaper(&d, 1) < before / 10);
}

/* -------------------------------------------------------------------------------------- sessions */

static struct sessions sessions; /* large */
static struct mc_key keys[64];

static uint32_t ask(uint8_t chain, uint64_t count)
{
    struct mc_sched_request request = { .id = 1, .tokens = count * 16, .keys = keys };

    for (uint64_t i = 0; i < count; i++) {
        memset(&keys[i], 0, sizeof(keys[i]));
        keys[i].bytes[0] = i < 2 ? 0 : chain; /* all begin alike */
        keys[i].bytes[1] = (uint8_t)i;
    }
    request.key_count = count;
    return sessions_turn(&sessions, &request);
}

static void turns_are_counted(void **state)
{
    (void)state;
    memset(&sessions, 0, sizeof(sessions));
    assert_int_equal(ask(1, 0), 0); /* without keys nothing is known */
    assert_int_equal(ask(1, 10), 0);
    assert_int_equal(ask(2, 10), 0); /* a common beginning is no session */
    assert_int_equal(ask(1, 12), 1);
    assert_int_equal(ask(1, 12), 1); /* the same again */
    assert_int_equal(ask(1, 20), 2);
    assert_int_equal(ask(2, 11), 1);
    for (uint32_t i = 0; i < 10; i++)
        assert_int_equal(ask(1, 21 + i), 3 + i < SESSION_TURNS ? 3 + i : SESSION_TURNS - 1);
}

/* A prompt that is only the common beginning is the first of one session at most. */
static void many_that_go_on_from_one_are_no_session(void **state)
{
    uint32_t second = 0;

    (void)state;
    memset(&sessions, 0, sizeof(sessions));
    assert_int_equal(ask(0, 2), 0);
    for (uint8_t chain = 1; chain < 20; chain++)
        second += ask(chain, 8);
    assert_int_equal(second, 1);
}

static void who_goes_on_is_learnt(void **state)
{
    (void)state;
    memset(&sessions, 0, sizeof(sessions));
    const double at_first = sessions_to_come(&sessions, 0);
    assert_true(at_first > 0 && at_first < 1);
    for (uint32_t turn = 1; turn < SESSION_TURNS; turn++)
        assert_true(sessions_to_come(&sessions, turn) >= sessions_to_come(&sessions, turn - 1));
    for (uint32_t i = 0; i < 250; i++)
        ask((uint8_t)(1 + i), 10); /* none of them goes on */
    assert_true(sessions_to_come(&sessions, 0) < at_first / 2);
    for (uint32_t i = 0; i < 250; i++)
        ask((uint8_t)(1 + i), 12); /* all of them do */
    assert_true(sessions_to_come(&sessions, 0) > at_first);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_asked_for_is_waited_for),
        cmocka_unit_test(shares_rise_with_the_price),
        cmocka_unit_test(the_dear_wait_for_those_who_overtake),
        cmocka_unit_test(what_was_asked_for_fades),
        cmocka_unit_test(turns_are_counted),
        cmocka_unit_test(many_that_go_on_from_one_are_no_session),
        cmocka_unit_test(who_goes_on_is_learnt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
