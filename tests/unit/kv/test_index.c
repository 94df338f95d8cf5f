/* test_index.c - the prefix index against a naive table of (key, holder, age), and at its limits. */
#include "test.h"

#include "base/prng.h"
#include "kv/index.h"
#include "kv/sets.h"

enum { HOLDERS = 23, KEYS = 40, BLOCKS_MAX = 36, CELLS_MAX = BLOCKS_MAX + 2 * 5 };

/* The naive one: a bit for each holder, and who is older. */
struct naive {
    bool has[KEYS][HOLDERS];
    uint64_t age[KEYS], clock, forgotten;
    uint64_t for_sets; /* of these: because sets had no room */
};

/* What a match writes. */
struct answer {
    uint32_t blocks[HOLDERS], held[HOLDERS], holders[HOLDERS];
    struct kv_match match;
};

static void answer_init(struct answer *a)
{
    memset(a, 0, sizeof(*a));
    a->match = (struct kv_match){ .blocks = a->blocks, .held = a->held, .holders = a->holders };
}

static struct mc_key key_of(uint32_t number)
{
    struct mc_key key = { { 0 } };

    memcpy(key.bytes + 12, &number,
           sizeof(number)); /* the part that is hashed is equal: one chain */
    return key;
}

static uint32_t naive_holders(const struct naive *n, uint32_t key)
{
    uint32_t count = 0;

    for (uint32_t h = 0; h < HOLDERS; h++)
        count += n->has[key][h];
    return count;
}

/* Cells of all different sets of two or more. */
static uint32_t naive_cells(const struct naive *n)
{
    uint32_t cells = 0;

    for (uint32_t k = 0; k < KEYS; k++) {
        bool seen = false;

        for (uint32_t other = 0; other < k; other++)
            seen |= memcmp(n->has[k], n->has[other], sizeof(n->has[k])) == 0;
        cells += seen ? 0 : kv_sets_cells(naive_holders(n, k));
    }
    return cells;
}

static uint32_t naive_blocks(const struct naive *n, uint32_t *oldest_p)
{
    uint32_t blocks = 0;

    *oldest_p = KEYS;
    for (uint32_t k = 0; k < KEYS; k++) {
        if (naive_holders(n, k) == 0)
            continue;
        blocks++;
        if (*oldest_p == KEYS || n->age[k] < n->age[*oldest_p])
            *oldest_p = k;
    }
    return blocks;
}

static void naive_forget(struct naive *n, uint32_t key)
{
    memset(n->has[key], 0, sizeof(n->has[key]));
    n->forgotten++;
}

static void naive_insert(struct naive *n, uint32_t key, uint32_t holder)
{
    uint32_t oldest;

    n->age[key] = ++n->clock;
    if (n->has[key][holder])
        return;
    if (naive_holders(n, key) == 0 && naive_blocks(n, &oldest) == BLOCKS_MAX)
        naive_forget(n, oldest);
    n->has[key][holder] = true;
    while (naive_cells(n) > CELLS_MAX) {
        naive_blocks(n, &oldest);
        naive_forget(n, oldest);
        n->for_sets++;
    }
}

static void naive_remove(struct naive *n, uint32_t key, uint32_t holder)
{
    if (!n->has[key][holder])
        return;
    n->has[key][holder] = false;
    if (naive_cells(n) > CELLS_MAX) {
        naive_forget(n, key);
        n->for_sets++;
    }
}

/* How far a chain goes at those of `among`. */
static uint32_t naive_prefix(const struct naive *n, const uint32_t *chain, uint32_t count,
                             const uint8_t *among)
{
    for (uint32_t i = 0; i < count; i++) {
        bool found = false;
        for (uint32_t h = 0; h < HOLDERS; h++)
            found |= among[h] && n->has[chain[i]][h];
        if (!found)
            return i;
    }
    return count;
}

static void check_holders(const struct answer *a)
{
    uint32_t listed[HOLDERS] = { 0 };

    for (uint32_t i = 0; i < a->match.count; i++)
        listed[a->holders[i]]++;
    for (uint32_t h = 0; h < HOLDERS; h++)
        assert_int_equal(listed[h], a->blocks[h] != 0 || a->held[h] != 0);
}

