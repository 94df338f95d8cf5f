/* cancels.c - after a batch is final its local memory is quiet, at whatever step it was stopped. */
#include "world.h"

enum how { BY_CANCEL, BY_DEADLINE, BY_CLOSE, BY_SEGMENT };

/** Start a load, stop it after so many steps, see that the memory is left alone from then on. */
static void stop_at(struct world *w, enum mc_op op, uint32_t steps, enum how how)
{
    const uint64_t deadline_ns =
        how == BY_DEADLINE ? os_now_ns() + (uint64_t)steps * 10000 + 1 : MC_FOREVER;
    struct mc_xfer xfers[LOAD];
    mc_status status = MC_PENDING;

    load(w, op, NULL, xfers);
    mc_batch *batch = start(w, xfers, LOAD, deadline_ns, MC_CHECKSUM_NONE);
    if (how != BY_DEADLINE)
        take_steps(batch, steps);
    switch (how) {
    case BY_CANCEL:
        assert_int_equal(mc_batch_cancel(batch), MC_OK);
        status = finish(batch);
        assert_true(status == MC_OK || status == MC_E_CANCELLED);
        break;
    case BY_DEADLINE:
        status = finish(batch);
        assert_true(status == MC_OK || status == MC_E_TIMEOUT);
        break;
    case BY_SEGMENT:
        mc_segment_close(w->engine, w->segment);
        status = finish(batch);
        assert_true(status == MC_OK || status == MC_E_CANCELLED);
        break;
    case BY_CLOSE:
        break;
    }
    if (status != MC_PENDING)
        assert_int_equal(mc_batch_poll(batch), status); /* for good */
    mc_batch_close(batch);
    guard(w->local, SPACE);
    let_pass(w, 1000000);
    unguard(w->local, SPACE);
    if (how == BY_SEGMENT)
        assert_int_equal(mc_segment_open(w->engine, w->name, &w->segment, NULL), MC_OK);
    /* And the engine goes on. */
    const struct mc_xfer next = xfer_of(w, MC_READ, 0, 0, 1000);
    assert_int_equal(move(w, &next, MC_CHECKSUM_NONE), MC_OK);
}

static void sweep(struct world *w, const struct world_options *options, enum how how)
{
    world_open(w, options);
    for (uint32_t i = 0; i < PHASES; i++) {
        stop_at(w, MC_READ, phases[i], how);
        stop_at(w, MC_WRITE, phases[i], how);
    }
    world_close(w);
}

static const struct world_options driven = { .driven = true }, threaded = { .driven = false },
                                  /* a small buffer makes many steps */
    small = { .driven = true, .settings = "tcp.buffer=16384" };

static void test_after_a_cancel_at_any_step_the_memory_is_left_alone(void **state)
{
    sweep(*state, &driven, BY_CANCEL);
}

static void test_so_it_is_when_bytes_come_in_small_pieces(void **state)
{
    sweep(*state, &small, BY_CANCEL);
}

static void test_so_it_is_when_the_engine_has_a_thread(void **state)
{
    sweep(*state, &threaded, BY_CANCEL);
}

static void test_after_a_deadline_the_memory_is_left_alone(void **state)
{
    sweep(*state, &driven, BY_DEADLINE);
}

static void test_after_a_close_of_the_batch_the_memory_is_left_alone(void **state)
{
    sweep(*state, &driven, BY_CLOSE);
}

static void test_after_a_close_of_the_segment_the_memory_is_left_alone(void **state)
{
    sweep(*state, &driven, BY_SEGMENT);
}

/* Two batches to one peer: stopping one does not stop the other. */
static void test_a_cancel_does_not_harm_another_batch(void **state)
{
    struct world *w = *state;
    enum { HALF = LOAD / 2 };
    struct mc_xfer xfers[LOAD];

    world_open(w, &driven);
    for (uint32_t i = 0; i < PHASES; i++) {
        const uint64_t kept = (uint64_t)HALF * LOAD_EACH;

        load(w, MC_READ, NULL, xfers);
        tell_fill(w, 0, SPACE, 2 + i);
        fill(w->local, 0, SPACE, 1);
        mc_batch *stopped = start(w, xfers, HALF, 0, MC_CHECKSUM_NONE);
        mc_batch *going = start(w, xfers + HALF, HALF, 0, MC_CHECKSUM_NONE);
        take_steps(going, phases[i]);
        assert_int_equal(mc_batch_cancel(stopped), MC_OK);
        const mc_status status = finish(stopped);
        assert_true(status == MC_OK || status == MC_E_CANCELLED);
        mc_batch_close(stopped);
        guard(w->local, kept);
        assert_int_equal(finish(going), MC_OK);
        mc_batch_close(going);
        unguard(w->local, kept);
        assert_true(wrong(w->local, kept, kept, 2 + i) == 0);
    }
    world_close(w);
}

/* What moves within the submit may be done before anybody looks at the clock. */
static void test_a_deadline_that_is_over_at_once_ends_the_batch(void **state)
{
    struct world *w = *state;
    struct mc_xfer xfers[LOAD];

    world_open(w, &driven);
    load(w, MC_WRITE, NULL, xfers);
    mc_batch *batch = start(w, xfers, LOAD, MC_AT_ONCE, MC_CHECKSUM_NONE);
    const mc_status status = finish(batch);
    assert_true(status == MC_E_TIMEOUT || (status == MC_OK && variant->own));
    mc_batch_close(batch);
    world_close(w);
}

int topic_cancels(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_after_a_cancel_at_any_step_the_memory_is_left_alone),
        WORLD_TEST(test_so_it_is_when_bytes_come_in_small_pieces),
        WORLD_TEST(test_so_it_is_when_the_engine_has_a_thread),
        WORLD_TEST(test_after_a_deadline_the_memory_is_left_alone),
        WORLD_TEST(test_after_a_close_of_the_batch_the_memory_is_left_alone),
        WORLD_TEST(test_after_a_close_of_the_segment_the_memory_is_left_alone),
        WORLD_TEST(test_a_cancel_does_not_harm_another_batch),
        WORLD_TEST(test_a_deadline_that_is_over_at_once_ends_the_batch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
