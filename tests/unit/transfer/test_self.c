/* test_self.c - an engine moves its own memory, under the same rules as a peer's. */
#include "engines.h"

static const struct mc_transfer_options threaded = { .transports = "self" };
static const struct mc_transfer_options driven = { .transports = "self",
                                                   .flags = MC_TRANSFER_DRIVEN };

enum { SIZE = 1 << 20, BOTH = MC_REMOTE_READ | MC_REMOTE_WRITE };

struct own {
    mc_transfer *engine;
    unsigned char *memory, *local;
    struct mc_region region, local_region;
    uint32_t segment;
};

static struct own open_own_memory(const struct mc_transfer_options *options)
{
    struct own own = { .engine = open_engine(options) };

    assert_int_equal(mc_memory_alloc(own.engine, SIZE, NULL, (void **)&own.memory, NULL), MC_OK);
    own.local = malloc(SIZE);
    for (size_t i = 0; i < SIZE; i++)
        own.local[i] = (unsigned char)(i * 7 + i / 251);
    own.region = register_memory(own.engine, own.memory, SIZE, BOTH, 0);
    own.local_region = register_memory(own.engine, own.local, SIZE, 0, MC_REGION_PRIVATE);
    own.segment = open_own(own.engine);
    return own;
}

static void close_own(struct own *own)
{
    mc_segment_close(own->engine, own->segment);
    unregister(own->engine, own->local_region);
    unregister(own->engine, own->region);
    mc_memory_free(own->engine, own->memory);
    mc_transfer_close(own->engine);
    free(own->local);
}

static struct mc_xfer write_of(const struct own *own, uint64_t offset, uint64_t length)
{
    return (struct mc_xfer){ .op = MC_WRITE,
                             .segment = own->segment,
                             .region = own->region,
                             .offset = offset,
                             .length = length,
                             .local = own->local };
}

static void moves_bytes_both_ways(const struct mc_transfer_options *options)
{
    struct own own = open_own_memory(options);
    static const size_t sizes[] = { 0, 1, 63, 64, 65, 4095, 4096, 4097, 1 << 19 };

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct mc_xfer xfer = write_of(&own, 3, sizes[i]);
        memset(own.memory, 0xee, SIZE);
        assert_int_equal(move(own.engine, &xfer), MC_OK);
        assert_memory_equal(own.memory + 3, own.local, sizes[i]);
        assert_int_equal(own.memory[2], 0xee);
        assert_int_equal(own.memory[3 + sizes[i]], 0xee);
        xfer.op = MC_READ;
        xfer.local = own.local + SIZE / 2 - 1;
        assert_int_equal(move(own.engine, &xfer), MC_OK);
        assert_memory_equal(own.local + SIZE / 2 - 1, own.memory + 3, sizes[i]);
    }
    close_own(&own);
}

static void test_bytes_move_both_ways(void **state)
{
    (void)state;
    moves_bytes_both_ways(&threaded);
}

static void test_bytes_move_both_ways_without_a_thread(void **state)
{
    (void)state;
    moves_bytes_both_ways(&driven);
}

static void test_strided_pieces_find_their_places(void **state)
{
    (void)state;
    struct own own = open_own_memory(&driven);
    uint64_t table[100];

    for (uint64_t i = 0; i < 100; i++)
        table[i] = (i * 37 % 100) * 4096;
    const struct mc_xfer xfer = { .op = MC_WRITE,
                                  .segment = own.segment,
                                  .region = own.region,
                                  .offset = 5,
                                  .length = 100,
                                  .count = 100,
                                  .local = own.local,
                                  .local_stride = 128,
                                  .remote_table = table };
    assert_int_equal(move(own.engine, &xfer), MC_OK);
    for (uint64_t i = 0; i < 100; i++)
        assert_memory_equal(own.memory + 5 + table[i], own.local + i * 128, 100);
    close_own(&own);
}

