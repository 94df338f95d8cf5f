/* test_answer.c - answers and streams, byte for byte. */
#include "test.h"

#include <math.h>
#include <stdio.h>

#include "base/alloc.h"
#include "gateway/answer.h"
#include "os/sysalloc.h"

static mc_model *model;

static int setup(void **state)
{
    struct mc_error error = { 0 };

    (void)state;
    if (mc_model_open(test_data("models/plain"), NULL, &model, &error) != MC_OK)
        fail_msg("%s", error.text);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    mc_model_close(model);
    return 0;
}

static uint32_t id_of(const char *text)
{
    uint32_t *tokens, id;
    size_t count;

    assert_int_equal(
        mc_model_encode(model, text, strlen(text), MC_ENCODE_BARE, &tokens, &count, NULL), MC_OK);
    assert_int_equal(count, 1);
    id = tokens[0];
    mc_tokens_free(model, tokens);
    return id;
}

static struct answer_options options(enum api_kind kind)
{
    return (struct answer_options){ .alloc = os_alloc(),
                                    .model = model,
                                    .kind = kind,
                                    .id = "x-1",
                                    .model_name = "m\"1",
                                    .created_s = 7 };
}

static void add(struct answer *a, const char *text, float logprob)
{
    const struct wire_sample sample = { .token = id_of(text), .logprob = logprob };

    assert_int_equal(answer_add(a, &sample, false), MC_OK);
}

static void assert_out(struct buf *out, const char *expected)
{
    assert_false(out->failed);
    assert_string_equal(out->data ? out->data : "", expected);
    buf_fini(out);
    *out = BUF_INIT(os_alloc());
}

static void test_a_whole_completion_has_openai_s_shape(void **state)
{
    const struct answer_options o = options(API_COMPLETION);
    const struct answer_usage usage = { 5, 16 };
    struct buf out = BUF_INIT(os_alloc());
    struct answer a;

    (void)state;
    assert_int_equal(answer_init(&a, &o), MC_OK);
    add(&a, "a", 0);
    add(&a, "\"", 0);
    assert_int_equal(answer_finish(&a), MC_OK);
    answer_write_whole(&a, "length", &usage, &out);
    assert_out(&out,
               "{\"id\":\"x-1\",\"object\":\"text_completion\",\"created\":7,\"model\":\"m\\\"1\","
               "\"choices\":[{\"index\":0,\"text\":\"a\\\"\",\"logprobs\":null,\"finish_reason\":"
               "\"length\"}],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2,"
               "\"total_tokens\":7,\"prompt_tokens_details\":{\"cached_tokens\":16}}}\n");
    answer_fini(&a);
}

static void test_a_stream_of_text_is_framed_exactly(void **state)
{
    struct answer_options o = options(API_COMPLETION);
    const struct answer_usage usage = { 5, 0 };
    struct buf out = BUF_INIT(os_alloc());
    struct answer a;

    (void)state;
    assert_int_equal(answer_init(&a, &o), MC_OK);
    assert_false(answer_has_news(&a));
    add(&a, "a", 0);
    assert_true(answer_has_news(&a));
    answer_write_chunk(&a, NULL, &out);
    assert_false(answer_has_news(&a));
    assert_out(&out, "data: {\"id\":\"x-1\",\"object\":\"text_completion\",\"created\":7,\"model\":"
                     "\"m\\\"1\",\"choices\":[{\"index\":0,\"text\":\"a\",\"logprobs\":null,"
                     "\"finish_reason\":null}]}\n\n");
    add(&a, "b", 0);
    answer_write_chunk(&a, "stop", &out);
    answer_write_done(&a, &usage, &out);
    assert_out(&out, "data: {\"id\":\"x-1\",\"object\":\"text_completion\",\"created\":7,\"model\":"
                     "\"m\\\"1\",\"choices\":[{\"index\":0,\"text\":\"b\",\"logprobs\":null,"
                     "\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n");
    answer_fini(&a);
}

