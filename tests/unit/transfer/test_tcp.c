/* test_tcp.c - the TCP transport's two ends in one thread, against an engine of one region. */
#define _GNU_SOURCE
#include "transport_pair.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/prng.h"
#include "transfer/transport/tcp.h"

enum { SPACE = 2 << 20 };

struct fixture {
    struct pair pair;
    uint8_t *remote, *local; /* [SPACE] */
};

static void random_bytes(uint8_t *bytes, size_t size, uint64_t seed)
{
    struct prng prng = { .seed = seed };

    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(i % 8 == 0 ? prng_next(&prng) : (uint64_t)bytes[i - 1] * 31 + 7);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    f->remote = malloc(SPACE);
    f->local = malloc(SPACE);
    random_bytes(f->remote, SPACE, 1);
    random_bytes(f->local, SPACE, 2);
    pair_init(&f->pair, &transport_tcp, f->remote, SPACE);
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

/* ------------------------------------------------------------------------------------ what moves */

static void move_and_compare(struct fixture *f, enum mc_op op, uint64_t at, uint64_t length,
                             uint32_t flags)
{
    uint8_t *expected = malloc(SPACE);
    uint8_t *target = op == MC_READ ? f->local : f->remote;
    struct transport_slice *slice = pair_slice(&f->pair, op, f->local + at + 1, at, length, flags);

    random_bytes(op == MC_READ ? f->remote : f->local, SPACE, at + length + flags + 3);
    memcpy(expected, target, SPACE);
    memcpy(expected + (op == MC_READ ? at + 1 : at),
           op == MC_READ ? f->remote + at : f->local + at + 1, length);
    assert_int_equal(pair_move(&f->pair, slice), MC_OK);
    assert_memory_equal(target, expected, SPACE);
    free(slice);
    free(expected);
}

static void test_every_size_lands_whole_and_nowhere_else(void **state)
{
    struct fixture *f = *state;
    static const uint64_t sizes[] = { 0,     1,     63,    64,    65,     4095,    4096,   4097,
                                      16000, 65535, 65536, 65537, 200000, 1048575, 1 << 20 };

    uint64_t total = 0;

    pair_connect(&f->pair);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        for (uint32_t flags = 0; flags < 2; flags++) {
            total += sizes[i];
            move_and_compare(f, MC_WRITE, 777, sizes[i], flags);
            move_and_compare(f, MC_READ, 777, sizes[i], flags);
        }
    }
    assert_true(f->pair.engine.peer == PAIR_CLIENT);
    assert_true(f->pair.engine.moved[MC_READ] == total); /* however many pins it took */
    assert_true(f->pair.engine.moved[MC_WRITE] == total);
}

static void test_more_slices_than_the_queue_holds_all_move(void **state)
{
    struct fixture *f = *state;
    enum { COUNT = 3000, EACH = 64 };
    struct transport_slice **slices = calloc(COUNT, sizeof(struct transport_slice *));
    uint32_t posted = 0, done = 0;

    pair_connect(&f->pair);
    for (uint32_t i = 0; i < COUNT; i++)
        slices[i] = pair_slice(&f->pair, MC_WRITE, f->local + i * EACH, (COUNT - 1 - i) * EACH,
                               EACH, i % 2);
    for (bool was_full = false; done < COUNT;) {
        struct transport_completion completions[100];
        uint32_t got = 0;

        assert_int_equal(f->pair.ops->post(f->pair.queue, slices + posted, COUNT - posted, &got),
                         MC_OK);
        posted += got;
        was_full |= posted < COUNT;
        pair_serve(&f->pair);
        assert_int_equal(f->pair.ops->poll(f->pair.queue, os_now_ns(), completions, 100, &got),
                         MC_OK);
        for (uint32_t i = 0; i < got; i++)
            assert_int_equal(completions[i].status, MC_OK);
        done += got;
        assert_true(was_full);
    }
    for (uint32_t i = 0; i < COUNT; i++)
        assert_memory_equal(f->remote + (COUNT - 1 - i) * EACH, f->local + i * EACH, EACH);
    for (uint32_t i = 0; i < COUNT; i++)
        free(slices[i]);
    free(slices);
}

