/* test_peers.c - two engines and what lies between them: descriptions, windows, notices, lost peers. By
 * each transport that is built; what a transport itself must keep is asked in tests/conform. */
#include "engines.h"

#include <stdio.h>
#include <unistd.h>

#include "os/address.h"
#include "transfer/transport/table.h"

enum { SIZE = 1 << 20, BOTH = MC_REMOTE_READ | MC_REMOTE_WRITE };

struct pair {
    mc_transfer *here, *there;
    unsigned char *local, *remote;
    struct mc_region local_region, region;
    struct mc_transfer_info info; /* of there */
    uint32_t segment;
};

static struct pair open_pair(const char *transports, uint32_t flags)
{
    const struct mc_transfer_options options = { .transports = transports, .flags = flags };
    struct mc_transfer_options threaded = options;
    struct pair pair = { 0 };

    threaded.flags = 0; /* somebody has to serve */
    pair.here = open_engine(&options);
    pair.there = open_engine(&threaded);
    assert_int_equal(mc_memory_alloc(pair.here, SIZE, NULL, (void **)&pair.local, NULL), MC_OK);
    assert_int_equal(mc_memory_alloc(pair.there, SIZE, NULL, (void **)&pair.remote, NULL), MC_OK);
    for (size_t i = 0; i < SIZE; i++)
        pair.local[i] = (unsigned char)(i * 13 + i / 241);
    pair.local_region = register_memory(pair.here, pair.local, SIZE, 0, MC_REGION_PRIVATE);
    pair.region = register_memory(pair.there, pair.remote, SIZE, BOTH, 0);
    assert_int_equal(mc_transfer_info(pair.there, &pair.info), MC_OK);
    assert_int_equal(mc_segment_open(pair.here, pair.info.name, &pair.segment, NULL), MC_OK);
    return pair;
}

static void close_pair(struct pair *pair)
{
    mc_segment_close(pair->here, pair->segment);
    if (pair->there) {
        unregister(pair->there, pair->region);
        mc_memory_free(pair->there, pair->remote);
        mc_transfer_close(pair->there);
    }
    unregister(pair->here, pair->local_region);
    mc_memory_free(pair->here, pair->local);
    mc_transfer_close(pair->here);
}

static struct mc_xfer write_of(const struct pair *pair, uint64_t offset, uint64_t length)
{
    return (struct mc_xfer){ .op = MC_WRITE,
                             .segment = pair->segment,
                             .region = pair->region,
                             .offset = offset,
                             .length = length,
                             .local = pair->local };
}

/* Every test below for every transport between peers. */
static void for_each(void (*test)(const char *transport, uint32_t flags))
{
    for (size_t i = 0; transport_table[i]; i++) {
        const char *name = transport_table[i]->name;
        if (strcmp(name, "self") == 0 || strcmp(name, "hook") == 0)
            continue;
        test(name, 0);
        test(name, MC_TRANSFER_DRIVEN);
    }
}

static void moves(const char *transport, uint32_t flags)
{
    struct pair pair = open_pair(transport, flags);
    static const size_t sizes[] = { 0, 1, 63, 4096, 4097, 300000, SIZE };

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct mc_xfer xfer = write_of(&pair, 0, sizes[i]);
        assert_int_equal(move(pair.here, &xfer), MC_OK);
        assert_memory_equal(pair.remote, pair.local, sizes[i]);
    }
    memset(pair.local, 0, SIZE);
    struct mc_xfer xfer = write_of(&pair, 0, SIZE);
    xfer.op = MC_READ;
    assert_int_equal(move(pair.here, &xfer), MC_OK);
    assert_memory_equal(pair.remote, pair.local, SIZE);

    struct mc_segment_info info;
    assert_int_equal(mc_segment_info(pair.here, pair.segment, false, in_seconds(5), &info, NULL),
                     MC_OK);
    assert_string_equal(info.transport, transport);
    assert_int_equal(info.incarnation, pair.info.incarnation);
    assert_int_equal(info.regions, 1);
    close_pair(&pair);
}

static void test_bytes_move_between_engines(void **state)
{
    (void)state;
    for_each(moves);
}