static void test_a_streamed_chat_begins_with_the_role_and_ends_with_usage(void **state)
{
    struct answer_options o = options(API_CHAT);
    const struct answer_usage usage = { 5, 0 };
    struct buf out = BUF_INIT(os_alloc());
    struct answer a;

    (void)state;
    o.with_usage = true;
    assert_int_equal(answer_init(&a, &o), MC_OK);
    add(&a, "a", 0);
    answer_write_chunk(&a, NULL, &out);
    assert_out(&out,
               "data: {\"id\":\"x-1\",\"object\":\"chat.completion.chunk\",\"created\":7,\"model\":"
               "\"m\\\"1\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":"
               "\"\"},\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}\n\n"
               "data: {\"id\":\"x-1\",\"object\":\"chat.completion.chunk\",\"created\":7,\"model\":"
               "\"m\\\"1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"logprobs\":"
               "null,\"finish_reason\":null}],\"usage\":null}\n\n");
    answer_write_chunk(&a, "stop", &out);
    answer_write_done(&a, &usage, &out);
    assert_out(&out,
               "data: {\"id\":\"x-1\",\"object\":\"chat.completion.chunk\",\"created\":7,\"model\":"
               "\"m\\\"1\",\"choices\":[{\"index\":0,\"delta\":{},\"logprobs\":null,"
               "\"finish_reason\":\"stop\"}],\"usage\":null}\n\n"
               "data: {\"id\":\"x-1\",\"object\":\"chat.completion.chunk\",\"created\":7,\"model\":"
               "\"m\\\"1\",\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":1,"
               "\"total_tokens\":6,\"prompt_tokens_details\":{\"cached_tokens\":0}}}\n\n"
               "data: [DONE]\n\n");
    answer_fini(&a);
}

static void test_logprobs_of_a_text_are_parallel_lists_and_floats_read_back(void **state)
{
    struct answer_options o = options(API_COMPLETION);
    const struct wire_token_logprob top[] = { { id_of("a"), -0.1f }, { id_of("\n"), -INFINITY } };
    const struct answer_usage usage = { 1, 0 };
    struct wire_sample sample = { .token = id_of("a"),
                                  .logprob = -0.1f,
                                  .top = { .items = top, .count = 2 } };
    struct buf out = BUF_INIT(os_alloc());
    char expected[600];
    struct answer a;

    (void)state;
    o.with_logprobs = o.with_ids = true;
    assert_int_equal(answer_init(&a, &o), MC_OK);
    assert_int_equal(answer_add(&a, &sample, false), MC_OK);
    sample = (struct wire_sample){ .token = id_of("b"), .logprob = -1 };
    assert_int_equal(answer_add(&a, &sample, false), MC_OK);
    answer_write_whole(&a, "length", &usage, &out);
    snprintf(expected, sizeof(expected),
             "{\"id\":\"x-1\",\"object\":\"text_completion\",\"created\":7,\"model\":\"m\\\"1\","
             "\"choices\":[{\"index\":0,\"text\":\"ab\",\"logprobs\":{\"tokens\":[\"a\",\"b\"],"
             "\"token_logprobs\":[-0.100000001,-1],\"top_logprobs\":[{\"a\":-0.100000001,\"\\n\":"
             "-9999},{}],\"text_offset\":[0,1]},\"finish_reason\":\"length\",\"tokens\":[%u,%u]}],"
             "\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2,\"total_tokens\":3,"
             "\"prompt_tokens_details\":{\"cached_tokens\":0}}}\n",
             id_of("a"), id_of("b"));
    assert_out(&out, expected);
    assert_true(strtof("-0.100000001", NULL) == -0.1f);
    answer_fini(&a);
}

static void test_logprobs_of_a_chat_have_bytes_and_each_chunk_its_own(void **state)
{
    struct answer_options o = options(API_CHAT);
    const struct wire_token_logprob top[] = { { id_of("a"), -0.5f } };
    const struct wire_sample sample = { .token = id_of("a"),
                                        .logprob = -0.5f,
                                        .top = { .items = top, .count = 1 } };
    struct buf out = BUF_INIT(os_alloc());
    struct answer a;

    (void)state;
    o.with_logprobs = true;
    assert_int_equal(answer_init(&a, &o), MC_OK);
    a.begun = true; /* without the role's chunk */
    for (int i = 0; i < 2; i++) {
        assert_int_equal(answer_add(&a, &sample, false), MC_OK);
        answer_write_chunk(&a, NULL, &out);
        assert_out(&out,
                   "data: {\"id\":\"x-1\",\"object\":\"chat.completion.chunk\",\"created\":7,"
                   "\"model\":\"m\\\"1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},"
                   "\"logprobs\":{\"content\":[{\"token\":\"a\",\"logprob\":-0.5,\"bytes\":[97],"
                   "\"top_logprobs\":[{\"token\":\"a\",\"logprob\":-0.5,\"bytes\":[97]}]}]},"
                   "\"finish_reason\":null}]}\n\n");
    }
    answer_fini(&a);
}

