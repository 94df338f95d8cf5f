/* test_timing.c - what a model costs, and what is said about how fast it went. */
#include "test.h"

#include "cmd/timing.h"

static const struct mc_model_info info = { .layers = 2,
                                           .hidden = 8,
                                           .heads = 4,
                                           .kv_heads = 2,
                                           .head_dim = 2,
                                           .vocab_size = 100,
                                           .dtype = MC_DTYPE_BF16,
                                           .parameters = 5000,
                                           .weight_bytes = 10000 };
static const struct mc_kv_layout layout = {
    .layers = 2, .kv_heads = 2, .head_dim = 2, .page_tokens = 16, .dtype = MC_DTYPE_F32
};

static void test_work_follows_from_the_model_s_shape(void **state)
{
    (void)state;
    const struct work own = work_of(&info, false, &layout), tied = work_of(&info, true, &layout);

    assert_true(own.matrix_parameters == 5000 - 2 * 800);
    assert_true(tied.matrix_parameters == 5000 - 800);
    assert_true(own.head_parameters == 800);
    assert_true(own.weight_bytes_read == 10000 - 1600);
    assert_true(tied.weight_bytes_read == 10000);
    assert_true(own.attention_flop == 4 * 4 * 2 * 2);
    assert_true(own.kv_bytes == 2 * 2 * 2 * 2 * 4);

    struct timing timing = { .prompt_tokens = 10, .decode_tokens = 3 };
    timing_count(&timing, &own);
    assert_true(timing.prefill_flop == 2 * (3400.0 * 10 + 800) + 64 * 55);
    /* The three steps read 11, 12 and 13 positions. */
    assert_true(timing.decode_bytes == 3 * 8400 + 64 * (11 + 12 + 13));
}

static void test_shares_are_said_where_limits_are_known(void **state)
{
    (void)state;
    struct faulty f;
    faulty_init(&f, -1);
    struct buf out = BUF_INIT(&f.alloc);
    struct timing timing = { .prompt_tokens = 100,
                             .decode_tokens = 10,
                             .prefill_ns = 500000000,
                             .decode_ns = 2000000000,
                             .prefill_flop = 2e9,
                             .decode_bytes = 6e9,
                             .peak_flops = 8e9,
                             .read_bandwidth = 12e9,
                             .kernel = "ref",
                             .threads = 2 };

    timing_text(&timing, &out);
    assert_string_equal(
        out.data, "prefill: 100 tokens in 0.500 s, 200.0 tokens/s, 4.0 GFLOP/s, 50% of the FMA "
                  "peak of 8.0 (ref, 2 threads)\n"
                  "decode: 10 tokens in 2.000 s, 5.0 tokens/s, 3.00 GB/s, 25% of the read "
                  "bandwidth of 12.00\n");
    buf_truncate(&out, 0);
    timing_json(&timing, &out);
    assert_string_equal(out.data, "{\"kernel\":\"ref\",\"threads\":2,\"prefill_tokens\":100,"
                                  "\"prefill_s\":0.500000,\"prefill_tokens_per_s\":200,"
                                  "\"prefill_flops\":4e+09,\"peak_flops\":8e+09,"
                                  "\"prefill_share_of_peak\":0.5000,\"decode_tokens\":10,"
                                  "\"decode_s\":2.000000,\"decode_tokens_per_s\":5,"
                                  "\"decode_bytes_per_s\":3e+09,\"read_bandwidth\":1.2e+10,"
                                  "\"decode_share_of_bandwidth\":0.2500}");
    timing.peak_flops = timing.read_bandwidth = 0;
    buf_truncate(&out, 0);
    timing_text(&timing, &out);
    assert_null(strchr(out.data, '%'));
    buf_fini(&out);
    assert_int_equal(f.held, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_work_follows_from_the_model_s_shape),
        cmocka_unit_test(test_shares_are_said_where_limits_are_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
