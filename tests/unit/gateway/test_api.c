/* test_api.c - what a request may say, and how each mistake is answered. */
#include "test.h"

#include "gateway/api_prompt.h"
#include "os/sysalloc.h"

static const struct api_defaults defaults = {
    .temperature = 0.5f, .top_p = 0.75f, .top_k = 40, .vocab_size = 100, .model = "m"
};

static bool parse(enum api_kind kind, const char *body, struct api_request *q, struct api_error *e)
{
    return api_read(kind, body, strlen(body), &defaults, os_alloc(), q, e);
}

/* ------------------------------------------------------------------------------------- mistakes */

#define P "{\"model\":\"m\",\"prompt\":\"x\","
#define M "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],"

static const struct mistake {
    enum api_kind kind;
    const char *body;
    unsigned status;
    const char *param, *code;
} mistakes[] = {
    { API_COMPLETION, "", 400, "", "invalid_json" },
    { API_COMPLETION, "[]", 400, "", "invalid_json" },
    { API_COMPLETION, "{", 400, "", "invalid_json" },
    { API_COMPLETION, "{} {}", 400, "", "invalid_json" },
    { API_COMPLETION, "{\"model\":\"m\",\"model\":\"m\"}", 400, "", "invalid_json" },
    { API_COMPLETION, "{\"model\":\"m\",\"prompt\":\"\xff\"}", 400, "", "invalid_json" },
    { API_COMPLETION, "{\"model\":1,\"prompt\":\"x\"}", 400, "model", "invalid_type" },
    { API_COMPLETION, "{\"model\":\"other\",\"prompt\":\"x\"}", 404, "model", "model_not_found" },
    { API_COMPLETION, "{\"model\":\"m\"}", 400, "prompt", "missing" },
    { API_COMPLETION, "{\"model\":\"m\",\"prompt\":null}", 400, "prompt", "missing" },
    { API_COMPLETION, "{\"model\":\"m\",\"prompt\":7}", 400, "prompt", "invalid_type" },
    { API_COMPLETION, "{\"model\":\"m\",\"prompt\":[]}", 400, "prompt", "invalid_type" },
    { API_COMPLETION, "{\"model\":\"m\",\"prompt\":[[]]}", 400, "prompt", "invalid_type" },
    { API_COMPLETION, "{\"prompt\":{}}", 400, "prompt", "invalid_type" },
    { API_COMPLETION, "{\"prompt\":[\"a\",1]}", 400, "prompt", "invalid_type" },
    { API_COMPLETION, "{\"prompt\":[[1],[]]}", 400, "prompt", "invalid_type" },
    { API_COMPLETION, "{\"prompt\":[[1],[\"a\"]]}", 400, "prompt", "invalid_type" },
    { API_COMPLETION, "{\"prompt\":[[1],[100]]}", 400, "prompt", "out_of_range" },
    { API_COMPLETION, "{\"prompt\":[\"a\",null]}", 400, "prompt", "invalid_type" },
    { API_COMPLETION, "{\"model\":\"m\",\"prompt\":[1,\"a\"]}", 400, "prompt", "invalid_type" },
    { API_COMPLETION, "{\"model\":\"m\",\"prompt\":[1,2.5]}", 400, "prompt", "invalid_type" },
    { API_COMPLETION, "{\"model\":\"m\",\"prompt\":[100]}", 400, "prompt", "out_of_range" },
    { API_COMPLETION, "{\"model\":\"m\",\"prompt\":[-1]}", 400, "prompt", "out_of_range" },
    { API_COMPLETION, P "\"max_tokens\":0}", 400, "max_tokens", "out_of_range" },
    { API_COMPLETION, P "\"max_tokens\":1.5}", 400, "max_tokens", "invalid_type" },
    { API_COMPLETION, P "\"max_tokens\":4294967296}", 400, "max_tokens", "out_of_range" },
    { API_COMPLETION, P "\"max_tokens\":99999999999999999999}", 400, "", "invalid_json" },
    { API_COMPLETION, P "\"min_tokens\":17}", 400, "min_tokens", "contradiction" },
    { API_COMPLETION, P "\"min_tokens\":-1}", 400, "min_tokens", "out_of_range" },
    { API_COMPLETION, P "\"temperature\":\"0\"}", 400, "temperature", "invalid_type" },
    { API_COMPLETION, P "\"temperature\":-0.1}", 400, "temperature", "out_of_range" },
    { API_COMPLETION, P "\"temperature\":1e9}", 400, "temperature", "out_of_range" },
    { API_COMPLETION, P "\"top_p\":1.1}", 400, "top_p", "out_of_range" },
    { API_COMPLETION, P "\"top_p\":0}", 400, "top_p", "out_of_range" },
    { API_COMPLETION, P "\"top_k\":-2}", 400, "top_k", "out_of_range" },
    { API_COMPLETION, P "\"seed\":1.5}", 400, "seed", "invalid_type" },
    { API_COMPLETION, P "\"logprobs\":true}", 400, "logprobs", "invalid_type" },
    { API_COMPLETION, P "\"logprobs\":21}", 400, "logprobs", "out_of_range" },
    { API_COMPLETION, P "\"stream\":1}", 400, "stream", "invalid_type" },
    { API_COMPLETION, P "\"stream_options\":{}}", 400, "stream_options", "contradiction" },
    { API_COMPLETION, P "\"stream\":true,\"stream_options\":1}", 400, "stream_options",
      "invalid_type" },
    { API_COMPLETION, P "\"stream\":true,\"stream_options\":{\"include_usage\":1}}", 400,
      "include_usage", "invalid_type" },
    { API_COMPLETION, P "\"ignore_eos\":\"yes\"}", 400, "ignore_eos", "invalid_type" },
    { API_COMPLETION, P "\"n\":2}", 400, "n", "unsupported" },
    { API_COMPLETION, P "\"best_of\":2}", 400, "best_of", "unsupported" },
    { API_COMPLETION, P "\"stop\":\"\"}", 400, "stop", "invalid_value" },
    { API_COMPLETION, P "\"stop\":[\"x\",\"\"]}", 400, "stop", "invalid_value" },
    { API_COMPLETION, P "\"stop\":1}", 400, "stop", "invalid_type" },
    { API_COMPLETION, P "\"stop\":[1]}", 400, "stop", "invalid_type" },
    { API_COMPLETION, P "\"stop\":{\"a\":1}}", 400, "stop", "invalid_type" },
    { API_COMPLETION,
      P "\"stop\":[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\",\"a\",\"b\",\"c\",\"d\","
        "\"e\",\"f\",\"g\",\"h\"]}",
      400, "stop", "out_of_range" },
    { API_COMPLETION, P "\"stop_token_ids\":1}", 400, "stop_token_ids", "invalid_type" },
    { API_COMPLETION, P "\"stop_token_ids\":[\"a\"]}", 400, "stop_token_ids", "invalid_type" },
    { API_COMPLETION, P "\"stop_token_ids\":[100]}", 400, "stop_token_ids", "out_of_range" },
    { API_COMPLETION, P "\"include_stop_str_in_output\":1}", 400, "include_stop_str_in_output",
      "invalid_type" },
    { API_COMPLETION, P "\"cache_salt\":1}", 400, "cache_salt", "invalid_type" },
    { API_COMPLETION, P "\"stream\":true,\"stream_options\":{\"continuous_usage_stats\":1}}", 400,
      "continuous_usage_stats", "invalid_type" },
    { API_COMPLETION, P "\"truncate_prompt_tokens\":5}", 400, "truncate_prompt_tokens",
      "unsupported" },
    { API_COMPLETION, P "\"echo\":true}", 400, "echo", "unsupported" },
    { API_COMPLETION, P "\"suffix\":\"x\"}", 400, "suffix", "unsupported" },
    { API_COMPLETION, P "\"logit_bias\":{\"1\":2}}", 400, "logit_bias", "unsupported" },
    { API_COMPLETION, P "\"presence_penalty\":0.1}", 400, "presence_penalty", "unsupported" },
    { API_COMPLETION, P "\"guided_json\":{}}", 400, "guided_json", "unsupported" },
    { API_CHAT, "{\"model\":\"m\"}", 400, "messages", "missing" },
    { API_CHAT, "{\"model\":\"m\",\"messages\":[]}", 400, "messages", "invalid_type" },
    { API_CHAT, "{\"model\":\"m\",\"messages\":{}}", 400, "messages", "invalid_type" },
    { API_CHAT, "{\"model\":\"m\",\"messages\":[1]}", 400, "messages", "invalid_type" },
    { API_CHAT, "{\"model\":\"m\",\"messages\":[{\"content\":\"x\"}]}", 400, "messages",
      "invalid_type" },
    { API_CHAT, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\"}]}", 400, "messages",
      "invalid_type" },
    { API_CHAT, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":null}]}", 400,
      "messages", "invalid_type" },
    { API_CHAT, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"a\\u0000b\"}]}",
      400, "messages", "invalid_value" },
    { API_CHAT,
      "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}",
      400, "messages", "unsupported" },
    { API_CHAT,
      "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"x\",\"tool_calls\":[1]}]}",
      400, "messages", "unsupported" },
    { API_CHAT, M "\"logprobs\":5}", 400, "logprobs", "invalid_type" },
    { API_CHAT, M "\"top_logprobs\":5}", 400, "top_logprobs", "contradiction" },
    { API_CHAT, M "\"logprobs\":true,\"top_logprobs\":21}", 400, "top_logprobs", "out_of_range" },
    { API_CHAT, M "\"tools\":[{}]}", 400, "tools", "unsupported" },
    { API_CHAT, M "\"tool_choice\":\"required\"}", 400, "tool_choice", "unsupported" },
    { API_CHAT, M "\"tool_choice\":{\"type\":\"function\"}}", 400, "tool_choice", "unsupported" },
    { API_CHAT, M "\"functions\":[{}]}", 400, "functions", "unsupported" },
    { API_CHAT, M "\"modalities\":[\"text\",\"audio\"]}", 400, "modalities", "unsupported" },
    { API_CHAT, M "\"add_generation_prompt\":false}", 400, "add_generation_prompt", "unsupported" },
    { API_CHAT, M "\"response_format\":{\"type\":\"json_object\"}}", 400, "response_format",
      "unsupported" },
};