static void windows(const char *transport, uint32_t flags)
{
    struct pair pair = open_pair(transport, flags);
    struct mc_transfer_info here;
    const uint64_t offsets[] = { 8192, 0, 40960, 4096 };
    mc_transfer_info(pair.here, &here);
    struct mc_window_options options = { .region = pair.region,
                                         .offsets = offsets,
                                         .count = 4,
                                         .piece_bytes = 1000,
                                         .holder = here.incarnation,
                                         .permissions = MC_REMOTE_WRITE };
    struct mc_window window, other, whole;

    assert_int_equal(mc_window_grant(pair.there, &options, &window, NULL), MC_OK);
    options.holder = here.incarnation + 1;
    assert_int_equal(mc_window_grant(pair.there, &options, &other, NULL), MC_OK);
    options = (struct mc_window_options){
        .region = pair.region, .count = 1, .piece_bytes = SIZE, .permissions = BOTH
    };
    assert_int_equal(mc_window_grant(pair.there, &options, &whole, NULL), MC_OK);

    struct mc_xfer xfer = write_of(&pair, 500, 3000);
    xfer.window = &window;
    assert_int_equal(move(pair.here, &xfer), MC_OK);
    assert_memory_equal(pair.remote + 8192 + 500, pair.local, 500);
    assert_memory_equal(pair.remote, pair.local + 500, 1000);
    assert_memory_equal(pair.remote + 40960, pair.local + 1500, 1000);
    assert_memory_equal(pair.remote + 4096, pair.local + 2500, 500);
    assert_int_equal(pair.remote[4096 + 500], 0);

    xfer.window = &other;
    assert_int_equal(move(pair.here, &xfer), MC_E_DENIED); /* another one's */
    struct mc_window forged = window;
    forged.key[0] ^= 1;
    forged.generation -= 1;
    xfer.window = &forged;
    const mc_status refused = move(pair.here, &xfer);
    assert_true(refused == MC_E_DENIED || refused == MC_E_STALE);
    xfer.window = &whole;
    assert_int_equal(move(pair.here, &xfer), MC_OK);
    assert_int_equal(mc_window_revoke(pair.there, &window, in_seconds(5), NULL), MC_OK);
    xfer.window = &window;
    assert_int_equal(move(pair.here, &xfer), MC_E_STALE);
    assert_int_equal(mc_window_revoke(pair.there, &other, in_seconds(5), NULL), MC_OK);
    close_pair(&pair);
}

static void test_windows_open_what_they_say_to_whom_they_say(void **state)
{
    (void)state;
    for_each(windows);
}

static void refusals(const char *transport, uint32_t flags)
{
    struct pair pair = open_pair(transport, flags);
    struct mc_xfer xfer = write_of(&pair, SIZE - 1, 2);

    assert_int_equal(move(pair.here, &xfer), MC_E_DENIED);
    xfer = write_of(&pair, 0, 100);
    xfer.region.generation++;
    assert_int_equal(move(pair.here, &xfer), MC_E_STALE);
    /* What is registered after the description was read is found all the same. */
    const struct mc_region more = register_memory(pair.there, pair.remote, 4096, MC_REMOTE_READ, 0);
    xfer = write_of(&pair, 0, 100);
    xfer.region = more;
    assert_int_equal(move(pair.here, &xfer), MC_E_DENIED);
    xfer.op = MC_READ;
    assert_int_equal(move(pair.here, &xfer), MC_OK);
    unregister(pair.there, more);
    assert_int_equal(move(pair.here, &xfer), MC_E_STALE);
    close_pair(&pair);
}

static void test_what_is_not_permitted_is_refused(void **state)
{
    (void)state;
    for_each(refusals);
}

