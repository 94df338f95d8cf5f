/* test_index.c - the prefix index against a naive table of (key, holder, age), and at its limits. */
#include "test.h"

#include "base/prng.h"
#include "kv/index.h"

enum { HOLDERS = 5, KEYS = 24, BLOCKS_MAX = 16 };

/* The naive one: a bit for each holder, and who is older. */
struct naive {
    bool has[KEYS][HOLDERS];
    uint64_t age[KEYS], clock, forgotten;
};

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

static void naive_count(const struct naive *n, uint32_t *blocks_p, uint32_t *pairs_p,
                        uint32_t *oldest_p)
{
    *blocks_p = *pairs_p = 0;
    *oldest_p = KEYS;
    for (uint32_t k = 0; k < KEYS; k++) {
        const uint32_t holders = naive_holders(n, k);
        *pairs_p += holders;
        *blocks_p += holders != 0;
        if (holders != 0 && (*oldest_p == KEYS || n->age[k] < n->age[*oldest_p]))
            *oldest_p = k;
    }
}

static void naive_forget(struct naive *n, uint32_t key)
{
    memset(n->has[key], 0, sizeof(n->has[key]));
    n->forgotten++;
}

static void naive_insert(struct naive *n, uint32_t key, uint32_t holder)
{
    uint32_t blocks, pairs, oldest;
    const bool is_new = naive_holders(n, key) == 0;

    n->age[key] = ++n->clock;
    if (n->has[key][holder])
        return;
    naive_count(n, &blocks, &pairs, &oldest);
    if (is_new && blocks == BLOCKS_MAX)
        naive_forget(n, oldest);
    n->has[key][holder] = true;
    naive_count(n, &blocks, &pairs, &oldest);
    if (pairs > 2 * BLOCKS_MAX)
        naive_forget(n, oldest);
}

static uint32_t naive_prefix(const struct naive *n, const uint32_t *chain, uint32_t count,
                             uint32_t holders)
{
    for (uint32_t i = 0; i < count; i++) {
        bool found = false;
        for (uint32_t h = 0; h < HOLDERS; h++)
            found |= (holders >> h & 1) && n->has[chain[i]][h];
        if (!found)
            return i;
    }
    return count;
}

static void check_match(const kv_index *index, const struct naive *n, struct prng *prng)
{
    const uint32_t count = prng_below(prng, KEYS), pool_mask = prng_below(prng, 1 << HOLDERS);
    uint32_t chain[KEYS], blocks[HOLDERS], held[HOLDERS];
    struct mc_key keys[KEYS];
    uint8_t pooled[HOLDERS];

    for (uint32_t i = 0; i < count; i++) {
        chain[i] = (i + prng_below(prng, 2) * prng_below(prng, 3)) % KEYS;
        keys[i] = key_of(chain[i]);
    }
    for (uint32_t h = 0; h < HOLDERS; h++)
        pooled[h] = pool_mask >> h & 1;

    const uint32_t pool = kv_index_match(index, keys, count, pooled, blocks, held);
    assert_int_equal(pool, naive_prefix(n, chain, count, pool_mask));
    for (uint32_t h = 0; h < HOLDERS; h++) {
        uint32_t holds = 0;
        assert_int_equal(blocks[h], naive_prefix(n, chain, count, 1u << h));
        for (uint32_t i = 0; i < pool; i++)
            holds += pooled[h] && n->has[chain[i]][h];
        assert_int_equal(held[h], holds);
    }
    assert_int_equal(kv_index_match(index, keys, count, NULL, blocks, NULL), 0);
}

static void test_it_answers_as_a_naive_table_does(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 60; seed++) {
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
        for (int step = 0; step < 400; step++) {
            const uint32_t k = prng_below(&prng, KEYS), h = prng_below(&prng, HOLDERS);
            const struct mc_key key = key_of(k);
            const uint32_t what = prng_below(&prng, 32);
            uint32_t blocks, pairs, oldest;

            if (what < 22) {
                kv_index_insert(index, &key, h, MC_MEDIUM_DRAM);
                naive_insert(&naive, k, h);
            } else if (what < 31) {
                kv_index_remove(index, &key, h);
                naive.has[k][h] = false;
            } else {
                kv_index_reset(index, h);
                for (uint32_t i = 0; i < KEYS; i++)
                    naive.has[i][h] = false;
            }
            naive_count(&naive, &blocks, &pairs, &oldest);
            assert_int_equal(kv_index_blocks(index), blocks);
            assert_int_equal(kv_index_forgotten(index), naive.forgotten);
            check_match(index, &naive, &prng);
        }
        assert_int_equal(faulty.calls, calls);
        kv_index_close(index);
        assert_int_equal(faulty.held, 0);
    }
}

static void test_one_block_may_be_at_more_holders_than_there_are_pairs(void **state)
{
    (void)state;
    enum { MANY = 40 };
    struct faulty faulty;
    kv_index *index;
    uint32_t blocks[MANY];

    faulty_init(&faulty, -1);
    const struct kv_index_options options = { .alloc = &faulty.alloc,
                                              .blocks_max = 2,
                                              .holders_max = MANY };
    assert_int_equal(kv_index_open(&options, &index), MC_OK);
    const struct mc_key wide = key_of(1), other = key_of(2);
    kv_index_insert(index, &other, 0, MC_MEDIUM_DRAM);
    for (uint32_t h = 0; h < MANY; h++)
        kv_index_insert(index, &wide, h, MC_MEDIUM_SSD);
    kv_index_match(index, &wide, 1, NULL, blocks, NULL);
    for (uint32_t h = 0; h < MANY; h++)
        assert_int_equal(blocks[h], 1);
    assert_int_equal(kv_index_blocks(index), 1); /* the other one was forgotten for the last */
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
            assert_int_equal(k, 5);
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
        cmocka_unit_test(test_one_block_may_be_at_more_holders_than_there_are_pairs),
        cmocka_unit_test(test_limits_out_of_range_are_refused),
        cmocka_unit_test(test_every_failed_allocation_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
