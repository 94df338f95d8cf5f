/* test_bench_serve_tally.c - every request counts once, and for what it was. */
#include "test.h"

#include <stdio.h>

#include "cmd/bench_serve_tally.h"

static const uint64_t MS = 1000000;

/** A tally and its allocator; one that the test can see through. */
struct setting {
    struct faulty f;
    struct bench_tally tally;
};

static struct setting *begin(uint64_t ttft_ms, uint64_t tbt_ms, enum bench_tbt by)
{
    static struct setting s; /* its bins are large */
    const struct bench_objectives o = { ttft_ms * MS, tbt_ms * MS, by };

    faulty_init(&s.f, -1);
    assert_int_equal(bench_tally_init(&s.tally, &o, 100 * MS, &s.f.alloc), MC_OK);
    return &s;
}

static void end(struct setting *s)
{
    bench_tally_fini(&s->tally);
    assert_int_equal(s->f.held, 0);
}

static struct bench_record answer(uint64_t sent_ms, uint64_t ttft_ms, uint64_t gap_ms,
                                  uint32_t tokens)
{
    const uint64_t first = (sent_ms + ttft_ms) * MS, last = first + gap_ms * (tokens - 1) * MS;
    struct gaps gaps = { 0 };

    for (uint32_t i = 1; i < tokens; i++) /* one of a hundred, or of few, is longer */
        gaps_add(&gaps, (i == 1 ? gap_ms + 1 : gap_ms) * MS, 1);
    return (struct bench_record){ .gaps = gaps,
                                  .sent_ns = sent_ms * MS,
                                  .first_ns = first,
                                  .last_ns = last,
                                  .end_ns = last,
                                  .gap_max_ns = 2 * gap_ms * MS,
                                  .pieces = tokens,
                                  .output_tokens = tokens,
                                  .wanted_tokens = tokens,
                                  .tries = 1,
                                  .input_tokens = 100,
                                  .prompt_tokens = 100,
                                  .cached = true,
                                  .cached_tokens = 32,
                                  .replay_tokens = 48,
                                  .outcome = BENCH_ANSWERED };
}

static void take(struct bench_tally *t, struct bench_record r)
{
    bench_tally_sent(t, &r, false, 0);
    bench_tally_end(t, &r);
}

static void test_outcomes_add_up_to_what_was_sent(void **state)
{
    (void)state;
    struct setting *s = begin(0, 0, BENCH_TBT_MEAN);
    struct bench_tally *t = &s->tally;
    struct bench_record r = answer(0, 10, 5, 4);

    assert_true(bench_tally_closed(t));
    for (int i = 0; i < BENCH_OUTCOMES; i++) {
        r.outcome = (enum bench_outcome)i;
        snprintf(r.reason, sizeof(r.reason), "%s", i ? "why" : "");
        bench_tally_sent(t, &r, false, 3 * MS);
        assert_false(bench_tally_closed(t));
        bench_tally_end(t, &r);
        assert_true(bench_tally_closed(t));
        assert_int_equal(t->ended[i], 1);
    }
    assert_int_equal(t->sent, 4);
    assert_int_equal(t->ttft.count, 1); /* of the answered ones only */
    assert_int_equal(t->late.count, 4);
    assert_int_equal(t->reason_count, 3);
    assert_string_equal(t->reasons[0].text, "why");
    end(s);
}

static void test_goodput_is_what_met_both_objectives(void **state)
{
    (void)state;
    for (int by = BENCH_TBT_MEAN; by <= BENCH_TBT_MAX; by++) {
        static const uint64_t good[] = { 3, 2, 1 };
        struct setting *s = begin(100, 10, (enum bench_tbt)by);
        struct bench_tally *t = &s->tally;
        take(t, answer(0, 100, 5, 3));  /* both; longest 6, largest gap 10 */
        take(t, answer(0, 101, 5, 3));  /* too late */
        take(t, answer(0, 100, 10, 3)); /* mean 10, longest 11, largest 20 */
        take(t, answer(0, 100, 11, 3)); /* too slow */
        take(t, answer(0, 100, 11, 1)); /* one token has no gaps */
        assert_int_equal(t->met_ttft, 4);
        assert_int_equal(t->good_mean, 3);
        assert_int_equal(t->good_longest, 2);
        assert_int_equal(t->good_max, 1);
        assert_int_equal(t->good, good[by]);
        assert_int_equal(t->gap_mean.count, 4);
        end(s);
    }
}