static void restart(const char *transport, uint32_t flags)
{
    struct pair pair = open_pair(transport, flags);
    struct mc_window_options options = {
        .region = pair.region, .count = 1, .piece_bytes = SIZE, .permissions = BOTH
    };
    struct mc_window window;
    struct mc_xfer xfer = write_of(&pair, 0, 100);
    char address[80];

    assert_int_equal(mc_window_grant(pair.there, &options, &window, NULL), MC_OK);
    assert_int_equal(move(pair.here, &xfer), MC_OK);
    snprintf(address, sizeof(address), "%s", pair.info.address);
    unregister(pair.there, pair.region);
    mc_memory_free(pair.there, pair.remote);
    mc_transfer_close(pair.there);

    const struct mc_transfer_options again = { .transports = transport, .listen = address };
    pair.there = open_engine(&again);
    assert_int_equal(mc_memory_alloc(pair.there, SIZE, NULL, (void **)&pair.remote, NULL), MC_OK);
    pair.region = register_memory(pair.there, pair.remote, SIZE, BOTH, 0);
    assert_int_equal(move(pair.here, &xfer), MC_E_STALE); /* of the life before */
    xfer.window = &window;
    assert_int_equal(move(pair.here, &xfer), MC_E_STALE);
    xfer = write_of(&pair, 0, 100);
    assert_int_equal(move(pair.here, &xfer), MC_OK);
    assert_memory_equal(pair.remote, pair.local, 100);
    assert_int_equal(pair.remote[100], 0);
    close_pair(&pair);
}

static void test_a_restarted_peer_is_another_one_at_the_same_address(void **state)
{
    (void)state;
    for_each(restart);
}

static void gone(const char *transport, uint32_t flags)
{
    struct pair pair = open_pair(transport, flags);
    struct mc_xfer xfer = write_of(&pair, 0, 100);

    assert_int_equal(move(pair.here, &xfer), MC_OK);
    unregister(pair.there, pair.region);
    mc_memory_free(pair.there, pair.remote);
    mc_transfer_close(pair.there);
    pair.there = NULL;
    const mc_status status = move(pair.here, &xfer);
    assert_true(status == MC_E_PEER || status == MC_E_STALE);
    close_pair(&pair);
}

/* Where a window lies cannot be asked any more. */
static void test_a_window_of_a_peer_that_is_gone_ends_as_lost(void **state)
{
    (void)state;
    struct pair pair = open_pair("shm", 0);
    struct mc_segment_info info;
    struct mc_window window;
    const struct mc_window_options options = {
        .region = pair.region, .count = 2, .piece_bytes = 4096, .permissions = BOTH
    };

    assert_int_equal(mc_window_grant(pair.there, &options, &window, NULL), MC_OK);
    assert_int_equal(mc_segment_info(pair.here, pair.segment, true, in_seconds(5), &info, NULL),
                     MC_OK);
    unregister(pair.there, pair.region);
    mc_memory_free(pair.there, pair.remote);
    mc_transfer_close(pair.there);
    pair.there = NULL;
    struct mc_xfer xfer = write_of(&pair, 0, 4096);
    xfer.window = &window;
    assert_int_equal(move(pair.here, &xfer), MC_E_PEER);
    close_pair(&pair);
}

/* Memory that one transport does not reach goes by the other at once, not after a refusal. */
static void test_memory_that_shm_does_not_reach_goes_by_tcp_at_once(void **state)
{
    (void)state;
    const struct mc_transfer_options options = { .transports = "shm,tcp",
                                                 .settings = "shm.attach=0" };
    mc_transfer *here = open_engine(&options), *there = open_engine(&options);
    static unsigned char local[4096], remote[4096];
    const struct mc_region mine = register_memory(here, local, sizeof(local), 0, 0);
    const struct mc_region region = register_memory(there, remote, sizeof(remote), BOTH, 0);
    const struct mc_window_options granted = {
        .region = region, .count = 1, .piece_bytes = 4096, .permissions = BOTH
    };
    struct mc_transfer_stats stats;
    struct mc_transfer_info info;
    struct mc_window window;
    struct mc_xfer xfer = {
        .op = MC_WRITE, .region = region, .length = sizeof(local), .local = local
    };

    mc_transfer_info(there, &info);
    assert_int_equal(mc_segment_open(here, info.name, &xfer.segment, NULL), MC_OK);
    assert_int_equal(move(here, &xfer), MC_OK);
    assert_int_equal(mc_window_grant(there, &granted, &window, NULL), MC_OK);
    xfer.window = &window;
    assert_int_equal(move(here, &xfer), MC_OK);
    assert_int_equal(mc_transfer_stats(here, UINT32_MAX, &stats), MC_OK);
    assert_int_equal(stats.transfers_ok, 2);
    assert_int_equal(stats.retries, 0);
    mc_segment_close(here, xfer.segment);
    unregister(there, region);
    unregister(here, mine);
    mc_transfer_close(there);
    mc_transfer_close(here);
}

