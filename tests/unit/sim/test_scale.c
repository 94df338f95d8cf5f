/* test_scale.c - lengths, times and cuts of scaled requests. */
#include "test.h"

#include "sim/scale.h"

static const uint64_t ids[] = { 10, 11, 12, 13 };

static struct trace_request request(uint64_t ms, uint32_t input, uint32_t output)
{
    return (struct trace_request){ .arrival_ns = ms * 1000000,
                                   .input_tokens = input,
                                   .output_tokens = output,
                                   .hash_ids = ids,
                                   .hash_count = (input - 1) / 512 + 1,
                                   .line = 3 };
}

static uint32_t sum(const struct scaled *s)
{
    uint32_t tokens = 0;

    for (uint32_t i = 0; i < s->run_count; i++) {
        assert_true(s->runs[i].tokens >= 1);
        tokens += s->runs[i].tokens;
    }
    return tokens;
}

static void test_a_block_becomes_a_page(void **state)
{
    (void)state;
    static const struct {
        uint32_t input, output, tokens, runs, last, answer;
    } rows[] = {
        { 512, 32, 16, 1, 16, 1 },        { 1, 1, 1, 1, 1, 1 },
        { 511, 0, 15, 1, 15, 1 },         { 513, 47, 17, 2, 1, 1 },
        { 1024, 48, 32, 2, 16, 2 },       { 1536 + 300, 343, 57, 4, 9, 11 },
        { 512 + 31, 2000, 17, 2, 1, 63 },
    };
    struct faulty f;
    struct scaler s;
    struct scaled out;

    faulty_init(&f, -1);
    const struct scale_options o = { .alloc = &f.alloc, .kind = SCALE_BLOCK };
    scaler_init(&s, &o);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct trace_request q = request(0, rows[i].input, rows[i].output);
        assert_int_equal(scaler_next(&s, &q, &out), MC_OK);
        assert_int_equal(out.input_tokens, rows[i].tokens);
        assert_int_equal(sum(&out), rows[i].tokens);
        assert_int_equal(out.run_count, rows[i].runs);
        assert_int_equal(out.runs[out.run_count - 1].tokens, rows[i].last);
        assert_int_equal(out.runs[0].id, 10);
        assert_int_equal(out.output_tokens, rows[i].answer);
        assert_int_equal(out.line, 3);
        assert_false(out.cut);
    }
    scaler_fini(&s);
    assert_int_equal(f.held, 0);
}

static void test_unscaled_tokens_are_the_traces_own(void **state)
{
    (void)state;
    struct faulty f;
    struct scaler s;
    struct scaled out;

    faulty_init(&f, -1);
    const struct scale_options o = { .alloc = &f.alloc, .kind = SCALE_NONE };
    const struct trace_request q = request(0, 1300, 0);
    scaler_init(&s, &o);
    assert_int_equal(scaler_next(&s, &q, &out), MC_OK);
    assert_int_equal(out.input_tokens, 1300);
    assert_int_equal(sum(&out), 1300);
    assert_int_equal(out.run_count, 3);
    assert_int_equal(out.runs[2].tokens, 1300 - 1024);
    assert_int_equal(out.output_tokens, 1); /* a server is asked for at least one */
    scaler_fini(&s);
}

static void test_times_count_from_the_first_request_and_are_divided(void **state)
{
    (void)state;
    struct faulty f;
    struct scaler s;
    struct scaled out;

    faulty_init(&f, -1);
    const struct scale_options o = { .alloc = &f.alloc, .speed = 4 };
    scaler_init(&s, &o);
    const struct trace_request first = request(1000000, 1, 1), second = request(1000100, 1, 1),
                               early = request(5, 1, 1);
    assert_int_equal(scaler_next(&s, &first, &out), MC_OK);
    assert_int_equal(out.at_ns, 0);
    assert_int_equal(scaler_next(&s, &second, &out), MC_OK);
    assert_int_equal(out.at_ns, 25000000);
    assert_int_equal(scaler_next(&s, &early, &out), MC_OK);
    assert_int_equal(out.at_ns, 0);
    scaler_fini(&s);
}

static void test_what_is_over_the_context_is_cut_and_said(void **state)
{
    (void)state;
    static const struct {
        uint32_t input, output, context, tokens, answer, runs;
        bool cut;
    } rows[] = {
        { 1024, 100, 1124, 1024, 100, 2, false }, { 1024, 100, 1123, 1023, 100, 2, true },
        { 1024, 100, 612, 512, 100, 1, true },    { 1024, 100, 613, 513, 100, 2, true },
        { 1024, 100, 100, 1, 99, 1, true },       { 1024, 100, 2, 1, 1, 1, true },
        { 1, 100, 100, 1, 99, 1, true },
    };
    struct faulty f;

    faulty_init(&f, -1);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct scale_options o = { .alloc = &f.alloc, .context_tokens = rows[i].context };
        const struct trace_request q = request(0, rows[i].input, rows[i].output);
        struct scaler s;
        struct scaled out;
        scaler_init(&s, &o);
        assert_int_equal(scaler_next(&s, &q, &out), MC_OK);
        assert_int_equal(out.input_tokens, rows[i].tokens);
        assert_int_equal(sum(&out), rows[i].tokens);
        assert_int_equal(out.output_tokens, rows[i].answer);
        assert_int_equal(out.run_count, rows[i].runs);
        assert_int_equal(out.cut, rows[i].cut);
        scaler_fini(&s);
    }
}

static void test_tokens_are_a_function_of_seed_run_and_place(void **state)
{
    (void)state;
    assert_true(scale_token(1, 2, 3) == scale_token(1, 2, 3));
    assert_true(scale_token(1, 2, 3) != scale_token(2, 2, 3));
    assert_true(scale_token(1, 2, 3) != scale_token(1, 3, 3));
    assert_true(scale_token(1, 2, 3) != scale_token(1, 2, 4));
}

static void test_memory_that_is_out_is_told(void **state)
{
    (void)state;
    struct faulty f;
    struct scaler s;
    struct scaled out;

    faulty_init(&f, 0);
    const struct scale_options o = { .alloc = &f.alloc };
    const struct trace_request q = request(0, 600, 1);
    scaler_init(&s, &o);
    assert_int_equal(scaler_next(&s, &q, &out), MC_E_NOMEM);
    assert_int_equal(scaler_next(&s, &q, &out), MC_OK);
    scaler_fini(&s);
    assert_int_equal(f.held, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_block_becomes_a_page),
        cmocka_unit_test(test_unscaled_tokens_are_the_traces_own),
        cmocka_unit_test(test_times_count_from_the_first_request_and_are_divided),
        cmocka_unit_test(test_what_is_over_the_context_is_cut_and_said),
        cmocka_unit_test(test_tokens_are_a_function_of_seed_run_and_place),
        cmocka_unit_test(test_memory_that_is_out_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
