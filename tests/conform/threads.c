/* threads.c - many threads on one engine, each with batches of its own. */
#define _GNU_SOURCE
#include "world.h"

#include <pthread.h>
#include <stdatomic.h>

#if defined(__SANITIZE_THREAD__)
enum { ROUNDS = 3 }; /* ten times as slow */
#else
enum { ROUNDS = 12 };
#endif

enum { THREADS = 64, SHARE = SPACE / THREADS, EACH = 1000 };

struct worker {
    struct world *world;
    uint32_t index;
    const char *failed; /* what went wrong; NULL: nothing */
};

static mc_status run_batch(struct world *w, const struct mc_xfer *xfers, size_t count)
{
    const struct mc_batch_options options = { .capacity = count };
    mc_batch *batch = NULL;
    mc_status status = mc_batch_open(w->engine, &options, &batch);

    if (status == MC_OK)
        status = mc_batch_add(batch, xfers, count);
    if (status == MC_OK)
        status = mc_batch_submit(batch);
    if (status == MC_OK)
        status = mc_batch_wait(batch, soon());
    mc_batch_close(batch);
    return status;
}

/** Write some places of one's own share, read them back into others, compare. */
static const char *round_trip(const struct worker *worker, uint32_t round)
{
    enum { COUNT = 20 };
    struct world *w = worker->world;
    const uint64_t base = (uint64_t)worker->index * SHARE;
    struct mc_xfer xfers[COUNT];
    const uint64_t half = SHARE / 2;

    for (uint64_t i = 0; i < COUNT; i++) {
        xfers[i] = xfer_of(w, MC_WRITE, base + i * EACH, base + (COUNT - 1 - i) * EACH, EACH);
        memset(w->local + base + i * EACH, (int)(worker->index + round * 7 + i), EACH);
    }
    if (run_batch(w, xfers, COUNT) != MC_OK)
        return "a write failed";
    for (uint64_t i = 0; i < COUNT; i++)
        xfers[i] = xfer_of(w, MC_READ, base + half + i * EACH, base + (COUNT - 1 - i) * EACH, EACH);
    if (run_batch(w, xfers, COUNT) != MC_OK)
        return "a read failed";
    return memcmp(w->local + base, w->local + base + half, COUNT * EACH) == 0
               ? NULL
               : "other bytes came back";
}

static void *work(void *argument)
{
    struct worker *worker = argument;

    for (uint32_t round = 0; round < ROUNDS && !worker->failed; round++)
        worker->failed = round_trip(worker, round);
    return NULL;
}

static void run_threads(struct world *w, void *(*function)(void *), struct worker *workers)
{
    pthread_t threads[THREADS];
    uint32_t started = 0;

    for (; started < THREADS; started++) {
        workers[started] = (struct worker){ .world = w, .index = started };
        if (pthread_create(&threads[started], NULL, function, &workers[started]) != 0)
            break;
    }
    for (uint32_t i = 0; i < started; i++)
        (void)pthread_join(threads[i], NULL);
    assert_int_equal(started, THREADS);
    for (uint32_t i = 0; i < THREADS; i++) {
        if (workers[i].failed)
            fail_msg("thread %u: %s", i, workers[i].failed);
    }
}

static void test_sixty_four_threads_share_an_engine(void **state)
{
    struct world *w = *state;
    struct worker workers[THREADS];

    world_open(w, &(struct world_options){ 0 });
    run_threads(w, work, workers);
    world_close(w);
}

static void test_sixty_four_threads_drive_an_engine_that_has_none(void **state)
{
    struct world *w = *state;
    struct worker workers[THREADS];

    world_open(w, &(struct world_options){ .driven = true });
    run_threads(w, work, workers);
    world_close(w);
}

/** Register and unregister a range of one's own while the others transfer. */
static void *churn(void *argument)
{
    struct worker *worker = argument;
    struct world *w = worker->world;
    static _Thread_local uint8_t memory[4096];

    if (worker->index % 4 != 0)
        return work(argument);
    for (uint32_t round = 0; round < ROUNDS && !worker->failed; round++) {
        const struct mc_region_options options = { .address = memory, .size = sizeof(memory) };
        struct mc_xfer xfer =
            xfer_of(w, MC_READ, 0, (uint64_t)worker->index * SHARE, sizeof(memory));
        struct mc_region region;

        xfer.local = memory;
        if (mc_region_register(w->engine, &options, 1, &region, NULL) != MC_OK)
            worker->failed = "a region was not registered";
        else if (run_batch(w, &xfer, 1) != MC_OK)
            worker->failed = "a read into it failed";
        else if (mc_region_unregister(w->engine, &region, 1, soon(), NULL) != MC_OK)
            worker->failed = "it was not unregistered";
    }
    return NULL;
}

static void test_memory_comes_and_goes_while_others_transfer(void **state)
{
    struct world *w = *state;
    struct worker workers[THREADS];

    world_open(w, &(struct world_options){ 0 });
    run_threads(w, churn, workers);
    world_close(w);
}

/** Cancel the batch of another thread, again and again. */
struct chase {
    mc_batch *batch;
    atomic_bool over;
};

static void *cancel_it(void *argument)
{
    struct chase *chase = argument;

    while (!atomic_load(&chase->over))
        (void)mc_batch_cancel(chase->batch);
    return NULL;
}

static void test_a_batch_may_be_cancelled_from_another_thread(void **state)
{
    struct world *w = *state;

    world_open(w, &(struct world_options){ 0 });
    for (uint32_t round = 0; round < 50; round++) {
        const struct mc_xfer xfer = xfer_of(w, MC_READ, 0, 0, 1 << 20);
        struct chase chase = { .batch = NULL };
        pthread_t thread;

        assert_int_equal(mc_batch_open(w->engine, NULL, &chase.batch), MC_OK);
        assert_int_equal(mc_batch_add(chase.batch, &xfer, 1), MC_OK);
        assert_int_equal(pthread_create(&thread, NULL, cancel_it, &chase), 0);
        (void)!mc_batch_submit(chase.batch);
        const mc_status status = mc_batch_wait(chase.batch, soon());
        atomic_store(&chase.over, true);
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_true(status == MC_OK || status == MC_E_CANCELLED);
        mc_batch_close(chase.batch);
    }
    world_close(w);
}

int topic_threads(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_sixty_four_threads_share_an_engine),
        WORLD_TEST(test_sixty_four_threads_drive_an_engine_that_has_none),
        WORLD_TEST(test_memory_comes_and_goes_while_others_transfer),
        WORLD_TEST(test_a_batch_may_be_cancelled_from_another_thread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