static void test_transfers_to_a_peer_that_is_gone_end(void **state)
{
    (void)state;
    for_each(gone);
}

static void notices(const char *transport, uint32_t flags)
{
    struct pair pair = open_pair(transport, flags);
    const struct mc_xfer xfer = write_of(&pair, 0, SIZE);
    static char message[MC_NOTICE_MAX];
    struct mc_notice notice;
    struct mc_transfer_info here;
    mc_batch *batch;

    mc_transfer_info(pair.here, &here);
    assert_int_equal(mc_batch_open(pair.here, NULL, &batch), MC_OK);
    assert_int_equal(mc_batch_notify(batch, pair.segment, "layer", "1", 1), MC_OK);
    assert_int_equal(mc_batch_notify(batch, pair.segment, "", NULL, 0), MC_OK);
    assert_int_equal(mc_batch_add(batch, &xfer, 1), MC_OK);
    assert_int_equal(mc_batch_submit(batch), MC_OK);
    assert_int_equal(mc_batch_wait(batch, in_seconds(10)), MC_OK);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(
            mc_notice_take(pair.there, in_seconds(5), &notice, message, sizeof(message)), MC_OK);
        assert_string_equal(notice.from, here.name);
        assert_int_equal(notice.incarnation, here.incarnation);
        assert_int_equal(notice.size, strlen(notice.name) ? 1 : 0);
    }
    assert_memory_equal(pair.remote, pair.local, SIZE);

    /* A batch that fails sends none. */
    struct mc_xfer bad = xfer;
    bad.region.generation++;
    assert_int_equal(mc_batch_reset(batch, MC_FOREVER), MC_OK);
    assert_int_equal(mc_batch_notify(batch, pair.segment, "layer", "2", 1), MC_OK);
    assert_int_equal(mc_batch_add(batch, &bad, 1), MC_OK);
    assert_int_equal(mc_batch_submit(batch), MC_OK);
    assert_int_equal(mc_batch_wait(batch, in_seconds(10)), MC_E_STALE);
    assert_int_equal(mc_notice_take(pair.there, MC_AT_ONCE, &notice, message, 16), MC_E_NOT_FOUND);
    mc_batch_close(batch);
    close_pair(&pair);
}

static void test_notices_follow_the_bytes_or_do_not_come(void **state)
{
    (void)state;
    for_each(notices);
}

/* Nobody answers there, and the loop had work before: a cancel must reach notices that it has not begun. */
static void test_a_cancel_meets_notices_that_are_not_sent_yet(void **state)
{
    (void)state;
    const struct mc_transfer_options options = { .flags = MC_TRANSFER_DRIVEN };
    mc_transfer *engine = open_engine(&options);
    struct os_address any, bound;
    char text[OS_ADDRESS_TEXT];
    uint32_t segment;
    mc_batch *batch;
    int listener;

    assert_int_equal(os_address_parse("127.0.0.1:0", &any, NULL), MC_OK);
    assert_int_equal(os_tcp_listen(&any, &listener, &bound, NULL), MC_OK);
    assert_int_equal(mc_segment_open(engine, os_address_format(&bound, text), &segment, NULL),
                     MC_OK);
    const struct mc_batch_options an_hour = { .deadline_ns = in_seconds(3600) };
    assert_int_equal(mc_batch_open(engine, &an_hour, &batch), MC_OK);
    assert_int_equal(mc_batch_notify(batch, segment, "layer", "1", 1), MC_OK);
    assert_int_equal(mc_batch_submit(batch), MC_OK);
    assert_int_equal(mc_batch_cancel(batch), MC_OK);
    assert_int_equal(mc_batch_wait(batch, in_seconds(1)), MC_E_CANCELLED);
    mc_batch_close(batch);
    mc_segment_close(engine, segment);
    mc_transfer_close(engine);
    close(listener);
}

