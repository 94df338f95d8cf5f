/* peers.c - a peer that is killed or stopped, as target and as initiator, at whatever step. */
#define _GNU_SOURCE
#include "world.h"

#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* ------------------------------------------------------------------------------------- as the target */

static void kill_at(struct world *w, enum mc_op op, uint32_t steps)
{
    struct mc_xfer xfers[LOAD];

    world_open(w, &(struct world_options){ .driven = true });
    load(w, op, NULL, xfers);
    mc_batch *batch = start(w, xfers, LOAD, os_now_ns() + 5 * SECOND_NS, MC_CHECKSUM_NONE);
    take_steps(batch, steps);
    peer_kill(w);
    const mc_status status = finish(batch);
    if (status != MC_OK && status != MC_E_PEER && status != MC_E_TIMEOUT &&
        status != MC_E_NOT_FOUND)
        fail_msg("after %u steps: %s", steps, mc_status_name(status));
    mc_batch_close(batch);
    guard(w->local, SPACE);
    let_pass(w, 500000);
    unguard(w->local, SPACE);
    world_close(w);
}

static void test_all_batches_end_when_the_target_is_killed_at_any_step(void **state)
{
    for (uint32_t i = 0; i < PHASES; i++)
        kill_at(*state, i % 2 ? MC_READ : MC_WRITE, phases[i]);
}

/* Cancelled while the target is stopped: final without its help; it touches nothing when it wakes. */
static void stop_target_at(struct world *w, enum mc_op op, uint32_t steps, bool deadline)
{
    struct mc_xfer xfers[LOAD];

    load(w, op, NULL, xfers);
    mc_batch *batch =
        start(w, xfers, LOAD, deadline ? os_now_ns() + SECOND_NS / 20 : 0, MC_CHECKSUM_NONE);
    take_steps(batch, steps);
    peer_stop(w);
    if (!deadline) {
        take_steps(batch, 50);
        assert_int_equal(mc_batch_cancel(batch), MC_OK);
    }
    const mc_status status = finish(batch);
    assert_true(status == MC_OK || status == (deadline ? MC_E_TIMEOUT : MC_E_CANCELLED));
    mc_batch_close(batch);
    guard(w->local, SPACE);
    peer_continue(w);
    let_pass(w, 2000000);
    unguard(w->local, SPACE);
    const struct mc_xfer next = xfer_of(w, MC_READ, 0, 0, 1000);
    assert_int_equal(move(w, &next, MC_CHECKSUM_NONE), MC_OK);
}

static void test_a_cancel_does_not_wait_for_a_stopped_target(void **state)
{
    struct world *w = *state;

    world_open(w, &(struct world_options){ .driven = true });
    for (uint32_t i = 0; i < PHASES; i++) {
        stop_target_at(w, MC_READ, phases[i], false);
        stop_target_at(w, MC_WRITE, phases[i], false);
    }
    world_close(w);
}

static void test_a_deadline_does_not_wait_for_a_stopped_target(void **state)
{
    struct world *w = *state;

    world_open(w, &(struct world_options){ .driven = false });
    for (uint32_t i = 0; i < PHASES; i++)
        stop_target_at(w, i % 2 ? MC_READ : MC_WRITE, phases[i], true);
    world_close(w);
}

/* ---------------------------------------------------------------------------------- as the initiator */

/** What the initiator is told. */
struct order {
    char name[MC_NAME_MAX + 1];
    struct mc_region region;
    struct mc_window window;
};

/** Transfers without end through window and region, until it is killed. */
static void hammer(int fd)
{
    const struct mc_transfer_options o = { .transports = variant->transports };
    struct world w = { .fd = -1, .pid = 0 };
    struct mc_region_options options = { .size = SPACE };
    struct order order;
    struct mc_xfer xfers[LOAD];
    void *memory = malloc(SPACE);

    if (recv(fd, &order, sizeof(order), 0) != (ssize_t)sizeof(order) || !memory)
        _exit(2);
    memset(memory, 0x77, SPACE);
    options.address = memory;
    if (mc_transfer_open(&o, &w.engine, NULL) != MC_OK ||
        mc_segment_open(w.engine, order.name, &w.segment, NULL) != MC_OK ||
        mc_region_register(w.engine, &options, 1, &w.local_region, NULL) != MC_OK)
        _exit(3);
    w.local = memory;
    w.region = order.region;
    for (uint32_t round = 0;; round++) {
        const struct mc_batch_options batch_options = { .capacity = LOAD };
        mc_batch *batch = NULL;

        load(&w, round % 3 == 2 ? MC_READ : MC_WRITE, round % 2 ? &order.window : NULL, xfers);
        if (mc_batch_open(w.engine, &batch_options, &batch) != MC_OK ||
            mc_batch_add(batch, xfers, LOAD) != MC_OK)
            _exit(4);
        if (mc_batch_submit(batch) == MC_OK)
            (void)!mc_batch_wait(batch, soon());
        mc_batch_close(batch);
        if (round == 3 && send(fd, "x", 1, MSG_NOSIGNAL) != 1)
            _exit(5);
    }
}

struct target {
    struct world w; /* its engine is the target; pid and fd are the hammer's */
    struct mc_window window;
};

