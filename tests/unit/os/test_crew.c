/* test_crew.c - a loop over a crew does every index once; `make tsan` reads the same tests. */
#define _GNU_SOURCE
#include "test.h"

#include "os/crew.h"
#include "os/sysalloc.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>

enum { COUNT_MAX = 1000, SIZE_MAX_TESTED = 9 };

/* Plain memory on purpose: only run's own ordering may make it safe to write and then to read. */
struct tally {
    uint32_t done[COUNT_MAX];
    uint32_t thread[COUNT_MAX];
    uint64_t per_thread[SIZE_MAX_TESTED];
};

static void count_index(void *argument, uint32_t index, uint32_t thread)
{
    struct tally *tally = argument;

    tally->done[index]++;
    tally->thread[index] = thread;
    tally->per_thread[thread]++;
}

static os_crew *open_crew(uint32_t size)
{
    os_crew *crew = NULL;

    assert_int_equal(os_crew_open(size, os_alloc(), &crew, NULL), MC_OK);
    return crew;
}

static void test_every_index_is_done_exactly_once_by_a_thread_of_the_crew(void **state)
{
    (void)state;
    static const uint32_t counts[] = { 0, 1, 2, 3, 8, 9, 100, COUNT_MAX };

    for (uint32_t size = 1; size <= SIZE_MAX_TESTED; size += 2) {
        os_crew *crew = open_crew(size);
        assert_int_equal(os_crew_size(crew), size);
        for (size_t c = 0; c < sizeof(counts) / sizeof(counts[0]); c++) {
            struct tally tally = { 0 };
            uint64_t sum = 0;
            os_crew_run(crew, count_index, &tally, counts[c]);
            for (uint32_t i = 0; i < COUNT_MAX; i++)
                assert_int_equal(tally.done[i], i < counts[c]);
            for (uint32_t i = 0; i < counts[c]; i++)
                assert_true(tally.thread[i] < size);
            for (uint32_t t = 0; t < SIZE_MAX_TESTED; t++)
                sum += tally.per_thread[t];
            assert_int_equal(sum, counts[c]);
        }
        os_crew_close(crew);
    }
}

static void test_short_rounds_one_after_another_neither_lose_nor_repeat_work(void **state)
{
    (void)state;
    struct tally tally = { 0 };
    os_crew *crew = open_crew(3);

    for (uint32_t round = 0; round < 2000; round++)
        os_crew_run(crew, count_index, &tally, 1 + round % 5);
    for (uint32_t i = 0; i < 5; i++)
        assert_int_equal(tally.done[i], 2000 / 5 * (5 - i));
    os_crew_close(crew);
}

struct stage {
    uint32_t in[64], out[64];
};

/* Reads what other threads wrote in the round before. */
static void add_neighbours(void *argument, uint32_t index, uint32_t thread)
{
    struct stage *stage = argument;

    (void)thread;
    stage->out[index] = stage->in[index] + stage->in[(index + 1) % 64];
}

static void test_a_round_sees_all_that_the_round_before_wrote(void **state)
{
    (void)state;
    struct stage stage = { .in = { 1 } };
    os_crew *crew = open_crew(4);

    for (uint32_t round = 0; round < 20; round++) { /* binomial coefficients: the sum doubles */
        os_crew_run(crew, add_neighbours, &stage, 64);
        memcpy(stage.in, stage.out, sizeof(stage.in));
    }
    uint32_t sum = 0;
    for (uint32_t i = 0; i < 64; i++)
        sum += stage.in[i];
    assert_int_equal(sum, 1u << 20);
    assert_int_equal(stage.in[64 - 10], 184756); /* 20 over 10 */
    os_crew_close(crew);
}

/* Notes in each thread's slot whether a signal of the process could land there; slow enough that no
 * thread can do it all. */
static void note_signals(void *argument, uint32_t index, uint32_t thread)
{
    atomic_int *seen =
        argument; /* [3]: times each thread found SIGINT blocked, and -1 if ever not */
    sigset_t mask;

    (void)index;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    atomic_store(&seen[thread], sigismember(&mask, SIGINT) && sigismember(&mask, SIGTERM) ? 1 : -1);
    for (int i = 0; i < 1000 && !(atomic_load(&seen[1]) && atomic_load(&seen[2])); i++)
        sched_yield();
}

static void test_signals_reach_the_owner_and_no_member(void **state)
{
    (void)state;
    atomic_int seen[3] = { 0 };
    os_crew *crew = open_crew(3);

    while (!atomic_load(&seen[1]) || !atomic_load(&seen[2]))
        os_crew_run(crew, note_signals, seen, 100);
    assert_int_equal(seen[0], -1); /* the owner's mask is as it was */
    assert_int_equal(seen[1], 1);
    assert_int_equal(seen[2], 1);
    os_crew_close(crew);
}

static void test_a_crew_that_never_ran_closes(void **state)
{
    (void)state;
    os_crew_close(open_crew(4));
    os_crew_close(NULL);
}

static void test_size_zero_is_a_thread_for_every_processor(void **state)
{
    (void)state;
    os_crew *crew = open_crew(0);

    assert_true(os_processors() >= 1);
    assert_int_equal(os_crew_size(crew), os_processors());
    os_crew_close(crew);
}

static void test_too_many_threads_are_refused_with_the_limit_in_the_text(void **state)
{
    (void)state;
    os_crew *crew = NULL;
    struct mc_error error = { 0 };

    assert_int_equal(os_crew_open(1025, os_alloc(), &crew, &error), MC_E_RANGE);
    assert_null(crew);
    assert_non_null(strstr(error.text, "1025"));
    assert_non_null(strstr(error.text, "1024"));
}

static void test_every_failed_allocation_leaves_nothing_behind(void **state)
{
    (void)state;
    for (long k = 0;; k++) {
        struct faulty f;
        os_crew *crew = NULL;
        faulty_init(&f, k);
        const mc_status status = os_crew_open(3, &f.alloc, &crew, NULL);
        if (status == MC_OK) {
            struct tally tally = { 0 };
            const long calls = f.calls;
            os_crew_run(crew, count_index, &tally, COUNT_MAX);
            assert_int_equal(f.calls, calls); /* a run allocates nothing */
            os_crew_close(crew);
            assert_int_equal(f.held, 0);
            assert_int_equal(k, 2);
            return;
        }
        assert_int_equal(status, MC_E_NOMEM);
        assert_null(crew);
        assert_int_equal(f.held, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_index_is_done_exactly_once_by_a_thread_of_the_crew),
        cmocka_unit_test(test_short_rounds_one_after_another_neither_lose_nor_repeat_work),
        cmocka_unit_test(test_a_round_sees_all_that_the_round_before_wrote),
        cmocka_unit_test(test_signals_reach_the_owner_and_no_member),
        cmocka_unit_test(test_a_crew_that_never_ran_closes),
        cmocka_unit_test(test_size_zero_is_a_thread_for_every_processor),
        cmocka_unit_test(test_too_many_threads_are_refused_with_the_limit_in_the_text),
        cmocka_unit_test(test_every_failed_allocation_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
