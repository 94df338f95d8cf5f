/* test_loop.c - descriptors, times and posts of one loop; `make tsan` reads the posts. */
#define _GNU_SOURCE
#include "test.h"

#include "base/prng.h"
#include "os/clock.h"
#include "os/loop.h"
#include "os/sysalloc.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

enum { WATCHES = 8 };

static os_loop *open_loop(void)
{
    os_loop *loop = NULL;

    assert_int_equal(os_loop_open(os_alloc(), &loop, NULL), MC_OK);
    return loop;
}

static uint64_t soon(void)
{
    return os_now_ns() + UINT64_C(10000000000); /* a test that waits so long has failed */
}

/* -------------------------------------------------------------------------------------- watches */

/** A pair of sockets and the watch of its first end. */
struct end {
    os_loop *loop;
    struct os_watch watch;
    int other;
    uint32_t events; /* all that came */
    int calls;
    struct end *ends; /* [WATCHES] */
    void (*then)(struct end *end);
};

static void end_ready(void *user, uint32_t events)
{
    struct end *end = user;

    end->events |= events;
    end->calls++;
    if (end->then)
        end->then(end);
}

static void open_end(struct end *end, os_loop *loop, uint32_t events)
{
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
    *end = (struct end){ .loop = loop, .other = pair[1] };
    end->watch = (struct os_watch){ .fd = pair[0], .ready = end_ready, .user = end };
    assert_int_equal(os_loop_watch(loop, &end->watch, events), MC_OK);
}

static void close_end(struct end *end)
{
    os_loop_unwatch(end->loop, &end->watch);
    close(end->watch.fd);
    if (end->other >= 0)
        close(end->other);
}

static void test_a_watch_is_called_for_what_was_asked(void **state)
{
    (void)state;
    os_loop *loop = open_loop();
    struct end end;

    open_end(&end, loop, OS_READABLE);
    assert_int_equal(os_loop_turn(loop, 0), MC_OK);
    assert_int_equal(end.calls, 0);
    assert_int_equal(write(end.other, "x", 1), 1);
    assert_int_equal(os_loop_turn(loop, soon()), MC_OK);
    assert_int_equal(end.events, OS_READABLE);
    assert_int_equal(os_loop_turn(loop, soon()), MC_OK); /* level-triggered: it is still there */
    assert_int_equal(end.calls, 2);

    assert_int_equal(os_loop_watch(loop, &end.watch, OS_WRITABLE), MC_OK);
    end.events = 0;
    assert_int_equal(os_loop_turn(loop, soon()), MC_OK);
    assert_int_equal(end.events, OS_WRITABLE);

    assert_int_equal(os_loop_watch(loop, &end.watch, 0), MC_OK); /* nothing but the end */
    end.events = 0;
    assert_int_equal(os_loop_turn(loop, 0), MC_OK);
    assert_int_equal(end.events, 0);
    close(end.other);
    end.other = -1;
    assert_int_equal(os_loop_turn(loop, soon()), MC_OK);
    assert_int_equal(end.events, OS_HUNG_UP);
    close_end(&end);
    os_loop_close(loop);
}

static void test_half_a_hang_up_is_told(void **state)
{
    (void)state;
    os_loop *loop = open_loop();
    struct end end;

    open_end(&end, loop, 0);
    shutdown(end.other, SHUT_WR);
    assert_int_equal(os_loop_turn(loop, soon()), MC_OK);
    assert_int_equal(end.events, OS_HUNG_UP);
    close_end(&end);
    os_loop_close(loop);
}

static void end_all(struct end *end)
{
    for (int i = 0; i < WATCHES; i++)
        os_loop_unwatch(end->loop, &end->ends[i].watch);
}

static void test_a_watch_that_another_one_ended_is_not_called_in_the_same_turn(void **state)
{
    (void)state;
    os_loop *loop = open_loop();
    struct end ends[WATCHES];
    int calls = 0;

    for (int i = 0; i < WATCHES; i++) {
        open_end(&ends[i], loop, OS_WRITABLE);
        ends[i].ends = ends;
        ends[i].then = end_all;
    }
    assert_int_equal(os_loop_turn(loop, soon()), MC_OK);
    for (int i = 0; i < WATCHES; i++)
        calls += ends[i].calls;
    assert_int_equal(calls, 1);
    assert_int_equal(os_loop_turn(loop, 0), MC_OK);
    for (int i = 0; i < WATCHES; i++) {
        calls -= ends[i].calls;
        close_end(&ends[i]); /* ended before: nothing happens */
    }
    assert_int_equal(calls, 0);
    os_loop_close(loop);
}

