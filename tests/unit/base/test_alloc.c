/* test_alloc.c - sizes that overflow are refused before they become small allocations. */
#include "test.h"

#include "base/alloc.h"

static void test_sums_and_products_are_exact_or_refused(void **state)
{
    (void)state;
    const size_t max = SIZE_MAX;
    size_t out = 77;

    assert_false(size_add(max, 1, &out));
    assert_false(size_mul(max / 2 + 1, 2, &out));
    assert_false(size_mul(2, max / 2 + 1, &out));
    assert_int_equal(out, 77); /* untouched by a refusal */
    assert_true(size_add(max - 1, 1, &out));
    assert_true(out == max);
    assert_true(size_mul(max / 3, 3, &out));
    assert_true(out == max / 3 * 3);
    assert_true(size_mul(max, 0, &out));
    assert_int_equal(out, 0);
    assert_true(size_mul(0, max, &out));
    assert_int_equal(out, 0);
}

static void test_a_product_that_wraps_is_not_allocated(void **state)
{
    (void)state;
    struct faulty f;
    faulty_init(&f, -1);

    assert_null(alloc_zeroed(&f.alloc, SIZE_MAX / 8 + 1, 8)); /* wraps to 0 bytes */
    assert_int_equal(f.calls, 0);

    char *p = alloc_text(&f.alloc, "kept", 4);
    assert_null(alloc_resize(&f.alloc, p, SIZE_MAX / 2 + 1, 2));
    assert_string_equal(p, "kept");
    alloc_free(&f.alloc, p);
    assert_int_equal(f.held, 0);
}

static void test_nothing_can_be_asked_for_and_freed(void **state)
{
    (void)state;
    struct faulty f;
    faulty_init(&f, -1);

    void *bytes = alloc_bytes(&f.alloc, 0), *zeroed = alloc_zeroed(&f.alloc, 0, 8);
    assert_non_null(bytes);
    assert_non_null(zeroed);
    void *resized = alloc_resize(&f.alloc, bytes, 0, 8);
    assert_non_null(resized);
    alloc_free(&f.alloc, resized);
    alloc_free(&f.alloc, zeroed);
    alloc_free(&f.alloc, NULL);
    assert_int_equal(f.held, 0);
}

static void test_zeroed_memory_is_zero_and_a_text_copy_ends_in_nul(void **state)
{
    (void)state;
    struct faulty f;
    faulty_init(&f, -1);

    unsigned char *dirty = alloc_bytes(&f.alloc, 4096);
    memset(dirty, 0xee, 4096);
    alloc_free(&f.alloc, dirty);
    unsigned char *p = alloc_zeroed(&f.alloc, 512, 8);
    for (size_t i = 0; i < 4096; i++)
        assert_int_equal(p[i], 0);
    alloc_free(&f.alloc, p);

    char *text = alloc_text(&f.alloc, "prefix and more", 6);
    assert_string_equal(text, "prefix");
    alloc_free(&f.alloc, text);
    assert_int_equal(f.held, 0);
}

static void test_a_failed_allocation_is_null_and_a_failed_resize_keeps_the_block(void **state)
{
    (void)state;
    struct faulty f;

    faulty_init(&f, 0);
    assert_null(alloc_zeroed(&f.alloc, 1, 8));
    faulty_init(&f, 0);
    assert_null(alloc_text(&f.alloc, "x", 1));

    faulty_init(&f, 1);
    char *p = alloc_text(&f.alloc, "kept", 4);
    assert_null(alloc_resize(&f.alloc, p, 100, 1));
    assert_string_equal(p, "kept");
    alloc_free(&f.alloc, p);
    assert_int_equal(f.held, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums_and_products_are_exact_or_refused),
        cmocka_unit_test(test_a_product_that_wraps_is_not_allocated),
        cmocka_unit_test(test_nothing_can_be_asked_for_and_freed),
        cmocka_unit_test(test_zeroed_memory_is_zero_and_a_text_copy_ends_in_nul),
        cmocka_unit_test(test_a_failed_allocation_is_null_and_a_failed_resize_keeps_the_block),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
