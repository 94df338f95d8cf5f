/* test_threads.c - one engine, many threads: batches, regions and windows at once. `make tsan` reads it. */
#include "engines.h"

#include "os/thread.h"
#include "transfer/transport/table.h"

enum { THREADS = 64, SIZE = 4096, ROUNDS = 20, BOTH = MC_REMOTE_READ | MC_REMOTE_WRITE };

struct job {
    struct os_thread thread;
    mc_transfer *engine;
    uint32_t segment, number;
    struct mc_region region;
    unsigned char *remote; /* [SIZE], this thread's part of the peer's memory */
    uint64_t offset;
    const char *failed; /* NULL: well */
};

static const char *one_round(struct job *job, unsigned char *local, uint32_t round)
{
    struct mc_xfer xfer = { .op = MC_WRITE,
                            .segment = job->segment,
                            .region = job->region,
                            .offset = job->offset,
                            .length = SIZE / 4,
                            .count = 4,
                            .local = local,
                            .local_stride = SIZE / 4,
                            .remote_stride = SIZE / 4 };
    mc_batch *batch = NULL;

    memset(local, (int)(job->number + round), SIZE);
    if (mc_batch_open(job->engine, NULL, &batch) != MC_OK)
        return "open";
    const char *failed = NULL;
    if (mc_batch_add(batch, &xfer, 1) != MC_OK)
        failed = "add";
    else if (mc_batch_submit(batch) != MC_OK)
        failed = "submit";
    else if (mc_batch_wait(batch, in_seconds(60)) != MC_OK)
        failed = "wait";
    else if (mc_batch_reset(batch, in_seconds(60)) != MC_OK)
        failed = "reset";
    memset(local, 0, SIZE);
    xfer.op = MC_READ;
    if (!failed && (mc_batch_add(batch, &xfer, 1) != MC_OK || mc_batch_submit(batch) != MC_OK))
        failed = "read";
    if (!failed && round % 4 == 3) { /* some change their mind */
        mc_batch_cancel(batch);
        const mc_status status = mc_batch_wait(batch, in_seconds(60));
        if (status != MC_OK && status != MC_E_CANCELLED)
            failed = "cancel";
    } else if (!failed && mc_batch_wait(batch, in_seconds(60)) != MC_OK) {
        failed = "wait for read";
    } else if (!failed) {
        for (uint32_t i = 0; i < SIZE && !failed; i++)
            failed = local[i] == (unsigned char)(job->number + round) ? NULL : "bytes";
    }
    mc_batch_close(batch);
    return failed;
}

static void work(void *argument)
{
    struct job *job = argument;
    unsigned char *local = malloc(SIZE);
    const struct mc_region_options options = { .address = local,
                                               .size = SIZE,
                                               .flags = MC_REGION_PRIVATE };

    for (uint32_t round = 0; round < ROUNDS && !job->failed; round++) {
        struct mc_region region;
        if (mc_region_register(job->engine, &options, 1, &region, NULL) != MC_OK) {
            job->failed = "register";
            break;
        }
        job->failed = one_round(job, local, round);
        if (mc_region_unregister(job->engine, &region, 1, in_seconds(60), NULL) != MC_OK)
            job->failed = "unregister";
    }
    free(local);
}

static void run_all(const char *transports, bool own)
{
    const struct mc_transfer_options options = { .transports = transports };
    mc_transfer *here = open_engine(&options), *there = own ? here : open_engine(&options);
    static struct job jobs[THREADS];
    struct mc_transfer_info info;
    unsigned char *memory;
    uint32_t segment;

    assert_int_equal(mc_memory_alloc(there, THREADS * SIZE, NULL, (void **)&memory, NULL), MC_OK);
    const struct mc_region region = register_memory(there, memory, THREADS * SIZE, BOTH, 0);
    mc_transfer_info(there, &info);
    assert_int_equal(mc_segment_open(here, info.name, &segment, NULL), MC_OK);
    for (uint32_t i = 0; i < THREADS; i++) {
        jobs[i] = (struct job){ .engine = here,
                                .segment = segment,
                                .number = i,
                                .region = region,
                                .remote = memory + i * SIZE,
                                .offset = (uint64_t)i * SIZE };
        assert_int_equal(os_thread_start(&jobs[i].thread, work, &jobs[i], NULL), MC_OK);
    }
    for (uint32_t i = 0; i < THREADS; i++)
        os_thread_join(&jobs[i].thread);
    for (uint32_t i = 0; i < THREADS; i++) {
        if (jobs[i].failed)
            fail_msg("thread %u: %s", i, jobs[i].failed);
    }
    mc_segment_close(here, segment);
    unregister(there, region);
    mc_memory_free(there, memory);
    if (!own)
        mc_transfer_close(there);
    mc_transfer_close(here);
}

static void test_many_threads_use_one_engine_at_once(void **state)
{
    (void)state;
    run_all("self", true);
    for (size_t i = 0; transport_table[i]; i++) {
        const char *name = transport_table[i]->name;
        if (strcmp(name, "self") != 0 && strcmp(name, "hook") != 0)
            run_all(name, false);
    }
}

/* A thread waits, another one ends its wait. */
struct waiter {
    struct os_thread thread;
    mc_transfer *engine;
    mc_status taken;
    _Atomic bool going;
};

static void take_notice(void *argument)
{
    struct waiter *waiter = argument;
    struct mc_notice notice;
    char message[8];

    atomic_store(&waiter->going, true);
    waiter->taken = mc_notice_take(waiter->engine, in_seconds(60), &notice, message, 8);
}

static void test_a_waiting_thread_is_woken_by_a_notice(void **state)
{
    (void)state;
    const struct mc_transfer_options options = { .transports = "self" };
    struct waiter waiter = { .engine = open_engine(&options) };
    const uint32_t segment = open_own(waiter.engine);
    mc_batch *batch;

    assert_int_equal(os_thread_start(&waiter.thread, take_notice, &waiter, NULL), MC_OK);
    while (!atomic_load(&waiter.going))
        os_yield();
    assert_int_equal(mc_batch_open(waiter.engine, NULL, &batch), MC_OK);
    assert_int_equal(mc_batch_notify(batch, segment, "wake", "up", 2), MC_OK);
    assert_int_equal(mc_batch_submit(batch), MC_OK);
    assert_int_equal(mc_batch_wait(batch, in_seconds(60)), MC_OK);
    os_thread_join(&waiter.thread);
    assert_int_equal(waiter.taken, MC_OK);
    mc_batch_close(batch);
    mc_segment_close(waiter.engine, segment);
    mc_transfer_close(waiter.engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_threads_use_one_engine_at_once),
        cmocka_unit_test(test_a_waiting_thread_is_woken_by_a_notice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