static void replace_all(struct end *end)
{
    end_all(end);
    for (int i = 0; i < WATCHES; i++) { /* the same memory is another watch now */
        struct end *other = &end->ends[i];
        other->then = NULL;
        assert_int_equal(os_loop_watch(other->loop, &other->watch, OS_READABLE), MC_OK);
    }
}

static void test_a_watch_in_the_place_of_one_that_ended_gets_nothing_of_it(void **state)
{
    (void)state;
    os_loop *loop = open_loop();
    struct end ends[WATCHES];
    int calls = 0;

    for (int i = 0; i < WATCHES; i++) {
        open_end(&ends[i], loop, OS_WRITABLE);
        ends[i].ends = ends;
        ends[i].then = replace_all;
    }
    assert_int_equal(os_loop_turn(loop, soon()), MC_OK);
    assert_int_equal(os_loop_turn(loop, 0), MC_OK);
    for (int i = 0; i < WATCHES; i++) {
        calls += ends[i].calls;
        close_end(&ends[i]);
    }
    assert_int_equal(calls, 1);
    os_loop_close(loop);
}

static void ask_for_less(struct end *end)
{
    for (int i = 0; i < WATCHES; i++)
        assert_int_equal(os_loop_watch(end->loop, &end->ends[i].watch, OS_READABLE), MC_OK);
}

static void test_what_is_no_longer_asked_for_is_not_told_in_the_same_turn(void **state)
{
    (void)state;
    os_loop *loop = open_loop();
    struct end ends[WATCHES];
    int calls = 0;

    for (int i = 0; i < WATCHES; i++) {
        open_end(&ends[i], loop, OS_WRITABLE);
        ends[i].ends = ends;
        ends[i].then = ask_for_less;
    }
    assert_int_equal(os_loop_turn(loop, soon()), MC_OK);
    for (int i = 0; i < WATCHES; i++) {
        calls += ends[i].calls;
        close_end(&ends[i]);
    }
    assert_int_equal(calls, 1);
    os_loop_close(loop);
}

static void test_what_cannot_be_watched_is_an_event(void **state)
{
    (void)state;
    os_loop *loop = open_loop();
    const int fd = dup(STDERR_FILENO);
    struct os_watch watch = { .fd = fd, .ready = end_ready };
    char path[64];

    close(fd);
    assert_int_equal(os_loop_watch(loop, &watch, OS_READABLE), MC_E_IO);
    assert_false(watch.known);
    watch.fd = open(test_directory(path), O_RDONLY | O_CLOEXEC); /* epoll does not take these */
    assert_int_equal(os_loop_watch(loop, &watch, OS_READABLE), MC_E_IO);
    close(watch.fd);
    test_remove(path);
    os_loop_unwatch(loop, &watch);
    os_loop_close(loop);
}

/* --------------------------------------------------------------------------------------- timers */

struct clock {
    os_loop *loop;
    int order[64]; /* of the timers called */
    int count;
};

struct hand {
    struct clock *clock;
    struct os_timer timer;
    int number;
    void (*then)(struct hand *hand);
    struct hand *other;
};

static void hand_due(void *user, uint64_t now_ns)
{
    struct hand *hand = user;

    assert_int_equal(now_ns, os_loop_now(hand->clock->loop));
    assert_true(hand->timer.at_ns <= now_ns);
    assert_int_equal(hand->timer.place, 0);
    hand->clock->order[hand->clock->count++] = hand->number;
    if (hand->then)
        hand->then(hand);
}

static void make_hand(struct hand *hand, struct clock *clock, int number)
{
    *hand = (struct hand){ .clock = clock, .number = number };
    hand->timer = (struct os_timer){ .due = hand_due, .user = hand };
}

static void set(struct hand *hand, uint64_t at_ns)
{
    assert_int_equal(os_loop_timer(hand->clock->loop, &hand->timer, at_ns), MC_OK);
}

