/* test_batch.c - stretches in closed form against steps one by one. */
#include "test.h"

#include <math.h>

#include "base/prng.h"
#include "sim/batch.h"

static const struct mc_cost cost = { .d0 = 0.010, .d1 = 0.001, .d2 = 1e-6 };

static void open_batch(struct batch *batch, struct faulty *f)
{
    faulty_init(f, -1);
    assert_int_equal(batch_init(batch, &f->alloc, &cost, 8), MC_OK);
}

static void close_batch(struct batch *batch, struct faulty *f)
{
    batch_fini(batch);
    assert_int_equal(f->held, 0);
}

static struct batch_gaps leave(struct batch *batch, uint32_t whom)
{
    struct batch_stretch scratch[64];
    struct batch_member member;

    assert_true(batch_leave(batch, &member));
    assert_int_equal(member.whom, whom);
    return batch_gaps(batch, &member, scratch);
}

/* 1000 tokens, 3 steps: 12, 12.001, 12.002 ms. */
static void test_one_sequence_takes_its_steps(void **state)
{
    (void)state;
    struct batch batch;
    struct faulty f;
    uint64_t first;

    open_batch(&batch, &f);
    batch_join(&batch, 7, 1000, 3, true, 0);
    assert_int_equal(batch_waiting(&batch), 1);
    assert_int_equal(batch_begin(&batch, 5000, 0, 0, &first), 5000 + 36003000);
    assert_int_equal(first, 5000 + 12000000);
    assert_int_equal(batch_end(&batch), MC_OK);
    assert_int_equal(batch.context, 1003);
    const struct batch_gaps gaps = leave(&batch, 7); /* its first step made its first token */
    assert_true(fabs(gaps.mean - 0.0120015) < 1e-7);
    assert_int_equal(batch.context, 0);
    assert_int_equal(batch.count, 0);
    close_batch(&batch, &f);
}

static void test_who_comes_ends_the_stretch_after_the_step_under_way(void **state)
{
    (void)state;
    struct batch batch;
    struct faulty f;
    uint64_t first;

    open_batch(&batch, &f);
    batch_join(&batch, 1, 1000, 100, true, 0);
    (void)batch_begin(&batch, 0, 0, 0, &first);
    assert_int_equal(batch_cut(&batch, 13000000), 24001000); /* in its second step */
    assert_int_equal(batch_cut(&batch, 14000000), 24001000); /* again: the same step */
    assert_int_equal(batch_end(&batch), MC_OK);
    assert_int_equal(batch.steps, 2);
    batch_join(&batch, 2, 500, 1, true, 0);
    /* b = 2, K = 1502: 13.502 ms, and 5 ms stand still */
    assert_int_equal(batch_begin(&batch, 24001000, 0.005, 0, &first), 24001000 + 18502000);
    assert_int_equal(first, 24001000 + 18502000);
    assert_int_equal(batch_end(&batch), MC_OK);
    assert_true(leave(&batch, 2).mean == 0); /* one token has no gaps */
    struct batch_stretch scratch[64];
    const struct batch_gaps gaps = batch_gaps(&batch, &batch.members[0], scratch);
    assert_true(fabs(gaps.most - 0.018502) < 1e-6); /* the stall is a gap of the other one */
    batch_drop(&batch, 0);
    close_batch(&batch, &f);
}

static void test_time_that_has_gone_by_is_in_the_gap_and_not_in_the_step(void **state)
{
    (void)state;
    struct batch batch;
    struct faulty f;
    uint64_t first;

    open_batch(&batch, &f);
    batch_join(&batch, 1, 0, 10, false, 0);
    batch_join(&batch, 2, 0, 1, false, 0.5); /* came when all but 0.25 s of it was over */
    assert_int_equal(batch_begin(&batch, 0, 0, 0.75, &first), 12000000);
    assert_int_equal(batch_end(&batch), MC_OK);
    assert_true(fabs(leave(&batch, 2).most - 0.262) < 1e-6);
    struct batch_stretch scratch[64];
    assert_true(fabs(batch_gaps(&batch, &batch.members[0], scratch).most - 0.762) < 1e-6);
    batch_drop(&batch, 0);
    close_batch(&batch, &f);
}

