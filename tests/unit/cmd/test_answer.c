/* test_answer.c - the JSON of a finished generation, exactly. */
#include "test.h"

#include <math.h>
#include "cmd/answer.h"

/* Token 0 is "A", 1 a whole character of two bytes, 2 and 3 its halves, 4 special. */
static void token_text(void *context, uint32_t token, bool shown, const char **text_p,
                       size_t *size_p)
{
    static const char *const texts[] = { "A", "\xc3\xa9", "\xc3", "\xa9", "<\"end\">" };

    (void)context;
    *text_p = token == 4 && shown ? "" : texts[token];
    *size_p = strlen(*text_p);
}

static const struct token_texts texts = { token_text, NULL };
static const struct mc_sample samples[] = {
    { .chosen = { 0, -0.5f }, .top_count = 2, .top = { { 0, -0.5f }, { 2, -1.25f } } },
    { .chosen = { 2, -2 }, .top_count = 0 },
    { .chosen = { 3, -INFINITY }, .top_count = 1, .top = { { 1, 0 } } },
    { .chosen = { 1, -0.1f } },
    { .chosen = { 4, 0 } },
};

static struct answer an_answer(void)
{
    return (struct answer){ .id = "cmpl-1",
                            .model = "m\"1",
                            .created_s = 1700000000,
                            .text = "A\xc3\xa9\n",
                            .text_size = 4,
                            .finish_reason = "stop",
                            .prompt_count = 7,
                            .samples = samples,
                            .sample_count = 5,
                            .texts = &texts };
}

static void assert_json(const struct answer *answer, const char *expected)
{
    struct faulty f;
    faulty_init(&f, -1);
    struct buf out = BUF_INIT(&f.alloc);

    answer_write(answer, &out);
    assert_string_equal(out.data, expected);
    buf_fini(&out);
    assert_int_equal(f.held, 0);
}

static void test_a_completion_has_openai_s_shape_and_the_ids(void **state)
{
    (void)state;
    const struct answer answer = an_answer();

    assert_json(&answer,
                "{\"id\":\"cmpl-1\",\"object\":\"text_completion\",\"created\":1700000000,"
                "\"model\":\"m\\\"1\",\"choices\":[{\"index\":0,\"text\":\"A\xc3\xa9\\n\","
                "\"logprobs\":null,\"finish_reason\":\"stop\",\"tokens\":[0,2,3,1,4]}],"
                "\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":5,\"total_tokens\":12}}\n");
}

static void test_logprobs_of_a_text_count_offsets_in_characters(void **state)
{
    (void)state;
    struct answer answer = an_answer();
    answer.with_logprobs = true;

    assert_json(
        &answer,
        "{\"id\":\"cmpl-1\",\"object\":\"text_completion\",\"created\":1700000000,"
        "\"model\":\"m\\\"1\",\"choices\":[{\"index\":0,\"text\":\"A\xc3\xa9\\n\",\"logprobs\":{"
        "\"tokens\":[\"A\",\"bytes:\\\\xc3\",\"bytes:\\\\xa9\",\"\xc3\xa9\",\"<\\\"end\\\">\"],"
        "\"token_logprobs\":[-0.5,-2,-9999,-0.100000001,0],"
        "\"top_logprobs\":[{\"A\":-0.5,\"bytes:\\\\xc3\":-1.25},{\"bytes:\\\\xc3\":-2},"
        "{\"\xc3\xa9\":0,\"bytes:\\\\xa9\":-9999},{\"\xc3\xa9\":-0.100000001},"
        "{\"<\\\"end\\\">\":0}],"
        "\"text_offset\":[0,1,1,2,3]},\"finish_reason\":\"stop\",\"tokens\":[0,2,3,1,4]}],"
        "\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":5,\"total_tokens\":12}}\n");
}

static void test_logprobs_of_a_chat_have_the_bytes_of_each_token(void **state)
{
    (void)state;
    const struct timing timing = { .prompt_tokens = 7, .kernel = "ref", .threads = 1 };
    struct answer answer = an_answer();
    answer.chat = true;
    answer.with_logprobs = true;
    answer.sample_count = 2;
    answer.timing = &timing;

    assert_json(
        &answer,
        "{\"id\":\"cmpl-1\",\"object\":\"chat.completion\",\"created\":1700000000,"
        "\"model\":\"m\\\"1\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
        "\"content\":\"A\xc3\xa9\\n\"},\"logprobs\":{\"content\":[{\"token\":\"A\",\"logprob\":-0."
        "5,"
        "\"bytes\":[65],\"top_logprobs\":[{\"token\":\"A\",\"logprob\":-0.5,\"bytes\":[65]},"
        "{\"token\":\"bytes:\\\\xc3\",\"logprob\":-1.25,\"bytes\":[195]}]},"
        "{\"token\":\"bytes:\\\\xc3\",\"logprob\":-2,\"bytes\":[195],\"top_logprobs\":[]}]},"
        "\"finish_reason\":\"stop\",\"tokens\":[0,2]}],"
        "\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2,\"total_tokens\":9},"
        "\"timing\":{\"kernel\":\"ref\",\"threads\":1,\"prefill_tokens\":7,\"prefill_s\":0.000000,"
        "\"prefill_tokens_per_s\":0,\"prefill_flops\":0,\"decode_tokens\":0,\"decode_s\":0.000000,"
        "\"decode_tokens_per_s\":0,\"decode_bytes_per_s\":0}}\n");
}

static void test_a_failed_allocation_is_seen_and_leaves_nothing(void **state)
{
    (void)state;
    struct answer answer = an_answer();
    answer.with_logprobs = true;

    for (long k = 0;; k++) {
        struct faulty f;
        faulty_init(&f, k);
        struct buf out = BUF_INIT(&f.alloc);
        answer_write(&answer, &out);
        const bool failed = out.failed;
        assert_true(failed == (f.calls > k));
        buf_fini(&out);
        assert_int_equal(f.held, 0);
        if (!failed) {
            assert_true(k > 2);
            return;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_completion_has_openai_s_shape_and_the_ids),
        cmocka_unit_test(test_logprobs_of_a_text_count_offsets_in_characters),
        cmocka_unit_test(test_logprobs_of_a_chat_have_the_bytes_of_each_token),
        cmocka_unit_test(test_a_failed_allocation_is_seen_and_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