static void test_timers_fire_in_order_of_time_and_then_of_setting(void **state)
{
    (void)state;
    static const uint64_t at[] = { 50, 10, 30, 10, 40, 20, 10, 60 };
    static const int expected[] = { 1, 3, 6, 5, 2, 4, 0, 7 };
    struct clock clock = { .loop = open_loop() };
    struct hand hands[8];
    const uint64_t base_ns = os_now_ns() + 1000;

    for (int i = 0; i < 8; i++) {
        make_hand(&hands[i], &clock, i);
        set(&hands[i], base_ns + at[i]);
    }
    assert_int_equal(os_loop_next_ns(clock.loop), base_ns + 10);
    while (clock.count < 8)
        assert_int_equal(os_loop_turn(clock.loop, soon()), MC_OK);
    assert_memory_equal(clock.order, expected, sizeof(expected));
    assert_int_equal(os_loop_next_ns(clock.loop), UINT64_MAX);
    os_loop_close(clock.loop);
}

static void test_a_turn_waits_for_a_timer_and_not_much_less(void **state)
{
    (void)state;
    struct clock clock = { .loop = open_loop() };
    struct hand hand;
    const uint64_t at_ns = os_now_ns() + 2500000;

    make_hand(&hand, &clock, 0);
    set(&hand, at_ns);
    assert_int_equal(os_loop_turn(clock.loop, 0), MC_OK);
    assert_true(clock.count == 0 || os_now_ns() >= at_ns);
    while (clock.count == 0)
        assert_int_equal(os_loop_turn(clock.loop, UINT64_MAX), MC_OK);
    assert_true(os_now_ns() >= at_ns);
    os_loop_close(clock.loop);
}

/** The heap against a plain search, over random sets, changes and stops. */
static void test_random_timers_fire_in_order_whatever_was_changed(void **state)
{
    (void)state;
    struct prng prng = { .seed = 3 };

    for (int round = 0; round < 300; round++) {
        struct clock clock = { .loop = open_loop() };
        struct hand hands[40];
        uint64_t at[40] = { 0 }, order[40] = { 0 }, orders = 0;
        const uint64_t base_ns = os_now_ns() + 1000;

        for (int i = 0; i < 40; i++)
            make_hand(&hands[i], &clock, i);
        for (int i = 0; i < 120; i++) {
            const uint32_t which = prng_below(&prng, 40);
            if (prng_below(&prng, 4) == 0) {
                os_loop_timer_stop(clock.loop, &hands[which].timer);
                at[which] = 0;
            } else {
                at[which] = base_ns + prng_below(&prng, 20);
                order[which] = ++orders;
                set(&hands[which], at[which]);
            }
        }
        int set_count = 0;
        for (int i = 0; i < 40; i++)
            set_count += at[i] != 0;
        while (clock.count < set_count)
            assert_int_equal(os_loop_turn(clock.loop, soon()), MC_OK);
        for (int i = 1; i < set_count; i++) {
            const int a = clock.order[i - 1], b = clock.order[i];
            assert_true(at[a] < at[b] || (at[a] == at[b] && order[a] < order[b]));
        }
        assert_int_equal(os_loop_next_ns(clock.loop), UINT64_MAX);
        os_loop_close(clock.loop);
    }
}

static void stop_other(struct hand *hand)
{
    os_loop_timer_stop(hand->clock->loop, &hand->other->timer);
}

static void test_a_timer_that_another_one_stopped_does_not_fire_in_the_same_turn(void **state)
{
    (void)state;
    struct clock clock = { .loop = open_loop() };
    struct hand a, b;

    make_hand(&a, &clock, 0);
    make_hand(&b, &clock, 1);
    a.then = stop_other;
    a.other = &b;
    set(&a, 1);
    set(&b, 1);
    assert_int_equal(os_loop_turn(clock.loop, 0), MC_OK);
    assert_int_equal(clock.count, 1);
    os_loop_timer_stop(clock.loop, &b.timer);
    assert_int_equal(os_loop_turn(clock.loop, 0), MC_OK);
    assert_int_equal(clock.count, 1);
    os_loop_close(clock.loop);
}

static void set_for_the_past(struct hand *hand)
{
    set(hand, 0);
}