static void test_what_is_not_permitted_touches_nothing(void **state)
{
    (void)state;
    struct own own = open_own_memory(&driven);
    unsigned char other[64] = { 0 };
    struct mc_xfer xfer = write_of(&own, SIZE - 10, 11);

    assert_int_equal(move(own.engine, &xfer), MC_E_DENIED); /* over the end */
    xfer = write_of(&own, 0, 64);
    xfer.region.generation++;
    assert_int_equal(move(own.engine, &xfer), MC_E_STALE);
    xfer.region = (struct mc_region){ .id = 4000, .generation = 3 };
    assert_int_equal(move(own.engine, &xfer), MC_E_STALE);
    xfer.region = own.local_region;
    assert_int_equal(move(own.engine, &xfer), MC_E_DENIED); /* private */
    xfer = write_of(&own, 0, 64);
    xfer.local = other;
    assert_int_equal(move(own.engine, &xfer), MC_E_DENIED); /* local memory that is not ours */
    xfer = write_of(&own, UINT64_MAX, 64);
    assert_int_equal(move(own.engine, &xfer), MC_E_RANGE);
    xfer = write_of(&own, 0, 64);
    xfer.segment += 1;
    assert_int_equal(move(own.engine, &xfer), MC_E_ARG);

    const struct mc_region read_only =
        register_memory(own.engine, own.memory, 64, MC_REMOTE_READ, 0);
    xfer = write_of(&own, 0, 64);
    xfer.region = read_only;
    assert_int_equal(move(own.engine, &xfer), MC_E_DENIED);
    unregister(own.engine, read_only);
    assert_int_equal(move(own.engine, &xfer), MC_E_STALE);
    for (size_t i = 0; i < SIZE; i++)
        assert_int_equal(own.memory[i], 0);
    struct mc_transfer_stats stats;
    assert_int_equal(mc_transfer_stats(own.engine, UINT32_MAX, &stats), MC_OK);
    assert_true(stats.refused >= 5);
    assert_int_equal(stats.write_bytes, 0);
    close_own(&own);
}

static void test_a_window_is_an_address_space_of_scattered_pieces(void **state)
{
    (void)state;
    struct own own = open_own_memory(&driven);
    const uint64_t offsets[] = { 8192, 0, 40960, 4096 };
    const struct mc_window_options options = { .region = own.region,
                                               .offsets = offsets,
                                               .count = 4,
                                               .piece_bytes = 1000,
                                               .permissions = MC_REMOTE_WRITE };
    struct mc_window window;

    assert_int_equal(mc_window_grant(own.engine, &options, &window, NULL), MC_OK);
    assert_int_equal(window.size, 4000);
    struct mc_xfer xfer = write_of(&own, 500, 3000);
    xfer.window = &window;
    assert_int_equal(move(own.engine, &xfer), MC_OK);
    assert_memory_equal(own.memory + 8192 + 500, own.local, 500);
    assert_memory_equal(own.memory, own.local + 500, 1000);
    assert_memory_equal(own.memory + 40960, own.local + 1500, 1000);
    assert_memory_equal(own.memory + 4096, own.local + 2500, 500);
    assert_int_equal(own.memory[4096 + 500], 0);
    xfer.op = MC_READ; /* not permitted */
    assert_int_equal(move(own.engine, &xfer), MC_E_DENIED);
    xfer.op = MC_WRITE;
    xfer.offset = 1001; /* over the end */
    assert_int_equal(move(own.engine, &xfer), MC_E_DENIED);
    xfer.offset = 0;
    struct mc_window forged = window;
    xfer.window = &forged;
    forged.key[1] ^= 1;
    forged.generation += 1000;
    assert_int_equal(move(own.engine, &xfer), MC_E_DENIED);
    forged = window;
    forged.generation++;
    assert_int_equal(move(own.engine, &xfer), MC_E_STALE);
    forged = window;
    forged.incarnation++;
    assert_int_equal(move(own.engine, &xfer), MC_E_STALE);
    forged = window;
    forged.permissions = BOTH; /* the copy says more than was granted */
    forged.size = SIZE;
    xfer.op = MC_READ;
    assert_int_equal(move(own.engine, &xfer), MC_E_DENIED);

    assert_int_equal(mc_window_renew(own.engine, &window, SECOND_NS), MC_OK);
    assert_int_equal(mc_window_revoke(own.engine, &window, in_seconds(5), NULL), MC_OK);
    assert_int_equal(mc_window_revoke(own.engine, &window, in_seconds(5), NULL), MC_OK);
    assert_int_equal(mc_window_renew(own.engine, &window, SECOND_NS), MC_E_STALE);
    xfer.window = &window;
    xfer.op = MC_WRITE;
    assert_int_equal(move(own.engine, &xfer), MC_E_STALE);
    close_own(&own);
}

