/* test_agenda.c - events come by time, and those of one time in order. */
#include "test.h"

#include "base/prng.h"
#include "sim/agenda.h"

static void test_events_come_by_time_and_in_the_order_they_were_added(void **state)
{
    (void)state;
    struct faulty f;
    struct agenda agenda;
    struct agenda_event event;
    struct prng prng = { .seed = 7 };
    uint64_t last = 0;
    uint32_t last_whom = 0;

    faulty_init(&f, -1);
    assert_int_equal(agenda_init(&agenda, &f.alloc), MC_OK);
    for (uint32_t i = 0; i < 5000; i++)
        assert_int_equal(agenda_add(&agenda, prng_below(&prng, 300), 1, i, 0), MC_OK);
    for (uint32_t i = 0; i < 5000; i++) {
        assert_int_equal(agenda_due(&agenda), agenda.heap[0].ns);
        assert_true(agenda_next(&agenda, &event));
        assert_true(event.ns >= last);
        if (event.ns == last && i > 0)
            assert_true(event.whom > last_whom);
        last = event.ns;
        last_whom = event.whom;
    }
    assert_false(agenda_next(&agenda, &event));
    assert_int_equal(agenda_due(&agenda), UINT64_MAX);
    agenda_fini(&agenda);
    assert_int_equal(f.held, 0);
}

static void test_without_memory_an_agenda_is_as_before(void **state)
{
    (void)state;
    struct faulty f;
    struct agenda agenda;
    struct agenda_event event;

    faulty_init(&f, 0);
    assert_int_equal(agenda_init(&agenda, &f.alloc), MC_E_NOMEM);
    agenda_fini(&agenda);
    faulty_init(&f, 1); /* the first growth */
    assert_int_equal(agenda_init(&agenda, &f.alloc), MC_OK);
    for (uint32_t i = 0; i < 256; i++)
        assert_int_equal(agenda_add(&agenda, 256 - i, 1, i, 0), MC_OK);
    assert_int_equal(agenda_add(&agenda, 0, 1, 999, 0), MC_E_NOMEM);
    assert_true(agenda_next(&agenda, &event));
    assert_int_equal(event.whom, 255);
    agenda_fini(&agenda);
    assert_int_equal(f.held, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_events_come_by_time_and_in_the_order_they_were_added),
        cmocka_unit_test(test_without_memory_an_agenda_is_as_before),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
