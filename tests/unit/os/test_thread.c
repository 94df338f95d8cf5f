/* test_thread.c - waking, sleeping and descriptors that wake. */
#include "test.h"

#include "os/clock.h"
#include "os/thread.h"

static _Atomic uint32_t word;

static void raise_word(void *argument)
{
    atomic_store(&word, 1);
    os_wake_all(&word);
    os_event_raise(*(int *)argument);
}

static void test_a_thread_wakes_one_that_sleeps_on_a_word_and_one_that_polls(void **state)
{
    (void)state;
    struct os_thread thread;
    int fd = -1;

    atomic_store(&word, 0);
    assert_int_equal(os_event_open(&fd), MC_OK);
    assert_int_equal(os_thread_start(&thread, raise_word, &fd, NULL), MC_OK);
    while (atomic_load(&word) == 0)
        os_wait_change(&word, 0, UINT64_MAX);
    while (!os_wait_readable(&fd, 1, UINT64_MAX))
        ;
    os_thread_join(&thread);
    os_event_lower(fd);
    assert_false(os_wait_readable(&fd, 1, 0));
    os_event_close(fd);
}

static void test_a_wait_ends_at_its_time(void **state)
{
    (void)state;
    const int none = -1;
    const uint64_t until_ns = os_now_ns() + 1000000;

    atomic_store(&word, 7);
    while (os_now_ns() < until_ns)
        os_wait_change(&word, 7, until_ns);
    assert_false(os_wait_readable(&none, 1, os_now_ns() + 1000));
    os_wait_change(&word, 8, UINT64_MAX); /* it is another one already */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_thread_wakes_one_that_sleeps_on_a_word_and_one_that_polls),
        cmocka_unit_test(test_a_wait_ends_at_its_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
