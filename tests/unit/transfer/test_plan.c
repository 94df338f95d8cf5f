/* test_plan.c - slices cover exactly what a transfer names, cut where they must be. */
#include "test.h"

#include "transfer/plan.h"

static char memory[4096];

static void test_a_small_transfer_is_one_slice(void **state)
{
    (void)state;
    const struct mc_xfer xfer = { .offset = 100, .length = 64, .local = memory };
    const struct plan plan = { .slice_max = 1024 };
    struct plan_cursor cursor = { 0 };
    struct plan_slice slice;

    assert_true(plan_next(&xfer, &plan, &cursor, &slice));
    assert_ptr_equal(slice.local, memory);
    assert_int_equal(slice.offset, 100);
    assert_int_equal(slice.length, 64);
    assert_int_equal(slice.region_offset, 100);
    assert_false(plan_next(&xfer, &plan, &cursor, &slice));
    assert_false(plan_next(&xfer, &plan, &cursor, &slice));
}

static void test_nothing_is_cut_off_an_empty_transfer(void **state)
{
    (void)state;
    const struct mc_xfer xfer = { .length = 0, .count = 5 };
    const struct plan plan = { .slice_max = 1 };
    struct plan_cursor cursor = { 0 };
    struct plan_slice slice;
    uint64_t end = 7;

    assert_int_equal(plan_check(&xfer, &end), MC_OK);
    assert_int_equal(end, 0);
    assert_false(plan_next(&xfer, &plan, &cursor, &slice));
}

static void test_strides_and_tables_say_where_pieces_lie(void **state)
{
    (void)state;
    void *const table[] = { memory + 1000, memory, memory + 500 };
    const uint64_t remote[] = { 7, 70, 700 };
    const struct mc_xfer strided = { .offset = 10,
                                     .length = 3,
                                     .count = 3,
                                     .local = memory,
                                     .local_stride = 16,
                                     .remote_stride = 100 };
    const struct mc_xfer tables = { .offset = 10,
                                    .length = 3,
                                    .count = 3,
                                    .local_table = table,
                                    .local_offset = 4,
                                    .remote_table = remote };
    const struct plan plan = { .slice_max = 1024 };
    struct plan_cursor a = { 0 }, b = { 0 };
    struct plan_slice slice;

    for (uint64_t i = 0; i < 3; i++) {
        assert_true(plan_next(&strided, &plan, &a, &slice));
        assert_ptr_equal(slice.local, memory + i * 16);
        assert_int_equal(slice.offset, 10 + i * 100);
        assert_true(plan_next(&tables, &plan, &b, &slice));
        assert_ptr_equal(slice.local, (char *)table[i] + 4);
        assert_int_equal(slice.offset, 10 + remote[i]);
    }
    assert_false(plan_next(&strided, &plan, &a, &slice));
    assert_false(plan_next(&tables, &plan, &b, &slice));
}

/* Every byte once, no slice over slice_max or over the end of a window's piece. */
static void test_cuts_cover_every_byte_once_for_all_small_shapes(void **state)
{
    (void)state;
    static unsigned char seen[512];
    const uint64_t offsets[] = { 300, 0,   100, 400, 200, 64,  464, 364,
                                 164, 264, 32,  332, 432, 132, 232, 16 };

    for (uint64_t slice_max = 1; slice_max < 40; slice_max += 3) {
        for (uint64_t piece = 1; piece <= 16; piece++) {
            for (uint64_t start = 0; start < 20; start += 3) {
                const struct mc_xfer xfer = { .offset = start,
                                              .length = 70,
                                              .count = 2,
                                              .local = memory,
                                              .local_stride = 70,
                                              .remote_stride = 71 };
                const struct plan plan = {
                    .slice_max = slice_max, .piece_bytes = piece, .offsets = offsets, .count = 16
                };
                struct plan_cursor cursor = { 0 };
                struct plan_slice slice;
                memset(seen, 0, sizeof(seen));
                while (plan_next(&xfer, &plan, &cursor, &slice)) {
                    assert_true(slice.length > 0 && slice.length <= slice_max);
                    assert_int_equal(slice.offset / piece,
                                     (slice.offset + slice.length - 1) / piece);
                    if (slice.offset / piece < 16)
                        assert_int_equal(slice.region_offset,
                                         offsets[slice.offset / piece] + slice.offset % piece);
                    else
                        assert_true(slice.region_offset == UINT64_MAX);
                    for (uint64_t i = 0; i < slice.length; i++)
                        seen[slice.local - memory + (ptrdiff_t)i]++;
                }
                for (size_t i = 0; i < sizeof(seen); i++)
                    assert_int_equal(seen[i], i < 140);
            }
        }
    }
}

static void test_sums_that_wrap_are_out_of_range(void **state)
{
    (void)state;
    void *const table[] = { (void *)(UINTPTR_MAX - 10) };
    const uint64_t remote[] = { UINT64_MAX - 10 };
    const struct mc_xfer bad[] = {
        { .offset = UINT64_MAX, .length = 1, .local = memory },
        { .offset = 1, .length = UINT64_MAX, .local = memory },
        { .length = 1ull << 40, .count = 1ull << 40, .local = memory },
        { .length = 1, .count = 3, .remote_stride = 1ull << 63, .local = memory },
        { .length = 1, .count = 3, .local_stride = 1ull << 63, .local = memory },
        { .length = 20, .local_table = table },
        { .length = 1, .local_offset = 20, .local_table = table },
        { .length = 20, .remote_table = remote, .local = memory },
        { .offset = 20, .length = 1, .remote_table = remote, .local = memory },
    };
    uint64_t end;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(plan_check(&bad[i], &end), MC_E_RANGE);
}

static void test_the_end_is_that_of_the_farthest_piece(void **state)
{
    (void)state;
    const uint64_t remote[] = { 7, 700, 70 };
    const struct mc_xfer tables = {
        .offset = 10, .length = 3, .count = 3, .local = memory, .remote_table = remote
    };
    const struct mc_xfer strided = {
        .offset = 10, .length = 3, .count = 3, .local = memory, .remote_stride = 100
    };
    uint64_t end;

    assert_int_equal(plan_check(&tables, &end), MC_OK);
    assert_int_equal(end, 713);
    assert_int_equal(plan_check(&strided, &end), MC_OK);
    assert_int_equal(end, 213);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_small_transfer_is_one_slice),
        cmocka_unit_test(test_nothing_is_cut_off_an_empty_transfer),
        cmocka_unit_test(test_strides_and_tables_say_where_pieces_lie),
        cmocka_unit_test(test_cuts_cover_every_byte_once_for_all_small_shapes),
        cmocka_unit_test(test_sums_that_wrap_are_out_of_range),
        cmocka_unit_test(test_the_end_is_that_of_the_farthest_piece),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
