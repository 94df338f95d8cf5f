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

static struct api_answer_options options(enum api_kind kind)
{
    return (struct api_answer_options){ .alloc = os_alloc(), .model = model, .kind = kind };
}

static struct api_head head_of(enum api_kind kind, bool stream)
{
    struct api_head head;

    assert_int_equal(api_head_init(&head, os_alloc(), kind, stream, "x-1", "m\"1", 7), MC_OK);
    return head;
}

static void write_whole(struct api_answer *a, const struct api_answer_usage *usage, struct buf *out)
{
    const struct api_answer *const answers[] = { a };
    struct api_head head = head_of(a->o.kind, false);

    api_answer_write_whole(&head, answers, 1, usage, out);
    api_head_fini(&head);
}

static void add(struct api_answer *a, const char *text, float logprob)
{
    const struct wire_sample sample = { .token = id_of(text), .logprob = logprob };

    assert_int_equal(api_answer_add(a, &sample, false), MC_OK);
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
    const struct api_answer_options o = options(API_COMPLETION);
    const struct api_answer_usage usage = { 5, 2, 16 };
    struct buf out = BUF_INIT(os_alloc());
    struct api_answer a;

    (void)state;
    assert_int_equal(api_answer_init(&a, &o), MC_OK);
    add(&a, "a", 0);
    add(&a, "\"", 0);
    assert_int_equal(api_answer_finish(&a, false), MC_OK);
    write_whole(&a, &usage, &out);
    assert_out(
        &out,
        "{\"id\":\"x-1\",\"object\":\"text_completion\",\"created\":7,\"model\":\"m\\\"1\","
        "\"choices\":[{\"index\":0,\"text\":\"a\\\"\",\"logprobs\":null,\"finish_reason\":"
        "\"length\",\"stop_reason\":null}],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2,"
        "\"total_tokens\":7,\"prompt_tokens_details\":{\"cached_tokens\":16}}}\n");
    api_answer_fini(&a);
}

static void test_a_stream_of_text_is_framed_exactly(void **state)
{
    struct api_answer_options o = options(API_COMPLETION);
    const struct api_answer_usage usage = { 5, 2, 0 };
    struct api_head head = head_of(API_COMPLETION, true);
    struct buf out = BUF_INIT(os_alloc());
    struct api_answer a;

    (void)state;
    assert_int_equal(api_answer_init(&a, &o), MC_OK);
    assert_false(api_answer_has_news(&a));
    add(&a, "a", 0);
    assert_true(api_answer_has_news(&a));
    api_answer_write_chunk(&head, &a, &usage, &out);
    assert_false(api_answer_has_news(&a));
    assert_out(&out, "data: {\"id\":\"x-1\",\"object\":\"text_completion\",\"created\":7,\"model\":"
                     "\"m\\\"1\",\"choices\":[{\"index\":0,\"text\":\"a\",\"logprobs\":null,"
                     "\"finish_reason\":null}]}\n\n");
    add(&a, "b", 0);
    assert_int_equal(api_answer_finish(&a, true), MC_OK);
    api_answer_write_chunk(&head, &a, &usage, &out);
    api_answer_write_done(&head, &usage, &out);
    assert_out(&out, "data: {\"id\":\"x-1\",\"object\":\"text_completion\",\"created\":7,\"model\":"
                     "\"m\\\"1\",\"choices\":[{\"index\":0,\"text\":\"b\",\"logprobs\":null,"
                     "\"finish_reason\":\"stop\",\"stop_reason\":null}]}\n\ndata: [DONE]\n\n");
    api_answer_fini(&a);
    api_head_fini(&head);
}

