/* test_buf.c - the growing buffer: contents, failure that sticks, JSON text. */
#include "test.h"

#include "base/buf.h"
#include "base/alloc.h"

static void test_what_is_added_is_there_with_a_nul_behind(void **state)
{
    (void)state;
    struct faulty f;
    faulty_init(&f, -1);
    struct buf buf = BUF_INIT(&f.alloc);

    for (int i = 0; i < 1000; i++)
        buf_addf(&buf, "%d,", i);
    size_t size;
    char *text = buf_take(&buf, &size);
    assert_non_null(text);
    assert_int_equal(size, strlen(text));
    assert_memory_equal(text, "0,1,2,", 6);
    assert_string_equal(text + size - 4, "999,");
    alloc_free(&f.alloc, text);
    assert_int_equal(f.held, 0);
}

static void test_a_failed_allocation_sticks_and_leaves_nothing(void **state)
{
    (void)state;
    for (long k = 0;; k++) {
        struct faulty f;
        faulty_init(&f, k);
        struct buf buf = BUF_INIT(&f.alloc);
        for (int i = 0; i < 300; i++)
            buf_add_text(&buf, "some text ");
        char *text = buf_take(&buf, NULL);
        const bool done = f.calls <= k;
        assert_true(done == (text != NULL));
        alloc_free(&f.alloc, text);
        assert_int_equal(f.held, 0);
        if (done) {
            assert_true(k > 3);
            return;
        }
    }
}

static void test_json_text_is_escaped_and_broken_bytes_become_the_replacement(void **state)
{
    (void)state;
    struct faulty f;
    faulty_init(&f, -1);
    struct buf buf = BUF_INIT(&f.alloc);

    buf_add_json(&buf, "a\"\\\n\x01\xc3\xa9\xff", 8);
    assert_string_equal(buf.data, "\"a\\\"\\\\\\n\\u0001\xc3\xa9\xef\xbf\xbd\"");
    buf_fini(&buf);
    assert_int_equal(f.held, 0);
}

static void test_formatted_text_of_any_length_is_whole(void **state)
{
    (void)state;
    struct faulty f;
    faulty_init(&f, -1);
    struct buf buf = BUF_INIT(&f.alloc);
    size_t expected = 0;

    for (int width = 200; width < 300; width++) { /* across the size of the buffer on the stack */
        buf_addf(&buf, "%*d|", width, 7);
        expected += (size_t)width + 1;
        assert_int_equal(buf.size, expected);
        assert_string_equal(buf.data + buf.size - 3, " 7|");
    }
    buf_fini(&buf);
    assert_int_equal(f.held, 0);
}

static void test_truncating_keeps_the_front_and_moves_the_nul(void **state)
{
    (void)state;
    struct faulty f;
    faulty_init(&f, -1);
    struct buf buf = BUF_INIT(&f.alloc);

    buf_truncate(&buf, 0);
    buf_add_text(&buf, "keep and drop");
    buf_truncate(&buf, 4);
    assert_string_equal(buf.data, "keep");
    buf_add_byte(&buf, '!');
    assert_string_equal(buf.data, "keep!");
    buf_fini(&buf);
    assert_int_equal(f.held, 0);
}

static void test_an_empty_buffer_is_taken_as_an_empty_text(void **state)
{
    (void)state;
    struct faulty f;
    faulty_init(&f, -1);
    struct buf buf = BUF_INIT(&f.alloc);
    size_t size = 7;

    char *text = buf_take(&buf, &size);
    assert_string_equal(text, "");
    assert_int_equal(size, 0);
    alloc_free(&f.alloc, text);
    buf_fini(&buf);
    assert_int_equal(f.held, 0);
}

static void test_a_size_that_overflows_fails_and_is_not_allocated(void **state)
{
    (void)state;
    struct faulty f;
    faulty_init(&f, -1);
    struct buf buf = BUF_INIT(&f.alloc);

    buf_add_text(&buf, "x");
    buf_add(&buf, "", SIZE_MAX - 1);
    assert_true(buf.failed);
    assert_null(buf_take(&buf, NULL));
    assert_int_equal(f.held, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_added_is_there_with_a_nul_behind),
        cmocka_unit_test(test_a_failed_allocation_sticks_and_leaves_nothing),
        cmocka_unit_test(test_json_text_is_escaped_and_broken_bytes_become_the_replacement),
        cmocka_unit_test(test_formatted_text_of_any_length_is_whole),
        cmocka_unit_test(test_truncating_keeps_the_front_and_moves_the_nul),
        cmocka_unit_test(test_an_empty_buffer_is_taken_as_an_empty_text),
        cmocka_unit_test(test_a_size_that_overflows_fails_and_is_not_allocated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
