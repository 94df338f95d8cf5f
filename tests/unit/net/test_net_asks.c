/* test_net_asks.c - the table of questions against a plain search. */
#include "test.h"

#include "base/prng.h"
#include "net/net_asks.h"

static void test_questions_are_found_by_id_and_kept_by_age(void **state)
{
    (void)state;
    enum { COUNT = 200 };
    static struct ask all[COUNT];
    struct prng prng = { .seed = 1 };
    struct faulty f;
    struct asks asks = { 0 };
    bool in[COUNT] = { false };
    uint64_t age[COUNT] = { 0 }, ages = 0, last = 0;
    uint32_t count = 0;

    faulty_init(&f, -1);
    asks_begin(&asks, UINT64_MAX - 50); /* and over the end: 0 is no id */
    for (int round = 0; round < 20000; round++) {
        const uint32_t i = prng_below(&prng, COUNT);
        if (!in[i]) {
            assert_int_equal(asks_add(&asks, &all[i], COUNT, &f.alloc), MC_OK);
            assert_int_not_equal(all[i].id, 0);
            assert_int_not_equal(all[i].id, last);
            last = all[i].id;
            age[i] = ++ages;
            count++;
        } else {
            assert_ptr_equal(asks_take(&asks, all[i].id), &all[i]);
            assert_null(asks_take(&asks, all[i].id));
            count--;
        }
        in[i] = !in[i];
        assert_int_equal(asks.count, count);
        if (round % 50 == 0) {
            uint64_t before = 0;
            uint32_t seen = 0;
            for (const struct ask *ask = asks.first; ask; ask = ask->after, seen++) {
                assert_true(age[ask - all] > before);
                before = age[ask - all];
            }
            assert_int_equal(seen, count);
        }
    }
    for (int i = 0; i < COUNT; i++)
        if (in[i])
            assert_ptr_equal(asks_take(&asks, all[i].id), &all[i]);
    asks_fini(&asks, &f.alloc);
    assert_int_equal(f.held, 0);
}

static void test_an_id_drawn_is_in_use_nowhere(void **state)
{
    (void)state;
    struct faulty f;
    struct asks asks = { 0 };
    struct ask kept[10];

    faulty_init(&f, -1);
    asks_begin(&asks, 16); /* ids 16 .. 25 take the slots 0 .. 9 */
    for (int i = 0; i < 10; i++)
        assert_int_equal(asks_add(&asks, &kept[i], 100, &f.alloc), MC_OK);
    asks.next_id = 32;
    assert_int_equal(asks_draw_id(&asks), 42);
    assert_null(asks_take(&asks, 42));
    assert_null(asks_take(&asks, 32));
    for (int i = 0; i < 10; i++)
        asks_take(&asks, kept[i].id);
    asks_fini(&asks, &f.alloc);
    assert_int_equal(f.held, 0);
}

static void test_full_and_out_of_memory_leave_the_table_as_it_was(void **state)
{
    (void)state;
    for (long k = 0; k < 3; k++) {
        struct faulty f;
        struct asks asks = { 0 };
        struct ask kept[40];
        uint32_t count = 0;
        mc_status status;
        faulty_init(&f, k);
        asks_begin(&asks, 5);
        while ((status = asks_add(&asks, &kept[count], 31, &f.alloc)) == MC_OK)
            count++;
        assert_int_equal(status, k < 2 ? MC_E_NOMEM : MC_E_FULL);
        assert_int_equal(count, k == 0 ? 0 : k == 1 ? 15 : 31);
        assert_int_equal(asks.count, count);
        for (uint32_t i = 0; i < count; i++)
            assert_ptr_equal(asks_take(&asks, kept[i].id), &kept[i]);
        assert_null(asks_take(&asks, 5));
        asks_fini(&asks, &f.alloc);
        assert_int_equal(f.held, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_questions_are_found_by_id_and_kept_by_age),
        cmocka_unit_test(test_an_id_drawn_is_in_use_nowhere),
        cmocka_unit_test(test_full_and_out_of_memory_leave_the_table_as_it_was),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