static void test_a_streamed_chat_begins_with_the_role_and_ends_with_usage(void **state)
{
    struct api_answer_options o = options(API_CHAT);
    const struct api_answer_usage usage = { 5, 1, 0 };
    struct api_head head = head_of(API_CHAT, true);
    struct buf out = BUF_INIT(os_alloc());
    struct api_answer a;

    (void)state;
    head.with_usage = true;
    assert_int_equal(api_answer_init(&a, &o), MC_OK);
    add(&a, "a", 0);
    api_answer_write_chunk(&head, &a, &usage, &out);
    assert_out(&out,
               "data: {\"id\":\"x-1\",\"object\":\"chat.completion.chunk\",\"created\":7,\"model\":"
               "\"m\\\"1\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":"
               "\"\"},\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}\n\n"
               "data: {\"id\":\"x-1\",\"object\":\"chat.completion.chunk\",\"created\":7,\"model\":"
               "\"m\\\"1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"logprobs\":"
               "null,\"finish_reason\":null}],\"usage\":null}\n\n");
    assert_int_equal(api_answer_finish(&a, true), MC_OK);
    api_answer_write_chunk(&head, &a, &usage, &out);
    api_answer_write_done(&head, &usage, &out);
    assert_out(&out,
               "data: {\"id\":\"x-1\",\"object\":\"chat.completion.chunk\",\"created\":7,\"model\":"
               "\"m\\\"1\",\"choices\":[{\"index\":0,\"delta\":{},\"logprobs\":null,"
               "\"finish_reason\":\"stop\",\"stop_reason\":null}],\"usage\":null}\n\n"
               "data: {\"id\":\"x-1\",\"object\":\"chat.completion.chunk\",\"created\":7,\"model\":"
               "\"m\\\"1\",\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":1,"
               "\"total_tokens\":6,\"prompt_tokens_details\":{\"cached_tokens\":0}}}\n\n"
               "data: [DONE]\n\n");
    api_answer_fini(&a);
    api_head_fini(&head);
}

static void test_logprobs_of_a_text_are_parallel_lists_and_floats_read_back(void **state)
{
    struct api_answer_options o = options(API_COMPLETION);
    const struct wire_token_logprob top[] = { { id_of("a"), -0.1f }, { id_of("\n"), -INFINITY } };
    const struct api_answer_usage usage = { 1, 2, 0 };
    struct wire_sample sample = { .token = id_of("a"),
                                  .logprob = -0.1f,
                                  .top = { .items = top, .count = 2 } };
    struct buf out = BUF_INIT(os_alloc());
    char expected[600];
    struct api_answer a;

    (void)state;
    o.with_logprobs = o.with_ids = true;
    assert_int_equal(api_answer_init(&a, &o), MC_OK);
    assert_int_equal(api_answer_add(&a, &sample, false), MC_OK);
    sample = (struct wire_sample){ .token = id_of("b"), .logprob = -1 };
    assert_int_equal(api_answer_add(&a, &sample, false), MC_OK);
    assert_int_equal(api_answer_finish(&a, false), MC_OK);
    write_whole(&a, &usage, &out);
    snprintf(expected, sizeof(expected),
             "{\"id\":\"x-1\",\"object\":\"text_completion\",\"created\":7,\"model\":\"m\\\"1\","
             "\"choices\":[{\"index\":0,\"text\":\"ab\",\"logprobs\":{\"tokens\":[\"a\",\"b\"],"
             "\"token_logprobs\":[-0.100000001,-1],\"top_logprobs\":[{\"a\":-0.100000001,\"\\n\":"
             "-9999},{\"b\":-1}],\"text_offset\":[0,1]},\"finish_reason\":\"length\","
             "\"stop_reason\":null,\"tokens\":[%u,%u]}],"
             "\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2,\"total_tokens\":3,"
             "\"prompt_tokens_details\":{\"cached_tokens\":0}}}\n",
             id_of("a"), id_of("b"));
    assert_out(&out, expected);
    assert_true(strtof("-0.100000001", NULL) == -0.1f);
    api_answer_fini(&a);
}

/* OpenAI: "there may be up to logprobs+1 elements"; vLLM's clients read the chosen token's from there. */
static void test_the_chosen_token_is_among_its_alternatives(void **state)
{
    struct api_answer_options o = options(API_COMPLETION);
    const struct wire_token_logprob top[] = { { id_of("a"), -0.5f } };
    const struct wire_sample sample = { .token = id_of("b"),
                                        .logprob = -2,
                                        .top = { .items = top, .count = 1 } };
    const struct api_answer_usage usage = { 1, 1, 0 };
    struct buf out = BUF_INIT(os_alloc());
    struct api_answer a;

    (void)state;
    o.with_logprobs = true;
    assert_int_equal(api_answer_init(&a, &o), MC_OK);
    assert_int_equal(api_answer_add(&a, &sample, false), MC_OK);
    assert_int_equal(api_answer_finish(&a, false), MC_OK);
    write_whole(&a, &usage, &out);
    assert_non_null(strstr(out.data, "\"top_logprobs\":[{\"a\":-0.5,\"b\":-2}]"));
    buf_fini(&out);
    api_answer_fini(&a);
}

