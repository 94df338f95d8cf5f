/* test_pin.c - what a peer's access is checked against, and that memory is not given back beneath a pin. */
#include "engines.h"

#include "transfer/engine.h"

enum { SIZE = 65536, BOTH = MC_REMOTE_READ | MC_REMOTE_WRITE };

static unsigned char memory[SIZE];

static mc_transfer *open_small(void)
{
    const struct mc_transfer_options options = {
        .transports = "self", .flags = MC_TRANSFER_DRIVEN, .regions_max = 4, .windows_max = 3
    };

    return open_engine(&options);
}

static struct transport_access by_region(struct mc_region region, uint64_t offset, uint64_t length)
{
    return (struct transport_access){ .op = MC_WRITE,
                                      .region = region.id,
                                      .generation = region.generation,
                                      .offset = offset,
                                      .length = length,
                                      .peer = 77 };
}

static struct transport_access by_window(const struct mc_window *window, uint64_t offset,
                                         uint64_t length)
{
    return (struct transport_access){ .op = MC_WRITE,
                                      .key = { window->key[0], window->key[1] },
                                      .generation = window->generation,
                                      .offset = offset,
                                      .length = length,
                                      .peer = 77 };
}

static mc_status grant(mc_transfer *engine, struct mc_region region, const uint64_t *offsets,
                       uint64_t count, uint64_t piece_bytes, struct mc_window *window_p)
{
    const struct mc_window_options options = { .region = region,
                                               .offsets = offsets,
                                               .count = count,
                                               .piece_bytes = piece_bytes,
                                               .permissions = MC_REMOTE_WRITE };

    return mc_window_grant(engine, &options, window_p, NULL);
}

static uint64_t quarantined(mc_transfer *engine)
{
    struct mc_transfer_stats stats;

    assert_int_equal(mc_transfer_stats(engine, UINT32_MAX, &stats), MC_OK);
    return stats.quarantined_bytes;
}

static void test_an_access_gets_exactly_what_it_names(void **state)
{
    (void)state;
    mc_transfer *engine = open_small();
    const struct mc_region region = register_memory(engine, memory, SIZE, BOTH, 0);
    struct transport_access access = by_region(region, SIZE - 10, 10);
    void *address;
    uint64_t pin;

    assert_int_equal(pin_take(engine, &access, &address, &pin), MC_OK);
    assert_ptr_equal(address, memory + SIZE - 10);
    pin_drop(engine, pin);
    access.length = 11;
    assert_int_equal(pin_take(engine, &access, &address, &pin), MC_E_RANGE);
    access = by_region(region, UINT64_MAX, 2);
    assert_int_equal(pin_take(engine, &access, &address, &pin), MC_E_RANGE);
    access = by_region(region, 2, UINT64_MAX);
    assert_int_equal(pin_take(engine, &access, &address, &pin), MC_E_RANGE);
    access = by_region(region, SIZE, 0); /* nothing, at the end */
    assert_int_equal(pin_take(engine, &access, &address, &pin), MC_OK);
    pin_drop(engine, pin);
    access = by_region((struct mc_region){ .id = 0, .generation = region.generation }, 0, 1);
    assert_int_equal(pin_take(engine, &access, &address, &pin), MC_E_STALE);
    access = by_region((struct mc_region){ .id = 5, .generation = region.generation }, 0, 1);
    assert_int_equal(pin_take(engine, &access, &address, &pin), MC_E_STALE);
    unregister(engine, region);
    mc_transfer_close(engine);
}

static void test_a_slot_used_again_is_another_generation(void **state)
{
    (void)state;
    mc_transfer *engine = open_small();
    struct mc_region seen[12];

    for (int i = 0; i < 12; i++) {
        seen[i] = register_memory(engine, memory, SIZE, BOTH, 0);
        for (int k = 0; k < i; k++)
            assert_false(seen[k].id == seen[i].id && seen[k].generation == seen[i].generation);
        unregister(engine, seen[i]);
        assert_int_equal(mc_region_unregister(engine, &seen[i], 1, MC_AT_ONCE, NULL), MC_E_STALE);
    }
    assert_int_equal(seen[8].id, seen[4].id);
    assert_true(seen[8].generation > seen[4].generation);
    mc_transfer_close(engine);
}

