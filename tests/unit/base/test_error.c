/* test_error.c - error text: set, prefixed, cut to fit, and safe to print whatever it quotes. */
#include "test.h"

#include "base/error.h"
#include "base/utf8.h"

enum { TEXT_MAX = sizeof(((struct mc_error *)0)->text) - 1 };

static void assert_is_utf8(const char *text)
{
    uint32_t code;

    for (size_t size = strlen(text), i = 0, n; i < size; i += n) {
        n = utf8_decode(text + i, size - i, &code);
        assert_int_not_equal(n, 0);
    }
}

static void test_a_set_error_holds_status_and_text_and_returns_the_status(void **state)
{
    (void)state;
    struct mc_error error = { 0 };

    assert_int_equal(error_set(&error, MC_E_FORMAT, "%s: field %s: %d", "a.json", "layers", -3),
                     MC_E_FORMAT);
    assert_int_equal(error.status, MC_E_FORMAT);
    assert_string_equal(error.text, "a.json: field layers: -3");
    assert_int_equal(error_set(&error, MC_E_IO, "later"), MC_E_IO);
    assert_string_equal(error.text, "later");
}

static void test_without_an_error_to_fill_the_status_is_still_returned(void **state)
{
    (void)state;
    assert_int_equal(error_set(NULL, MC_E_RANGE, "%d", 1), MC_E_RANGE);
    assert_int_equal(error_prefix(NULL, MC_E_IO, "%d", 1), MC_E_IO);
}

static void test_a_prefix_goes_before_the_text_that_is_there(void **state)
{
    (void)state;
    struct mc_error error = { 0 };

    error_set(&error, MC_E_NOT_FOUND, "tensor x is missing");
    assert_int_equal(error_prefix(&error, MC_E_NOT_FOUND, "model %s", "tiny"), MC_E_NOT_FOUND);
    assert_int_equal(error.status, MC_E_NOT_FOUND);
    assert_string_equal(error.text, "model tiny: tensor x is missing");
}

static void test_text_that_just_fits_is_whole_and_one_byte_more_is_cut_with_dots(void **state)
{
    (void)state;
    char text[TEXT_MAX + 2];
    struct mc_error error = { 0 };

    memset(text, 'x', sizeof(text));
    text[TEXT_MAX] = '\0';
    error_set(&error, MC_E_IO, "%s", text);
    assert_string_equal(error.text, text);

    text[TEXT_MAX] = 'x';
    text[TEXT_MAX + 1] = '\0';
    error_set(&error, MC_E_IO, "%s", text);
    assert_int_equal(strlen(error.text), TEXT_MAX);
    assert_string_equal(error.text + TEXT_MAX - 4, "x...");
}

static void test_a_prefix_longer_than_the_room_is_cut_and_nothing_overflows(void **state)
{
    (void)state;
    char text[2 * TEXT_MAX];
    struct mc_error error = { 0 };

    memset(text, 'p', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    error_set(&error, MC_E_IO, "cause");
    error_prefix(&error, MC_E_IO, "%s", text);
    assert_int_equal(strlen(error.text), TEXT_MAX);
    assert_string_equal(error.text + TEXT_MAX - 4, "p...");
}

static void test_the_cut_never_splits_a_character(void **state)
{
    (void)state;
    for (int shift = 0; shift < 4; shift++) { /* each place of the cut in a 4-byte character */
        char text[TEXT_MAX + 8] = "";
        struct mc_error error = { 0 };

        memset(text, 'x', (size_t)shift);
        while (strlen(text) + 4 < sizeof(text))
            strcat(text, "\xf0\x9f\x98\x80");
        error_set(&error, MC_E_IO, "%s", text);
        assert_is_utf8(error.text);
        assert_string_equal(error.text + strlen(error.text) - 3, "...");
        assert_true(strlen(error.text) > TEXT_MAX - 4);
    }
}

static void test_what_a_file_says_cannot_steer_a_terminal_or_split_a_line(void **state)
{
    (void)state;
    struct mc_error error = { 0 };

    error_set(&error, MC_E_FORMAT, "name \"%s\"", "a\nb\x1b[2Jc\x7f\td");
    assert_string_equal(error.text, "name \"a b [2Jc  d\"");
    error_set(&error, MC_E_FORMAT, "%s",
              "\xc2\x9b"
              "2J"); /* the 8-bit form of the same escape */
    assert_string_equal(error.text, " 2J");
}

static void test_bytes_that_are_not_utf8_become_question_marks(void **state)
{
    (void)state;
    struct mc_error error = { 0 };

    error_set(&error, MC_E_FORMAT, "%s", "\xc3\xa9 \xff\xc3 \xed\xa0\x80.");
    assert_string_equal(error.text, "\xc3\xa9 ?? ???.");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_set_error_holds_status_and_text_and_returns_the_status),
        cmocka_unit_test(test_without_an_error_to_fill_the_status_is_still_returned),
        cmocka_unit_test(test_a_prefix_goes_before_the_text_that_is_there),
        cmocka_unit_test(test_text_that_just_fits_is_whole_and_one_byte_more_is_cut_with_dots),
        cmocka_unit_test(test_a_prefix_longer_than_the_room_is_cut_and_nothing_overflows),
        cmocka_unit_test(test_the_cut_never_splits_a_character),
        cmocka_unit_test(test_what_a_file_says_cannot_steer_a_terminal_or_split_a_line),
        cmocka_unit_test(test_bytes_that_are_not_utf8_become_question_marks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