static void test_a_batch_larger_than_every_queue_moves_whole(void **state)
{
    (void)state;
    struct own own = open_own_memory(&threaded);
    mc_batch *batch;
    const struct mc_batch_options options = { .capacity = 5000 };

    assert_int_equal(mc_batch_open(own.engine, &options, &batch), MC_OK);
    for (uint64_t i = 0; i < 5000; i++) {
        struct mc_xfer xfer = write_of(&own, i * 100, 100);
        xfer.local = own.local + i * 100;
        assert_int_equal(mc_batch_add(batch, &xfer, 1), MC_OK);
    }
    const struct mc_xfer more = write_of(&own, 0, 1);
    assert_int_equal(mc_batch_add(batch, &more, 1), MC_E_FULL);
    assert_int_equal(mc_batch_submit(batch), MC_OK);
    assert_int_equal(mc_batch_wait(batch, in_seconds(20)), MC_OK);
    assert_int_equal(mc_batch_submit(batch), MC_OK); /* for good */
    assert_memory_equal(own.memory, own.local, 500000);
    for (uint64_t i = 0; i < 5000; i += 100) {
        struct mc_xfer_result result;
        assert_int_equal(mc_batch_result(batch, i, &result), MC_OK);
        assert_int_equal(result.status, MC_OK);
        assert_int_equal(result.bytes, 100);
        assert_int_equal(result.attempts, 1);
        assert_string_equal(result.transport, "self");
        assert_true(result.submitted_ns <= result.posted_ns);
        assert_true(result.posted_ns <= result.finished_ns);
    }
    mc_batch_close(batch);
    close_own(&own);
}

static void test_a_batch_says_pending_until_submitted_and_can_be_used_again(void **state)
{
    (void)state;
    struct own own = open_own_memory(&driven);
    mc_batch *batch;
    struct mc_xfer xfer = write_of(&own, 0, 10);

    assert_int_equal(mc_batch_open(own.engine, NULL, &batch), MC_OK);
    assert_int_equal(mc_batch_poll(batch), MC_PENDING);
    assert_int_equal(mc_batch_wait(batch, MC_AT_ONCE), MC_PENDING);
    for (int round = 0; round < 3; round++) {
        assert_int_equal(mc_batch_add(batch, &xfer, 1), MC_OK);
        assert_int_equal(mc_batch_submit(batch), MC_OK);
        assert_int_equal(mc_batch_wait(batch, MC_FOREVER), MC_OK);
        assert_int_equal(mc_batch_reset(batch, MC_FOREVER), MC_OK);
    }
    xfer.region.generation++;
    assert_int_equal(mc_batch_add(batch, &xfer, 1), MC_OK);
    assert_int_equal(mc_batch_submit(batch), MC_OK);
    assert_int_equal(mc_batch_wait(batch, MC_FOREVER), MC_E_STALE);
    struct mc_error error = { 0 };
    assert_int_equal(mc_batch_error(batch, &error), MC_E_STALE);
    assert_int_equal(error.status, MC_E_STALE);
    assert_true(strlen(error.text) > 10);
    assert_int_equal(mc_batch_reset(batch, MC_FOREVER), MC_OK);
    assert_int_equal(mc_batch_submit(batch), MC_OK); /* of nothing */
    assert_int_equal(mc_batch_wait(batch, MC_FOREVER), MC_OK);
    mc_batch_close(batch);
    mc_batch_close(NULL);
    close_own(&own);
}

