/* test_answer_part.c - what an event of a stream tells. */
#include "test.h"

#include "cmd/answer_part.h"

static struct answer_part read_part(const char *text)
{
    struct answer_part part;

    if (!answer_part_read(text, strlen(text), &part))
        fail_msg("refused: %s", text);
    return part;
}

static void test_a_token_is_told_from_an_opening_and_a_closing(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool token, finished;
    } rows[] = {
        { "{\"choices\":[{\"index\":0,\"text\":\" a\",\"finish_reason\":null}],\"usage\":null}",
          true, false },
        { "{\"choices\":[{\"text\":\"\",\"finish_reason\":null}]}", true,
          false }, /* half a character */
        { "{\"choices\":[{\"text\":\"\",\"finish_reason\":\"length\"}]}", false, true },
        { "{\"choices\":[{\"text\":\"z\",\"finish_reason\":\"stop\"}]}", true, true },
        { "{\"choices\":[]}", false, false },
        { "{\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}", false, false },
        { "{\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"a\"}}]}", true, false },
        { "{\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":null}]}", true, false },
        { "{\"choices\":[{\"delta\":{\"content\":\"\"}}]}", true, false },
        { "{\"choices\":[{\"delta\":{\"content\":null,\"reasoning_content\":\"hm\"}}]}", true,
          false },
        { "{\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}", false, true },
        { "{\"choices\":null}", false, false },
        { "{\"choices\":[7,null,{\"text\":null,\"delta\":5}]}", false, false },
        { "{\"text\":\"outside\"}", false, false },
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct answer_part part = read_part(rows[i].text);
        if (part.token != rows[i].token || part.finished != rows[i].finished)
            fail_msg("%s: token %d, finished %d", rows[i].text, part.token, part.finished);
        assert_false(part.error || part.done || part.usage);
    }
}

static void test_usage_is_read(void **state)
{
    (void)state;
    const struct answer_part part =
        read_part("{\"choices\":[],\"usage\":{\"prompt_tokens\":100,\"completion_tokens\":8,"
                  "\"total_tokens\":108,"
                  "\"prompt_tokens_details\":{\"cached_tokens\":48,\"audio_tokens\":null}}}");

    assert_true(part.usage && part.cached);
    assert_int_equal(part.prompt_tokens, 100);
    assert_int_equal(part.completion_tokens, 8);
    assert_int_equal(part.cached_tokens, 48);
    const struct answer_part plain =
        read_part("{\"usage\":{\"prompt_tokens\":3,\"prompt_tokens_details\":null}}");
    assert_true(plain.usage && !plain.cached);
    assert_false(read_part("{\"usage\":{\"prompt_tokens\":-3}}").usage);
    assert_false(read_part("{\"usage\":{}}").usage);
    assert_false(read_part("{\"usage\":[1]}").usage);
}

static void test_errors_have_a_code_or_else_a_type(void **state)
{
    (void)state;
    const struct answer_part coded =
        read_part("{\"error\":{\"message\":\"too \\\"fast\\\"\",\"type\":\"rate_limit_error\","
                  "\"param\":null,\"code\":\"slow_down\"}}");
    const struct answer_part typed =
        read_part("{\"error\":{\"message\":\"m\",\"type\":\"ServiceUnavailable\",\"code\":503}}");
    const struct answer_part bare = read_part("{\"error\":\"no\"}");

    assert_true(coded.error && typed.error && bare.error);
    assert_string_equal(coded.code, "slow_down");
    assert_string_equal(coded.message, "too \"fast\"");
    assert_string_equal(typed.code, "ServiceUnavailable");
    assert_string_equal(bare.message, "no");
    assert_false(read_part("{\"error\":null,\"choices\":[]}").error);
}

static void test_the_end_is_told(void **state)
{
    (void)state;
    assert_true(read_part("[DONE]").done);
}

static void test_what_is_no_object_is_refused(void **state)
{
    (void)state;
    static const char *const texts[] = { "",
                                         "null",
                                         "[]",
                                         "{",
                                         "{}x",
                                         "[DONE] ",
                                         "{\"choices\":[}",
                                         "{\"usage\":{\"prompt_tokens\":01}}",
                                         "{\"error\":{\"code\":}}",
                                         "{\"choices\":[{\"text\":\"\xff\"}]}" };
    struct answer_part part;

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        if (answer_part_read(texts[i], strlen(texts[i]), &part))
            fail_msg("taken: %s", texts[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_token_is_told_from_an_opening_and_a_closing),
        cmocka_unit_test(test_usage_is_read),
        cmocka_unit_test(test_errors_have_a_code_or_else_a_type),
        cmocka_unit_test(test_the_end_is_told),
        cmocka_unit_test(test_what_is_no_object_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
