/* test_replay.c - the pool without bounds, beside one that keeps every prompt and compares tokens. */
#include "test.h"

#include "base/prng.h"
#include "sim/replay.h"

static uint32_t reuse(struct replay *r, const struct scale_run *runs, uint32_t count)
{
    uint32_t reused = 9999;

    assert_int_equal(replay_add(r, runs, count, &reused), MC_OK);
    return reused;
}

static void test_a_prompt_reuses_whole_pages_but_never_its_last_token(void **state)
{
    (void)state;
    const struct scale_run a[] = { { 1, 16 }, { 2, 16 }, { 3, 5 } };
    const struct scale_run whole[] = { { 1, 16 }, { 2, 16 } };
    const struct scale_run other[] = { { 1, 16 }, { 4, 16 }, { 3, 5 } };
    const struct scale_run swapped[] = { { 2, 16 }, { 1, 16 } };
    struct faulty f;
    struct replay r;

    faulty_init(&f, -1);
    replay_init(&r, 16, &f.alloc);
    assert_int_equal(reuse(&r, a, 3), 0);
    assert_int_equal(reuse(&r, a, 3), 32);
    assert_int_equal(reuse(&r, whole, 2),
                     16); /* all there: the page of the last token is computed */
    assert_int_equal(reuse(&r, other, 3), 16);
    assert_int_equal(reuse(&r, swapped, 2),
                     0); /* a page is worth something behind its prefix only */
    assert_int_equal(r.prompt_tokens, 37 + 37 + 32 + 37 + 32);
    assert_int_equal(r.reused_tokens, 64);
    assert_true(replay_ratio(&r) == 64.0 / 175);
    assert_int_equal(r.pages, 5);
    replay_fini(&r);
    assert_int_equal(f.held, 0);
}

static void test_a_prompt_shorter_than_a_page_leaves_nothing(void **state)
{
    (void)state;
    const struct scale_run run = { 1, 15 };
    struct faulty f;
    struct replay r;

    faulty_init(&f, -1);
    replay_init(&r, 16, &f.alloc);
    assert_true(replay_ratio(&r) == 0);
    assert_int_equal(reuse(&r, &run, 1), 0);
    assert_int_equal(reuse(&r, &run, 1), 0);
    assert_int_equal(r.pages, 0);
    replay_fini(&r);
}

enum { PROMPTS = 400, TOKENS_MAX = 64 };

/** The naive pool: all prompts, token by token. */
struct naive {
    uint64_t tokens[PROMPTS][TOKENS_MAX];
    uint32_t lengths[PROMPTS], count;
};

static uint32_t naive_add(struct naive *n, const struct scale_run *runs, uint32_t count,
                          uint32_t page)
{
    uint64_t *own = n->tokens[n->count];
    uint32_t length = 0, best = 0;

    for (uint32_t i = 0; i < count; i++)
        for (uint32_t k = 0; k < runs[i].tokens; k++)
            own[length++] = scale_token(1, runs[i].id, k);
    for (uint32_t i = 0; i < n->count; i++) {
        uint32_t same = 0;
        while (same < length && same < n->lengths[i] / page * page &&
               own[same] == n->tokens[i][same])
            same++;
        best = same > best ? same : best;
    }
    n->lengths[n->count++] = length;
    best = best / page * page;
    return best > (length - 1) / page * page ? (length - 1) / page * page : best;
}

static void test_it_finds_what_a_comparison_of_all_prompts_finds(void **state)
{
    (void)state;
    static struct naive naive;
    struct prng prng = { .seed = 11 };

    for (uint32_t page = 1; page <= 16; page *= 4) {
        struct faulty f;
        struct replay r;
        faulty_init(&f, -1);
        replay_init(&r, page, &f.alloc);
        naive.count = 0;
        for (int i = 0; i < PROMPTS; i++) {
            struct scale_run runs[8];
            uint32_t left = 1 + prng_below(&prng, TOKENS_MAX), count = 0;
            /* Few ids, so that prompts begin alike; lengths that pages straddle. */
            for (; left > 0 && count < 8; left -= runs[count++].tokens) {
                const uint32_t most = prng_below(&prng, 4) ? 8 : 1 + prng_below(&prng, 20);
                runs[count] = (struct scale_run){ prng_below(&prng, 3), most < left ? most : left };
            }
            const uint32_t expected = naive_add(&naive, runs, count, page);
            assert_int_equal(reuse(&r, runs, count), expected);
        }
        replay_fini(&r);
        assert_int_equal(f.held, 0);
    }
}

static void test_memory_that_is_out_is_told_and_the_prompt_does_not_count(void **state)
{
    (void)state;
    const struct scale_run run = { 1, 160 };

    for (long k = 0;; k++) {
        struct faulty f;
        struct replay r;
        faulty_init(&f, k);
        replay_init(&r, 16, &f.alloc);
        mc_status status = MC_OK;
        for (uint64_t i = 0; i < 200 && status == MC_OK; i++) {
            const struct scale_run other = { i, 160 };
            status = replay_add(&r, &other, 1, NULL);
            if (status != MC_OK)
                assert_int_equal(r.prompt_tokens, i * 160);
        }
        const uint64_t before = r.prompt_tokens;
        assert_int_equal(replay_add(&r, &run, 1, NULL),
                         MC_OK); /* it goes on when there is memory */
        assert_int_equal(r.prompt_tokens, before + 160);
        replay_fini(&r);
        assert_int_equal(f.held, 0);
        if (status == MC_OK) {
            assert_true(k >= 2);
            return;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_prompt_reuses_whole_pages_but_never_its_last_token),
        cmocka_unit_test(test_a_prompt_shorter_than_a_page_leaves_nothing),
        cmocka_unit_test(test_it_finds_what_a_comparison_of_all_prompts_finds),
        cmocka_unit_test(test_memory_that_is_out_is_told_and_the_prompt_does_not_count),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