static void finds(const char *transport, uint32_t flags)
{
    struct pair pair = open_pair(transport, flags);
    struct mc_segment_region region;
    struct mc_segment_info info;
    struct mc_region found;
    uint64_t offset;

    assert_int_equal(mc_segment_info(pair.here, pair.segment, true, in_seconds(5), &info, NULL),
                     MC_OK);
    assert_int_equal(info.regions, 1);
    assert_int_equal(mc_segment_region(pair.here, pair.segment, 0, &region), MC_OK);
    assert_int_equal(region.address, (uintptr_t)pair.remote);
    assert_string_equal(region.location, "cpu:0");
    assert_int_equal(
        mc_segment_find(pair.here, pair.segment, (uintptr_t)pair.remote + 5, 10, &found, &offset),
        MC_OK);
    assert_int_equal(offset, 5);
    assert_int_equal(found.generation, pair.region.generation);
    const struct mc_region more = register_memory(pair.there, pair.remote, 64, BOTH, 0);
    assert_int_equal(mc_segment_info(pair.here, pair.segment, true, in_seconds(5), &info, NULL),
                     MC_OK);
    assert_int_equal(info.regions, 2);
    unregister(pair.there, more);
    assert_int_equal(mc_segment_info(pair.here, pair.segment, true, in_seconds(5), &info, NULL),
                     MC_OK);
    assert_int_equal(info.regions, 1);
    close_pair(&pair);
}

static void test_a_peer_shows_what_it_published(void **state)
{
    (void)state;
    for_each(finds);
}

static void test_a_peer_that_was_never_there_is_an_event(void **state)
{
    (void)state;
    const struct mc_transfer_options options = { 0 };
    mc_transfer *engine = open_engine(&options);
    struct mc_segment_info info;
    struct mc_error error = { 0 };
    uint32_t segment;

    assert_int_equal(mc_segment_open(engine, "not an address", &segment, &error), MC_E_ARG);
    assert_int_equal(mc_segment_open(engine, "127.0.0.1:1", &segment, &error), MC_OK);
    assert_int_equal(mc_segment_info(engine, segment, false, in_seconds(20), &info, &error),
                     MC_E_PEER);
    assert_true(strlen(error.text) > 10);
    assert_int_equal(mc_segment_info(engine, segment, false, MC_AT_ONCE, &info, &error),
                     MC_E_TIMEOUT);
    mc_segment_close(engine, segment);
    assert_int_equal(mc_segment_info(engine, segment, false, MC_AT_ONCE, &info, &error),
                     MC_E_NOT_FOUND);
    mc_transfer_close(engine);
}

static void test_another_secret_is_refused(void **state)
{
    (void)state;
    const struct mc_transfer_options a = { .secret = "0123456789abcdef", .secret_size = 16 };
    const struct mc_transfer_options b = { .secret = "0123456789abcdeX", .secret_size = 16 };
    mc_transfer *one = open_engine(&a), *two = open_engine(&b), *three = open_engine(&a);
    struct mc_transfer_info info;
    struct mc_segment_info segment_info;
    uint32_t segment;

    mc_transfer_info(two, &info);
    assert_int_equal(mc_segment_open(one, info.name, &segment, NULL), MC_OK);
    assert_int_equal(mc_segment_info(one, segment, false, in_seconds(20), &segment_info, NULL),
                     MC_E_DENIED);
    mc_segment_close(one, segment);
    mc_transfer_info(three, &info);
    assert_int_equal(mc_segment_open(one, info.name, &segment, NULL), MC_OK);
    assert_int_equal(mc_segment_info(one, segment, false, in_seconds(20), &segment_info, NULL),
                     MC_OK);
    mc_segment_close(one, segment);
    mc_transfer_close(one);
    mc_transfer_close(two);
    mc_transfer_close(three);
}

/* One transfer by a window and one by region, and a notice, with an allocator that may fail. */
static mc_status use_peer(const struct mc_alloc *alloc, const char *transport, mc_transfer *there,
                          struct mc_region region)
{
    const struct mc_transfer_options options = { .transports = transport,
                                                 .alloc = alloc,
                                                 .flags = MC_TRANSFER_DRIVEN,
                                                 .sessions_max = 4,
                                                 .regions_max = 8,
                                                 .windows_max = 8 };
    static unsigned char local[4096];
    const struct mc_region_options range = { .address = local, .size = sizeof(local) };
    const struct mc_window_options lend = {
        .region = region, .count = 1, .piece_bytes = SIZE, .permissions = BOTH
    };
    const struct mc_batch_options quick = { .deadline_ns = in_seconds(5) };
    mc_transfer *here = NULL;
    struct mc_transfer_info info;
    struct mc_region mine;
    struct mc_window window;
    mc_batch *batch = NULL;
    uint32_t segment = 0;
    bool registered = false;

