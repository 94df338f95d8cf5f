/* test_pages.c - who holds which page, with many holders and in many threads. */
#include "test.h"

#include "base/prng.h"
#include "infer/pages.h"
#include "os/thread.h"

enum { COUNT = 40, STRIDE = 128, THREADS = 4, ROUNDS = 2000 };

static _Alignas(64) char memory[COUNT * STRIDE];

static struct pages *open_pages(struct faulty *f)
{
    struct pages *pages = NULL;

    faulty_init(f, -1);
    assert_int_equal(pages_open(&f->alloc, memory, STRIDE, COUNT, &pages, NULL), MC_OK);
    return pages;
}

static void test_all_are_taken_or_none_and_low_ones_first(void **state)
{
    (void)state;
    struct faulty f;
    struct pages *p = open_pages(&f);
    void *taken[COUNT + 1];

    assert_int_equal(pages_count(p), COUNT);
    assert_true(pages_take(p, COUNT, 0, taken));
    for (uint32_t i = 0; i < COUNT; i++)
        assert_int_equal(pages_offset(p, taken[i]), i * STRIDE);
    assert_int_equal(pages_free(p), 0);
    assert_false(pages_take(p, 1, 0, taken + COUNT));
    pages_drop(p, taken + 30, 10);
    assert_false(pages_take(p, 8, 3, taken + 30));
    assert_true(pages_take(p, 8, 2, taken + 30));
    assert_int_equal(pages_offset(p, taken[30]), 30 * STRIDE);
    assert_true(pages_take(p, 0, 2, NULL));
    assert_int_equal(pages_free(p), 2);
    pages_drop(p, taken, 38);
    pages_close(p);
    assert_int_equal(f.held, 0);
}

static void test_a_page_is_free_when_its_last_holder_lets_go(void **state)
{
    (void)state;
    struct faulty f;
    struct pages *p = open_pages(&f);
    void *taken[3];

    assert_true(pages_take(p, 3, 0, taken));
    pages_hold(p, taken, 2);
    pages_hold(p, taken, 1);
    pages_drop(p, taken, 3);
    assert_int_equal(pages_free(p), COUNT - 2);
    pages_drop(p, taken, 2);
    assert_int_equal(pages_free(p), COUNT - 1);
    pages_drop(p, taken, 1);
    assert_int_equal(pages_free(p), COUNT);
    pages_close(p);
}

static void test_who_reserves_leaves_what_is_wanted_by_the_first_in_line(void **state)
{
    (void)state;
    struct faulty f;
    struct pages *p = open_pages(&f);
    void *taken[COUNT];

    pages_want(p, 30);
    assert_false(pages_reserve(p, 11, 0, taken));
    assert_false(pages_reserve(p, 10, 1, taken));
    assert_true(pages_reserve(p, 10, 0, taken));
    assert_true(pages_take(p, 30, 0, taken + 10));
    pages_want(p, UINT32_MAX); /* no sum overflows */
    pages_drop(p, taken, COUNT);
    assert_false(pages_reserve(p, 1, UINT32_MAX, taken));
    pages_want(p, 0);
    assert_true(pages_reserve(p, 1, 0, taken));
    pages_drop(p, taken, 1);
    pages_close(p);
}

static void test_no_memory_is_told_and_leaves_nothing(void **state)
{
    (void)state;
    struct faulty f;
    struct pages *p = NULL;
    struct mc_error error = { 0 };

    faulty_init(&f, 0);
    assert_int_equal(pages_open(&f.alloc, memory, STRIDE, COUNT, &p, &error), MC_E_NOMEM);
    assert_string_equal(error.text, "out of memory for a list of 40 pages");
    assert_null(p);
    assert_int_equal(f.held, 0);
    pages_close(NULL);
}

struct user {
    struct pages *pages;
    uint64_t seed;
    uint32_t bad; /* pages that changed while they were held */
};

static void use(void *argument)
{
    struct user *u = argument;
    struct prng prng = { .seed = u->seed };

    for (uint32_t round = 0; round < ROUNDS; round++) {
        const uint32_t count = 1 + prng_below(&prng, 12);
        void *taken[12];
        if (!pages_reserve(u->pages, count, prng_below(&prng, 3), taken))
            continue;
        for (uint32_t i = 0; i < count; i++)
            memset(taken[i], (int)u->seed, STRIDE);
        pages_hold(u->pages, taken, count);
        pages_drop(u->pages, taken, count);
        for (uint32_t i = 0; i < count; i++)
            u->bad += *(char *)taken[i] != (char)u->seed || pages_free(u->pages) > COUNT - count;
        pages_drop(u->pages, taken, count);
    }
}

static void test_threads_never_hold_the_same_page(void **state)
{
    (void)state;
    struct faulty f;
    struct pages *p = open_pages(&f);
    struct user users[THREADS];
    struct os_thread threads[THREADS];

    for (uint32_t i = 0; i < THREADS; i++) {
        users[i] = (struct user){ .pages = p, .seed = i + 1 };
        assert_int_equal(os_thread_start(&threads[i], use, &users[i], NULL), MC_OK);
    }
    for (uint32_t i = 0; i < THREADS; i++) {
        os_thread_join(&threads[i]);
        assert_int_equal(users[i].bad, 0);
    }
    assert_int_equal(pages_free(p), COUNT);
    pages_close(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_are_taken_or_none_and_low_ones_first),
        cmocka_unit_test(test_a_page_is_free_when_its_last_holder_lets_go),
        cmocka_unit_test(test_who_reserves_leaves_what_is_wanted_by_the_first_in_line),
        cmocka_unit_test(test_no_memory_is_told_and_leaves_nothing),
        cmocka_unit_test(test_threads_never_hold_the_same_page),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