static void test_large_slices_share_the_streams_both_ways(void **state)
{
    struct fixture *f = *state;
    enum { COUNT = 32, EACH = 64 * 1024 };
    struct transport_slice *slices[COUNT];
    struct transport_completion completions[COUNT];
    uint32_t posted;

    pair_connect(&f->pair);
    for (uint32_t i = 0; i < COUNT; i++) {
        const uint64_t at = (uint64_t)(i / 2) * EACH;
        /* Writes to the lower half, reads from the upper half; each way from the matching place. */
        slices[i] = i % 2 == 0 ? pair_slice(&f->pair, MC_WRITE, f->local + at, at, EACH, 1)
                               : pair_slice(&f->pair, MC_READ, f->local + SPACE / 2 + at,
                                            SPACE / 2 + at, EACH, 1);
    }
    assert_int_equal(f->pair.ops->post(f->pair.queue, slices, COUNT, &posted), MC_OK);
    assert_int_equal(posted, COUNT);
    pair_finish(&f->pair, completions, COUNT);
    for (uint32_t i = 0; i < COUNT; i++)
        assert_int_equal(completions[i].status, MC_OK);
    assert_memory_equal(f->local, f->remote, SPACE);
    for (uint32_t i = 0; i < COUNT; i++)
        free(slices[i]);
}

static void test_a_sleeper_is_woken_by_its_descriptor(void **state)
{
    struct fixture *f = *state;
    struct transport_slice *slice = pair_slice(&f->pair, MC_READ, f->local, 0, 1 << 20, 0);
    struct transport_completion completion;
    uint32_t posted, got = 0;
    int fd, serve_fd;

    pair_connect(&f->pair);
    assert_int_equal(f->pair.ops->serve_fd(f->pair.server, &serve_fd), MC_OK);
    assert_int_equal(f->pair.ops->post(f->pair.queue, &slice, 1, &posted), MC_OK);
    while (got == 0) {
        /* Neither end is ever called without its descriptor saying so. */
        const mc_status armed = f->pair.ops->arm(f->pair.queue, &fd);
        struct pollfd fds[2] = { { armed == MC_OK ? fd : -1, POLLIN, 0 }, { serve_fd, POLLIN, 0 } };

        assert_true(armed == MC_PENDING || poll(fds, 2, 20000) > 0);
        if (fds[1].revents)
            pair_serve(&f->pair);
        if (armed == MC_PENDING || fds[0].revents)
            assert_int_equal(f->pair.ops->poll(f->pair.queue, os_now_ns(), &completion, 1, &got),
                             MC_OK);
    }
    assert_int_equal(completion.status, MC_OK);
    assert_memory_equal(f->local, f->remote, 1 << 20);
    /* With nothing to do, both sleep: no descriptor stays readable. */
    assert_int_equal(f->pair.ops->arm(f->pair.queue, &fd), MC_OK);
    struct pollfd idle[2] = { { fd, POLLIN, 0 }, { serve_fd, POLLIN, 0 } };
    pair_serve(&f->pair);
    assert_int_equal(poll(idle, 2, 0), 0);
    free(slice);
}

/* ------------------------------------------------------------------------------------ what is refused */

static mc_status try(struct fixture *f, enum mc_op op, uint64_t length, uint32_t flags,
                     void (*forge)(struct transport_access *))
{
    struct transport_slice *slice = pair_slice(&f->pair, op, f->local, 0, length, flags);

    if (forge)
        forge(&slice->remote);
    const mc_status status = pair_move(&f->pair, slice);
    free(slice);
    return status;
}

static void forge_generation(struct transport_access *access)
{
    access->generation++;
}
static void forge_region(struct transport_access *access)
{
    access->region++;
}
static void forge_key(struct transport_access *access)
{
    access->key[1] = 1;
}
static void forge_offset(struct transport_access *access)
{
    access->offset = SPACE - 10;
}
static void forge_wrap(struct transport_access *access)
{
    access->offset = UINT64_MAX - 5;
}