static void test_memory_is_not_given_back_beneath_a_pin(void **state)
{
    (void)state;
    mc_transfer *engine = open_small();
    struct mc_region regions[2] = { register_memory(engine, memory, 1000, BOTH, 0),
                                    register_memory(engine, memory + 5000, 1000, BOTH, 0) };
    const struct transport_access access = by_region(regions[0], 0, 10);
    struct mc_error error = { 0 };
    void *address;
    uint64_t pin, second;

    assert_int_equal(pin_take(engine, &access, &address, &pin), MC_OK);
    assert_int_equal(mc_region_unregister(engine, regions, 2, MC_AT_ONCE, &error), MC_E_TIMEOUT);
    assert_int_equal(quarantined(engine), 2000);
    assert_int_equal(pin_take(engine, &access, &address, &second), MC_E_STALE); /* at once */
    assert_int_equal(mc_region_unregister(engine, regions, 2, os_now_ns() + 2000000, NULL),
                     MC_E_TIMEOUT);
    pin_drop(engine, pin);
    assert_int_equal(mc_region_unregister(engine, regions, 2, MC_AT_ONCE, NULL), MC_OK);
    assert_int_equal(quarantined(engine), 0);
    assert_int_equal(mc_region_unregister(engine, regions, 2, MC_AT_ONCE, NULL), MC_E_STALE);
    mc_transfer_close(engine);
}

static void test_a_window_does_not_wait_for_another_one_and_its_region_for_both(void **state)
{
    (void)state;
    mc_transfer *engine = open_small();
    const struct mc_region region = register_memory(engine, memory, SIZE, BOTH, 0);
    const uint64_t first[] = { 0, 2000 }, second[] = { 1000, 3000 };
    struct mc_window a, b;
    struct transport_access access;
    void *address;
    uint64_t pin;

    assert_int_equal(grant(engine, region, first, 2, 1000, &a), MC_OK);
    assert_int_equal(grant(engine, region, second, 2, 1000, &b), MC_OK);
    access = by_window(&a, 1500, 500);
    assert_int_equal(pin_take(engine, &access, &address, &pin), MC_OK);
    assert_ptr_equal(address, memory + 2500);
    assert_int_equal(mc_window_revoke(engine, &b, MC_AT_ONCE, NULL), MC_OK);
    assert_int_equal(mc_window_revoke(engine, &a, MC_AT_ONCE, NULL), MC_E_TIMEOUT);
    assert_int_equal(quarantined(engine), 2000);
    access = by_window(&a, 0, 1);
    uint64_t late;
    assert_int_equal(pin_take(engine, &access, &address, &late), MC_E_STALE);
    assert_int_equal(mc_region_unregister(engine, &region, 1, MC_AT_ONCE, NULL), MC_E_TIMEOUT);
    pin_drop(engine, pin);
    assert_int_equal(mc_window_revoke(engine, &a, MC_AT_ONCE, NULL), MC_OK);
    assert_int_equal(mc_region_unregister(engine, &region, 1, MC_AT_ONCE, NULL), MC_OK);
    assert_int_equal(quarantined(engine), 0);
    mc_transfer_close(engine);
}

static void test_a_piece_is_as_far_as_one_access_goes(void **state)
{
    (void)state;
    mc_transfer *engine = open_small();
    const struct mc_region region = register_memory(engine, memory, SIZE, BOTH, 0);
    const uint64_t offsets[] = { 5000, 0 };
    struct mc_window window;
    struct transport_access access;
    void *address;
    uint64_t pin;

    assert_int_equal(grant(engine, region, offsets, 2, 1000, &window), MC_OK);
    access = by_window(&window, 999, 2);
    assert_int_equal(pin_take(engine, &access, &address, &pin), MC_E_RANGE);
    access = by_window(&window, 1999, 2);
    assert_int_equal(pin_take(engine, &access, &address, &pin), MC_E_RANGE);
    access = by_window(&window, 2000, 0);
    assert_int_equal(pin_take(engine, &access, &address, &pin), MC_OK);
    pin_drop(engine, pin);
    access = by_window(&window, UINT64_MAX, 2);
    assert_int_equal(pin_take(engine, &access, &address, &pin), MC_E_RANGE);
    access = by_window(&window, 0, 10);
    access.op = MC_READ;
    assert_int_equal(pin_take(engine, &access, &address, &pin), MC_E_DENIED);
    unregister(engine, region);
    access.op = MC_WRITE;
    assert_int_equal(pin_take(engine, &access, &address, &pin), MC_E_STALE);
    mc_transfer_close(engine);
}

