/* refusals.c - what is forged, late, too far or not allowed is refused and has touched nothing. */
#include "world.h"

enum { EACH = 5000, WINDOW = 64 * 1024 };

/** Try both ways; the peer's memory and ours stay as they are. */
static void refused(struct world *w, struct mc_xfer xfer, mc_status expected)
{
    static const uint64_t lengths[] = { 1, EACH, 1 << 20 };

    for (int i = 0; i < 6; i++) {
        xfer.op = i % 2 ? MC_READ : MC_WRITE;
        xfer.length = lengths[i / 2];
        fill(w->local, 0, 1 << 20, 1);
        const mc_status status = move(w, &xfer, MC_CHECKSUM_NONE);
        if (status != expected)
            fail_msg("%s of %llu: %s, not %s", i % 2 ? "read" : "write",
                     (unsigned long long)xfer.length, mc_status_name(status),
                     mc_status_name(expected));
        if (xfer.op == MC_READ)
            assert_true(wrong(w->local, 0, 1 << 20, 1) == 0);
    }
    assert_true(tell_wrong(w, 0, SPACE, 2) == 0);
}

static void open_filled(struct world *w)
{
    world_open(w, &(struct world_options){ 0 });
    tell_fill(w, 0, SPACE, 2);
}

static void test_a_wrong_generation_is_stale(void **state)
{
    struct world *w = *state;

    open_filled(w);
    struct mc_xfer xfer = xfer_of(w, MC_READ, 0, 0, 1);
    xfer.region.generation++;
    refused(w, xfer, MC_E_STALE);
    xfer.region.generation -= 2;
    refused(w, xfer, MC_E_STALE);
    world_close(w);
}

static void test_a_region_that_is_not_there_is_refused(void **state)
{
    struct world *w = *state;

    open_filled(w);
    struct mc_xfer xfer = xfer_of(w, MC_READ, 0, 0, 1);
    xfer.region.id += 5;
    refused(w, xfer, MC_E_STALE);
    world_close(w);
}

static void test_beyond_the_region_is_denied(void **state)
{
    struct world *w = *state;

    open_filled(w);
    refused(w, xfer_of(w, MC_READ, 0, SPACE, 1), MC_E_DENIED);
    refused(w, xfer_of(w, MC_READ, 0, UINT64_MAX - (1 << 20), 1), MC_E_DENIED);
    struct mc_xfer across = xfer_of(w, MC_WRITE, 0, SPACE - 10, 11);
    assert_int_equal(move(w, &across, MC_CHECKSUM_NONE), MC_E_DENIED);
    world_close(w);
}

static void test_a_region_permits_what_it_says(void **state)
{
    struct world *w = *state;

    open_filled(w);
    const struct mc_region readable = tell_register(w, MC_REMOTE_READ, 0);
    const struct mc_region writable = tell_register(w, MC_REMOTE_WRITE, 0);
    struct mc_xfer xfer = xfer_of(w, MC_WRITE, 0, 0, EACH);

    fill(w->local, 0, EACH, 2);
    xfer.region = readable;
    assert_int_equal(move(w, &xfer, MC_CHECKSUM_NONE), MC_E_DENIED);
    xfer.region = writable;
    assert_int_equal(move(w, &xfer, MC_CHECKSUM_NONE), MC_OK);
    xfer.op = MC_READ;
    assert_int_equal(move(w, &xfer, MC_CHECKSUM_NONE), MC_E_DENIED);
    xfer.region = readable;
    assert_int_equal(move(w, &xfer, MC_CHECKSUM_NONE), MC_OK);
    tell_unregister(w, readable);
    assert_int_equal(told_status(w), MC_OK);
    tell_unregister(w, writable);
    assert_int_equal(told_status(w), MC_OK);
    assert_true(tell_wrong(w, 0, SPACE, 2) == 0);
    world_close(w);
}

static struct mc_window grant(struct world *w, uint32_t permissions, uint64_t lease_ns,
                              uint64_t holder)
{
    struct mc_window window = { 0 };
    const struct mc_window_options options = { .region = w->region,
                                               .count = WINDOW / 4096,
                                               .piece_bytes = 4096,
                                               .lease_ns = lease_ns,
                                               .holder = holder,
                                               .permissions = permissions };

    assert_int_equal(tell_grant(w, &options, &window), MC_OK);
    return window;
}

static void revoke(struct world *w, const struct mc_window *window)
{
    tell_revoke(w, window);
    assert_int_equal(told_status(w), MC_OK);
}

static mc_status through(struct world *w, const struct mc_window *window, enum mc_op op,
                         uint64_t offset, uint64_t length)
{
    struct mc_xfer xfer = xfer_of(w, op, 0, offset, length);

    xfer.window = window;
    return move(w, &xfer, MC_CHECKSUM_NONE);
}

/** Both ways and several lengths, without a trace. */
static void refused_through(struct world *w, const struct mc_window *window, mc_status expected)
{
    static const uint64_t lengths[] = { 1, EACH, WINDOW };

    for (int i = 0; i < 6; i++) {
        fill(w->local, 0, WINDOW, 1);
        assert_int_equal(through(w, window, i % 2 ? MC_READ : MC_WRITE, 0, lengths[i / 2]),
                         expected);
        assert_true(wrong(w->local, 0, WINDOW, 1) == 0);
    }
    assert_true(tell_wrong(w, 0, SPACE, 2) == 0);
}