static void test_a_wrong_key_generation_or_range_is_refused_and_touches_nothing(void **state)
{
    struct fixture *f = *state;
    uint8_t *before = malloc(SPACE);
    static const uint64_t sizes[] = { 64, 5000, 1 << 20 };

    pair_connect(&f->pair);
    memcpy(before, f->remote, SPACE);
    for (size_t i = 0; i < 3; i++) {
        for (int op = 0; op < 2; op++) {
            const enum mc_op o = op ? MC_WRITE : MC_READ;
            assert_int_equal(try(f, o, sizes[i], 0, forge_generation), MC_E_STALE);
            assert_int_equal(try(f, o, sizes[i], 1, forge_region), MC_E_DENIED);
            assert_int_equal(try(f, o, sizes[i], 0, forge_key), MC_E_DENIED);
            assert_int_equal(try(f, o, sizes[i], 1, forge_offset), MC_E_RANGE);
            assert_int_equal(try(f, o, sizes[i], 0, forge_wrap), MC_E_RANGE);
        }
    }
    f->pair.engine.permissions = MC_REMOTE_READ;
    assert_int_equal(try(f, MC_WRITE, 64, 0, NULL), MC_E_DENIED);
    assert_int_equal(try(f, MC_WRITE, 0, 0, NULL), MC_E_DENIED);
    f->pair.engine.permissions = MC_REMOTE_WRITE;
    assert_int_equal(try(f, MC_READ, 5000, 0, NULL), MC_E_DENIED);
    assert_int_equal(try(f, MC_READ, 0, 0, NULL), MC_E_DENIED);
    assert_memory_equal(f->remote, before, SPACE);
    f->pair.engine.permissions = MC_REMOTE_READ | MC_REMOTE_WRITE;
    assert_int_equal(try(f, MC_WRITE, 64, 0, NULL), MC_OK); /* and goes on working */
    free(before);
}

/* Both directions, the region revoked after the k-th pin: what is asked ends with OK or STALE. */
static void test_memory_taken_back_half_way_is_stale_and_the_connection_lives(void **state)
{
    struct fixture *f = *state;
    uint32_t stale = 0;

    /* A small buffer makes many pins of one megabyte. */
    f->pair.server_env.settings = f->pair.client_env.settings = "buffer=16384";
    pair_connect(&f->pair);
    for (uint64_t k = 0; k < 12; k++) {
        for (uint32_t flags = 0; flags < 2; flags++) {
            for (int op = 0; op < 2; op++) {
                f->pair.engine.pins = 0;
                f->pair.engine.pins_max = k;
                const mc_status status = try(f, op ? MC_WRITE : MC_READ, 1 << 20, flags, NULL);
                assert_true(status == MC_E_STALE || status == MC_OK);
                stale += status == MC_E_STALE;
                f->pair.engine.pins_max = UINT64_MAX;
                assert_int_equal(try(f, MC_READ, 100, 1, NULL), MC_OK);
            }
        }
    }
    assert_true(stale >= 12); /* k = 0 .. 2 at least: check, first bytes, the rest */
}

static void test_another_incarnation_is_stale(void **state)
{
    struct fixture *f = *state;
    struct mc_error error = { 0 };
    struct transport_slice *slice = pair_slice(&f->pair, MC_READ, f->local, 0, 8, 0);

    assert_int_equal(pair_open(&f->pair, &error), MC_OK);
    assert_int_equal(pair_connect_to(&f->pair, PAIR_SERVER + 1, &error), MC_OK);
    assert_int_equal(pair_move(&f->pair, slice), MC_E_STALE);
    uint32_t posted;
    assert_int_equal(f->pair.ops->post(f->pair.queue, &slice, 1, &posted), MC_E_STALE);
    f->pair.ops->queue_error(f->pair.queue, &error);
    assert_int_equal(error.status, MC_E_STALE);
    assert_non_null(strstr(error.text, "peer"));
    free(slice);
}

static mc_status with_secrets(struct fixture *f, const char *server, const char *client)
{
    struct transport_slice *slice = pair_slice(&f->pair, MC_READ, f->local, 0, 8, 0);

    f->pair.server_env.secret = server;
    f->pair.server_env.secret_size = server ? strlen(server) : 0;
    f->pair.client_env.secret = client;
    f->pair.client_env.secret_size = client ? strlen(client) : 0;
    pair_connect(&f->pair);
    const mc_status status = pair_move(&f->pair, slice);
    free(slice);
    return status;
}

static void test_an_equal_secret_opens(void **state)
{
    assert_int_equal(with_secrets(*state, "0123456789abcdef", "0123456789abcdef"), MC_OK);
}

static void test_another_secret_is_denied(void **state)
{
    assert_int_equal(with_secrets(*state, "0123456789abcdef", "0123456789abcdeX"), MC_E_DENIED);
}

static void test_no_secret_is_denied_by_one_who_has(void **state)
{
    assert_int_equal(with_secrets(*state, "0123456789abcdef", NULL), MC_E_DENIED);
}

