/* test_scan.c - the walk over JSON: what it takes, what it refuses. */
#include "test.h"

#include "sim/scan.h"

static bool fine(const char *text)
{
    struct scan s = scan_begin(text, strlen(text));

    scan_skip(&s);
    return scan_end(&s);
}

static void test_what_is_json_is_taken(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "{}",
        "[]",
        " [ ] ",
        "0",
        "-0",
        "-1.5e+10",
        "1E5",
        "true",
        "false",
        "null",
        "\"\"",
        "{\"a\":{\"b\":[1,2,{\"c\":null}]},\"d\":\"e\"}",
        "\"\\u00e9\\ud83d\\ude00\\n\\\"\\/\"",
        "\"\xc3\xa9\"",
        "\t[\r\n1 , 2 ]",
        "[[],[],{}]",
    };

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        if (!fine(texts[i]))
            fail_msg("refused: %s", texts[i]);
}

static void test_what_is_not_json_is_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        " ",
        "{",
        "}",
        "[",
        "]",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[1 2]",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{'a':1}",
        "{1:2}",
        "01",
        "-",
        "+1",
        ".5",
        "1.",
        "1e",
        "1e+",
        "NaN",
        "Infinity",
        "nul",
        "tru",
        "truer",
        "\"",
        "\"a",
        "\"\n\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\ud800\"",
        "\"\\udc00\"",
        "\"\\ud800\\u0041\"",
        "\"\xff\"",
        "\"\xc3\"",
        "\"\xed\xa0\x80\"",
        "{} {}",
        "1 2",
        "[1]]",
        "// x\n1",
        "\"\\",
        "\"\\u",
    };

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        if (fine(texts[i]))
            fail_msg("taken: %s", texts[i]);
}

static void test_nesting_has_a_bound(void **state)
{
    (void)state;
    char text[2 * SCAN_DEPTH + 3] = "";

    memset(text, '[', SCAN_DEPTH);
    memset(text + SCAN_DEPTH, ']', SCAN_DEPTH);
    assert_true(fine(text));
    memset(text, '[', SCAN_DEPTH + 1);
    memset(text + SCAN_DEPTH + 1, ']', SCAN_DEPTH + 1);
    assert_false(fine(text));
}

static void test_the_first_problem_stays(void **state)
{
    (void)state;
    const char *text = "{\"a\" 1, \"b\": 2}";
    struct scan s = scan_begin(text, strlen(text));
    struct scan_text key;

    assert_true(scan_object(&s));
    assert_false(scan_key(&s, &key));
    assert_string_equal(s.problem, "expected ':'");
    assert_int_equal(s.at - s.start, 5);
    assert_false(scan_key(&s, &key));
    assert_false(scan_skip(&s));
    assert_false(scan_end(&s));
    assert_string_equal(s.problem, "expected ':'");
}

static void test_members_come_in_order(void **state)
{
    (void)state;
    const char *text = "{\"n\": 12, \"list\": [1, [], 3], \"s\": \"x\"}";
    struct scan s = scan_begin(text, strlen(text));
    struct scan_text key, value;
    uint64_t number = 0, elements = 0;

    for (bool more = scan_object(&s); more && scan_key(&s, &key);) {
        if (scan_is(&key, "n")) {
            assert_true(scan_number(&s, &value));
            assert_true(scan_whole(&value, 12, &number));
        } else if (scan_is(&key, "list")) {
            for (bool inner = scan_array(&s); inner && scan_element(&s); elements++)
                scan_skip(&s);
        } else {
            assert_true(scan_is(&key, "s"));
            assert_true(scan_string(&s, &value));
            assert_true(scan_is(&value, "x"));
        }
    }
    assert_true(scan_end(&s));
    assert_int_equal(number, 12);
    assert_int_equal(elements, 3);
}

static void test_whole_numbers_have_bounds(void **state)
{
    (void)state;
    const struct {
        const char *text;
        uint64_t max;
        bool whole;
    } rows[] = {
        { "0", 0, true },
        { "1", 0, false },
        { "10", 10, true },
        { "11", 10, false },
        { "5", 3, false },
        { "-1", 10, false },
        { "1.0", 10, false },
        { "1e1", 100, false },
        { "18446744073709551615", UINT64_MAX, true },
        { "18446744073709551616", UINT64_MAX, false },
        { "99999999999999999999999", UINT64_MAX, false },
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct scan_text text = { rows[i].text, strlen(rows[i].text), false };
        uint64_t value;
        if (scan_whole(&text, rows[i].max, &value) != rows[i].whole)
            fail_msg("%s up to %llu", rows[i].text, (unsigned long long)rows[i].max);
    }
}

static void test_a_copy_has_its_escapes_resolved_and_fits(void **state)
{
    (void)state;
    const char *text = "\"a\\n\\u00e9\\ud83d\\ude00z\"";
    struct scan s = scan_begin(text, strlen(text));
    struct scan_text string;
    char copy[16];

    assert_true(scan_string(&s, &string));
    assert_true(string.escaped);
    assert_int_equal(scan_copy(&string, copy, sizeof(copy)), 9);
    assert_string_equal(copy, "a\n\xc3\xa9\xf0\x9f\x98\x80z");
    assert_int_equal(scan_copy(&string, copy, 7), 4); /* no half characters */
    assert_string_equal(copy, "a\n\xc3\xa9");
    assert_int_equal(scan_copy(&string, copy, 1), 0);
    assert_string_equal(copy, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_json_is_taken),
        cmocka_unit_test(test_what_is_not_json_is_refused),
        cmocka_unit_test(test_nesting_has_a_bound),
        cmocka_unit_test(test_the_first_problem_stays),
        cmocka_unit_test(test_members_come_in_order),
        cmocka_unit_test(test_whole_numbers_have_bounds),
        cmocka_unit_test(test_a_copy_has_its_escapes_resolved_and_fits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
