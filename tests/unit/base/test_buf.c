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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_added_is_there_with_a_nul_behind),
        cmocka_unit_test(test_a_failed_allocation_sticks_and_leaves_nothing),
        cmocka_unit_test(test_json_text_is_escaped_and_broken_bytes_become_the_replacement),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
