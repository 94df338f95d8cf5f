/* test_tier.c - what a tier holds, and what it lets go first. */
#include "test.h"

#include "base/prng.h"
#include "sim/tier.h"

static void open_tier(struct tier *tier, struct faulty *f, uint32_t capacity,
                      enum tier_policy policy)
{
    faulty_init(f, -1);
    assert_int_equal(tier_init(tier, &f->alloc, capacity, policy), MC_OK);
}

static void close_tier(struct tier *tier, struct faulty *f)
{
    tier_fini(tier);
    assert_int_equal(f->held, 0);
}

static uint32_t add(struct tier *tier, uint32_t block, uint64_t use)
{
    uint32_t evicted;

    assert_true(tier_add(tier, block, 0, use, &evicted));
    return evicted;
}

static void test_lru_lets_go_what_was_not_used_for_longest(void **state)
{
    (void)state;
    struct tier tier;
    struct faulty f;

    open_tier(&tier, &f, 3, TIER_LRU);
    for (uint32_t i = 1; i <= 3; i++)
        assert_int_equal(add(&tier, i, i), TIER_NONE);
    assert_true(tier_touch(&tier, 1, 0, 4));
    assert_int_equal(add(&tier, 4, 5), 2);
    assert_int_equal(add(&tier, 5, 6), 3);
    assert_true(tier_has(&tier, 1) && tier_has(&tier, 4) && tier_has(&tier, 5));
    assert_false(tier_touch(&tier, 2, 0, 7));
    close_tier(&tier, &f);
}

static void test_lfu_lets_go_what_was_used_least(void **state)
{
    (void)state;
    struct tier tier;
    struct faulty f;

    open_tier(&tier, &f, 3, TIER_LFU);
    for (uint32_t i = 1; i <= 3; i++)
        (void)add(&tier, i, i);
    (void)tier_touch(&tier, 1, 0, 4);
    (void)tier_touch(&tier, 2, 0, 5);
    assert_int_equal(add(&tier, 4, 6), 3);
    assert_int_equal(add(&tier, 5, 7), 4); /* used once, as 3 was */
    assert_int_equal(add(&tier, 6, 8), 5);
    close_tier(&tier, &f);
}

static void test_length_aware_lets_go_the_end_of_a_prompt_first(void **state)
{
    (void)state;
    struct tier tier;
    struct faulty f;
    uint32_t evicted;

    open_tier(&tier, &f, 4, TIER_LENGTH);
    for (uint32_t i = 0; i < 4; i++) /* one prompt */
        assert_true(tier_add(&tier, 10 + i, i, 1, &evicted));
    assert_true(tier_add(&tier, 20, 0, 2, &evicted));
    assert_int_equal(evicted, 13);
    assert_true(tier_add(&tier, 21, 1, 2, &evicted));
    assert_int_equal(evicted, 12);
    close_tier(&tier, &f);
}

static void test_s3_fifo_keeps_what_is_used_again_from_what_is_used_once(void **state)
{
    (void)state;
    struct tier tier;
    struct faulty f;

    open_tier(&tier, &f, 10, TIER_S3FIFO);
    for (uint32_t i = 0; i < 5; i++)
        (void)add(&tier, i, 1);
    for (uint32_t i = 0; i < 5; i++)
        (void)tier_touch(&tier, i, 0, 2);
    for (uint32_t i = 100; i < 200; i++) /* a scan */
        (void)add(&tier, i, i);
    for (uint32_t i = 0; i < 5; i++)
        assert_true(tier_has(&tier, i));
    assert_int_equal(tier.count, 10);
    close_tier(&tier, &f);
}

static void test_s3_fifo_takes_what_it_remembers_into_the_main_queue(void **state)
{
    (void)state;
    struct tier tier;
    struct faulty f;

    open_tier(&tier, &f, 10, TIER_S3FIFO);
    for (uint32_t i = 0; i < 12; i++)
        (void)add(&tier, i, i);
    assert_false(tier_has(&tier, 0));
    (void)add(&tier, 0, 20); /* again, soon */
    for (uint32_t i = 100; i < 109; i++)
        (void)add(&tier, i, i);
    assert_true(tier_has(&tier, 0));
    close_tier(&tier, &f);
}

