/* test_normal.c - repair of ill-formed text, NFC, and the classes of characters. */
#include "test.h"

#include "infer/normal.h"
#include "os/sysalloc.h"

static void assert_becomes(void (*change)(const char *, size_t, struct buf *), const char *text,
                           const char *expected)
{
    struct buf out = BUF_INIT(os_alloc());

    change(text, strlen(text), &out);
    assert_string_equal(out.data ? out.data : "", expected);
    buf_fini(&out);
}

#define FFFD "\xef\xbf\xbd"

static void test_each_maximal_ill_formed_part_becomes_one_replacement(void **state)
{
    (void)state;
    assert_becomes(text_repair, "", "");
    assert_becomes(text_repair, "plain \xc3\xa9", "plain \xc3\xa9");
    assert_becomes(text_repair, "\xff", FFFD);
    assert_becomes(text_repair, "\xe2\x82|", FFFD "|"); /* a start that breaks off */
    assert_becomes(text_repair, "\xf0\x9f\x98|", FFFD "|");
    assert_becomes(text_repair, "\xf0\x9f\x98", FFFD);           /* ... at the end */
    assert_becomes(text_repair, "\xed\xa0\x80", FFFD FFFD FFFD); /* a surrogate */
    assert_becomes(text_repair, "\xc0\xaf", FFFD FFFD);          /* overlong */
    assert_becomes(text_repair, "\xe0\x80\x80", FFFD FFFD FFFD); /* overlong */
    assert_becomes(text_repair, "\xf4\x90\x80\x80", FFFD FFFD FFFD FFFD);
    assert_becomes(text_repair, "\xe2\x82\xe2\x82\xac", FFFD "\xe2\x82\xac");
    /* The table of Unicode 15, 3.9 */
    assert_becomes(text_repair, "\xf1\x80\x80\xe1\x80\xc2|\x80|\x80\xbf",
                   FFFD FFFD FFFD "|" FFFD "|" FFFD FFFD);
}

static void test_text_is_utf8_exactly_when_nothing_needs_repair(void **state)
{
    (void)state;
    assert_true(text_is_utf8("", 0));
    assert_true(text_is_utf8("twelve bytes and \xe2\x82\xac", 20));
    assert_false(text_is_utf8("twelve bytes and \xe2\x82\xac", 19));
    assert_false(text_is_utf8("sixteen letters and\x80", 20));
}

static void test_nfc_composes_orders_and_leaves_exclusions(void **state)
{
    (void)state;
    assert_becomes(text_nfc, "plain", "plain");
    assert_becomes(text_nfc, "cafe\xcc\x81!", "caf\xc3\xa9!");
    assert_becomes(text_nfc, "\xe2\x84\xab", "\xc3\x85");                  /* Angstrom sign */
    assert_becomes(text_nfc, "a\xcc\x88\xcc\xa3", "\xe1\xba\xa1\xcc\x88"); /* marks reordered */
    assert_becomes(text_nfc, "\xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8", "\xea\xb0\x81"); /* Hangul */
    assert_becomes(text_nfc, "\xea\xb0\x80\xe1\x86\xa8", "\xea\xb0\x81");
    assert_becomes(text_nfc, "\xe0\xa5\x98", "\xe0\xa4\x95\xe0\xa4\xbc"); /* never composed */
    assert_becomes(text_nfc, "\xcc\x81x", "\xcc\x81x");                   /* a mark alone */
    assert_becomes(text_nfc, "=\xcc\xb8", "\xe2\x89\xa0");
}

static void test_a_run_of_marks_is_ordered_stably_however_long(void **state)
{
    enum { PAIRS = 200000 };
    struct buf text = BUF_INIT(os_alloc()), out = BUF_INIT(os_alloc());

    (void)state;
    buf_add_text(&text, "x");
    for (int i = 0; i < PAIRS; i++)
        buf_add_text(&text, "\xcc\x88\xcc\xa3"); /* above (230), below (220) */
    text_nfc(text.data, text.size, &out);
    /* All marks below, then those above, the first of which composes with the x. */
    assert_int_equal(out.size, text.size);
    assert_memory_equal(out.data, "\xe1\xba\x8d\xcc\xa3\xcc\xa3", 7);
    assert_memory_equal(out.data + out.size - 4, "\xcc\x88\xcc\x88", 4);
    buf_fini(&text);
    buf_fini(&out);
}

static void test_nfc_that_fails_to_allocate_says_so_and_leaves_nothing(void **state)
{
    bool done = false;

    (void)state;
    for (long k = 0; !done; k++) {
        struct faulty f;
        faulty_init(&f, k);
        struct buf out = BUF_INIT(&f.alloc);
        text_nfc("abc\xcc\x88\xcc\xa3 z", 9, &out);
        done = f.calls <= k;
        assert_true(done == !out.failed);
        buf_fini(&out);
        assert_int_equal(f.held, 0);
        assert_true(!done || k >= 3);
    }
}

static void test_blanks_and_words_are_unicodes(void **state)
{
    static const uint32_t blank[] = { ' ', '\t', 0x85, 0xa0, 0x1680, 0x2003, 0x2028, 0x3000 };
    static const uint32_t not_blank[] = { 'a', 0x1c, 0x180e, 0x200b, 0xfeff };
    static const uint32_t word[] = { 'a', '0', '_', 0xe9, 0x301, 0x663, 0x2167, 0x200d, 0x24d0 };
    static const uint32_t not_word[] = { ' ', '-', 0xb2, 0xbd, 0x20ac, 0x1f600 };

    (void)state;
    for (size_t i = 0; i < sizeof(blank) / sizeof(blank[0]); i++)
        assert_true(char_is_blank(blank[i]));
    for (size_t i = 0; i < sizeof(not_blank) / sizeof(not_blank[0]); i++)
        assert_false(char_is_blank(not_blank[i]));
    for (size_t i = 0; i < sizeof(word) / sizeof(word[0]); i++)
        assert_true(char_is_word(word[i]));
    for (size_t i = 0; i < sizeof(not_word) / sizeof(not_word[0]); i++)
        assert_false(char_is_word(not_word[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_maximal_ill_formed_part_becomes_one_replacement),
        cmocka_unit_test(test_text_is_utf8_exactly_when_nothing_needs_repair),
        cmocka_unit_test(test_nfc_composes_orders_and_leaves_exclusions),
        cmocka_unit_test(test_a_run_of_marks_is_ordered_stably_however_long),
        cmocka_unit_test(test_nfc_that_fails_to_allocate_says_so_and_leaves_nothing),
        cmocka_unit_test(test_blanks_and_words_are_unicodes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
