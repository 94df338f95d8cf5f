/* test_supervise.c - the supervisor's rules, one story each. */
#include "test.h"

#include <stdio.h>
#include <string.h>

#include "cmd/cmd.h"
#include "cmd/supervise.h"

static const uint64_t MS = 1000000, S = 1000000000;

enum { MASTER, GATEWAY, WORKER, CHILDREN };

struct house {
    struct supervise_child children[CHILDREN];
    struct supervise s;
    uint64_t now;
};

static struct supervise_options options(void)
{
    return (struct supervise_options){ .stall_ns = 2 * S,
                                       .grace_ns = 10 * S,
                                       .start_ns = 60 * S,
                                       .young_ns = 30 * S,
                                       .failures_max = 3 };
}

static void house_init(struct house *h)
{
    const struct supervise_options o = options();

    memset(h, 0, sizeof(*h));
    h->now = 1000 * S;
    for (uint32_t i = 0; i < CHILDREN; i++)
        h->children[i] =
            (struct supervise_child){ .start_rank = i, .stop_rank = i == GATEWAY ? 0 : 3 - i };
    supervise_init(&h->s, h->children, CHILDREN, &o, h->now);
}

/* What is to be done, as text: "start 0, up, kill 2". */
static const char *todo(struct house *h)
{
    static const char *const names[] = { "start", "term", "kill", "up", "give up", "done" };
    static char text[200];
    struct supervise_action a;
    size_t at = 0;

    text[0] = '\0';
    while (supervise_take(&h->s, &a)) {
        const bool whole = a.kind == SUPERVISE_ALL_UP || a.kind == SUPERVISE_DONE;
        at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%s", at ? ", " : "", names[a.kind]);
        if (!whole)
            at += (size_t)snprintf(text + at, sizeof(text) - at, " %u", a.child);
        if (a.kind == SUPERVISE_DONE)
            break;
    }
    return text;
}

static const char *tell(struct house *h, enum supervise_event_kind kind, uint32_t child, int value)
{
    supervise_event(&h->s, kind, child, value, h->now);
    return todo(h);
}

static const char *later(struct house *h, uint64_t ns)
{
    h->now += ns;
    return tell(h, SUPERVISE_TICK, 0, 0);
}

static void all_up(struct house *h)
{
    house_init(h);
    assert_string_equal(todo(h), "start 0");
    assert_string_equal(tell(h, SUPERVISE_READY, MASTER, 0), "start 1");
    assert_string_equal(tell(h, SUPERVISE_READY, GATEWAY, 0), "start 2");
    assert_string_equal(tell(h, SUPERVISE_READY, WORKER, 0), "up");
}

static void test_each_rank_starts_when_the_one_before_is_up(void **state)
{
    struct house h;

    (void)state;
    all_up(&h);
    assert_string_equal(todo(&h), "");
    assert_true(supervise_due(&h.s) == UINT64_MAX);
}

static void test_one_that_dies_starts_again_after_a_while_and_waits_for_nobody(void **state)
{
    struct house h;

    (void)state;
    all_up(&h);
    assert_string_equal(tell(&h, SUPERVISE_EXITED, MASTER, 137), "");
    assert_string_equal(tell(&h, SUPERVISE_EXITED, WORKER, 137), "");
    assert_true(supervise_due(&h.s) == h.now + 100 * MS);
    assert_string_equal(later(&h, 99 * MS), "");
    assert_string_equal(later(&h, 1 * MS), "start 0, start 2");
    assert_string_equal(tell(&h, SUPERVISE_READY, MASTER, 0), ""); /* "up" is said once */
}

static void
test_a_failure_in_a_row_waits_twice_as_long_and_one_too_many_ends_the_whole(void **state)
{
    struct house h;

    (void)state;
    all_up(&h);
    for (uint64_t wait = 100 * MS, i = 0; i < 3; i++, wait *= 2) {
        assert_string_equal(tell(&h, SUPERVISE_EXITED, WORKER, 1), "");
        assert_true(supervise_due(&h.s) == h.now + wait);
        assert_string_equal(later(&h, wait), "start 2");
    }
    assert_string_equal(tell(&h, SUPERVISE_EXITED, WORKER, 1), "give up 2, term 1");
    assert_string_equal(tell(&h, SUPERVISE_EXITED, GATEWAY, 0), "term 0");
    assert_string_equal(tell(&h, SUPERVISE_EXITED, MASTER, 0), "done");
    assert_int_equal(h.s.code, CMD_FAILED);
}

static void test_a_long_life_forgives_earlier_failures(void **state)
{
    struct house h;

    (void)state;
    all_up(&h);
    for (int i = 0; i < 20; i++) {
        h.now += 31 * S;
        assert_string_equal(tell(&h, SUPERVISE_EXITED, WORKER, 1), "");
        assert_string_equal(later(&h, 100 * MS), "start 2");
    }
}

static void test_wrong_usage_is_not_tried_again(void **state)
{
    struct house h;

    (void)state;
    house_init(&h);
    assert_string_equal(todo(&h), "start 0");
    assert_string_equal(tell(&h, SUPERVISE_EXITED, MASTER, CMD_USAGE), "give up 0, done");
}