static void test_each_mistake_has_its_status_field_and_code(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(mistakes) / sizeof(mistakes[0]); i++) {
        const struct mistake *m = &mistakes[i];
        struct api_request q;
        struct api_error e = { 0 };
        if (parse(m->kind, m->body, &q, &e))
            fail_msg("accepted: %s", m->body);
        if (e.status != m->status || strcmp(e.param, m->param) != 0 || !e.code ||
            strcmp(e.code, m->code) != 0 || e.text[0] == '\0')
            fail_msg("%s: %u \"%s\" \"%s\" \"%s\"", m->body, e.status, e.param,
                     e.code ? e.code : "", e.text);
        if (m->param[0])
            assert_non_null(strstr(e.text, m->param));
        api_request_fini(&q);
    }
}

static void test_what_asks_for_nothing_passes(void **state)
{
    static const char *const fields[] = {
        "\"n\":1",
        "\"stop\":null",
        "\"stop\":[]",
        "\"echo\":false",
        "\"logit_bias\":{}",
        "\"presence_penalty\":0",
        "\"tools\":[]",
        "\"tool_choice\":\"none\"",
        "\"tool_choice\":\"auto\"",
        "\"modalities\":[\"text\"]",
        "\"add_generation_prompt\":true",
        "\"cache_salt\":\"\"",
        "\"stop_token_ids\":[]",
        "\"parallel_tool_calls\":true",
        "\"response_format\":{\"type\":\"text\"}",
        "\"user\":\"me\"",
        "\"whatever\":{\"a\":[1,2]}",
        "\"repetition_penalty\":1.0",
        "\"seed\":null",
        "\"best_of\":1",
        "\"logprobs\":null",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        char body[200];
        struct api_request q;
        struct api_error e = { 0 };
        snprintf(body, sizeof(body), "{\"model\":\"m\",\"prompt\":\"x\",%s}", fields[i]);
        if (!parse(API_COMPLETION, body, &q, &e))
            fail_msg("%s: %s", body, e.text);
        assert_false(q.with_logprobs);
        api_request_fini(&q);
    }
}