static void check_match(const kv_index *index, const struct naive *n, struct prng *prng,
                        struct answer *a)
{
    const uint32_t count = prng_below(prng, KEYS), from = prng_below(prng, KEYS);
    uint32_t chain[KEYS], jumps = prng_below(prng, 3);
    struct mc_key keys[KEYS];
    uint8_t pooled[HOLDERS];

    for (uint32_t i = 0; i < count; i++) {
        chain[i] = (from + i + (jumps ? prng_below(prng, 8) / 7 : 0)) % KEYS;
        keys[i] = key_of(chain[i]);
    }
    for (uint32_t h = 0; h < HOLDERS; h++)
        pooled[h] = prng_below(prng, 3) == 0;

    kv_index_match(index, keys, count, pooled, &a->match);
    check_holders(a);
    assert_int_equal(a->match.pool, naive_prefix(n, chain, count, pooled));
    for (uint32_t h = 0; h < HOLDERS; h++) {
        uint8_t alone[HOLDERS] = { 0 };
        uint32_t holds = 0;

        alone[h] = 1;
        assert_int_equal(a->blocks[h], naive_prefix(n, chain, count, alone));
        for (uint32_t i = 0; i < a->match.pool; i++)
            holds += pooled[h] && n->has[chain[i]][h];
        assert_int_equal(a->held[h], holds);
    }
    kv_index_match(index, keys, count, NULL, &a->match);
    check_holders(a);
    assert_int_equal(a->match.pool, 0);
}

/* A stretch of keys comes to, or leaves, one holder or a few; rarely a whole holder, or everything. */
static void change(kv_index *index, struct naive *naive, struct prng *prng)
{
    const uint32_t first = prng_below(prng, KEYS), what = prng_below(prng, 100);
    const uint32_t count = 1 + prng_below(prng, what % 3 ? 4 : 24), h = prng_below(prng, HOLDERS);

    for (uint32_t i = 0; what < 95 && i < count; i++) {
        const uint32_t k = (what % 2 ? first + i : first + count - i) % KEYS;
        const struct mc_key key = key_of(k);

        if (what < 65) {
            kv_index_insert(index, &key, h);
            naive_insert(naive, k, h);
        } else {
            kv_index_remove(index, &key, h);
            naive_remove(naive, k, h);
        }
    }
    if (what < 95)
        return;
    const bool all = what == 99 && prng_below(prng, 4) == 0;
    if (all)
        kv_index_clear(index);
    else
        kv_index_reset(index, h);
    for (uint32_t k = 0; k < KEYS; k++)
        for (uint32_t other = 0; other < HOLDERS; other++)
            naive->has[k][other] &= !all && other != h;
}

static void test_it_answers_as_a_naive_table_does(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 6; seed++) {
        struct faulty faulty;
        struct prng prng = { .seed = seed };
        struct naive naive = { 0 };
        kv_index *index;

        faulty_init(&faulty, -1);
        assert_int_equal(kv_index_open(&(struct kv_index_options){ .alloc = &faulty.alloc,
                                                                   .blocks_max = BLOCKS_MAX,
                                                                   .holders_max = HOLDERS,
                                                                   .seed = seed },
                                       &index),
                         MC_OK);
        const long calls = faulty.calls;
        struct answer answer;
        answer_init(&answer);
        for (int step = 0; step < 1000; step++) {
            uint32_t oldest;

            change(index, &naive, &prng);
            assert_int_equal(kv_index_blocks(index), naive_blocks(&naive, &oldest));
            assert_int_equal(kv_index_forgotten(index), naive.forgotten);
            check_match(index, &naive, &prng, &answer);
        }
        assert_int_equal(faulty.calls, calls);
        assert_in_range(naive.for_sets, 1, naive.forgotten - 1); /* both limits were met */
        kv_index_close(index);
        assert_int_equal(faulty.held, 0);
    }
}

/* A prompt that all have: its blocks share one set, and nothing is forgotten for it. */
static void test_a_prompt_may_be_at_every_holder(void **state)
{
    (void)state;
    struct faulty faulty;
    struct answer answer;
    struct mc_key keys[4];
    kv_index *index;

    faulty_init(&faulty, -1);
    const struct kv_index_options options = { .alloc = &faulty.alloc,
                                              .blocks_max = 4,
                                              .holders_max = HOLDERS };
    assert_int_equal(kv_index_open(&options, &index), MC_OK);
    for (uint32_t i = 0; i < 4; i++)
        keys[i] = key_of(i);
    for (uint32_t h = 0; h < HOLDERS; h++)
        for (uint32_t i = 0; i < 4; i++)
            kv_index_insert(index, &keys[i], h);
    answer_init(&answer);
    kv_index_match(index, keys, 4, NULL, &answer.match);
    for (uint32_t h = 0; h < HOLDERS; h++)
        assert_int_equal(answer.blocks[h], 4);
    assert_int_equal(kv_index_forgotten(index), 0);
    kv_index_close(index);
}