static void test_a_cancelled_or_late_batch_is_so_for_good(void **state)
{
    (void)state;
    struct own own = open_own_memory(&driven);
    const struct mc_batch_options late = { .deadline_ns = MC_AT_ONCE };
    const struct mc_xfer xfer = write_of(&own, 0, 10);
    struct mc_xfer_result result;
    mc_batch *batch;

    assert_int_equal(mc_batch_open(own.engine, NULL, &batch), MC_OK);
    assert_int_equal(mc_batch_add(batch, &xfer, 1), MC_OK);
    assert_int_equal(mc_batch_cancel(batch), MC_OK);
    assert_int_equal(mc_batch_submit(batch), MC_OK);
    assert_int_equal(mc_batch_poll(batch), MC_E_CANCELLED);
    assert_int_equal(mc_batch_poll(batch), MC_E_CANCELLED);
    assert_int_equal(mc_batch_submit(batch), MC_E_CANCELLED);
    assert_int_equal(mc_batch_result(batch, 0, &result), MC_OK);
    assert_int_equal(result.status, MC_E_CANCELLED);
    assert_int_equal(mc_batch_result(batch, 1, &result), MC_E_RANGE);
    mc_batch_close(batch);

    assert_int_equal(mc_batch_open(own.engine, &late, &batch), MC_OK);
    assert_int_equal(mc_batch_poll(batch), MC_E_TIMEOUT);
    mc_batch_close(batch);
    close_own(&own);
}

static void test_an_own_notice_arrives_after_the_bytes(void **state)
{
    (void)state;
    struct own own = open_own_memory(&threaded);
    const struct mc_xfer xfer = write_of(&own, 0, 1000);
    struct mc_notice notice;
    char message[16];
    mc_batch *batch;

    assert_int_equal(mc_notice_take(own.engine, MC_AT_ONCE, &notice, message, 16), MC_E_NOT_FOUND);
    assert_int_equal(mc_batch_open(own.engine, NULL, &batch), MC_OK);
    assert_int_equal(mc_batch_notify(batch, own.segment, "done", "layer 7", 7), MC_OK);
    assert_int_equal(mc_batch_add(batch, &xfer, 1), MC_OK);
    assert_int_equal(mc_batch_submit(batch), MC_OK);
    assert_int_equal(mc_batch_wait(batch, in_seconds(10)), MC_OK);
    assert_int_equal(mc_notice_take(own.engine, in_seconds(10), &notice, message, 3), MC_E_RANGE);
    assert_int_equal(mc_notice_take(own.engine, in_seconds(10), &notice, message, 16), MC_OK);
    assert_string_equal(notice.name, "done");
    assert_int_equal(notice.size, 7);
    assert_memory_equal(message, "layer 7", 7);
    assert_memory_equal(own.memory, own.local, 1000);
    mc_batch_close(batch);
    close_own(&own);
}

static void test_the_own_segment_shows_its_public_regions(void **state)
{
    (void)state;
    struct own own = open_own_memory(&driven);
    struct mc_segment_info info;
    struct mc_segment_region region;
    struct mc_region found;
    uint64_t offset;

    assert_int_equal(mc_segment_info(own.engine, own.segment, true, in_seconds(5), &info, NULL),
                     MC_OK);
    assert_int_equal(info.regions, 1);
    assert_int_equal(info.same_host, 1);
    assert_string_equal(info.transport, "self");
    assert_int_equal(mc_segment_region(own.engine, own.segment, 0, &region), MC_OK);
    assert_int_equal(region.region.id, own.region.id);
    assert_int_equal(region.size, SIZE);
    assert_int_equal(mc_segment_region(own.engine, own.segment, 1, &region), MC_E_NOT_FOUND);
    assert_int_equal(
        mc_segment_find(own.engine, own.segment, (uintptr_t)own.memory + 77, 100, &found, &offset),
        MC_OK);
    assert_int_equal(found.generation, own.region.generation);
    assert_int_equal(offset, 77);
    assert_int_equal(mc_segment_find(own.engine, own.segment, (uintptr_t)own.memory + SIZE - 1, 2,
                                     &found, &offset),
                     MC_E_NOT_FOUND);
    close_own(&own);
}