static void test_settings_that_mean_nothing_are_refused(void **state)
{
    struct fixture *f = *state;
    static const char *const bad[] = { "nodelay=maybe", "colour=red", "port=70000", "buffer" };
    static const char *const good[] = { "nodelay=0", "congestion=reno,buffer=64K", "greet=1s",
                                        "congestion=nonesuch", "" };
    struct mc_error error;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        error = (struct mc_error){ 0 };
        f->pair.server_env.settings = bad[i];
        assert_int_not_equal(f->pair.ops->open(f->pair.server, &f->pair.server_env, &error), MC_OK);
        assert_non_null(strstr(error.text, "tcp"));
        f->pair.ops->close(f->pair.server); /* accepts one that is half open */
        memset(f->pair.server, 0, f->pair.ops->transport_bytes);
    }
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        f->pair.server_env.settings = good[i];
        assert_int_equal(f->pair.ops->open(f->pair.server, &f->pair.server_env, &error), MC_OK);
        f->pair.ops->close(f->pair.server);
        memset(f->pair.server, 0, f->pair.ops->transport_bytes);
    }
}

static void test_an_address_that_is_none_is_refused(void **state)
{
    struct fixture *f = *state;
    struct mc_error error;

    assert_int_equal(pair_open(&f->pair, &error), MC_OK);
    f->pair.address_size = 0;
    assert_int_equal(pair_connect_to(&f->pair, PAIR_SERVER, &error), MC_E_ARG);
    memcpy(f->pair.address, "nowhere", 7);
    f->pair.address_size = 7;
    assert_int_equal(pair_connect_to(&f->pair, PAIR_SERVER, &error), MC_E_ARG);
    assert_non_null(strstr(error.text, "peer"));
}

/* --------------------------------------------------------------------------------------- what ends */

/** Post a few large slices of both kinds, take k steps, end it as `how` says, poison, go on. */
enum ending { CANCEL, CLOSE, PEER_CLOSES };

static void end_after(struct fixture *f, uint32_t k, enum ending how, uint32_t *finished_p)
{
    enum { COUNT = 6, EACH = 300 * 1000 };
    struct transport_slice *slices[COUNT];
    struct transport_completion completions[COUNT];
    uint32_t posted, got = 0, have = 0;

    for (uint32_t i = 0; i < COUNT; i++)
        slices[i] = pair_slice(&f->pair, i % 2 ? MC_READ : MC_WRITE, f->local + i * EACH, i * EACH,
                               EACH, i & 1);
    assert_int_equal(f->pair.ops->post(f->pair.queue, slices, COUNT, &posted), MC_OK);
    assert_int_equal(posted, COUNT);
    for (uint32_t i = 0; i < k; i++) {
        if (i % 2 == 0)
            pair_serve(&f->pair);
        else
            assert_int_equal(f->pair.ops->poll(f->pair.queue, os_now_ns(), completions + have,
                                               COUNT - have, &got),
                             MC_OK);
        have += i % 2 ? got : 0;
    }
    *finished_p = have;
    if (how == CANCEL)
        f->pair.ops->cancel(f->pair.queue, MC_E_CANCELLED);
    else if (how == CLOSE)
        pair_disconnect(&f->pair);
    else
        f->pair.ops->close(f->pair.server);
    if (how == PEER_CLOSES) {
        const uint64_t begin_ns = os_now_ns();

        for (mc_status status = MC_OK; have < COUNT && status == MC_OK; have += got) {
            status = f->pair.ops->poll(f->pair.queue, os_now_ns(), completions + have, COUNT - have,
                                       &got);
            assert_true(os_now_ns() - begin_ns < f->pair.patience_ns);
        }
        assert_int_equal(have, COUNT);
    } else if (how == CANCEL) {
        /* Nothing is asynchronous here: all come at once, the peer does not take part. */
        assert_int_equal(
            f->pair.ops->poll(f->pair.queue, os_now_ns(), completions + have, COUNT - have, &got),
            MC_OK);
        assert_int_equal(have + got, COUNT);
    }
    const mc_status expected = how == CANCEL ? MC_E_CANCELLED : MC_E_PEER;
    for (uint32_t i = 0; how != CLOSE && i < COUNT; i++)
        assert_true(completions[i].status == MC_OK || completions[i].status == expected);
    /* The memory is ours again: whoever touches it now is found. */
    for (uint32_t i = 0; i < COUNT; i++)
        free(slices[i]);
    memset(f->local, 0xa5, SPACE);
}

static void check_poison(const struct fixture *f)
{
    for (size_t i = 0; i < SPACE; i++) {
        if (f->local[i] != 0xa5)
            fail_msg("local memory was touched at %zu after it was quiet", i);
    }
}