static void test_logprobs_of_a_chat_have_bytes_and_each_chunk_its_own(void **state)
{
    struct api_answer_options o = options(API_CHAT);
    const struct wire_token_logprob top[] = { { id_of("a"), -0.5f } };
    const struct wire_sample sample = { .token = id_of("a"),
                                        .logprob = -0.5f,
                                        .top = { .items = top, .count = 1 } };
    const struct api_answer_usage usage = { 1, 0, 0 };
    struct api_head head = head_of(API_CHAT, true);
    struct buf out = BUF_INIT(os_alloc());
    struct api_answer a;

    (void)state;
    o.with_logprobs = true;
    assert_int_equal(api_answer_init(&a, &o), MC_OK);
    a.begun = true; /* without the role's chunk */
    for (int i = 0; i < 2; i++) {
        assert_int_equal(api_answer_add(&a, &sample, false), MC_OK);
        api_answer_write_chunk(&head, &a, &usage, &out);
        assert_out(&out,
                   "data: {\"id\":\"x-1\",\"object\":\"chat.completion.chunk\",\"created\":7,"
                   "\"model\":\"m\\\"1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},"
                   "\"logprobs\":{\"content\":[{\"token\":\"a\",\"logprob\":-0.5,\"bytes\":[97],"
                   "\"top_logprobs\":[{\"token\":\"a\",\"logprob\":-0.5,\"bytes\":[97]}]}]},"
                   "\"finish_reason\":null}]}\n\n");
    }
    api_answer_fini(&a);
    api_head_fini(&head);
}

static void test_a_character_of_two_tokens_comes_out_with_the_second(void **state)
{
    struct api_answer_options o = options(API_COMPLETION);
    uint32_t *ids;
    size_t count;
    struct api_answer a;

    (void)state;
    assert_int_equal(mc_model_encode(model, "\xc3\xa9", 2, MC_ENCODE_BARE, &ids, &count, NULL),
                     MC_OK);
    assert_int_equal(count, 2);
    assert_int_equal(api_answer_init(&a, &o), MC_OK);
    assert_int_equal(api_answer_add(&a, &(struct wire_sample){ .token = ids[0] }, false), MC_OK);
    assert_false(api_answer_has_news(&a));
    assert_int_equal(api_answer_add(&a, &(struct wire_sample){ .token = ids[1] }, false), MC_OK);
    assert_true(api_answer_has_news(&a));
    assert_string_equal(a.text.data, "\xc3\xa9");
    assert_int_equal(a.characters, 1);
    assert_int_equal(api_answer_add(&a, &(struct wire_sample){ .token = ids[0] }, false), MC_OK);
    assert_int_equal(api_answer_finish(&a, false), MC_OK); /* cut off in the middle of one */
    assert_string_equal(a.text.data, "\xc3\xa9\xef\xbf\xbd");
    assert_int_equal(api_answer_restart(&a), MC_OK);
    assert_int_equal(a.samples + a.pending + a.text.size + a.characters, 0);
    mc_tokens_free(model, ids);
    api_answer_fini(&a);
    api_answer_fini(&a);
}

static void test_an_end_of_text_counts_and_is_not_shown(void **state)
{
    struct api_answer_options o = options(API_COMPLETION);
    struct api_answer a;

    (void)state;
    o.keep_special = true;
    assert_int_equal(api_answer_init(&a, &o), MC_OK);
    add(&a, "a", 0);
    assert_int_equal(api_answer_add(&a, &(struct wire_sample){ .token = 263 }, true), MC_OK);
    assert_string_equal(a.text.data, "a");
    assert_int_equal(a.samples, 2);
    assert_int_equal(api_answer_add(&a, &(struct wire_sample){ .token = UINT32_MAX }, false),
                     MC_E_RANGE);
    api_answer_fini(&a);
}

static void test_errors_have_openai_s_shape(void **state)
{
    struct buf out = BUF_INIT(os_alloc());
    struct api_error e;

    (void)state;
    assert_false(api_fail(&e, 400, "invalid_request_error", "bad", "n", "n: \"%d\"", 2));
    api_answer_write_error(&e, false, &out);
    assert_out(&out, "{\"error\":{\"message\":\"n: \\\"2\\\"\",\"type\":\"invalid_request_error\","
                     "\"param\":\"n\",\"code\":\"bad\"}}\n");
    api_fail(&e, 500, "server_error", NULL, NULL, "no");
    api_answer_write_error(&e, true, &out);
    assert_out(&out, "data: {\"error\":{\"message\":\"no\",\"type\":\"server_error\",\"param\":"
                     "null,\"code\":null}}\n\n");
    buf_fini(&out);
}