static void
test_a_timer_that_sets_itself_for_the_past_neither_spins_nor_starves_others(void **state)
{
    (void)state;
    static const int expected[] = { 0, 1, 2, 0, 0 };
    struct clock clock = { .loop = open_loop() };
    struct hand hands[3];

    for (int i = 0; i < 3; i++) {
        make_hand(&hands[i], &clock, i);
        set(&hands[i], (uint64_t)i + 1);
    }
    hands[0].then = set_for_the_past;
    assert_int_equal(os_loop_turn(clock.loop, 0), MC_OK);
    assert_int_equal(clock.count, 3);
    assert_int_equal(os_loop_turn(clock.loop, soon()), MC_OK); /* does not wait */
    assert_int_equal(os_loop_turn(clock.loop, soon()), MC_OK);
    assert_int_equal(clock.count, 5);
    assert_memory_equal(clock.order, expected, sizeof(expected));
    os_loop_close(clock.loop);
}

/* ---------------------------------------------------------------------------------------- posts */

enum { POSTERS = 4, POSTS = 500 };

struct poster {
    os_loop *loop;
    pthread_t thread;
    struct letter {
        struct os_post post;
        struct poster *poster;
        int number;     /* plain memory: the post must carry it over */
        int *run_count; /* of the loop's thread */
    } letters[POSTS];
    int seen;
};

static void letter_run(void *user)
{
    struct letter *letter = user;

    assert_int_equal(letter->number, letter->poster->seen); /* in the order of posting */
    letter->poster->seen++;
    ++*letter->run_count;
}

static void *poster_main(void *argument)
{
    struct poster *poster = argument;

    for (int i = 0; i < POSTS; i++) {
        poster->letters[i].number = i;
        os_loop_post(poster->loop, &poster->letters[i].post);
    }
    return NULL;
}

static void test_posts_of_many_threads_all_run_in_the_order_of_each(void **state)
{
    (void)state;
    static struct poster posters[POSTERS];
    os_loop *loop = open_loop();
    int count = 0;

    for (int p = 0; p < POSTERS; p++) {
        posters[p] = (struct poster){ .loop = loop };
        for (int i = 0; i < POSTS; i++)
            posters[p].letters[i] =
                (struct letter){ .post = { .run = letter_run, .user = &posters[p].letters[i] },
                                 .poster = &posters[p],
                                 .run_count = &count };
        assert_int_equal(pthread_create(&posters[p].thread, NULL, poster_main, &posters[p]), 0);
    }
    while (count < POSTERS * POSTS)
        assert_int_equal(os_loop_turn(loop, soon()), MC_OK);
    for (int p = 0; p < POSTERS; p++) {
        pthread_join(posters[p].thread, NULL);
        assert_int_equal(posters[p].seen, POSTS);
    }
    os_loop_close(loop);
}

struct echo {
    os_loop *loop;
    struct os_post post;
    int left;
};

static void echo_run(void *user)
{
    struct echo *echo = user;

    if (--echo->left > 0)
        os_loop_post(echo->loop, &echo->post);
}

static void test_a_post_may_be_posted_again_by_its_own_run_and_waits_a_turn(void **state)
{
    (void)state;
    struct echo echo = { .loop = open_loop(), .left = 3 };

    echo.post = (struct os_post){ .run = echo_run, .user = &echo };
    os_loop_post(echo.loop, &echo.post);
    for (int left = 2; left >= 0; left--) {
        assert_int_equal(os_loop_turn(echo.loop, soon()), MC_OK);
        assert_int_equal(echo.left, left);
    }
    os_loop_close(echo.loop);
}

/* -------------------------------------------------------------------------------- life and nest */

static void inner_ready(void *user, uint32_t events)
{
    (void)events;
    assert_int_equal(os_loop_turn(user, 0), MC_OK);
}

