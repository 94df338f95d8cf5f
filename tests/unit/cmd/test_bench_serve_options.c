/* test_bench_serve_options.c - what goes together, and what is refused by name. */
#include "test.h"

#include "cmd/bench_serve_options.h"

enum { WORDS_MAX = 12 };

/* Words until the first NULL, behind "serve". */
static mc_status read_words(const char *const *words, struct bench_serve_request *r,
                            struct mc_error *error, const struct mc_alloc *alloc)
{
    static char *const environment[] = { NULL };
    char *argv[WORDS_MAX + 1] = { "serve" };
    int argc = 1;

    for (; argc <= WORDS_MAX && words[argc - 1]; argc++)
        argv[argc] = (char *)(uintptr_t)words[argc - 1];
    return bench_serve_options_read(r, argc, argv, environment, alloc, error);
}

static void test_the_load_is_told_by_its_flags(void **state)
{
    (void)state;
    static const struct {
        const char *words[WORDS_MAX];
        enum bench_arrival arrival;
        uint64_t duration_s;
    } rows[] = {
        { { "--trace", "t" }, BENCH_BY_TRACE, 0 },
        { { "--trace", "t", "--rate", "3" }, BENCH_BY_RATE, 0 },
        { { "--trace", "t", "-c", "3" }, BENCH_CLOSED, 0 },
        { { "-r", "3" }, BENCH_BY_RATE, 30 },
        { { "-c", "3" }, BENCH_CLOSED, 30 },
        { { "-c", "3", "-n", "10" }, BENCH_CLOSED, 0 },
        { { "-c", "3", "-d", "2s" }, BENCH_CLOSED, 2 },
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct bench_serve_request r;
        struct mc_error error = { 0 };
        struct faulty f;
        faulty_init(&f, -1);
        if (read_words(rows[i].words, &r, &error, &f.alloc) != MC_OK)
            fail_msg("%s", error.text);
        assert_int_equal(r.arrival, rows[i].arrival);
        assert_true(r.options.duration == rows[i].duration_s * UINT64_C(1000000000));
        bench_serve_options_fini(&r);
        assert_int_equal(f.held, 0);
    }
}

static void test_what_contradicts_itself_is_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *words[WORDS_MAX], *text;
    } rows[] = {
        { { NULL }, "what is to be sent? Give --trace FILE, --rate R or --concurrency N" },
        { { "-c", "1", "-r", "1" }, "--concurrency and --rate: " },
        { { "-c", "1", "--speed", "2" }, "--speed: " },
        { { "-t", "t", "--input-tokens", "2" }, "--input-tokens: " },
        { { "-t", "t", "--shared-prefix", "2" }, "--shared-prefix: " },
        { { "-c", "1", "--input-tokens", "2", "--shared-prefix", "3" },
          "--shared-prefix: more than" },
        { { "-c", "1", "--context", "1" }, "--context: " },
        { { "-c", "1", "--send-slo" }, "--send-slo: which?" },
        { { "-c", "1", "--retry-share", "0.5" }, "--retry-share: needs --retry" },
        { { "-c", "1", "-e", "chat", "--prompt", "tokens" }, "--prompt tokens: chats are text" },
        { { "-c", "1", "--token-ids", "5" }, "--token-ids: \"5\"" },
        { { "-c", "1", "--token-ids", "5-5" }, "--token-ids: \"5-5\"" },
        { { "-c", "1", "--token-ids", "-5" }, "--token-ids: \"-5\"" },
        { { "-c", "1", "--token-ids", "5-9-" }, "--token-ids: \"5-9-\"" },
        { { "-c", "1", "--token-ids", "5-99999999999999999999" }, "--token-ids: " },
        { { "-c", "1", "--token-ids", "a-b" }, "--token-ids: " },
        { { "-c", "1", "--speeed", "2" }, "unknown flag --speeed" },
        { { "-c", "1", "--duration", "2" }, "--duration: " },
        { { "-c", "1", "file" }, "\"file\": only flags" },
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct bench_serve_request r;
        struct mc_error error = { 0 };
        struct faulty f;
        faulty_init(&f, -1);
        assert_int_not_equal(read_words(rows[i].words, &r, &error, &f.alloc), MC_OK);
        if (strncmp(error.text, rows[i].text, strlen(rows[i].text)) != 0)
            fail_msg("row %zu: \"%s\"", i, error.text);
        bench_serve_options_fini(&r);
        assert_int_equal(f.held, 0);
    }
}

static void test_ids_have_a_range(void **state)
{
    (void)state;
    static const char *const words[] = { "-c", "1", "--token-ids", "100-4000", NULL };
    struct bench_serve_request r;
    struct faulty f;

    faulty_init(&f, -1);
    assert_int_equal(read_words(words, &r, NULL, &f.alloc), MC_OK);
    assert_int_equal(r.token_low, 100);
    assert_int_equal(r.token_high, 4000);
    bench_serve_options_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_load_is_told_by_its_flags),
        cmocka_unit_test(test_what_contradicts_itself_is_refused_by_name),
        cmocka_unit_test(test_ids_have_a_range),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
