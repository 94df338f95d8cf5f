/* test_hook.c - the hook around TCP, both ends in one thread: faults come as told and no others do. */
#define _GNU_SOURCE
#include "transport_pair.h"

#include <poll.h>

#include "transfer/transport/hook.h"
#include "transfer/transport/tcp.h"

enum { SPACE = 1 << 16, EACH = 64, SLICES = 500 };

struct fixture {
    struct pair pair;
    uint8_t *remote, *local;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    f->remote = malloc(SPACE);
    f->local = malloc(SPACE);
    memset(f->remote, 1, SPACE);
    memset(f->local, 2, SPACE);
    pair_init(&f->pair, &transport_hook, f->remote, SPACE);
    f->pair.server_env.inner = f->pair.client_env.inner = &transport_tcp;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    pair_close(&f->pair);
    free(f->local);
    free(f->remote);
    free(f);
    return 0;
}

static void start(struct fixture *f, const char *settings)
{
    f->pair.client_env.settings = settings;
    pair_connect(&f->pair);
}

static void stop(struct fixture *f)
{
    pair_disconnect(&f->pair);
    f->pair.ops->close(f->pair.client);
    f->pair.ops->close(f->pair.server);
    memset(f->pair.client, 0, f->pair.ops->transport_bytes);
    memset(f->pair.server, 0, f->pair.ops->transport_bytes);
    memset(f->remote, 1, SPACE);
    memset(f->local, 2, SPACE);
}

static mc_status move(struct fixture *f, enum mc_op op, uint64_t at, uint64_t length,
                      uint32_t flags)
{
    struct transport_slice *slice = pair_slice(&f->pair, op, f->local + at, at, length, flags);
    const mc_status status = pair_move(&f->pair, slice);

    free(slice);
    return status;
}

/** How each of SLICES slices ended, one after the other. */
static void run(struct fixture *f, const char *settings, mc_status results[SLICES])
{
    start(f, settings);
    for (uint32_t i = 0; i < SLICES; i++)
        results[i] = move(f, i % 2 ? MC_READ : MC_WRITE, i % 100 * EACH, EACH, 0);
    stop(f);
}

static void test_without_settings_everything_moves(void **state)
{
    struct fixture *f = *state;
    static const uint64_t sizes[] = { 0, 1, 64, 4097, SPACE };

    start(f, NULL);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        memset(f->local, (int)(10 + i), SPACE);
        assert_int_equal(move(f, MC_WRITE, 0, sizes[i], 1), MC_OK);
        assert_memory_equal(f->local, f->remote, sizes[i]);
        memset(f->remote, (int)(20 + i), SPACE);
        assert_int_equal(move(f, MC_READ, 0, sizes[i], 1), MC_OK);
        assert_memory_equal(f->local, f->remote, sizes[i]);
    }
    const struct hook_counts counts = hook_counts(f->pair.client);
    assert_true(counts.slices == 10 && counts.failed == 0 && counts.corrupted == 0);
}

static void test_the_slice_that_is_to_fail_does_and_has_not_moved(void **state)
{
    struct fixture *f = *state;

    start(f, "fail_at=3,status=stale");
    for (uint32_t i = 1; i <= 5; i++) {
        memset(f->local, (int)(100 + i), SPACE);
        assert_int_equal(move(f, MC_WRITE, 0, EACH, 0), i == 3 ? MC_E_STALE : MC_OK);
        assert_int_equal(f->remote[0], i == 3 ? 102 : 100 + i);
    }
    assert_true(hook_counts(f->pair.client).failed == 1);
}

static void test_one_seed_is_one_run_and_another_seed_another(void **state)
{
    struct fixture *f = *state;
    mc_status one[SLICES], again[SLICES], other[SLICES];
    uint32_t failed = 0, differ = 0;

    run(f, "fail=0.2,seed=5", one);
    run(f, "fail=0.2,seed=5", again);
    run(f, "fail=0.2,seed=6", other);
    assert_memory_equal(one, again, sizeof(one));
    for (uint32_t i = 0; i < SLICES; i++) {
        assert_true(one[i] == MC_OK || one[i] == MC_E_IO);
        failed += one[i] != MC_OK;
        differ += one[i] != other[i];
    }
    assert_in_range(failed, 60, 140); /* 100 +- 4 deviations */
    assert_true(differ > 0);
}

/** Whether exactly one byte of `size` differs. */
static bool one_differs(const uint8_t *a, const uint8_t *b, size_t size)
{
    size_t differ = 0;

    for (size_t i = 0; i < size; i++)
        differ += a[i] != b[i];
    return differ == 1;
}