static void test_a_character_of_two_tokens_comes_out_with_the_second(void **state)
{
    struct answer_options o = options(API_COMPLETION);
    uint32_t *ids;
    size_t count;
    struct answer a;

    (void)state;
    assert_int_equal(mc_model_encode(model, "\xc3\xa9", 2, MC_ENCODE_BARE, &ids, &count, NULL),
                     MC_OK);
    assert_int_equal(count, 2);
    assert_int_equal(answer_init(&a, &o), MC_OK);
    assert_int_equal(answer_add(&a, &(struct wire_sample){ .token = ids[0] }, false), MC_OK);
    assert_false(answer_has_news(&a));
    assert_int_equal(answer_add(&a, &(struct wire_sample){ .token = ids[1] }, false), MC_OK);
    assert_true(answer_has_news(&a));
    assert_string_equal(a.text.data, "\xc3\xa9");
    assert_int_equal(a.characters, 1);
    assert_int_equal(answer_add(&a, &(struct wire_sample){ .token = ids[0] }, false), MC_OK);
    assert_int_equal(answer_finish(&a), MC_OK); /* cut off in the middle of one */
    assert_string_equal(a.text.data, "\xc3\xa9\xef\xbf\xbd");
    assert_int_equal(answer_restart(&a), MC_OK);
    assert_int_equal(a.samples + a.pending + a.text.size + a.characters, 0);
    mc_tokens_free(model, ids);
    answer_fini(&a);
    answer_fini(&a);
}

static void test_an_end_of_text_counts_and_is_not_shown(void **state)
{
    struct answer_options o = options(API_COMPLETION);
    struct answer a;

    (void)state;
    o.keep_special = true;
    assert_int_equal(answer_init(&a, &o), MC_OK);
    add(&a, "a", 0);
    assert_int_equal(answer_add(&a, &(struct wire_sample){ .token = 263 }, true), MC_OK);
    assert_string_equal(a.text.data, "a");
    assert_int_equal(a.samples, 2);
    assert_int_equal(answer_add(&a, &(struct wire_sample){ .token = UINT32_MAX }, false),
                     MC_E_RANGE);
    answer_fini(&a);
}

static void test_errors_have_openai_s_shape(void **state)
{
    struct buf out = BUF_INIT(os_alloc());
    struct api_error e;

    (void)state;
    assert_false(api_fail(&e, 400, "invalid_request_error", "bad", "n", "n: \"%d\"", 2));
    answer_write_error(&e, false, &out);
    assert_out(&out, "{\"error\":{\"message\":\"n: \\\"2\\\"\",\"type\":\"invalid_request_error\","
                     "\"param\":\"n\",\"code\":\"bad\"}}\n");
    api_fail(&e, 500, "server_error", NULL, NULL, "no");
    answer_write_error(&e, true, &out);
    assert_out(&out, "data: {\"error\":{\"message\":\"no\",\"type\":\"server_error\",\"param\":"
                     "null,\"code\":null}}\n\n");
    buf_fini(&out);
}

static void test_every_failed_allocation_is_seen_and_leaves_nothing(void **state)
{
    (void)state;
    for (long k = 0;; k++) {
        struct answer_options o = options(API_COMPLETION);
        const struct wire_sample sample = { .token = id_of("a"), .logprob = -0.5f };
        const struct answer_usage usage = { 1, 0 };
        struct faulty f;
        struct answer a;
        faulty_init(&f, k);
        o.alloc = &f.alloc;
        o.with_logprobs = true;
        struct buf out = BUF_INIT(&f.alloc);
        mc_status status = answer_init(&a, &o);
        if (status == MC_OK)
            status = answer_add(&a, &sample, false);
        if (status == MC_OK)
            status = answer_finish(&a);
        if (status == MC_OK)
            answer_write_whole(&a, "stop", &usage, &out);
        const bool done = status == MC_OK && !out.failed;
        assert_true(done == (f.calls <= k));
        buf_fini(&out);
        answer_fini(&a);
        assert_int_equal(f.held, 0);
        if (done) {
            assert_true(k > 5);
            return;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_whole_completion_has_openai_s_shape),
        cmocka_unit_test(test_a_stream_of_text_is_framed_exactly),
        cmocka_unit_test(test_a_streamed_chat_begins_with_the_role_and_ends_with_usage),
        cmocka_unit_test(test_logprobs_of_a_text_are_parallel_lists_and_floats_read_back),
        cmocka_unit_test(test_logprobs_of_a_chat_have_bytes_and_each_chunk_its_own),
        cmocka_unit_test(test_a_character_of_two_tokens_comes_out_with_the_second),
        cmocka_unit_test(test_an_end_of_text_counts_and_is_not_shown),
        cmocka_unit_test(test_errors_have_openai_s_shape),
        cmocka_unit_test(test_every_failed_allocation_is_seen_and_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