static void test_a_lease_that_is_over_refuses_and_still_has_to_be_revoked(void **state)
{
    (void)state;
    mc_transfer *engine = open_small();
    const struct mc_region region = register_memory(engine, memory, SIZE, BOTH, 0);
    const struct mc_window_options options = { .region = region,
                                               .count = 1,
                                               .piece_bytes = SIZE,
                                               .permissions = MC_REMOTE_WRITE,
                                               .lease_ns = 1 };
    struct mc_transfer_stats stats;
    struct mc_window window;
    void *address;
    uint64_t pin;

    assert_int_equal(mc_window_grant(engine, &options, &window, NULL), MC_OK);
    const struct transport_access access = by_window(&window, 0, 1);
    assert_int_equal(pin_take(engine, &access, &address, &pin), MC_E_STALE);
    assert_int_equal(mc_window_renew(engine, &window, SECOND_NS), MC_E_STALE);
    assert_int_equal(mc_transfer_progress(engine, NULL), MC_OK);
    assert_int_equal(mc_transfer_stats(engine, UINT32_MAX, &stats), MC_OK);
    assert_int_equal(stats.windows, 1);
    assert_int_equal(mc_window_revoke(engine, &window, MC_AT_ONCE, NULL), MC_OK);
    assert_int_equal(mc_transfer_stats(engine, UINT32_MAX, &stats), MC_OK);
    assert_int_equal(stats.windows, 0);
    unregister(engine, region);
    mc_transfer_close(engine);
}

static void test_what_cannot_be_granted_says_why(void **state)
{
    (void)state;
    mc_transfer *engine = open_small();
    const struct mc_region region = register_memory(engine, memory, SIZE, MC_REMOTE_WRITE, 0);
    const uint64_t overlapping[] = { 500, 0, 1000 }, outside[] = { 0, SIZE - 999 };
    struct mc_window window, windows[3];

    assert_int_equal(grant(engine, region, overlapping, 3, 501, &window), MC_E_ARG);
    assert_int_equal(grant(engine, region, overlapping, 3, 500, &window), MC_OK);
    assert_int_equal(mc_window_revoke(engine, &window, MC_AT_ONCE, NULL), MC_OK);
    assert_int_equal(grant(engine, region, outside, 2, 1000, &window), MC_E_RANGE);
    assert_int_equal(grant(engine, region, NULL, SIZE + 1, 1, &window), MC_E_RANGE);
    assert_int_equal(grant(engine, region, NULL, UINT64_MAX, UINT64_MAX, &window), MC_E_RANGE);
    assert_int_equal(grant(engine, region, NULL, 0, 1, &window), MC_E_ARG);
    assert_int_equal(grant(engine, region, NULL, 1, 0, &window), MC_E_ARG);
    struct mc_window_options options = {
        .region = region, .count = 1, .piece_bytes = 1, .permissions = MC_REMOTE_READ
    };
    assert_int_equal(mc_window_grant(engine, &options, &window, NULL), MC_E_DENIED);
    options.permissions = 0;
    assert_int_equal(mc_window_grant(engine, &options, &window, NULL), MC_E_ARG);
    options.permissions = MC_REMOTE_WRITE;
    options.lease_ns = 3601 * SECOND_NS;
    assert_int_equal(mc_window_grant(engine, &options, &window, NULL), MC_E_RANGE);
    options.lease_ns = 0;
    options.reserved[3] = 1;
    assert_int_equal(mc_window_grant(engine, &options, &window, NULL), MC_E_UNSUPPORTED);
    options.reserved[3] = 0;
    options.region.generation++;
    assert_int_equal(mc_window_grant(engine, &options, &window, NULL), MC_E_STALE);
    for (int i = 0; i < 3; i++)
        assert_int_equal(grant(engine, region, NULL, 1, 1, &windows[i]), MC_OK);
    assert_int_equal(grant(engine, region, NULL, 1, 1, &window), MC_E_FULL);
    windows[0].incarnation++;
    assert_int_equal(mc_window_revoke(engine, &windows[0], MC_AT_ONCE, NULL), MC_E_STALE);
    unregister(engine, region);
    mc_transfer_close(engine);
}