static void test_a_corrupt_slice_has_one_wrong_byte_in_its_target(void **state)
{
    struct fixture *f = *state;

    start(f, "corrupt=1");
    assert_int_equal(move(f, MC_WRITE, 0, 5000, 0), MC_OK);
    assert_true(one_differs(f->local, f->remote, 5000));
    assert_int_equal(f->remote[5000], 1);
    memset(f->remote, 9, SPACE);
    assert_int_equal(move(f, MC_READ, 0, 5000, 0), MC_OK);
    assert_true(one_differs(f->local, f->remote, 5000));
    /* A transfer that is summed finds it. */
    assert_int_equal(move(f, MC_WRITE, 0, 5000, 1), MC_E_CORRUPT);
    assert_int_equal(move(f, MC_READ, 0, 5000, 1), MC_E_CORRUPT);
    assert_int_equal(move(f, MC_READ, 0, 0, 1), MC_OK); /* nothing to spoil */
    assert_true(hook_counts(f->pair.client).corrupted == 4);
}

static void test_past_the_checksum_nobody_here_finds_it(void **state)
{
    struct fixture *f = *state;

    start(f, "corrupt_at=1,past=yes");
    assert_int_equal(move(f, MC_WRITE, 0, 5000, 1), MC_OK);
    assert_true(one_differs(f->local, f->remote, 5000));
    assert_int_equal(move(f, MC_WRITE, 0, 5000, 1), MC_OK);
    assert_memory_equal(f->local, f->remote, 5000);
}

static void test_a_lost_slice_ends_when_it_is_cancelled(void **state)
{
    struct fixture *f = *state;
    struct transport_slice *slice = pair_slice(&f->pair, MC_WRITE, f->local, 0, EACH, 0);
    struct transport_completion completion;
    uint32_t posted, got;

    start(f, "drop_at=1");
    assert_int_equal(f->pair.ops->post(f->pair.queue, &slice, 1, &posted), MC_OK);
    for (int i = 0; i < 50; i++) {
        pair_serve(&f->pair);
        assert_int_equal(f->pair.ops->poll(f->pair.queue, os_now_ns(), &completion, 1, &got),
                         MC_OK);
        assert_int_equal(got, 0);
    }
    f->pair.ops->cancel(f->pair.queue, MC_E_TIMEOUT);
    assert_int_equal(f->pair.ops->poll(f->pair.queue, os_now_ns(), &completion, 1, &got), MC_OK);
    assert_int_equal(got, 1);
    assert_int_equal(completion.status, MC_E_TIMEOUT);
    assert_int_equal(f->remote[0], 1);
    assert_int_equal(move(f, MC_WRITE, 0, EACH, 0), MC_OK); /* the queue lives */
    free(slice);
}

static void test_a_queue_that_ends_completes_all_it_has(void **state)
{
    struct fixture *f = *state;
    enum { COUNT = 20, END = 10 };
    struct transport_slice *slices[COUNT];
    struct transport_completion completions[COUNT];
    struct mc_error error = { 0 };
    uint32_t posted, got;

    start(f, "end_at=10");
    for (uint32_t i = 0; i < COUNT; i++)
        slices[i] = pair_slice(&f->pair, MC_WRITE, f->local, i * EACH, EACH, 0);
    assert_int_equal(f->pair.ops->post(f->pair.queue, slices, COUNT, &posted), MC_OK);
    assert_int_equal(posted, END);
    pair_finish(&f->pair, completions, END);
    for (uint32_t i = 0; i < END; i++)
        assert_true(completions[i].status == MC_E_PEER || completions[i].status == MC_OK);
    assert_int_equal(f->pair.ops->poll(f->pair.queue, os_now_ns(), completions, 1, &got),
                     MC_E_PEER);
    assert_int_equal(f->pair.ops->post(f->pair.queue, slices, 1, &posted), MC_E_PEER);
    f->pair.ops->queue_error(f->pair.queue, &error);
    assert_non_null(strstr(error.text, "on purpose"));
    /* The next queue of the same transport is not the tenth slice's any more. */
    pair_disconnect(&f->pair);
    assert_int_equal(pair_connect_to(&f->pair, PAIR_SERVER, &error), MC_OK);
    assert_int_equal(move(f, MC_WRITE, 0, EACH, 0), MC_OK);
    for (uint32_t i = 0; i < COUNT; i++)
        free(slices[i]);
}