    mc_status status = mc_transfer_open(&options, &here, NULL);
    if (status != MC_OK)
        return status;
    mc_transfer_info(there, &info);
    assert_int_equal(mc_window_grant(there, &lend, &window, NULL), MC_OK);
    status = mc_region_register(here, &range, 1, &mine, NULL);
    registered = status == MC_OK;
    if (status == MC_OK)
        status = mc_segment_open(here, info.name, &segment, NULL);
    if (status == MC_OK)
        status = mc_batch_open(here, &quick, &batch);
    struct mc_xfer xfers[2] = {
        { .op = MC_WRITE, .segment = segment, .region = region, .length = 100, .local = local },
        { .op = MC_READ,
          .segment = segment,
          .window = &window,
          .length = 1000,
          .local = local + 1000 }
    };
    if (status == MC_OK)
        status = mc_batch_notify(batch, segment, "n", "m", 1);
    if (status == MC_OK)
        status = mc_batch_add(batch, xfers, 2);
    if (status == MC_OK)
        status = mc_batch_submit(batch);
    if (status == MC_OK)
        status = mc_batch_wait(batch, in_seconds(10));
    mc_batch_close(batch);
    mc_segment_close(here, segment);
    if (registered)
        unregister(here, mine);
    mc_transfer_close(here);
    assert_int_equal(mc_window_revoke(there, &window, in_seconds(5), NULL), MC_OK);
    return status;
}

static void sweep(const char *transport)
{
    const struct mc_transfer_options options = { .transports = transport };
    mc_transfer *there = open_engine(&options);
    static char message[MC_NOTICE_MAX];
    struct mc_notice notice;
    void *memory;

    assert_int_equal(mc_memory_alloc(there, SIZE, NULL, &memory, NULL), MC_OK);
    const struct mc_region region = register_memory(there, memory, SIZE, BOTH, 0);
    for (long k = 0;; k++) {
        struct faulty f;
        faulty_init(&f, k);
        const mc_status status = use_peer(&f.alloc, transport, there, region);
        assert_int_equal(f.held, 0);
        while (mc_notice_take(there, MC_AT_ONCE, &notice, message, sizeof(message)) == MC_OK)
            ;
        if (f.calls <= k) {
            assert_int_equal(status, MC_OK);
            break;
        }
    }
    unregister(there, region);
    mc_memory_free(there, memory);
    mc_transfer_close(there);
}

static void test_every_failed_allocation_leaves_nothing_behind(void **state)
{
    (void)state;
    for (size_t i = 0; transport_table[i]; i++) {
        const char *name = transport_table[i]->name;
        if (strcmp(name, "self") != 0 && strcmp(name, "hook") != 0)
            sweep(name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_move_between_engines),
        cmocka_unit_test(test_windows_open_what_they_say_to_whom_they_say),
        cmocka_unit_test(test_what_is_not_permitted_is_refused),
        cmocka_unit_test(test_a_restarted_peer_is_another_one_at_the_same_address),
        cmocka_unit_test(test_transfers_to_a_peer_that_is_gone_end),
        cmocka_unit_test(test_a_window_of_a_peer_that_is_gone_ends_as_lost),
        cmocka_unit_test(test_memory_that_shm_does_not_reach_goes_by_tcp_at_once),
        cmocka_unit_test(test_notices_follow_the_bytes_or_do_not_come),
        cmocka_unit_test(test_a_cancel_meets_notices_that_are_not_sent_yet),
        cmocka_unit_test(test_a_peer_shows_what_it_published),
        cmocka_unit_test(test_a_peer_that_was_never_there_is_an_event),
        cmocka_unit_test(test_another_secret_is_refused),
        cmocka_unit_test(test_every_failed_allocation_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
