/* revokes.c - memory that was taken back is left alone by peers, at whatever step it was taken. */
#include "world.h"

static bool may_end_so(mc_status status)
{
    return status == MC_OK || status == MC_E_STALE;
}

/** After `steps` of a load through `window` (NULL: the region `xfers` name), it is taken back; once that
 * is said to be quiet, the peer's memory does not change any more. */
static void take_back_at(struct world *w, struct mc_xfer xfers[LOAD], uint32_t steps,
                         const struct mc_window *window, struct mc_region region)
{
    mc_batch *batch = start(w, xfers, LOAD, 0, MC_CHECKSUM_NONE);

    take_steps(batch, steps);
    if (window)
        tell_revoke(w, window);
    else
        tell_unregister(w, region);
    take_steps(batch, 3);
    assert_int_equal(told_status(w), MC_OK);
    tell_fill(w, 0, SPACE, 5);
    assert_true(may_end_so(finish(batch)));
    mc_batch_close(batch);
    let_pass(w, 500000);
    if (xfers[0].op == MC_WRITE)
        assert_true(tell_wrong(w, 0, SPACE, 5) == 0);
}

static void test_an_unregistered_region_is_left_alone_at_any_step(void **state)
{
    struct world *w = *state;
    struct mc_xfer xfers[LOAD];

    world_open(w, &(struct world_options){ .driven = true, .settings = "tcp.buffer=65536" });
    for (uint32_t i = 0; i < 2 * PHASES; i++) {
        const struct mc_region region = tell_register(w, BOTH, 0);

        fill(w->local, 0, SPACE, 7);
        load(w, i % 2 ? MC_READ : MC_WRITE, NULL, xfers);
        for (uint32_t x = 0; x < LOAD; x++)
            xfers[x].region = region;
        take_back_at(w, xfers, phases[i / 2], NULL, region);
    }
    world_close(w);
}

static void test_a_revoked_window_is_left_alone_at_any_step(void **state)
{
    struct world *w = *state;
    struct mc_xfer xfers[LOAD];

    world_open(w, &(struct world_options){ .driven = true });
    const struct mc_window_options options = {
        .region = w->region, .count = LOAD, .piece_bytes = LOAD_EACH, .permissions = BOTH
    };
    for (uint32_t i = 0; i < 2 * PHASES; i++) {
        struct mc_window window;

        assert_int_equal(tell_grant(w, &options, &window), MC_OK);
        fill(w->local, 0, SPACE, 7);
        load(w, i % 2 ? MC_READ : MC_WRITE, &window, xfers);
        take_back_at(w, xfers, phases[i / 2], &window, w->region);
    }
    world_close(w);
}

/* One window of a region is taken back while another one is busy: it does not have to wait for it. */
static void test_one_window_goes_while_another_one_is_busy(void **state)
{
    struct world *w = *state;
    enum { HALF = LOAD / 2 };
    struct mc_xfer xfers[LOAD];
    uint64_t offsets[HALF];
    struct mc_window windows[2];

    world_open(w, &(struct world_options){ 0 });
    tell_fill(w, 0, SPACE, 2);
    for (uint64_t half = 0; half < 2; half++) {
        const struct mc_window_options options = { .region = w->region,
                                                   .offsets = offsets,
                                                   .count = HALF,
                                                   .piece_bytes = LOAD_EACH,
                                                   .permissions = BOTH };
        for (uint64_t i = 0; i < HALF; i++)
            offsets[i] = (half * HALF + i) * LOAD_EACH;
        assert_int_equal(tell_grant(w, &options, &windows[half]), MC_OK);
    }
    for (uint32_t i = 0; i < LOAD; i++) {
        xfers[i] = xfer_of(w, MC_READ, (uint64_t)i * LOAD_EACH, (uint64_t)(i % HALF) * LOAD_EACH,
                           LOAD_EACH);
        xfers[i].window = &windows[i / HALF];
    }
    mc_batch *going = start(w, xfers, HALF, 0, MC_CHECKSUM_NONE);
    mc_batch *cut = start(w, xfers + HALF, HALF, 0, MC_CHECKSUM_NONE);
    tell_revoke(w, &windows[1]);
    assert_int_equal(told_status(w), MC_OK);
    assert_int_equal(finish(going), MC_OK);
    assert_true(may_end_so(finish(cut)));
    mc_batch_close(going);
    mc_batch_close(cut);
    assert_true(wrong(w->local, 0, (uint64_t)HALF * LOAD_EACH, 2) == 0);
    tell_revoke(w, &windows[0]);
    assert_int_equal(told_status(w), MC_OK);
    world_close(w);
}

/* Local memory that is unregistered under a running batch: quiet when that returns. */
static void test_local_memory_is_quiet_once_it_is_unregistered(void **state)
{
    struct world *w = *state;
    const struct mc_region_options options = { .address = NULL, .size = SPACE };
    struct mc_xfer xfers[LOAD];

    world_open(w, &(struct world_options){ 0 });
    for (uint32_t i = 0; i < 2 * PHASES; i++) {
        struct mc_region_options again = options;

        load(w, i % 2 ? MC_READ : MC_WRITE, NULL, xfers);
        mc_batch *batch = start(w, xfers, LOAD, 0, MC_CHECKSUM_NONE);
        take_steps(batch, phases[i / 2]);
        assert_int_equal(mc_region_unregister(w->engine, &w->local_region, 1, soon(), NULL), MC_OK);
        w->local_registered = false;
        guard(w->local, SPACE);
        let_pass(w, 500000);
        unguard(w->local, SPACE);
        const mc_status status = finish(batch);
        assert_true(status == MC_OK || status == MC_E_DENIED || status == MC_E_CANCELLED);
        mc_batch_close(batch);
        again.address = w->local;
        assert_int_equal(mc_region_register(w->engine, &again, 1, &w->local_region, NULL), MC_OK);
        w->local_registered = true;
    }
    world_close(w);
}

int topic_revokes(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_an_unregistered_region_is_left_alone_at_any_step),
        WORLD_TEST(test_a_revoked_window_is_left_alone_at_any_step),
        WORLD_TEST(test_one_window_goes_while_another_one_is_busy),
        WORLD_TEST(test_local_memory_is_quiet_once_it_is_unregistered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