static void test_after_a_cancel_at_any_step_nothing_touches_the_memory(void **state)
{
    struct fixture *f = *state;
    uint32_t finished = 0;

    f->pair.server_env.settings = f->pair.client_env.settings = "buffer=16384";
    pair_connect(&f->pair);
    for (uint32_t k = 0; k < 60; k++) {
        end_after(f, k, CANCEL, &finished);
        for (int i = 0; i < 20; i++) {
            struct transport_completion completion;
            uint32_t got;

            pair_serve(&f->pair);
            assert_int_equal(f->pair.ops->poll(f->pair.queue, os_now_ns(), &completion, 1, &got),
                             MC_OK);
            assert_int_equal(got, 0);
        }
        check_poison(f);
        /* The queue lives on. */
        random_bytes(f->remote, 5000, k);
        assert_int_equal(try(f, MC_READ, 5000, 1, NULL), MC_OK);
        assert_memory_equal(f->local, f->remote, 5000);
    }
    assert_true(finished > 0); /* the sweep came to where some were done already */
}

static void test_after_a_close_at_any_step_nothing_touches_the_memory(void **state)
{
    struct fixture *f = *state;
    struct mc_error error;
    uint32_t finished;

    pair_connect(&f->pair);
    for (uint32_t k = 0; k < 20; k++) {
        end_after(f, k, CLOSE, &finished);
        for (int i = 0; i < 10; i++)
            pair_serve(&f->pair);
        check_poison(f);
        assert_int_equal(pair_connect_to(&f->pair, PAIR_SERVER, &error), MC_OK);
    }
}

static void test_all_completions_come_when_the_peer_goes_at_any_step(void **state)
{
    struct fixture *f = *state;
    struct mc_error error;
    uint32_t finished, posted;

    for (uint32_t k = 0; k < 20; k++) {
        struct transport_slice *slice = pair_slice(&f->pair, MC_READ, f->local, 0, 8, 0);
        struct transport_completion completion;

        pair_connect(&f->pair);
        end_after(f, k, PEER_CLOSES, &finished);
        check_poison(f);
        while (f->pair.ops->poll(f->pair.queue, os_now_ns(), &completion, 1, &posted) == MC_OK)
            assert_int_equal(posted, 0); /* an idle queue hears of it, too */
        assert_int_equal(f->pair.ops->post(f->pair.queue, &slice, 1, &posted), MC_E_PEER);
        f->pair.ops->queue_error(f->pair.queue, &error);
        assert_non_null(strstr(error.text, "tcp: peer: "));
        pair_disconnect(&f->pair);
        f->pair.ops->close(f->pair.client);
        memset(f->pair.client, 0, f->pair.ops->transport_bytes);
        memset(f->pair.server, 0, f->pair.ops->transport_bytes);
        free(slice);
    }
}

static void test_a_peer_that_is_not_there_ends_the_queue(void **state)
{
    struct fixture *f = *state;
    struct transport_slice *slice = pair_slice(&f->pair, MC_WRITE, f->local, 0, 8, 0);
    struct transport_completion completion;
    struct mc_error error;
    uint32_t posted = 0, got = 0;

    assert_int_equal(pair_open(&f->pair, &error), MC_OK);
    f->pair.ops->close(f->pair.server);
    memset(f->pair.server, 0, f->pair.ops->transport_bytes);
    assert_int_equal(pair_connect_to(&f->pair, PAIR_SERVER, &error), MC_OK);
    mc_status status = f->pair.ops->post(f->pair.queue, &slice, 1, &posted);
    while (status == MC_OK)
        status = f->pair.ops->poll(f->pair.queue, os_now_ns(), &completion, 1, &got);
    assert_int_equal(status, MC_E_PEER);
    free(slice);
}

/* A peer that accepts (the kernel does) and never greets: given up when its time is over. */
static void test_a_silent_peer_is_given_up_in_time(void **state)
{
    struct fixture *f = *state;
    struct transport_slice *slice = pair_slice(&f->pair, MC_WRITE, f->local, 0, 8, 0);
    struct transport_completion completion;
    uint32_t posted, got;
    int fd;

    pair_connect(&f->pair);
    assert_int_equal(f->pair.ops->post(f->pair.queue, &slice, 1, &posted), MC_OK);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(f->pair.ops->poll(f->pair.queue, os_now_ns(), &completion, 1, &got),
                         MC_OK);
        assert_int_equal(got, 0);
    }
    assert_int_equal(f->pair.ops->arm(f->pair.queue, &fd), MC_OK);
    f->pair.shift_ns = UINT64_C(6000000000);
    assert_int_equal(f->pair.ops->poll(f->pair.queue, pair_now(&f->pair), &completion, 1, &got),
                     MC_OK);
    assert_int_equal(got, 1);
    assert_int_equal(completion.status, MC_E_PEER);
    free(slice);
}