static void test_a_loop_is_driven_by_another_one(void **state)
{
    (void)state;
    os_loop *outer = open_loop(), *inner = open_loop();
    struct os_watch watch = { .fd = os_loop_fd(inner), .ready = inner_ready, .user = inner };
    struct echo echo = { .loop = inner, .left = 1 };
    struct end end;

    assert_int_equal(os_loop_watch(outer, &watch, OS_READABLE), MC_OK);
    assert_int_equal(os_loop_turn(outer, 0), MC_OK);
    echo.post = (struct os_post){ .run = echo_run, .user = &echo };
    os_loop_post(inner, &echo.post);
    assert_int_equal(os_loop_turn(outer, soon()), MC_OK);
    assert_int_equal(echo.left, 0);
    open_end(&end, inner, OS_READABLE);
    assert_int_equal(write(end.other, "x", 1), 1);
    assert_int_equal(os_loop_turn(outer, soon()), MC_OK);
    assert_int_equal(end.calls, 1);
    close_end(&end);
    struct pollfd quiet = { .fd = os_loop_fd(inner), .events = POLLIN };
    assert_int_equal(poll(&quiet, 1, 0), 0); /* all work is done */
    os_loop_unwatch(outer, &watch);
    os_loop_close(inner);
    os_loop_close(outer);
}

static void stop_loop(struct hand *hand)
{
    os_loop_stop(hand->clock->loop);
}

static void test_run_ends_when_it_is_stopped(void **state)
{
    (void)state;
    struct clock clock = { .loop = open_loop() };
    struct hand hand;

    make_hand(&hand, &clock, 0);
    hand.then = stop_loop;
    for (int i = 1; i <= 2; i++) { /* and can run again */
        set(&hand, 1);
        os_loop_run(clock.loop);
        assert_int_equal(clock.count, i);
    }
    os_loop_stop(clock.loop);
    os_loop_run(clock.loop);
    os_loop_close(clock.loop);
    os_loop_close(NULL);
}

static void test_every_failed_allocation_leaves_nothing_behind(void **state)
{
    (void)state;
    for (long k = 0;; k++) {
        struct faulty f;
        struct clock clock = { .loop = NULL };
        struct hand hands[20];
        faulty_init(&f, k);
        mc_status status = os_loop_open(&f.alloc, &clock.loop, NULL);
        if (status != MC_OK) {
            assert_int_equal(status, MC_E_NOMEM);
            assert_null(clock.loop);
            assert_int_equal(f.held, 0);
            continue;
        }
        int i = 0;
        for (; i < 20 && status == MC_OK; i++) {
            make_hand(&hands[i], &clock, i);
            status = os_loop_timer(clock.loop, &hands[i].timer, 1);
        }
        const int count = status == MC_OK ? 20 : i - 1;
        if (status != MC_OK) {
            assert_int_equal(status, MC_E_NOMEM);
            assert_int_equal(hands[count].timer.place, 0);
        }
        assert_int_equal(os_loop_turn(clock.loop, 0), MC_OK); /* those that were set fire */
        assert_int_equal(clock.count, count);
        os_loop_close(clock.loop);
        assert_int_equal(f.held, 0);
        if (status == MC_OK) {
            assert_int_equal(k, 3);
            return;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_watch_is_called_for_what_was_asked),
        cmocka_unit_test(test_half_a_hang_up_is_told),
        cmocka_unit_test(test_a_watch_that_another_one_ended_is_not_called_in_the_same_turn),
        cmocka_unit_test(test_a_watch_in_the_place_of_one_that_ended_gets_nothing_of_it),
        cmocka_unit_test(test_what_is_no_longer_asked_for_is_not_told_in_the_same_turn),
        cmocka_unit_test(test_what_cannot_be_watched_is_an_event),
        cmocka_unit_test(test_timers_fire_in_order_of_time_and_then_of_setting),
        cmocka_unit_test(test_a_turn_waits_for_a_timer_and_not_much_less),
        cmocka_unit_test(test_random_timers_fire_in_order_whatever_was_changed),
        cmocka_unit_test(test_a_timer_that_another_one_stopped_does_not_fire_in_the_same_turn),
        cmocka_unit_test(
            test_a_timer_that_sets_itself_for_the_past_neither_spins_nor_starves_others),
        cmocka_unit_test(test_posts_of_many_threads_all_run_in_the_order_of_each),
        cmocka_unit_test(test_a_post_may_be_posted_again_by_its_own_run_and_waits_a_turn),
        cmocka_unit_test(test_a_loop_is_driven_by_another_one),
        cmocka_unit_test(test_run_ends_when_it_is_stopped),
        cmocka_unit_test(test_every_failed_allocation_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