static void test_the_mean_gap_counts_tokens_that_came_together(void **state)
{
    (void)state;
    struct bench_record r = answer(0, 10, 10, 3);

    assert_int_equal(bench_record_gap_mean(&r), 10 * MS);
    r.output_tokens = 5; /* 20 ms, 5 tokens in 3 pieces */
    assert_int_equal(bench_record_gap_mean(&r), 5 * MS);
    r = answer(0, 10, 10, 1);
    assert_int_equal(bench_record_gap_mean(&r), 0);
}

static void test_a_request_that_waits_is_one_request(void **state)
{
    (void)state;
    struct setting *s = begin(0, 0, BENCH_TBT_MEAN);
    struct bench_tally *t = &s->tally;
    struct bench_record r = answer(0, 10, 5, 4);

    bench_tally_sent(t, &r, false, 0);
    r.waiting = true;
    r.waited_ns = 2000 * MS;
    bench_tally_waits(t, &r);
    assert_int_equal(t->in_flight, 0);
    r.waiting = false;
    r.tries = 2;
    bench_tally_sent(t, &r, true, 0);
    assert_int_equal(t->in_flight, 1);
    bench_tally_end(t, &r);
    assert_true(bench_tally_closed(t));
    assert_int_equal(t->sent, 1);
    assert_int_equal(t->tries, 2);
    assert_int_equal(t->retried, 1);
    assert_int_equal(t->got_in, 1);
    assert_int_equal(t->retry_after.count, 1);

    /* Interrupted while it waits. */
    bench_tally_sent(t, &r, false, 0);
    r.waiting = true;
    bench_tally_waits(t, &r);
    r.outcome = BENCH_REFUSED;
    bench_tally_end(t, &r);
    assert_true(bench_tally_closed(t));
    assert_int_equal(t->retry_after.count, 2); /* and not three times */
    end(s);
}

static void test_time_has_no_end(void **state)
{
    (void)state;
    struct setting *s = begin(0, 0, BENCH_TBT_MEAN);
    struct bench_tally *t = &s->tally;
    uint64_t sent = 0, answered = 0, prompt = 0;

    for (uint64_t i = 0; i < 5000; i++) /* 2,500 s in bins of 100 ms */
        take(t, answer(i * 500, 10, 5, 4));
    assert_true(t->bin_count <= TALLY_BINS);
    for (uint32_t i = 0; i < t->bin_count; i++) {
        sent += t->bins[i].sent;
        answered += t->bins[i].ended[BENCH_ANSWERED];
        prompt += t->bins[i].prompt_tokens;
    }
    assert_int_equal(sent, 5000);
    assert_int_equal(answered, 5000);
    assert_int_equal(prompt, 500000);
    assert_int_equal(t->bin_ns, 6400 * MS);
    end(s);
}

static void test_more_reasons_than_rows_are_others(void **state)
{
    (void)state;
    struct setting *s = begin(0, 0, BENCH_TBT_MEAN);
    struct bench_tally *t = &s->tally;
    uint64_t count = 0;

    for (int i = 0; i < 100; i++) {
        struct bench_record r = answer(0, 10, 5, 4);
        r.outcome = BENCH_FAILED;
        snprintf(r.reason, sizeof(r.reason), "reason %d", i);
        take(t, r);
    }
    assert_int_equal(t->reason_count, TALLY_REASONS);
    assert_string_equal(t->reasons[TALLY_REASONS - 1].text, "others");
    for (int i = 0; i < TALLY_REASONS; i++)
        count += t->reasons[i].count;
    assert_int_equal(count, 100);
    end(s);
}

static void test_memory_that_is_out_is_told(void **state)
{
    (void)state;
    static struct bench_tally t;
    const struct bench_objectives o = { 0 };

    for (long k = 0;; k++) {
        struct faulty f;
        faulty_init(&f, k);
        const mc_status status = bench_tally_init(&t, &o, 0, &f.alloc);
        if (status == MC_OK) {
            assert_int_equal(k, 8);
            bench_tally_fini(&t);
            assert_int_equal(f.held, 0);
            return;
        }
        assert_int_equal(status, MC_E_NOMEM);
        assert_int_equal(f.held, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_outcomes_add_up_to_what_was_sent),
        cmocka_unit_test(test_goodput_is_what_met_both_objectives),
        cmocka_unit_test(test_the_mean_gap_counts_tokens_that_came_together),
        cmocka_unit_test(test_a_request_that_waits_is_one_request),
        cmocka_unit_test(test_time_has_no_end),
        cmocka_unit_test(test_more_reasons_than_rows_are_others),
        cmocka_unit_test(test_memory_that_is_out_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