static void test_depth_is_bounded_and_brackets_in_strings_do_not_count(void **state)
{
    char body[400] = "{\"model\":\"m\",\"prompt\":\"";
    struct api_request q;
    struct api_error e = { 0 };

    (void)state;
    for (int i = 0; i < 200; i++)
        strcat(body, "[");
    strcat(body, "\\\"[\"}");
    assert_true(parse(API_COMPLETION, body, &q, &e));
    api_request_fini(&q);
    strcpy(body, "{\"model\":\"m\",\"prompt\":\"x\",\"y\":");
    for (int i = 0; i < API_DEPTH_MAX - 1; i++)
        strcat(body, "[");
    for (int i = 0; i < API_DEPTH_MAX - 1; i++)
        strcat(body, "]");
    strcat(body, "}");
    assert_true(parse(API_COMPLETION, body, &q, &e));
    api_request_fini(&q);
    memset(body, '[', 399);
    assert_false(parse(API_COMPLETION, body, &q, &e));
    assert_non_null(strstr(e.text, "deep"));
    api_request_fini(&q);
}

/* --------------------------------------------------------------------------------------- values */

static void test_a_completion_s_defaults_are_openai_s_and_the_model_s(void **state)
{
    struct api_request q;
    struct api_error e = { 0 };

    (void)state;
    assert_true(parse(API_COMPLETION, "{\"prompt\":\"h\\u00e9\\u0000\"}", &q, &e));
    assert_int_equal(q.prompts[0].text_size, 4);
    assert_memory_equal(q.prompts[0].text, "h\xc3\xa9", 4);
    assert_int_equal(q.max_tokens, 16);
    assert_int_equal(q.min_tokens, 0);
    assert_true(q.sampling.temperature == 0.5f && q.sampling.top_p == 0.75f);
    assert_int_equal(q.sampling.top_k, 40);
    assert_false(q.has_seed || q.stream || q.with_logprobs || q.ignore_eos || q.bare ||
                 q.return_token_ids || q.keep_special || q.include_usage);
    api_request_fini(&q);
}