static void target_open(struct target *t)
{
    const struct mc_transfer_options o = { .transports = variant->transports };
    struct mc_region_options options = { .size = SPACE, .permissions = BOTH };
    struct mc_transfer_info info;
    struct order order = { .name = "" };
    int fds[2];
    char byte;

    *t = (struct target){ .w = { .fd = -1 } };
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
    t->w.fd = fds[0];
    t->w.pid = fork();
    assert_true(t->w.pid >= 0);
    if (t->w.pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        hammer(fds[1]);
    }
    close(fds[1]);
    assert_int_equal(mc_transfer_open(&o, &t->w.engine, NULL), MC_OK);
    if (variant->allocated)
        assert_int_equal(mc_memory_alloc(t->w.engine, SPACE, NULL, &options.address, NULL), MC_OK);
    else
        options.address = malloc(SPACE);
    t->w.local = options.address;
    assert_int_equal(mc_region_register(t->w.engine, &options, 1, &t->w.region, NULL), MC_OK);
    const struct mc_window_options window = {
        .region = t->w.region, .count = LOAD, .piece_bytes = LOAD_EACH, .permissions = BOTH
    };
    assert_int_equal(mc_window_grant(t->w.engine, &window, &t->window, NULL), MC_OK);
    assert_int_equal(mc_transfer_info(t->w.engine, &info), MC_OK);
    (void)snprintf(order.name, sizeof(order.name), "%s", info.name);
    order.region = t->w.region;
    order.window = t->window;
    assert_int_equal(send(t->w.fd, &order, sizeof(order), MSG_NOSIGNAL), sizeof(order));
    assert_int_equal(recv(t->w.fd, &byte, 1, 0), 1); /* it is at it */
}

static void target_close(struct target *t)
{
    if (t->w.pid != 0)
        peer_kill(&t->w);
    if (variant->allocated)
        mc_memory_free(t->w.engine, t->w.local);
    else
        free(t->w.local);
    mc_transfer_close(t->w.engine);
    close(t->w.fd);
}

/** Let the hammer get somewhere else each time. */
static void wait_somewhere(uint32_t round)
{
    const uint64_t until_ns = os_now_ns() + 20000 + (uint64_t)round * 137000;

    while (os_now_ns() < until_ns)
        ;
}

static void test_memory_comes_back_from_an_initiator_that_was_killed(void **state)
{
    (void)state;
    for (uint32_t round = 0; round < 6; round++) {
        struct target t;

        target_open(&t);
        wait_somewhere(round);
        peer_kill(&t.w);
        assert_int_equal(mc_window_revoke(t.w.engine, &t.window, soon(), NULL), MC_OK);
        assert_int_equal(mc_region_unregister(t.w.engine, &t.w.region, 1, soon(), NULL), MC_OK);
        guard(t.w.local, SPACE);
        let_pass(&t.w, 500000);
        unguard(t.w.local, SPACE);
        target_close(&t);
    }
}

/* Stopped in the middle: either nothing holds the memory, or that is said and it stays away; once the
 * initiator goes on, it comes back. */
static void test_memory_is_kept_away_while_a_stopped_initiator_may_touch_it(void **state)
{
    (void)state;
    for (uint32_t round = 0; round < 6; round++) {
        struct target t;

        target_open(&t);
        wait_somewhere(round);
        peer_stop(&t.w);
        mc_status status =
            mc_region_unregister(t.w.engine, &t.w.region, 1, os_now_ns() + SECOND_NS / 10, NULL);
        assert_true(status == MC_OK || status == MC_E_TIMEOUT);
        if (status == MC_E_TIMEOUT) {
            struct mc_transfer_stats stats;

            assert_int_equal(mc_transfer_stats(t.w.engine, UINT32_MAX, &stats), MC_OK);
            assert_true(stats.quarantined_bytes > 0);
            peer_continue(&t.w);
            assert_int_equal(mc_region_unregister(t.w.engine, &t.w.region, 1, soon(), NULL), MC_OK);
            guard(t.w.local, SPACE);
        } else {
            guard(t.w.local, SPACE);
            peer_continue(&t.w);
        }
        let_pass(&t.w, 3000000);
        unguard(t.w.local, SPACE);
        target_close(&t);
    }
}

/* The hammer goes on all the while; the window alone is taken away and given again. */
static void test_windows_come_and_go_under_an_initiator_at_work(void **state)
{
    struct target t;

    (void)state;
    target_open(&t);
    for (uint32_t round = 0; round < 20; round++) {
        const struct mc_window_options options = {
            .region = t.w.region, .count = LOAD, .piece_bytes = LOAD_EACH, .permissions = BOTH
        };

        assert_int_equal(mc_window_revoke(t.w.engine, &t.window, soon(), NULL), MC_OK);
        assert_int_equal(mc_window_grant(t.w.engine, &options, &t.window, NULL), MC_OK);
    }
    assert_int_equal(mc_window_revoke(t.w.engine, &t.window, soon(), NULL), MC_OK);
    assert_int_equal(mc_region_unregister(t.w.engine, &t.w.region, 1, soon(), NULL), MC_OK);
    guard(t.w.local, SPACE);
    let_pass(&t.w, 3000000);
    unguard(t.w.local, SPACE);
    target_close(&t);
}

int topic_peers(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_all_batches_end_when_the_target_is_killed_at_any_step),
        WORLD_TEST(test_a_cancel_does_not_wait_for_a_stopped_target),
        WORLD_TEST(test_a_deadline_does_not_wait_for_a_stopped_target),
        WORLD_TEST(test_memory_comes_back_from_an_initiator_that_was_killed),
        WORLD_TEST(test_memory_is_kept_away_while_a_stopped_initiator_may_touch_it),
        WORLD_TEST(test_windows_come_and_go_under_an_initiator_at_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
