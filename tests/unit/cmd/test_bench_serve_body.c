/* test_bench_serve_body.c - bodies are JSON, the same for the same seed, and say what was asked for. */
#include "test.h"

#include "cmd/bench_serve_body.h"
#include "sim/scan.h"

static const struct scale_run runs[] = { { 7, 16 }, { 8, 3 } };
static const struct scaled request = {
    .input_tokens = 19, .output_tokens = 5, .runs = runs, .run_count = 2
};

static char *build(const struct bench_body *body, const struct scaled *q, struct faulty *f)
{
    struct buf out = BUF_INIT(&f->alloc);

    bench_body_add(body, q, &out);
    if (out.failed) {
        buf_fini(&out);
        return NULL;
    }
    struct scan s = scan_begin(out.data, out.size);
    scan_skip(&s);
    assert_true(scan_end(&s));
    return buf_take(&out, &(size_t){ 0 });
}

static void drop(char *text, struct faulty *f)
{
    f->alloc.free(f->alloc.context, text);
}

static void test_prompts_of_tokens_are_lists_of_ids_within_the_range(void **state)
{
    (void)state;
    const struct bench_body body = {
        .model = "a \"b\"", .ignore_eos = true, .seed = 3, .token_low = 100, .token_high = 110
    };
    struct faulty f;

    faulty_init(&f, -1);
    char *text = build(&body, &request, &f);
    const char *at = strstr(text, "\"prompt\":[");
    uint32_t count = 0;
    assert_non_null(at);
    for (at += 10; *at != ']'; count++) {
        char *end;
        const unsigned long id = strtoul(at, &end, 10);
        assert_true(id >= 100 && id < 110);
        at = *end == ',' ? end + 1 : end;
    }
    assert_int_equal(count, 19);
    assert_non_null(strstr(text, "{\"model\":\"a \\\"b\\\"\""));
    assert_non_null(strstr(text, "\"max_tokens\":5,\"ignore_eos\":true"));
    assert_non_null(strstr(text, "\"stream_options\":{\"include_usage\":true}"));
    drop(text, &f);
    assert_int_equal(f.held, 0);
}

static void test_prompts_of_text_have_a_word_for_each_token(void **state)
{
    (void)state;
    struct faulty f;

    faulty_init(&f, -1);
    for (int chat = 0; chat < 2; chat++) {
        const struct bench_body body = { .model = "m", .text = true, .chat = chat == 1, .seed = 3 };
        char *text = build(&body, &request, &f);
        const char *at = strstr(text, chat ? "\"content\":\"" : "\"prompt\":\"");
        uint32_t words = 0;
        assert_non_null(at);
        for (at = strchr(at, ':') + 2; *at != '"'; at++)
            words += *at == ' ';
        assert_int_equal(words, 19);
        assert_null(strstr(text, "ignore_eos"));
        assert_true((strstr(text, "\"messages\":[{\"role\":\"user\"") != NULL) == (chat == 1));
        drop(text, &f);
    }
}

static void test_equal_runs_are_equal_text_and_nothing_else_is(void **state)
{
    (void)state;
    struct bench_body body = { .model = "m", .seed = 3, .token_low = 100, .token_high = 10000 };
    const struct scale_run other_runs[] = { { 7, 16 }, { 9, 3 } };
    struct scaled other = request;
    struct faulty f;

    faulty_init(&f, -1);
    other.runs = other_runs;
    char *first = build(&body, &request, &f), *again = build(&body, &request, &f);
    char *second = build(&body, &other, &f);
    assert_string_equal(first, again);
    assert_string_not_equal(first, second);
    /* Sixteen ids of four or five characters are the same. */
    size_t same = 0;
    while (first[same] == second[same])
        same++;
    assert_true(same >= strlen("{\"model\":\"m\",\"prompt\":[") + 16 * 4);
    body.seed = 4;
    char *reseeded = build(&body, &request, &f);
    assert_string_not_equal(first, reseeded);
    drop(first, &f);
    drop(again, &f);
    drop(second, &f);
    drop(reseeded, &f);
    assert_int_equal(f.held, 0);
}

static void test_memory_that_is_out_is_told(void **state)
{
    (void)state;
    const struct bench_body body = { .model = "m", .token_low = 1, .token_high = 1000000 };

    for (long k = 0;; k++) {
        struct faulty f;
        faulty_init(&f, k);
        char *text = build(&body, &request, &f);
        if (text) {
            assert_true(k > 0);
            drop(text, &f);
            assert_int_equal(f.held, 0);
            return;
        }
        assert_int_equal(f.held, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prompts_of_tokens_are_lists_of_ids_within_the_range),
        cmocka_unit_test(test_prompts_of_text_have_a_word_for_each_token),
        cmocka_unit_test(test_equal_runs_are_equal_text_and_nothing_else_is),
        cmocka_unit_test(test_memory_that_is_out_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