/* What has moved when the queue ends is not spoilt any more: nothing would bring it back. */
static void test_a_queue_that_ends_completes_what_was_to_be_corrupt(void **state)
{
    struct fixture *f = *state;
    enum { COUNT = 101 }; /* more than the hook takes from the inner queue at once, and the end */
    struct transport_slice *slices[COUNT];
    struct transport_completion completions[COUNT];
    uint32_t posted, got;

    start(f, "corrupt=1,end_at=101");
    for (uint32_t i = 0; i < COUNT; i++)
        slices[i] = pair_slice(&f->pair, MC_WRITE, f->local, i * EACH, EACH, 0);
    assert_int_equal(f->pair.ops->post(f->pair.queue, slices, COUNT - 1, &posted), MC_OK);
    assert_int_equal(posted, COUNT - 1);
    while (f->remote[(COUNT - 1) * EACH - 1] == 1) {
        pair_serve(&f->pair);
        if (f->remote[0] == 1) /* it connects yet */
            assert_int_equal(f->pair.ops->poll(f->pair.queue, os_now_ns(), completions, 0, &got),
                             MC_OK);
    }
    for (int i = 0; i < 3; i++)
        pair_serve(&f->pair);
    assert_int_equal(f->pair.ops->poll(f->pair.queue, os_now_ns(), completions, 0, &got), MC_OK);
    assert_int_equal(f->pair.ops->post(f->pair.queue, slices + COUNT - 1, 1, &posted), MC_OK);
    pair_finish(&f->pair, completions, COUNT);
    for (uint32_t i = 0; i < COUNT; i++)
        free(slices[i]);
}

static void test_a_delay_holds_completions_back_and_a_cancel_does_not_wait_for_it(void **state)
{
    struct fixture *f = *state;
    struct transport_slice *slice = pair_slice(&f->pair, MC_WRITE, f->local, 0, EACH, 0);
    struct transport_completion completion;
    uint32_t posted, got;
    int fd;

    start(f, "delay_ns=3600000000000");
    for (int cancelled = 0; cancelled < 2; cancelled++) {
        assert_int_equal(f->pair.ops->post(f->pair.queue, &slice, 1, &posted), MC_OK);
        for (int i = 0; i < 200 || f->remote[0] != 2; i++) {
            pair_serve(&f->pair);
            assert_int_equal(
                f->pair.ops->poll(f->pair.queue, pair_now(&f->pair), &completion, 1, &got), MC_OK);
            assert_int_equal(got, 0);
        }
        if (cancelled) {
            f->pair.ops->cancel(f->pair.queue, MC_E_CANCELLED);
        } else {
            assert_int_equal(f->pair.ops->arm(f->pair.queue, &fd), MC_OK);
            assert_int_equal(poll(&(struct pollfd){ fd, POLLIN, 0 }, 1, 0), 0);
            f->pair.shift_ns += UINT64_C(3600000000000);
        }
        assert_int_equal(f->pair.ops->poll(f->pair.queue, pair_now(&f->pair), &completion, 1, &got),
                         MC_OK);
        assert_int_equal(got, 1);
        assert_int_equal(completion.status, MC_OK); /* it had moved */
    }
    free(slice);
}

static void test_a_short_delay_wakes_who_sleeps(void **state)
{
    struct fixture *f = *state;
    struct transport_slice *slice = pair_slice(&f->pair, MC_READ, f->local, 0, EACH, 0);
    struct transport_completion completion;
    uint32_t posted, got = 0;
    int fd, serve_fd;

    start(f, "delay_ns=1000000");
    assert_int_equal(f->pair.ops->serve_fd(f->pair.server, &serve_fd), MC_OK);
    assert_int_equal(f->pair.ops->post(f->pair.queue, &slice, 1, &posted), MC_OK);
    while (got == 0) {
        const mc_status armed = f->pair.ops->arm(f->pair.queue, &fd);
        struct pollfd fds[2] = { { armed == MC_OK ? fd : -1, POLLIN, 0 }, { serve_fd, POLLIN, 0 } };

        assert_true(armed == MC_PENDING || poll(fds, 2, 20000) > 0);
        if (fds[1].revents)
            pair_serve(&f->pair);
        assert_int_equal(f->pair.ops->poll(f->pair.queue, os_now_ns(), &completion, 1, &got),
                         MC_OK);
    }
    assert_int_equal(completion.status, MC_OK);
    free(slice);
}

/* After a cancel at any step, with everything going wrong at once, the memory is quiet. */
static void test_faults_keep_the_promise_of_quiet(void **state)
{
    struct fixture *f = *state;
    enum { COUNT = 40 };
    struct transport_slice *slices[COUNT];
    struct transport_completion completions[COUNT];

    start(f, "fail=0.2,corrupt=0.3,drop=0.1,delay_ns=1000,tcp.buffer=16384");
    for (uint32_t k = 0; k < 40; k++) {
        uint32_t posted, got, have = 0;

        for (uint32_t i = 0; i < COUNT; i++)
            slices[i] = pair_slice(&f->pair, i % 2 ? MC_READ : MC_WRITE, f->local + i * 1000,
                                   i * 1000, 1000, i / 2 % 2);
        assert_int_equal(f->pair.ops->post(f->pair.queue, slices, COUNT, &posted), MC_OK);
        for (uint32_t i = 0; i < k; i++) {
            pair_serve(&f->pair);
            assert_int_equal(f->pair.ops->poll(f->pair.queue, os_now_ns(), completions + have,
                                               COUNT - have, &got),
                             MC_OK);
            have += got;
        }
        f->pair.ops->cancel(f->pair.queue, MC_E_CANCELLED);
        pair_finish(&f->pair, completions + have, posted - have);
        for (uint32_t i = 0; i < COUNT; i++)
            free(slices[i]);
        memset(f->local, 0xa5, SPACE);
        for (int i = 0; i < 20; i++) {
            pair_serve(&f->pair);
            assert_int_equal(f->pair.ops->poll(f->pair.queue, os_now_ns(), completions, 1, &got),
                             MC_OK);
            assert_int_equal(got, 0);
        }
        for (size_t i = 0; i < SPACE; i++)
            assert_int_equal(f->local[i], 0xa5);
    }
    const struct hook_counts counts = hook_counts(f->pair.client);
    assert_true(counts.failed > 0 && counts.corrupted > 0 && counts.dropped > 0);
}