static void test_the_longest_tenth_of_the_gaps_is_what_is_meant(void **state)
{
    (void)state;
    struct batch batch;
    struct faulty f;

    open_batch(&batch, &f);
    batch_join(&batch, 1, 0, 40, false, 0);
    for (int i = 0; i < 40; i++)
        assert_int_equal(batch_step(&batch, i == 10 ? 1.0 : i == 20 ? 0.5 : 0.1), MC_OK);
    const struct batch_gaps gaps = leave(&batch, 1); /* 40 gaps: the longest four */
    assert_true(fabs(gaps.worst_tenth - (1.0 + 0.5 + 0.1 + 0.1) / 4) < 1e-6);
    assert_true(fabs(gaps.mean - (1.0 + 0.5 + 38 * 0.1) / 40) < 1e-6);
    close_batch(&batch, &f);
}

/* Sequences come at random; the batch by stretches, and a plain one step by step, agree on every end. */
static void test_stretches_agree_with_steps_one_by_one(void **state)
{
    (void)state;
    struct prng prng = { .seed = 9 };

    for (int round = 0; round < 100; round++) {
        struct batch batch;
        struct faulty f;
        uint64_t left[8], now = 0, context = 0, first;
        uint32_t count = 0;
        double plain_s = 0;

        open_batch(&batch, &f);
        for (int change = 0; change < 20; change++) {
            if (count < 8) {
                const uint64_t tokens = prng_below(&prng, 5000), steps = 1 + prng_below(&prng, 50);
                batch_join(&batch, (uint32_t)change, tokens, steps, false, 0);
                left[count++] = steps;
                context += tokens;
            }
            const uint64_t end = batch_begin(&batch, now, 0, 0, &first);
            const uint64_t at = now + prng_below(&prng, 400000000);
            now = at < end ? batch_cut(&batch, at) : end;
            const uint64_t before = batch.steps;
            assert_int_equal(batch_end(&batch), MC_OK);
            for (uint64_t n = before; n < batch.steps; n++) {
                plain_s += cost.d0 + cost.d1 * count + cost.d2 * (double)context;
                context += count;
            }
            assert_true(fabs((double)now / 1e9 - plain_s) < 1e-6);
            if (at < end) /* not a step longer than it had to be */
                assert_true((double)at / 1e9 >
                            plain_s - (cost.d0 + cost.d1 * count + cost.d2 * (double)context));
            assert_int_equal(batch.context, context);
            for (uint32_t i = 0; i < count; i++)
                left[i] -= batch.steps - before;
            for (uint32_t i = 0; i < count;) /* the same order as batch_leave() */
                if (left[i] == 0) {
                    struct batch_member member;
                    assert_true(batch_leave(&batch, &member));
                    context = batch.context;
                    left[i] = left[--count];
                    i = 0;
                } else {
                    i++;
                }
            assert_int_equal(batch.count, count);
        }
        close_batch(&batch, &f);
    }
}

static void test_without_memory_nothing_is_left_behind(void **state)
{
    (void)state;
    struct batch batch;
    struct faulty f;

    for (int k = 0; k < 2; k++) {
        faulty_init(&f, k);
        assert_int_equal(batch_init(&batch, &f.alloc, &cost, 8), MC_E_NOMEM);
        assert_int_equal(f.held, 0);
    }
    faulty_init(&f, 2); /* the log's growth */
    assert_int_equal(batch_init(&batch, &f.alloc, &cost, 8), MC_OK);
    batch_join(&batch, 1, 0, 1000, false, 0);
    mc_status status = MC_OK;
    for (int i = 0; i < 300 && status == MC_OK; i++)
        status = batch_step(&batch, 0.1);
    assert_int_equal(status, MC_E_NOMEM);
    batch_drop(&batch, 0);
    close_batch(&batch, &f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_sequence_takes_its_steps),
        cmocka_unit_test(test_who_comes_ends_the_stretch_after_the_step_under_way),
        cmocka_unit_test(test_time_that_has_gone_by_is_in_the_gap_and_not_in_the_step),
        cmocka_unit_test(test_the_longest_tenth_of_the_gaps_is_what_is_meant),
        cmocka_unit_test(test_stretches_agree_with_steps_one_by_one),
        cmocka_unit_test(test_without_memory_nothing_is_left_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