/* One who connects and says nothing is closed by the server when its time is over. */
static void test_a_silent_client_is_closed_in_time(void **state)
{
    struct fixture *f = *state;
    struct os_address address;
    struct mc_error error;
    uint64_t next_ns = 0;
    char text[OS_ADDRESS_TEXT] = { 0 };
    uint8_t bytes[4096];
    int fd;

    pair_connect(&f->pair);
    memcpy(text, f->pair.address, f->pair.address_size);
    assert_int_equal(os_address_parse(text, &address, &error), MC_OK);
    assert_int_equal(os_tcp_dial(&address, &fd, &error), MC_OK);
    while (os_tcp_dialled(fd, &address, &error) == MC_PENDING)
        ;
    const uint64_t now_ns = os_now_ns();
    f->pair.ops->serve(f->pair.server, now_ns, &next_ns);
    assert_true(next_ns > now_ns && next_ns <= now_ns + UINT64_C(5000000000));
    f->pair.ops->serve(f->pair.server, next_ns, &next_ns);
    assert_true(next_ns == 0);
    while (recv(fd, bytes, sizeof(bytes), 0) > 0) /* its greeting, then the end */
        ;
    assert_int_equal(recv(fd, bytes, 1, 0), 0);
    close(fd);
}

static void test_a_read_that_nobody_waits_for_any_more_is_not_done(void **state)
{
    struct fixture *f = *state;
    struct transport_slice *slice = pair_slice(&f->pair, MC_READ, f->local, 0, 1 << 20, 0);

    pair_connect(&f->pair);
    assert_int_equal(try(f, MC_READ, 1, 0, NULL), MC_OK);
    slice->deadline_ns = os_now_ns() - 1;
    uint32_t posted;
    struct transport_completion completion;
    assert_int_equal(f->pair.ops->post(f->pair.queue, &slice, 1, &posted), MC_OK);
    pair_finish(&f->pair, &completion, 1);
    assert_true(completion.status == MC_E_TIMEOUT || completion.status == MC_OK);
    free(slice);
}

/* ----------------------------------------------------------------------------------------- memory */

static void test_every_failed_allocation_leaves_nothing_behind(void **state)
{
    struct fixture *f = *state;

    for (long k = 0;; k++) {
        struct mc_error error = { 0 };
        mc_status status;

        faulty_init(&f->pair.memory, k);
        status = pair_open(&f->pair, &error);
        if (status == MC_OK)
            status = pair_connect_to(&f->pair, PAIR_SERVER, &error);
        if (status == MC_OK) {
            struct transport_slice *slice = pair_slice(&f->pair, MC_READ, f->local, 0, 8, 0);

            /* The server's side of it: refused for want of memory, the peer sees it go. */
            status = pair_move(&f->pair, slice);
            free(slice);
            if (status == MC_OK)
                break;
            assert_int_equal(status, MC_E_PEER);
        } else {
            assert_int_equal(status, MC_E_NOMEM);
        }
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
        TEST(test_every_size_lands_whole_and_nowhere_else),
        TEST(test_more_slices_than_the_queue_holds_all_move),
        TEST(test_large_slices_share_the_streams_both_ways),
        TEST(test_a_sleeper_is_woken_by_its_descriptor),
        TEST(test_a_wrong_key_generation_or_range_is_refused_and_touches_nothing),
        TEST(test_memory_taken_back_half_way_is_stale_and_the_connection_lives),
        TEST(test_another_incarnation_is_stale),
        TEST(test_an_equal_secret_opens),
        TEST(test_another_secret_is_denied),
        TEST(test_no_secret_is_denied_by_one_who_has),
        TEST(test_settings_that_mean_nothing_are_refused),
        TEST(test_an_address_that_is_none_is_refused),
        TEST(test_after_a_cancel_at_any_step_nothing_touches_the_memory),
        TEST(test_after_a_close_at_any_step_nothing_touches_the_memory),
        TEST(test_all_completions_come_when_the_peer_goes_at_any_step),
        TEST(test_a_peer_that_is_not_there_ends_the_queue),
        TEST(test_a_silent_peer_is_given_up_in_time),
        TEST(test_a_silent_client_is_closed_in_time),
        TEST(test_a_read_that_nobody_waits_for_any_more_is_not_done),
        TEST(test_every_failed_allocation_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