/* Blocks in the order of their keys are guessed, and others looked up: far apart, in long chains of the hash. */
static void test_long_chains_are_followed_whatever_their_order(void **state)
{
    (void)state;
    enum { LONG = 2000 };
    struct faulty faulty;
    struct answer answer;
    struct prng prng = { .seed = 3 };
    static struct mc_key keys[LONG];
    kv_index *index;

    faulty_init(&faulty, -1);
    assert_int_equal(kv_index_open(&(struct kv_index_options){ .alloc = &faulty.alloc,
                                                               .blocks_max = LONG,
                                                               .holders_max = HOLDERS,
                                                               .seed = 5 },
                                   &index),
                     MC_OK);
    answer_init(&answer);
    for (uint32_t i = 0; i < LONG; i++) {
        const uint64_t bits[2] = { prng_next(&prng), i };
        memcpy(keys[i].bytes, bits, sizeof(bits));
    }
    for (int order = 0; order < 3; order++) {
        for (uint32_t i = 0; i < LONG; i++) /* 7 and LONG have no divisor in common */
            kv_index_insert(index,
                            &keys[order == 0   ? i
                                  : order == 1 ? LONG - 1 - i
                                               : i * 7 % LONG],
                            i % 2);
        for (uint32_t i = 0; i < LONG; i++)
            kv_index_insert(index, &keys[i], 2);
        kv_index_match(index, keys, LONG, NULL, &answer.match);
        assert_int_equal(answer.blocks[2], LONG);
        assert_int_equal(answer.match.count, 2); /* with who has the first one */
        kv_index_remove(index, &keys[1234], 2);
        kv_index_match(index, keys, LONG, NULL, &answer.match);
        assert_int_equal(answer.blocks[2], 1234);
        kv_index_clear(index);
        kv_index_match(index, keys, LONG, NULL, &answer.match);
        assert_int_equal(answer.match.count, 0);
        assert_int_equal(answer.blocks[2], 0);
    }
    kv_index_close(index);
}

static void test_limits_out_of_range_are_refused(void **state)
{
    (void)state;
    struct faulty faulty;
    kv_index *index = NULL;

    faulty_init(&faulty, -1);
    static const struct {
        uint32_t blocks, holders;
    } wrong[] = {
        { 0, 1 },
        { 1, 0 },
        { (1u << 30) + 1, 1 },
        { 1, (1u << 20) + 1 },
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        const struct kv_index_options options = { .alloc = &faulty.alloc,
                                                  .blocks_max = wrong[i].blocks,
                                                  .holders_max = wrong[i].holders };
        assert_int_equal(kv_index_open(&options, &index), MC_E_RANGE);
    }
    assert_null(index);
    assert_int_equal(faulty.calls, 0);
    kv_index_close(NULL);
}

static void test_every_failed_allocation_leaves_nothing_behind(void **state)
{
    (void)state;
    for (long k = 0;; k++) {
        struct faulty faulty;
        kv_index *index = NULL;

        faulty_init(&faulty, k);
        const struct kv_index_options options = { .alloc = &faulty.alloc,
                                                  .blocks_max = 4,
                                                  .holders_max = 4 };
        const mc_status status = kv_index_open(&options, &index);
        if (status == MC_OK) {
            assert_int_equal(k, 9);
            kv_index_close(index);
            assert_int_equal(faulty.held, 0);
            return;
        }
        assert_int_equal(status, MC_E_NOMEM);
        assert_null(index);
        assert_int_equal(faulty.held, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_it_answers_as_a_naive_table_does),
        cmocka_unit_test(test_a_prompt_may_be_at_every_holder),
        cmocka_unit_test(test_long_chains_are_followed_whatever_their_order),
        cmocka_unit_test(test_limits_out_of_range_are_refused),
        cmocka_unit_test(test_every_failed_allocation_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