static void test_a_pinned_block_stays(void **state)
{
    (void)state;
    for (int policy = TIER_LRU; policy <= TIER_S3FIFO; policy++) {
        struct tier tier;
        struct faulty f;
        uint32_t evicted;

        open_tier(&tier, &f, 2, (enum tier_policy)policy);
        (void)add(&tier, 1, 1);
        (void)add(&tier, 2, 2);
        tier_pin(&tier, 1);
        tier_pin(&tier, 1);
        tier_unpin(&tier, 1); /* one pin is left */
        assert_int_equal(add(&tier, 3, 3), 2);
        tier_pin(&tier, 3);
        assert_false(tier_add(&tier, 4, 0, 4, &evicted));
        assert_int_equal(evicted, TIER_NONE);
        assert_false(tier_has(&tier, 4));
        tier_unpin(&tier, 1);
        tier_unpin(&tier, 3);
        assert_int_equal(tier.pinned, 0);
        assert_int_not_equal(add(&tier, 4, 5), TIER_NONE);
        close_tier(&tier, &f);
    }
}

static void test_a_lower_limit_is_reached_by_shrinking(void **state)
{
    (void)state;
    struct tier tier;
    struct faulty f;

    open_tier(&tier, &f, 4, TIER_LRU);
    for (uint32_t i = 1; i <= 4; i++)
        (void)add(&tier, i, i);
    tier_pin(&tier, 1);
    tier_limit(&tier, 0);
    assert_int_equal(tier_shrink(&tier), 2);
    assert_int_equal(tier_shrink(&tier), 3);
    assert_int_equal(tier_shrink(&tier), 4);
    assert_int_equal(tier_shrink(&tier), TIER_NONE); /* the rest is held */
    tier_unpin(&tier, 1);
    assert_int_equal(tier_shrink(&tier), 1);
    tier_limit(&tier, 99); /* its capacity */
    assert_int_equal(tier.limit, 4);
    close_tier(&tier, &f);
}

/* Whatever is done, a tier holds what a plain list of the same rules holds (lru), and never too much. */
static void test_random_use_agrees_with_a_plain_list(void **state)
{
    (void)state;
    enum { CAPACITY = 17, BLOCKS = 60 };

    for (int policy = TIER_LRU; policy <= TIER_S3FIFO; policy++) {
        struct prng prng = { .seed = 11 + (uint64_t)policy };
        uint32_t list[CAPACITY + 1], count = 0, evicted; /* oldest first */
        bool there[BLOCKS] = { false };
        struct tier tier;
        struct faulty f;

        open_tier(&tier, &f, CAPACITY, (enum tier_policy)policy);
        for (uint64_t step = 1; step <= 20000; step++) {
            const uint32_t block = prng_below(&prng, BLOCKS);
            const bool added = tier_add(&tier, block, block, step, &evicted);

            assert_int_equal(added, !there[block]);
            there[block] = true;
            if (evicted != TIER_NONE) {
                assert_true(there[evicted]);
                there[evicted] = false;
            }
            if (policy == TIER_LRU) {
                uint32_t at = 0;
                while (at < count && list[at] != block)
                    at++;
                if (at == count)
                    count++;
                memmove(&list[at], &list[at + 1], (count - at - 1) * sizeof(list[0]));
                list[count - 1] = block;
                if (count > CAPACITY) {
                    assert_int_equal(evicted, list[0]);
                    memmove(list, list + 1, --count * sizeof(list[0]));
                }
            }
            uint32_t held = 0;
            for (uint32_t b = 0; b < BLOCKS; b++) {
                assert_int_equal(tier_has(&tier, b), there[b]);
                held += there[b];
            }
            assert_int_equal(tier.count, held);
            assert_true(held <= CAPACITY);
        }
        while ((evicted = tier_any(&tier)) != TIER_NONE)
            assert_true(tier_remove(&tier, evicted));
        assert_int_equal(tier.count, 0);
        assert_false(tier_remove(&tier, 3));
        close_tier(&tier, &f);
    }
}

static void test_every_failed_allocation_leaves_nothing_behind(void **state)
{
    (void)state;
    for (int k = 0; k < 3; k++) {
        struct tier tier;
        struct faulty f;

        faulty_init(&f, k);
        assert_int_equal(tier_init(&tier, &f.alloc, 9, TIER_LFU), MC_E_NOMEM);
        assert_int_equal(f.held, 0);
        tier_fini(&tier);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lru_lets_go_what_was_not_used_for_longest),
        cmocka_unit_test(test_lfu_lets_go_what_was_used_least),
        cmocka_unit_test(test_length_aware_lets_go_the_end_of_a_prompt_first),
        cmocka_unit_test(test_s3_fifo_keeps_what_is_used_again_from_what_is_used_once),
        cmocka_unit_test(test_s3_fifo_takes_what_it_remembers_into_the_main_queue),
        cmocka_unit_test(test_a_pinned_block_stays),
        cmocka_unit_test(test_a_lower_limit_is_reached_by_shrinking),
        cmocka_unit_test(test_random_use_agrees_with_a_plain_list),
        cmocka_unit_test(test_every_failed_allocation_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