/* ----------------------------------------------------------------------------------------- stops */

static void add_stop(struct api_stops *stops, const char *text)
{
    assert_true(api_stops_add(stops, text, strlen(text), os_alloc()));
}

static void assert_text(const struct api_answer *a, const char *expected)
{
    assert_int_equal(a->text.size, strlen(expected));
    assert_memory_equal(a->text.size ? a->text.data : "", expected, a->text.size);
}

static void test_a_stop_text_is_found_across_tokens_and_not_shown(void **state)
{
    struct api_answer_options o = options(API_COMPLETION);
    struct api_stops stops = { .count = 0 };
    struct api_answer a;

    (void)state;
    add_stop(&stops, "xyz");
    add_stop(&stops, "bcd");
    o.stops = &stops;
    assert_int_equal(api_answer_init(&a, &o), MC_OK);
    add(&a, "a", 0);
    add(&a, "b", 0);
    assert_text(&a, "a"); /* "b" may become a stop text */
    add(&a, "c", 0);
    assert_text(&a, "a");
    add(&a, "b", 0); /* it did not */
    assert_text(&a, "abc");
    add(&a, "c", 0);
    assert_false(a.stopped);
    add(&a, "d", 0);
    assert_true(a.stopped);
    assert_ptr_equal(a.stop, &stops.items[1]);
    add(&a, "e", 0); /* what comes later is not taken */
    assert_int_equal(api_answer_finish(&a, false), MC_OK);
    assert_text(&a, "abc");
    assert_int_equal(a.samples, 6);
    assert_string_equal(a.finish, "stop");
    api_answer_fini(&a);
    api_stops_fini(&stops, os_alloc());
}

static void test_what_was_held_back_comes_out_at_the_end(void **state)
{
    struct api_answer_options o = options(API_COMPLETION);
    struct api_stops stops = { .count = 0 };
    struct api_answer a;

    (void)state;
    add_stop(&stops, "abcd");
    o.stops = &stops;
    assert_int_equal(api_answer_init(&a, &o), MC_OK);
    add(&a, "a", 0);
    add(&a, "b", 0);
    assert_false(api_answer_has_news(&a));
    assert_int_equal(api_answer_finish(&a, false), MC_OK);
    assert_text(&a, "ab");
    assert_string_equal(a.finish, "length");
    api_answer_fini(&a);
    assert_int_equal(api_answer_init(&a, &o), MC_OK);
    add(&a, "a", 0);
    assert_int_equal(api_answer_restart(&a),
                     MC_OK); /* a new attempt knows nothing of the old text */
    add(&a, "b", 0);
    add(&a, "c", 0);
    add(&a, "d", 0);
    assert_false(a.stopped);
    assert_text(&a, "bcd");
    api_answer_fini(&a);
    api_stops_fini(&stops, os_alloc());
}

static void test_a_stop_text_before_min_tokens_does_not_count(void **state)
{
    struct api_answer_options o = options(API_COMPLETION);
    struct api_stops stops = { .count = 0 };
    struct api_answer a;

    (void)state;
    add_stop(&stops, "aa");
    o.stops = &stops;
    o.min_tokens = 3;
    o.show_stop = true;
    assert_int_equal(api_answer_init(&a, &o), MC_OK);
    add(&a, "a", 0);
    add(&a, "a", 0);
    assert_false(a.stopped);
    add(&a, "a", 0);
    assert_true(a.stopped);
    assert_int_equal(api_answer_finish(&a, false), MC_OK);
    assert_text(&a, "aaa"); /* with the stop text, as asked for */
    api_answer_fini(&a);
    api_stops_fini(&stops, os_alloc());
}

