/* test_space.c - bytes given and taken back. */
#include "test.h"

#include "base/prng.h"
#include <mooncake/store.h>

#include "store/core/space.h"

static struct space open_space(uint32_t extents, struct faulty *f)
{
    struct space space;

    faulty_init(f, -1);
    assert_int_equal(space_open(&space, &f->alloc, extents, 2), MC_OK);
    return space;
}

static uint16_t lend(struct space *space, uint64_t size, uint64_t align)
{
    uint16_t lent = 99;

    assert_true(space_lend(space, 0, 1, 1, size, MC_MEDIUM_DRAM, align, &lent));
    return lent;
}

/** Side by side, no gaps, no two free neighbours, and the sum of what is free. */
static void assert_whole(const struct space *space, uint16_t lent)
{
    uint64_t at = 0, free_bytes = 0;
    bool was_free = false;
    uint32_t before = 0;

    for (uint32_t e = space->lents[lent].first; e != 0; e = space->extents[e].after) {
        const struct extent *x = &space->extents[e];
        const bool is_free = x->state == EXTENT_FREE;
        assert_int_equal(x->offset, at);
        assert_int_equal(x->before, before);
        assert_false(was_free && is_free);
        at += x->size;
        free_bytes += is_free ? x->size : 0;
        was_free = is_free;
        before = e;
    }
    assert_int_equal(space->lents[lent].last, before);
    assert_int_equal(at, space->lents[lent].size);
    assert_int_equal(free_bytes, space->lents[lent].free_bytes);
}

static void test_what_is_given_back_becomes_one_again(void **state)
{
    struct faulty f;
    struct space space = open_space(400, &f);
    const uint16_t lent = lend(&space, 1 << 16, 64);
    struct prng prng = { .seed = 5 };
    uint32_t taken[200], count = 0;

    (void)state;
    for (int i = 0; i < 5000; i++) {
        if (count < 200 && prng_below(&prng, 2)) {
            const uint32_t e = space_take(&space, lent, 1 + prng_below(&prng, 900));
            if (e == 0)
                continue;
            space.extents[e].state = EXTENT_HELD;
            taken[count++] = e;
        } else if (count > 0) {
            const uint32_t at = prng_below(&prng, count);
            space_give(&space, taken[at]);
            taken[at] = taken[--count];
        }
        if (i % 50 == 0)
            assert_whole(&space, lent);
    }
    while (count > 0)
        space_give(&space, taken[--count]);
    assert_whole(&space, lent);
    assert_int_equal(space.lents[lent].free_bytes, 1 << 16);
    assert_int_equal(space.spares, 399); /* one extent: all of it */
    space_withdraw(&space, lent);
    assert_int_equal(space.spares, 400);
    space_close(&space, &f.alloc);
    assert_int_equal(f.held, 0);
}

static void test_a_range_is_filled_to_its_last_byte(void **state)
{
    struct faulty f;
    struct space space = open_space(40, &f);
    const uint16_t lent = lend(&space, 1000, 64); /* 960 of them */

    (void)state;
    for (int i = 0; i < 15; i++) {
        const uint32_t e = space_take(&space, lent, 1);
        assert_int_not_equal(e, 0);
        space.extents[e].state = EXTENT_HELD;
    }
    assert_int_equal(space_take(&space, lent, 1), 0);
    assert_int_equal(space.lents[lent].free_bytes, 0);
    assert_whole(&space, lent);
    space_close(&space, &f.alloc);
}

static void test_places_that_a_node_tells_of_are_taken_in_order(void **state)
{
    struct faulty f;
    struct space space = open_space(40, &f);
    const uint16_t lent = lend(&space, 4096, 64);
    const uint32_t a = space_take_at(&space, lent, 128, 100);

    (void)state;
    assert_int_not_equal(a, 0);
    space.extents[a].state = EXTENT_HELD;
    assert_int_equal(space.extents[a].offset, 128);
    assert_int_equal(space.extents[a].size, 128);
    assert_int_equal(space_take_at(&space, lent, 128, 64), 0);  /* taken */
    assert_int_equal(space_take_at(&space, lent, 0, 64), 0);    /* not behind it */
    assert_int_equal(space_take_at(&space, lent, 300, 64), 0);  /* not aligned */
    assert_int_equal(space_take_at(&space, lent, 4096, 64), 0); /* outside */
    assert_int_equal(space_take_at(&space, lent, 4032, 65), 0);
    assert_int_equal(space_take_at(&space, lent, UINT64_MAX - 63, 64), 0);
    assert_whole(&space, lent);
    const uint32_t b = space_take_at(&space, lent, 256, 4096 - 256);
    assert_int_not_equal(b, 0);
    space.extents[b].state = EXTENT_HELD;
    assert_whole(&space, lent);
    space_close(&space, &f.alloc);
}

static void test_no_record_left_is_no_room(void **state)
{
    struct faulty f;
    struct space space = open_space(3, &f);
    const uint16_t lent = lend(&space, 4096, 64);

    (void)state;
    for (int i = 0; i < 2; i++) {
        const uint32_t e = space_take(&space, lent, 64);
        assert_int_not_equal(e, 0);
        space.extents[e].state = EXTENT_HELD;
    }
    assert_int_equal(space_take(&space, lent, 64), 0);
    assert_whole(&space, lent);
    assert_int_equal(space_take(&space, lent, 4096), 0);
    space_close(&space, &f.alloc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_given_back_becomes_one_again),
        cmocka_unit_test(test_a_range_is_filled_to_its_last_byte),
        cmocka_unit_test(test_places_that_a_node_tells_of_are_taken_in_order),
        cmocka_unit_test(test_no_record_left_is_no_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
