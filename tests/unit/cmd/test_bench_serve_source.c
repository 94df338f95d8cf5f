/* test_bench_serve_source.c - which requests come, and when. */
#include "test.h"

#include <stdio.h>

#include "cmd/bench_serve_source.h"

enum { WORDS_MAX = 12 };

/** A request read from words, and its source. */
struct made {
    struct faulty f;
    struct bench_serve_request request;
    struct bench_source source;
};

static void read_words(struct made *m, const char *const *words)
{
    static char *const environment[] = { NULL };
    char *argv[WORDS_MAX + 1] = { "serve" };
    struct mc_error error = { 0 };
    int argc = 1;

    faulty_init(&m->f, -1);
    for (; argc <= WORDS_MAX && words[argc - 1]; argc++)
        argv[argc] = (char *)(uintptr_t)words[argc - 1];
    if (bench_serve_options_read(&m->request, argc, argv, environment, &m->f.alloc, &error) !=
        MC_OK)
        fail_msg("%s", error.text);
}

static void end(struct made *m)
{
    bench_source_close(&m->source);
    bench_serve_options_fini(&m->request);
    assert_int_equal(m->f.held, 0);
}

static void open_words(struct made *m, const char *const *words, uint32_t context)
{
    struct mc_error error = { 0 };

    read_words(m, words);
    if (bench_source_open(&m->source, &m->request, context, &error) != MC_OK)
        fail_msg("%s", error.text);
}

static void test_made_prompts_share_what_they_should(void **state)
{
    (void)state;
    static const char *const words[] = {
        "-c", "1", "-n", "3", "--input-tokens", "50", "--shared-prefix", "20", "--output-tokens",
        "7",  NULL
    };
    struct made m;
    struct scaled q;
    uint64_t own[3];

    open_words(&m, words, 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(bench_source_next(&m.source, &q, NULL), MC_OK);
        assert_int_equal(q.at_ns, 0);
        assert_int_equal(q.input_tokens, 50);
        assert_int_equal(q.output_tokens, 7);
        assert_int_equal(q.run_count, 2);
        assert_int_equal(q.runs[0].tokens, 20);
        assert_int_equal(q.runs[1].tokens, 30);
        own[i] = q.runs[1].id;
    }
    assert_true(own[0] != own[1] && own[1] != own[2] && own[0] != own[2]);
    assert_int_equal(bench_source_next(&m.source, &q, NULL), MC_E_NOT_FOUND);
    end(&m);

    open_words(&m, words, 30); /* a context that they do not fit */
    assert_int_equal(bench_source_next(&m.source, &q, NULL), MC_OK);
    assert_true(q.cut);
    assert_int_equal(q.input_tokens, 23);
    assert_int_equal(q.runs[1].tokens, 3);
    end(&m);
}

static void test_a_rate_is_poisson_and_the_same_for_a_seed(void **state)
{
    (void)state;
    static const char *const words[] = { "-r", "100", "-d", "100s", NULL };
    uint64_t sum[2] = { 0 }, count[2] = { 0 }, short_gaps = 0;

    for (int i = 0; i < 2; i++) {
        struct made m;
        struct scaled q;
        uint64_t before = 0;
        open_words(&m, words, 0);
        while (bench_source_next(&m.source, &q, NULL) == MC_OK) {
            assert_true(q.at_ns >= before && q.at_ns < UINT64_C(100000000000));
            short_gaps += i == 0 && q.at_ns - before < 6931472; /* the median: ln 2 / rate */
            before = q.at_ns;
            sum[i] += q.at_ns;
            count[i]++;
        }
        end(&m);
    }
    assert_true(count[0] > 9500 && count[0] < 10500); /* 10,000 +- 5 standard deviations */
    assert_true(short_gaps > count[0] * 47 / 100 && short_gaps < count[0] * 53 / 100);
    assert_int_equal(count[0], count[1]);
    assert_true(sum[0] == sum[1]);
}