static void test_settings_that_mean_nothing_are_refused_in_both(void **state)
{
    struct fixture *f = *state;
    static const char *const bad[] = { "fail=2", "status=fine", "tcp.colour=red", "colour=red",
                                       "seed" };
    struct transport_caps caps;
    struct mc_error error;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        f->pair.client_env.settings = bad[i];
        assert_int_not_equal(f->pair.ops->open(f->pair.client, &f->pair.client_env, &error), MC_OK);
        f->pair.ops->close(f->pair.client);
        memset(f->pair.client, 0, f->pair.ops->transport_bytes);
    }
    f->pair.client_env.inner = NULL;
    assert_int_equal(f->pair.ops->open(f->pair.client, &f->pair.client_env, &error), MC_E_ARG);
    f->pair.ops->close(f->pair.client);
    memset(f->pair.client, 0, f->pair.ops->transport_bytes);
    assert_int_equal(f->pair.ops->probe(&f->pair.client_env, &caps), MC_E_UNSUPPORTED);
    assert_non_null(strstr(caps.found, "hook:tcp"));
    assert_int_equal(f->pair.ops->probe(&f->pair.server_env, &caps), MC_OK);
    assert_string_equal(caps.found, "tcp: sockets");
    f->pair.client_env.inner = &transport_tcp;
    f->pair.client_env.settings = "tcp.buffer=64K,fail=0.5,tcp.nodelay=0";
    assert_int_equal(f->pair.ops->open(f->pair.client, &f->pair.client_env, &error), MC_OK);
}

static void test_every_failed_allocation_leaves_nothing_behind(void **state)
{
    struct fixture *f = *state;

    for (long k = 0;; k++) {
        struct mc_error error = { 0 };
        struct transport_region range = { .address = f->local, .size = SPACE, .fd = -1 };
        uint8_t key[TRANSPORT_KEY_MAX];
        uint64_t blocker, region[4] = { 0 };
        size_t key_size;

        faulty_init(&f->pair.memory, k);
        mc_status status = pair_open(&f->pair, &error);
        if (status == MC_OK)
            status = pair_connect_to(&f->pair, PAIR_SERVER, &error);
        if (status == MC_OK) {
            assert_int_equal(
                f->pair.ops->region_open(f->pair.client, &range, region, key, &key_size, &error),
                MC_OK);
            f->pair.ops->region_close(f->pair.client, region);
            assert_int_equal(f->pair.ops->region_poll(f->pair.client, region, &blocker), MC_OK);
            break;
        }
        assert_int_equal(status, MC_E_NOMEM);
        pair_disconnect(&f->pair);
        f->pair.ops->close(f->pair.client);
        f->pair.ops->close(f->pair.server);
        assert_int_equal(f->pair.memory.held, 0);
        memset(f->pair.client, 0, f->pair.ops->transport_bytes);
        memset(f->pair.server, 0, f->pair.ops->transport_bytes);
        assert_true(k < 50);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_without_settings_everything_moves),
        TEST(test_the_slice_that_is_to_fail_does_and_has_not_moved),
        TEST(test_one_seed_is_one_run_and_another_seed_another),
        TEST(test_a_corrupt_slice_has_one_wrong_byte_in_its_target),
        TEST(test_past_the_checksum_nobody_here_finds_it),
        TEST(test_a_lost_slice_ends_when_it_is_cancelled),
        TEST(test_a_queue_that_ends_completes_all_it_has),
        TEST(test_a_queue_that_ends_completes_what_was_to_be_corrupt),
        TEST(test_a_delay_holds_completions_back_and_a_cancel_does_not_wait_for_it),
        TEST(test_a_short_delay_wakes_who_sleeps),
        TEST(test_faults_keep_the_promise_of_quiet),
        TEST(test_settings_that_mean_nothing_are_refused_in_both),
        TEST(test_every_failed_allocation_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