static void test_who_fails_before_it_was_ever_up_is_not_tried_again(void **state)
{
    struct supervise_action a;
    struct house h;

    (void)state;
    house_init(&h);
    assert_string_equal(todo(&h), "start 0");
    assert_string_equal(tell(&h, SUPERVISE_EXITED, MASTER, 137), ""); /* somebody killed it */
    assert_string_equal(later(&h, 100 * MS), "start 0");
    supervise_event(&h.s, SUPERVISE_EXITED, MASTER, CMD_FAILED, h.now);
    assert_true(supervise_take(&h.s, &a));
    assert_int_equal(a.kind, SUPERVISE_GIVE_UP);
    assert_string_equal(a.why, "it cannot start, for the reason above");
    assert_string_equal(todo(&h), "done");
    assert_int_equal(h.s.code, CMD_FAILED);
}

static void test_a_stopped_child_is_killed_after_a_while_and_that_is_no_failure(void **state)
{
    struct house h;

    (void)state;
    all_up(&h);
    for (int i = 0; i < 10; i++) {
        assert_string_equal(tell(&h, SUPERVISE_STOPPED, WORKER, 0), "");
        assert_true(supervise_due(&h.s) == h.now + 2 * S);
        assert_string_equal(later(&h, 2 * S), "kill 2");
        assert_string_equal(tell(&h, SUPERVISE_EXITED, WORKER, 137), "");
        assert_string_equal(later(&h, 100 * MS), "start 2");
    }
    tell(&h, SUPERVISE_STOPPED, WORKER, 0);
    h.now += S;
    tell(&h, SUPERVISE_CONTINUED, WORKER, 0);
    assert_string_equal(later(&h, 10 * S), "");
}

static void test_stopping_goes_by_rank_and_kills_what_does_not_end(void **state)
{
    struct house h;

    (void)state;
    all_up(&h);
    assert_string_equal(tell(&h, SUPERVISE_STOP, 0, 0), "term 1");
    assert_string_equal(later(&h, 9 * S), "");
    assert_string_equal(later(&h, 1 * S), "kill 1");
    assert_string_equal(tell(&h, SUPERVISE_EXITED, GATEWAY, 137), "term 2");
    assert_true(supervise_due(&h.s) == h.now + 10 * S); /* its own time, from now */
    assert_string_equal(tell(&h, SUPERVISE_EXITED, WORKER, 0), "term 0");
    assert_string_equal(tell(&h, SUPERVISE_EXITED, MASTER, 0), "done");
    assert_int_equal(h.s.code, 0);
}

static void test_asked_twice_all_are_killed(void **state)
{
    struct house h;

    (void)state;
    all_up(&h);
    assert_string_equal(tell(&h, SUPERVISE_STOP, 0, 0), "term 1");
    assert_string_equal(tell(&h, SUPERVISE_STOP, 0, 0), "kill 0, kill 1, kill 2");
    tell(&h, SUPERVISE_EXITED, MASTER, 137);
    tell(&h, SUPERVISE_EXITED, WORKER, 137);
    assert_string_equal(tell(&h, SUPERVISE_EXITED, GATEWAY, 137), "done");
}

static void test_stopping_before_all_is_up_starts_nothing_more(void **state)
{
    struct house h;

    (void)state;
    house_init(&h);
    assert_string_equal(todo(&h), "start 0");
    assert_string_equal(tell(&h, SUPERVISE_STOP, 0, 0), "term 0");
    assert_string_equal(tell(&h, SUPERVISE_READY, MASTER, 0), "");
    assert_string_equal(tell(&h, SUPERVISE_EXITED, MASTER, 0), "done");
}

static void test_one_that_is_never_ready_is_killed(void **state)
{
    struct house h;

    (void)state;
    house_init(&h);
    assert_string_equal(todo(&h), "start 0");
    assert_true(supervise_due(&h.s) == h.now + 60 * S);
    assert_string_equal(later(&h, 60 * S), "kill 0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_rank_starts_when_the_one_before_is_up),
        cmocka_unit_test(test_one_that_dies_starts_again_after_a_while_and_waits_for_nobody),
        cmocka_unit_test(
            test_a_failure_in_a_row_waits_twice_as_long_and_one_too_many_ends_the_whole),
        cmocka_unit_test(test_a_long_life_forgives_earlier_failures),
        cmocka_unit_test(test_wrong_usage_is_not_tried_again),
        cmocka_unit_test(test_who_fails_before_it_was_ever_up_is_not_tried_again),
        cmocka_unit_test(test_a_stopped_child_is_killed_after_a_while_and_that_is_no_failure),
        cmocka_unit_test(test_stopping_goes_by_rank_and_kills_what_does_not_end),
        cmocka_unit_test(test_asked_twice_all_are_killed),
        cmocka_unit_test(test_stopping_before_all_is_up_starts_nothing_more),
        cmocka_unit_test(test_one_that_is_never_ready_is_killed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