static void test_every_field_is_read(void **state)
{
    struct api_request q;
    struct api_error e = { 0 };

    (void)state;
    assert_true(parse(API_COMPLETION,
                      "{\"model\":\"m\",\"prompt\":[[3,99,0]],\"max_tokens\":7,\"min_tokens\":7,"
                      "\"temperature\":0,\"top_p\":0.1,\"top_k\":-1,\"seed\":-1,\"logprobs\":0,"
                      "\"ignore_eos\":true,\"stream\":true,\"stream_options\":{\"include_usage\":"
                      "true},\"return_token_ids\":true,\"skip_special_tokens\":false,"
                      "\"add_special_tokens\":false}",
                      &q, &e));
    assert_int_equal(q.prompts[0].id_count, 3);
    assert_int_equal(q.prompts[0].ids[1], 99);
    assert_int_equal(q.max_tokens, 7);
    assert_int_equal(q.min_tokens, 7);
    assert_true(q.sampling.temperature == 0 && q.sampling.top_p == 0.1f && q.sampling.top_k == 0);
    assert_true(q.has_seed && q.sampling.seed == UINT64_MAX);
    assert_true(q.with_logprobs && q.sampling.logprobs == 0);
    assert_true(q.ignore_eos && q.stream && q.include_usage && q.return_token_ids &&
                q.keep_special && q.bare);
    api_request_fini(&q);
}

static void test_a_chat_s_contents_are_strings_or_joined_parts(void **state)
{
    struct api_request q;
    struct api_error e = { 0 };

    (void)state;
    assert_true(parse(API_CHAT,
                      "{\"model\":\"m\",\"messages\":[{\"role\":\"system\",\"content\":\"s\"},"
                      "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
                      "{\"type\":\"text\",\"text\":\"b\"}]},{\"role\":\"user\",\"content\":[]}],"
                      "\"max_tokens\":5,\"max_completion_tokens\":9,\"logprobs\":true,"
                      "\"top_logprobs\":3}",
                      &q, &e));
    assert_int_equal(q.message_count, 3);
    assert_string_equal(q.messages[0].role, "system");
    assert_string_equal(q.messages[0].content, "s");
    assert_string_equal(q.messages[1].content, "ab");
    assert_string_equal(q.messages[2].content, "");
    assert_int_equal(q.max_tokens, 9); /* the newer name wins */
    assert_true(q.with_logprobs && q.sampling.logprobs == 3);
    api_request_settle(&q);
    assert_null(q.messages);
    api_request_fini(&q);
    api_request_fini(&q);
    assert_true(parse(API_CHAT, M "\"logprobs\":false}", &q, &e));
    assert_int_equal(q.max_tokens, 0); /* to the context's end */
    assert_false(q.with_logprobs);
    api_request_fini(&q);
}

static void test_several_prompts_are_read_in_order(void **state)
{
    struct api_request q;
    struct api_error e = { 0 };

    (void)state;
    assert_true(parse(API_COMPLETION, "{\"prompt\":[\"a\",\"\",\"bc\"]}", &q, &e));
    assert_int_equal(q.prompt_count, 3);
    assert_int_equal(q.prompts[0].text_size + q.prompts[1].text_size, 1);
    assert_string_equal(q.prompts[2].text, "bc");
    api_request_fini(&q);
    assert_true(parse(API_COMPLETION, "{\"prompt\":[[1,2],[3]]}", &q, &e));
    assert_int_equal(q.prompt_count, 2);
    assert_int_equal(q.prompts[0].ids[1], 2);
    assert_int_equal(q.prompts[1].ids[0], 3);
    api_request_fini(&q);
}