/* Which of the two a key is that was never given, a peer need not know. */
static void test_a_forged_key_is_denied_or_stale(void **state)
{
    struct world *w = *state;

    open_filled(w);
    const struct mc_window window = grant(w, BOTH, 0, 0);
    for (int bit = 0; bit < 128; bit += 17) {
        struct mc_window forged = window;

        forged.key[bit / 64] ^= UINT64_C(1) << bit % 64;
        const mc_status status = through(w, &forged, bit % 2 ? MC_READ : MC_WRITE, 0, EACH);
        assert_true(status == MC_E_DENIED || status == MC_E_STALE);
    }
    assert_true(tell_wrong(w, 0, SPACE, 2) == 0);
    revoke(w, &window);
    world_close(w);
}

static void test_a_window_of_another_generation_is_stale(void **state)
{
    struct world *w = *state;

    open_filled(w);
    const struct mc_window window = grant(w, BOTH, 0, 0);
    struct mc_window other = window;
    other.generation++;
    refused_through(w, &other, MC_E_STALE);
    revoke(w, &window);
    world_close(w);
}

static void test_a_revoked_window_never_works_again(void **state)
{
    struct world *w = *state;

    open_filled(w);
    const struct mc_window window = grant(w, BOTH, 0, 0);
    fill(w->local, 0, EACH, 2);
    assert_int_equal(through(w, &window, MC_WRITE, 0, EACH), MC_OK);
    revoke(w, &window);
    refused_through(w, &window, MC_E_STALE);
    const struct mc_window next = grant(w, BOTH, 0, 0); /* perhaps in the same place */
    refused_through(w, &window, MC_E_STALE);
    revoke(w, &next);
    world_close(w);
}

static void test_a_window_whose_lease_is_over_is_stale(void **state)
{
    struct world *w = *state;

    open_filled(w);
    const struct mc_window window = grant(w, BOTH, 1000000, 0);
    let_pass(w, 5000000);
    refused_through(w, &window, MC_E_STALE);
    revoke(w, &window);
    world_close(w);
}

static void test_a_window_of_another_life_of_the_peer_is_stale(void **state)
{
    struct world *w = *state;

    open_filled(w);
    const struct mc_window window = grant(w, BOTH, 0, 0);
    struct mc_window other = window;
    other.incarnation ^= 2;
    refused_through(w, &other, MC_E_STALE);
    revoke(w, &window);
    world_close(w);
}

static void test_a_window_permits_what_it_says_to_whom_it_says(void **state)
{
    struct world *w = *state;
    struct mc_transfer_info info;

    open_filled(w);
    assert_int_equal(mc_transfer_info(w->engine, &info), MC_OK);
    const struct mc_window readable = grant(w, MC_REMOTE_READ, 0, 0);
    const struct mc_window writable = grant(w, MC_REMOTE_WRITE, 0, 0);
    const struct mc_window ours = grant(w, BOTH, 0, info.incarnation);
    const struct mc_window others = grant(w, BOTH, 0, info.incarnation ^ 4);

    fill(w->local, 0, EACH, 2);
    assert_int_equal(through(w, &readable, MC_WRITE, 0, EACH), MC_E_DENIED);
    assert_int_equal(through(w, &writable, MC_WRITE, 0, EACH), MC_OK);
    assert_int_equal(through(w, &writable, MC_READ, 0, EACH), MC_E_DENIED);
    assert_int_equal(through(w, &readable, MC_READ, 0, EACH), MC_OK);
    assert_int_equal(through(w, &ours, MC_WRITE, 0, EACH), MC_OK);
    refused_through(w, &others, MC_E_DENIED);
    revoke(w, &readable);
    revoke(w, &writable);
    revoke(w, &ours);
    revoke(w, &others);
    world_close(w);
}

static void test_beyond_the_window_is_denied(void **state)
{
    struct world *w = *state;

    open_filled(w);
    const struct mc_window window = grant(w, BOTH, 0, 0);
    fill(w->local, 0, SPACE, 1);
    assert_int_equal(through(w, &window, MC_WRITE, WINDOW, 1), MC_E_DENIED);
    assert_int_equal(through(w, &window, MC_READ, WINDOW - 1, 2), MC_E_DENIED);
    assert_int_equal(through(w, &window, MC_READ, UINT64_MAX - 2, 2), MC_E_DENIED);
    assert_true(tell_wrong(w, WINDOW, SPACE - WINDOW, 2) == 0);
    revoke(w, &window);
    world_close(w);
}

static void test_memory_that_is_not_registered_here_is_denied(void **state)
{
    struct world *w = *state;
    static uint8_t elsewhere[64];
    mc_batch *batch = NULL;

    open_filled(w);
    struct mc_xfer xfer = xfer_of(w, MC_READ, 0, 0, sizeof(elsewhere));
    xfer.local = elsewhere;
    assert_int_equal(mc_batch_open(w->engine, NULL, &batch), MC_OK);
    assert_int_equal(mc_batch_add(batch, &xfer, 1), MC_E_DENIED);
    xfer.local = w->local + SPACE - 10;
    assert_int_equal(mc_batch_add(batch, &xfer, 1), MC_E_DENIED);
    mc_batch_close(batch);
    world_close(w);
}

int topic_refusals(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_a_wrong_generation_is_stale),
        WORLD_TEST(test_a_region_that_is_not_there_is_refused),
        WORLD_TEST(test_beyond_the_region_is_denied),
        WORLD_TEST(test_a_region_permits_what_it_says),
        WORLD_TEST(test_a_forged_key_is_denied_or_stale),
        WORLD_TEST(test_a_window_of_another_generation_is_stale),
        WORLD_TEST(test_a_revoked_window_never_works_again),
        WORLD_TEST(test_a_window_whose_lease_is_over_is_stale),
        WORLD_TEST(test_a_window_of_another_life_of_the_peer_is_stale),
        WORLD_TEST(test_a_window_permits_what_it_says_to_whom_it_says),
        WORLD_TEST(test_beyond_the_window_is_denied),
        WORLD_TEST(test_memory_that_is_not_registered_here_is_denied),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