static void test_ids_logprobs_and_text_end_with_the_same_sample(void **state)
{
    struct api_answer_options o = options(API_COMPLETION);
    const struct api_answer_usage usage = { 1, 2, 0 };
    struct api_stops stops = { .count = 0 };
    struct buf out = BUF_INIT(os_alloc());
    char expected[600];
    struct api_answer a;

    (void)state;
    add_stop(&stops, "b");
    o.stops = &stops;
    o.with_logprobs = o.with_ids = true;
    assert_int_equal(api_answer_init(&a, &o), MC_OK);
    add(&a, "a", -1);
    add(&a, "b", -2);
    add(&a, "c", -3);
    assert_int_equal(api_answer_finish(&a, false), MC_OK);
    write_whole(&a, &usage, &out);
    snprintf(expected, sizeof(expected),
             "{\"id\":\"x-1\",\"object\":\"text_completion\",\"created\":7,\"model\":\"m\\\"1\","
             "\"choices\":[{\"index\":0,\"text\":\"a\",\"logprobs\":{\"tokens\":[\"a\",\"b\"],"
             "\"token_logprobs\":[-1,-2],\"top_logprobs\":[{\"a\":-1},{\"b\":-2}],\"text_offset\":["
             "0,1]},"
             "\"finish_reason\":\"stop\",\"stop_reason\":\"b\",\"tokens\":[%u,%u]}],\"usage\":{"
             "\"prompt_tokens\":1,\"completion_tokens\":2,\"total_tokens\":3,"
             "\"prompt_tokens_details\":{\"cached_tokens\":0}}}\n",
             id_of("a"), id_of("b"));
    assert_out(&out, expected);
    api_answer_fini(&a);
    api_stops_fini(&stops, os_alloc());
}

static void test_a_stop_token_s_text_is_shown_only_if_asked_for(void **state)
{
    struct api_answer_options o = options(API_COMPLETION);
    const uint32_t ids[] = { id_of("x"), id_of("b") };
    const struct wire_sample last = { .token = ids[1] };
    struct api_answer a;

    (void)state;
    o.stop_tokens = ids;
    o.stop_token_count = 2;
    for (int shown = 0; shown < 2; shown++) {
        o.show_stop = shown;
        assert_int_equal(api_answer_init(&a, &o), MC_OK);
        add(&a, "x", 0); /* whoever makes samples stops at them: here it did not */
        assert_false(a.stopped);
        assert_int_equal(api_answer_add(&a, &last, true), MC_OK);
        assert_int_equal(api_answer_finish(&a, true), MC_OK);
        assert_text(&a, shown ? "xb" : "x");
        assert_ptr_equal(a.stop_token, &o.stop_tokens[1]);
        assert_string_equal(a.finish, "stop");
        api_answer_fini(&a);
    }
}

static void test_stop_tokens_are_watched_for_where_ends_of_text_are_ignored(void **state)
{
    struct api_answer_options o = options(API_COMPLETION);
    const uint32_t ids[] = { id_of("b") };
    struct api_answer a;

    (void)state;
    o.stop_tokens = ids;
    o.stop_token_count = 1;
    o.watch_tokens = true;
    o.min_tokens = 2;
    assert_int_equal(api_answer_init(&a, &o), MC_OK);
    add(&a, "b", 0); /* before min_tokens */
    assert_false(a.stopped);
    add(&a, "b", 0);
    assert_true(a.stopped);
    add(&a, "c", 0);
    assert_int_equal(api_answer_finish(&a, false), MC_OK);
    assert_text(&a, "b");
    assert_int_equal(a.samples, 2);
    assert_string_equal(a.finish, "stop");
    api_answer_fini(&a);
}

static void test_choices_are_in_one_object_and_each_chunk_names_its_own(void **state)
{
    struct api_answer_options o = options(API_COMPLETION);
    const struct api_answer_usage usage = { 5, 2, 0 };
    struct api_head head = head_of(API_COMPLETION, true);
    struct buf out = BUF_INIT(os_alloc());
    struct api_answer a, b;
    const struct api_answer *const both[] = { &a, &b };

    (void)state;
    head.with_usage = head.continuous_usage = true;
    assert_int_equal(api_answer_init(&a, &o), MC_OK);
    o.index = 1;
    assert_int_equal(api_answer_init(&b, &o), MC_OK);
    add(&a, "a", 0);
    add(&b, "b", 0);
    assert_int_equal(api_answer_finish(&a, false), MC_OK);
    assert_int_equal(api_answer_finish(&b, true), MC_OK);
    api_answer_write_whole(&head, both, 2, &usage, &out);
    assert_out(&out,
               "{\"id\":\"x-1\",\"object\":\"text_completion\",\"created\":7,\"model\":"
               "\"m\\\"1\",\"choices\":[{\"index\":0,\"text\":\"a\",\"logprobs\":null,"
               "\"finish_reason\":\"length\",\"stop_reason\":null},{\"index\":1,\"text\":\"b\","
               "\"logprobs\":null,\"finish_reason\":\"stop\",\"stop_reason\":null}],\"usage\":{"
               "\"prompt_tokens\":5,\"completion_tokens\":2,\"total_tokens\":7,"
               "\"prompt_tokens_details\":{\"cached_tokens\":0}}}\n");
    api_answer_write_chunk(&head, &b, &usage, &out);
    assert_out(&out, "data: {\"id\":\"x-1\",\"object\":\"text_completion\",\"created\":7,\"model\":"
                     "\"m\\\"1\",\"choices\":[{\"index\":1,\"text\":\"b\",\"logprobs\":null,"
                     "\"finish_reason\":\"stop\",\"stop_reason\":null}],\"usage\":{"
                     "\"prompt_tokens\":5,\"completion_tokens\":2,\"total_tokens\":7,"
                     "\"prompt_tokens_details\":{\"cached_tokens\":0}}}\n\n");
    api_answer_fini(&a);
    api_answer_fini(&b);
    api_head_fini(&head);
}