static void test_regions_are_registered_all_or_none(void **state)
{
    (void)state;
    mc_transfer *engine = open_small();
    struct mc_region_options options[5] = { 0 };
    struct mc_region regions[5];
    struct mc_transfer_stats stats;

    for (int i = 0; i < 5; i++)
        options[i] =
            (struct mc_region_options){ .address = memory, .size = SIZE, .permissions = BOTH };
    assert_int_equal(mc_region_register(engine, options, 5, regions, NULL), MC_E_FULL);
    options[2].size = 0;
    assert_int_equal(mc_region_register(engine, options, 3, regions, NULL), MC_E_ARG);
    options[2] = options[1];
    options[2].location = "moon:1";
    assert_int_equal(mc_region_register(engine, options, 3, regions, NULL), MC_E_ARG);
    options[2] = options[1];
    options[2].size = UINT64_MAX;
    assert_int_equal(mc_region_register(engine, options, 3, regions, NULL), MC_E_ARG);
    options[2] = options[1];
    options[2].reserved[0] = 1;
    assert_int_equal(mc_region_register(engine, options, 3, regions, NULL), MC_E_UNSUPPORTED);
    options[2] = options[1];
    assert_int_equal(mc_transfer_stats(engine, UINT32_MAX, &stats), MC_OK);
    assert_int_equal(stats.regions, 0);
    assert_int_equal(mc_region_register(engine, options, 4, regions, NULL), MC_OK);
    struct mc_region twice[2] = { regions[0], regions[0] };
    assert_int_equal(mc_region_unregister(engine, twice, 2, MC_AT_ONCE, NULL), MC_E_ARG);
    assert_int_equal(mc_region_unregister(engine, regions, 4, MC_AT_ONCE, NULL), MC_OK);
    mc_transfer_close(engine);
}

static void test_own_memory_is_found_also_where_ranges_overlap(void **state)
{
    (void)state;
    mc_transfer *engine = open_small();
    const struct mc_region large = register_memory(engine, memory, SIZE, BOTH, 0);
    const struct mc_region small =
        register_memory(engine, memory + 100, 100, 0, MC_REGION_READONLY);

    assert_true(use_allowed(engine, memory + 90, 20, true));
    assert_true(use_allowed(engine, memory + 150, 1000, true));
    assert_true(use_allowed(engine, memory + 150, 10, true)); /* by the large one */
    assert_false(use_allowed(engine, memory - 1, 2, true));
    assert_false(use_allowed(engine, memory + SIZE - 1, 2, true));
    assert_false(use_allowed(engine, memory, UINT64_MAX, false));
    unregister(engine, large);
    assert_true(use_allowed(engine, memory + 150, 10, false));
    assert_false(use_allowed(engine, memory + 150, 10, true)); /* read-only */
    assert_false(use_allowed(engine, memory + 90, 20, false));
    struct region *use = use_take(engine, memory + 100, 100, false);
    assert_non_null(use);
    assert_int_equal(mc_region_unregister(engine, &small, 1, MC_AT_ONCE, NULL), MC_E_TIMEOUT);
    use_drop(engine, use);
    unregister(engine, small);
    mc_transfer_close(engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_access_gets_exactly_what_it_names),
        cmocka_unit_test(test_a_slot_used_again_is_another_generation),
        cmocka_unit_test(test_memory_is_not_given_back_beneath_a_pin),
        cmocka_unit_test(test_a_window_does_not_wait_for_another_one_and_its_region_for_both),
        cmocka_unit_test(test_a_piece_is_as_far_as_one_access_goes),
        cmocka_unit_test(test_a_lease_that_is_over_refuses_and_still_has_to_be_revoked),
        cmocka_unit_test(test_what_cannot_be_granted_says_why),
        cmocka_unit_test(test_regions_are_registered_all_or_none),
        cmocka_unit_test(test_own_memory_is_found_also_where_ranges_overlap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