static void test_prompts_are_bounded(void **state)
{
    struct buf body = BUF_INIT(os_alloc());
    struct api_request q;
    struct api_error e = { 0 };

    (void)state;
    buf_add_text(&body, "{\"prompt\":[[1]");
    for (int i = 1; i < API_PROMPTS_MAX; i++)
        buf_add_text(&body, ",[1]");
    const size_t most = body.size;
    buf_add_text(&body, "]}");
    assert_true(parse(API_COMPLETION, body.data, &q, &e));
    assert_int_equal(q.prompt_count, API_PROMPTS_MAX);
    api_request_fini(&q);
    buf_truncate(&body, most);
    buf_add_text(&body, ",[1]]}");
    assert_false(parse(API_COMPLETION, body.data, &q, &e));
    assert_string_equal(e.param, "prompt");
    assert_string_equal(e.code, "out_of_range");
    api_request_fini(&q);
    buf_fini(&body);
}

static void test_stops_and_salt_are_kept_when_the_document_is_gone(void **state)
{
    struct api_request q;
    struct api_error e = { 0 };

    (void)state;
    assert_true(parse(API_CHAT,
                      M "\"stop\":[\"one\",\"a\\u0000b\"],\"stop_token_ids\":[5,99],\"cache_salt\":"
                        "\"me\",\"include_stop_str_in_output\":true,\"user\":\"u\",\"stream\":true,"
                        "\"stream_options\":{\"continuous_usage_stats\":true}}",
                      &q, &e));
    api_request_settle(&q);
    assert_int_equal(q.stops.count, 2);
    assert_int_equal(q.stops.items[0].size, 3);
    assert_memory_equal(q.stops.items[0].text, "one", 3);
    assert_memory_equal(q.stops.items[1].text, "a\0b", 3);
    assert_int_equal(q.stop_token_count, 2);
    assert_int_equal(q.stop_tokens[1], 99);
    assert_int_equal(q.salt_size, 2);
    assert_memory_equal(q.salt, "me", 2);
    assert_true(q.show_stop);
    assert_false(q.continuous_usage); /* a part of include_usage */
    api_request_fini(&q);
    assert_true(parse(API_COMPLETION, P "\"stop\":\"one\"}", &q, &e));
    assert_int_equal(q.stops.count, 1);
    assert_int_equal(q.prompts[0].text_size, 1);
    api_request_fini(&q);
}

static void test_long_texts_are_refused(void **state)
{
    static const char *const fields[] = { "stop", "cache_salt" };

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct buf body = BUF_INIT(os_alloc());
        struct api_request q;
        struct api_error e = { 0 };
        buf_addf(&body, "{\"prompt\":\"x\",\"%s\":\"", fields[i]);
        for (int k = 0; k < API_STOP_BYTES_MAX + 1; k++)
            buf_add_byte(&body, 'a');
        buf_add_text(&body, "\"}");
        assert_false(parse(API_COMPLETION, body.data, &q, &e));
        assert_string_equal(e.param, fields[i]);
        assert_string_equal(e.code, "out_of_range");
        api_request_fini(&q);
        buf_fini(&body);
    }
}

static void sweep(enum api_kind kind, const char *body, long allocations)
{
    for (long k = 0;; k++) {
        struct faulty f;
        struct api_request q;
        struct api_error e = { 0 };
        faulty_init(&f, k);
        const bool done = api_read(kind, body, strlen(body), &defaults, &f.alloc, &q, &e);
        assert_true(done || e.status == 503);
        api_request_fini(&q);
        assert_int_equal(f.held, 0);
        if (done) {
            assert_int_equal(k, allocations);
            return;
        }
    }
}

static void test_every_failed_allocation_leaves_nothing_behind(void **state)
{
    (void)state;
    sweep(API_CHAT,
          "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\","
          "\"text\":\"a\"}]}],\"stop\":\"x\"}",
          5);
    sweep(
        API_COMPLETION,
        "{\"prompt\":[[1],[2]],\"stop\":[\"a\",\"b\"],\"stop_token_ids\":[1],\"cache_salt\":\"s\"}",
        7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_mistake_has_its_status_field_and_code),
        cmocka_unit_test(test_what_asks_for_nothing_passes),
        cmocka_unit_test(test_depth_is_bounded_and_brackets_in_strings_do_not_count),
        cmocka_unit_test(test_a_completion_s_defaults_are_openai_s_and_the_model_s),
        cmocka_unit_test(test_every_field_is_read),
        cmocka_unit_test(test_a_chat_s_contents_are_strings_or_joined_parts),
        cmocka_unit_test(test_several_prompts_are_read_in_order),
        cmocka_unit_test(test_prompts_are_bounded),
        cmocka_unit_test(test_stops_and_salt_are_kept_when_the_document_is_gone),
        cmocka_unit_test(test_long_texts_are_refused),
        cmocka_unit_test(test_every_failed_allocation_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