static const char lines[] =
    "{\"timestamp\": 1000, \"input_length\": 600, \"output_length\": 64, \"hash_ids\": [1, 2]}\n"
    "{\"timestamp\": 3000, \"input_length\": 512, \"output_length\": 64, \"hash_ids\": [1]}\n"
    "{\"timestamp\": 2000, \"input_length\": 512, \"output_length\": 64, \"hash_ids\": [1]}\n";

static void test_a_trace_comes_scaled_until_its_end_or_its_error(void **state)
{
    (void)state;
    char folder[64], path[100];
    struct mc_error error = { 0 };
    struct scaled q;
    struct made m;

    snprintf(path, sizeof(path), "%s/t.jsonl", test_directory(folder));
    test_write(path, lines, sizeof(lines) - 1);
    const char *const by_time[] = { "-t", path, "--speed", "2", NULL };
    open_words(&m, by_time, 0);
    assert_int_equal(bench_source_next(&m.source, &q, &error), MC_OK);
    assert_int_equal(q.input_tokens, 18);
    assert_int_equal(q.output_tokens, 2);
    assert_int_equal(bench_source_next(&m.source, &q, &error), MC_OK);
    assert_int_equal(q.at_ns, 1000000000);
    assert_int_equal(bench_source_next(&m.source, &q, &error), MC_E_FORMAT);
    assert_non_null(strstr(error.text, "t.jsonl:3: timestamp: "));
    end(&m);

    const char *const closed[] = { "-t", path, "-c", "2", NULL }; /* where times do not matter */
    open_words(&m, closed, 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(bench_source_next(&m.source, &q, &error), MC_OK);
    assert_int_equal(bench_source_next(&m.source, &q, &error), MC_E_NOT_FOUND);
    end(&m);

    const char *const brief[] = { "-t", path, "-d", "2s", NULL };
    open_words(&m, brief, 0);
    assert_int_equal(bench_source_next(&m.source, &q, &error), MC_OK);
    assert_int_equal(bench_source_next(&m.source, &q, &error), MC_E_NOT_FOUND);
    end(&m);
    test_remove(folder);
}

static void test_what_cannot_be_read_is_named(void **state)
{
    (void)state;
    char folder[64], path[100];
    struct mc_error error = { 0 };
    struct made m;

    snprintf(path, sizeof(path), "%s/none", test_directory(folder));
    const char *const words[] = { "-t", path, NULL }, *const directory[] = { "-t", folder, NULL };
    read_words(&m, words);
    assert_int_equal(bench_source_open(&m.source, &m.request, 0, &error), MC_E_NOT_FOUND);
    assert_non_null(strstr(error.text, path));
    end(&m);
    read_words(&m, directory);
    assert_int_equal(bench_source_open(&m.source, &m.request, 0, &error), MC_E_FORMAT);
    end(&m);
    test_remove(folder);
}

static void test_memory_that_is_out_is_told_and_leaves_nothing(void **state)
{
    (void)state;
    char folder[64], path[100];

    snprintf(path, sizeof(path), "%s/t.jsonl", test_directory(folder));
    test_write(path, lines, sizeof(lines) - 1);
    const char *const words[] = { "-t", path, "-n", "1", NULL };
    for (long k = 0;; k++) {
        struct made m;
        struct scaled q;
        struct mc_error error = { 0 };
        read_words(&m, words);
        m.f.fail_at = m.f.calls + k;
        mc_status status = bench_source_open(&m.source, &m.request, 0, &error);
        if (status == MC_OK)
            status = bench_source_next(&m.source, &q, &error);
        end(&m);
        if (status == MC_OK) {
            assert_true(k >= 4); /* the piece, the reader, its ids, the runs */
            break;
        }
        assert_int_equal(status, MC_E_NOMEM);
        assert_true(error.text[0] != '\0');
    }
    test_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_made_prompts_share_what_they_should),
        cmocka_unit_test(test_a_rate_is_poisson_and_the_same_for_a_seed),
        cmocka_unit_test(test_a_trace_comes_scaled_until_its_end_or_its_error),
        cmocka_unit_test(test_what_cannot_be_read_is_named),
        cmocka_unit_test(test_memory_that_is_out_is_told_and_leaves_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