static mc_status use_all(const struct mc_alloc *alloc)
{
    const struct mc_transfer_options options = { .transports = "self",
                                                 .alloc = alloc,
                                                 .flags = MC_TRANSFER_DRIVEN,
                                                 .sessions_max = 4,
                                                 .regions_max = 8,
                                                 .windows_max = 8 };
    static unsigned char memory[4096];
    const struct mc_region_options range = { .address = memory,
                                             .size = sizeof(memory),
                                             .permissions = BOTH };
    mc_transfer *engine = NULL;
    struct mc_region region;
    struct mc_window window;
    struct mc_transfer_info info;
    mc_batch *batch = NULL;
    uint32_t segment = 0;
    void *block = NULL;
    bool registered = false;

    mc_status status = mc_transfer_open(&options, &engine, NULL);
    if (status != MC_OK)
        return status;
    mc_transfer_info(engine, &info);
    status = mc_memory_alloc(engine, 4096, NULL, &block, NULL);
    if (status == MC_OK)
        status = mc_region_register(engine, &range, 1, &region, NULL);
    registered = status == MC_OK;
    const uint64_t offsets[] = { 100, 0 };
    const struct mc_window_options lend = { .region = region,
                                            .offsets = offsets,
                                            .count = 2,
                                            .piece_bytes = 50,
                                            .permissions = MC_REMOTE_WRITE };
    if (status == MC_OK)
        status = mc_window_grant(engine, &lend, &window, NULL);
    if (status == MC_OK)
        status = mc_segment_open(engine, info.name, &segment, NULL);
    if (status == MC_OK)
        status = mc_batch_open(engine, NULL, &batch);
    const struct mc_xfer xfer = {
        .op = MC_WRITE, .segment = segment, .window = &window, .length = 100, .local = memory + 1000
    };
    if (status == MC_OK)
        status = mc_batch_notify(batch, segment, "n", "m", 1);
    if (status == MC_OK)
        status = mc_batch_add(batch, &xfer, 1);
    if (status == MC_OK)
        status = mc_batch_submit(batch);
    if (status == MC_OK)
        status = mc_batch_wait(batch, in_seconds(10));
    mc_batch_close(batch);
    mc_segment_close(engine, segment);
    if (registered)
        unregister(engine, region);
    mc_memory_free(engine, block);
    mc_transfer_close(engine);
    return status;
}

static void test_every_failed_allocation_leaves_nothing_behind(void **state)
{
    (void)state;
    for (int after = 0; after < 2; after++) {
        for (long k = 0;; k++) {
            struct faulty f;
            faulty_init(&f, k);
            f.fail_after = after;
            const mc_status status = use_all(&f.alloc);
            assert_int_equal(f.held, 0);
            if (f.calls <= k) {
                assert_int_equal(status, MC_OK);
                break;
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_move_both_ways),
        cmocka_unit_test(test_bytes_move_both_ways_without_a_thread),
        cmocka_unit_test(test_strided_pieces_find_their_places),
        cmocka_unit_test(test_what_is_not_permitted_touches_nothing),
        cmocka_unit_test(test_a_window_is_an_address_space_of_scattered_pieces),
        cmocka_unit_test(test_a_batch_larger_than_every_queue_moves_whole),
        cmocka_unit_test(test_a_batch_says_pending_until_submitted_and_can_be_used_again),
        cmocka_unit_test(test_a_cancelled_or_late_batch_is_so_for_good),
        cmocka_unit_test(test_an_own_notice_arrives_after_the_bytes),
        cmocka_unit_test(test_the_own_segment_shows_its_public_regions),
        cmocka_unit_test(test_every_failed_allocation_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
