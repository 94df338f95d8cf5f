/* faults.c - through a hook that makes things go wrong: every batch ends, right or with a reason. */
#include "world.h"

/** Is this how a batch may end whose queue fails now and then? */
static bool may_end_so(mc_status status)
{
    return status == MC_OK || status == MC_E_IO || status == MC_E_PEER;
}

/** A load of writes; what is said to have arrived has. */
static void write_load(struct world *w, uint32_t round, uint32_t *right_p)
{
    struct mc_xfer xfers[LOAD];
    struct mc_xfer_result result;

    tell_fill(w, 0, SPACE, 2);
    fill(w->local, 0, SPACE, 3 + round % 20);
    load(w, MC_WRITE, NULL, xfers);
    mc_batch *batch = start(w, xfers, LOAD, 0, MC_CHECKSUM_NONE);
    assert_true(may_end_so(finish(batch)));
    for (uint64_t i = 0; i < LOAD; i++) {
        assert_int_equal(mc_batch_result(batch, i, &result), MC_OK);
        if (result.status == MC_OK) {
            assert_true(tell_wrong(w, i * LOAD_EACH, LOAD_EACH, 3 + round % 20) == 0);
            (*right_p)++;
        }
    }
    mc_batch_close(batch);
    guard(w->local, SPACE);
    let_pass(w, 200000);
    unguard(w->local, SPACE);
}

static void test_slices_that_fail_end_their_transfer_or_are_tried_again(void **state)
{
    struct world *w = *state;
    uint32_t right = 0;

    world_open(
        w, &(struct world_options){ .driven = true, .settings = "hook.fail=0.05,hook.status=io" });
    for (uint32_t round = 0; round < 4; round++)
        write_load(w, round, &right);
    assert_true(right > 0);
    world_close(w);
}

static void test_a_queue_that_ends_at_any_slice_ends_no_batch_without_a_reason(void **state)
{
    struct world *w = *state;
    static const char *const settings[] = { "hook.end_at=1", "hook.end_at=2", "hook.end_at=20",
                                            "hook.end_at=50" };
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t right = 0;

        world_open(w, &(struct world_options){ .driven = true, .settings = settings[i] });
        write_load(w, i, &right);
        write_load(w, i + 1, &right);
        assert_true(right >= LOAD); /* the second one, which no fault meets */
        world_close(w);
    }
}

static void test_a_lost_slice_ends_at_the_deadline(void **state)
{
    struct world *w = *state;
    struct mc_xfer xfers[LOAD];

    world_open(w, &(struct world_options){ .settings = "hook.drop_at=30" });
    load(w, MC_READ, NULL, xfers);
    mc_batch *batch = start(w, xfers, LOAD, os_now_ns() + SECOND_NS / 10, MC_CHECKSUM_NONE);
    assert_int_equal(finish(batch), MC_E_TIMEOUT);
    mc_batch_close(batch);
    guard(w->local, SPACE);
    let_pass(w, 500000);
    unguard(w->local, SPACE);
    world_close(w);
}

static void test_a_lost_slice_ends_when_it_is_cancelled(void **state)
{
    struct world *w = *state;
    struct mc_xfer xfers[LOAD];

    world_open(w, &(struct world_options){ .driven = true, .settings = "hook.drop=1" });
    load(w, MC_WRITE, NULL, xfers);
    mc_batch *batch = start(w, xfers, LOAD, 0, MC_CHECKSUM_NONE);
    take_steps(batch, 200);
    assert_int_equal(mc_batch_poll(batch), MC_PENDING);
    assert_int_equal(mc_batch_cancel(batch), MC_OK);
    assert_int_equal(finish(batch), MC_E_CANCELLED);
    mc_batch_close(batch);
    world_close(w);
}

static void test_a_flipped_byte_is_found_by_the_checksum(void **state)
{
    struct world *w = *state;

    world_open(w, &(struct world_options){ .settings = "hook.corrupt=1" });
    tell_fill(w, 0, SPACE, 2);
    for (int op = 0; op < 2; op++) {
        const struct mc_xfer xfer = xfer_of(w, op ? MC_READ : MC_WRITE, 0, 0, 200000);

        assert_int_equal(move(w, &xfer, MC_CHECKSUM_CRC32C),
                         variant->summed ? MC_E_CORRUPT : MC_E_UNSUPPORTED);
    }
    world_close(w);
}

/* Delays stretch every phase. */
static void test_a_cancel_at_any_step_of_a_slow_transport_leaves_the_memory_alone(void **state)
{
    struct world *w = *state;
    struct mc_xfer xfers[LOAD];

    world_open(w, &(struct world_options){ .driven = true, .settings = "hook.delay_ns=100000" });
    for (uint32_t i = 0; i < 2 * PHASES; i++) {
        load(w, i % 2 ? MC_READ : MC_WRITE, NULL, xfers);
        mc_batch *batch = start(w, xfers, LOAD, 0, MC_CHECKSUM_NONE);
        take_steps(batch, phases[i / 2]);
        assert_int_equal(mc_batch_cancel(batch), MC_OK);
        const mc_status status = finish(batch);
        assert_true(status == MC_OK || status == MC_E_CANCELLED);
        mc_batch_close(batch);
        guard(w->local, SPACE);
        let_pass(w, 500000);
        unguard(w->local, SPACE);
    }
    world_close(w);
}

int topic_faults(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_slices_that_fail_end_their_transfer_or_are_tried_again),
        WORLD_TEST(test_a_queue_that_ends_at_any_slice_ends_no_batch_without_a_reason),
        WORLD_TEST(test_a_lost_slice_ends_at_the_deadline),
        WORLD_TEST(test_a_lost_slice_ends_when_it_is_cancelled),
        WORLD_TEST(test_a_flipped_byte_is_found_by_the_checksum),
        WORLD_TEST(test_a_cancel_at_any_step_of_a_slow_transport_leaves_the_memory_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