/* ---------------------------------------------------------------------------------------- memory */

/* A whole answer with a stop text that is held back; false: out of memory. */
static bool make(struct faulty *f, const struct api_stops *stops)
{
    struct api_answer_options o = options(API_COMPLETION);
    const struct wire_sample sample = { .token = id_of("a"), .logprob = -0.5f };
    const struct api_answer_usage usage = { 1, 1, 0 };
    struct buf out = BUF_INIT(&f->alloc);
    struct api_head head;
    struct api_answer a;
    const struct api_answer *const answers[] = { &a };

    o.alloc = &f->alloc;
    o.with_logprobs = o.with_ids = true;
    o.stops = stops;
    mc_status status = api_answer_init(&a, &o);
    if (status == MC_OK)
        status = api_answer_add(&a, &sample, false);
    if (status == MC_OK)
        status = api_answer_finish(&a, false);
    const mc_status made = api_head_init(&head, &f->alloc, API_COMPLETION, false, "x", "m", 7);
    if (status == MC_OK && made == MC_OK)
        api_answer_write_whole(&head, answers, 1, &usage, &out);
    const bool done = status == MC_OK && made == MC_OK && !out.failed;
    buf_fini(&out);
    api_answer_fini(&a);
    api_head_fini(&head);
    return done;
}

static void test_every_failed_allocation_is_seen_and_leaves_nothing(void **state)
{
    struct api_stops stops = { .count = 0 };

    (void)state;
    add_stop(&stops, "ab");
    for (long k = 0;; k++) {
        struct faulty f;
        faulty_init(&f, k);
        const bool done = make(&f, &stops);
        assert_true(done == (f.calls <= k));
        assert_int_equal(f.held, 0);
        if (done) {
            assert_true(k > 7);
            break;
        }
    }
    api_stops_fini(&stops, os_alloc());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_whole_completion_has_openai_s_shape),
        cmocka_unit_test(test_a_stream_of_text_is_framed_exactly),
        cmocka_unit_test(test_a_streamed_chat_begins_with_the_role_and_ends_with_usage),
        cmocka_unit_test(test_logprobs_of_a_text_are_parallel_lists_and_floats_read_back),
        cmocka_unit_test(test_the_chosen_token_is_among_its_alternatives),
        cmocka_unit_test(test_logprobs_of_a_chat_have_bytes_and_each_chunk_its_own),
        cmocka_unit_test(test_a_character_of_two_tokens_comes_out_with_the_second),
        cmocka_unit_test(test_an_end_of_text_counts_and_is_not_shown),
        cmocka_unit_test(test_errors_have_openai_s_shape),
        cmocka_unit_test(test_a_stop_text_is_found_across_tokens_and_not_shown),
        cmocka_unit_test(test_what_was_held_back_comes_out_at_the_end),
        cmocka_unit_test(test_a_stop_text_before_min_tokens_does_not_count),
        cmocka_unit_test(test_ids_logprobs_and_text_end_with_the_same_sample),
        cmocka_unit_test(test_a_stop_token_s_text_is_shown_only_if_asked_for),
        cmocka_unit_test(test_stop_tokens_are_watched_for_where_ends_of_text_are_ignored),
        cmocka_unit_test(test_choices_are_in_one_object_and_each_chunk_names_its_own),
        cmocka_unit_test(test_every_failed_allocation_is_seen_and_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
