/* test_due.c - what is due first. */
#include "test.h"

#include "base/prng.h"
#include "store/core/due.h"

static struct due open_due(uint32_t ids, struct faulty *f)
{
    struct due due;

    faulty_init(f, -1);
    assert_int_equal(due_open(&due, &f->alloc, ids), MC_OK);
    return due;
}

static void test_ids_come_in_the_order_of_their_times(void **state)
{
    struct faulty f;
    struct due due = open_due(100, &f);
    struct prng prng = { .seed = 3 };
    uint64_t last = 0;
    uint32_t id = 0, count = 0;

    (void)state;
    for (int round = 0; round < 3; round++)
        for (uint32_t i = 0; i < 100; i++)
            due_set(&due, i, 1 + prng_below(&prng, 50)); /* also anew */
    for (uint32_t i = 0; i < 100; i += 7)
        due_stop(&due, i);
    for (uint64_t at; (at = due_first(&due, &id)) != UINT64_MAX; count++) {
        assert_true(at >= last);
        assert_true(id % 7 != 0);
        last = at;
        due_stop(&due, id);
        due_stop(&due, id); /* not set: nothing happens */
    }
    assert_int_equal(count, 85);
    due_close(&due, &f.alloc);
    assert_int_equal(f.held, 0);
}

static void test_every_failed_allocation_leaves_nothing_behind(void **state)
{
    (void)state;
    for (long k = 0;; k++) {
        struct faulty f;
        struct due due;
        faulty_init(&f, k);
        const mc_status status = due_open(&due, &f.alloc, 4);
        if (status == MC_OK) {
            due_close(&due, &f.alloc);
            assert_int_equal(f.held, 0);
            assert_int_equal(k, 3);
            return;
        }
        assert_int_equal(status, MC_E_NOMEM);
        assert_int_equal(f.held, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ids_come_in_the_order_of_their_times),
        cmocka_unit_test(test_every_failed_allocation_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
