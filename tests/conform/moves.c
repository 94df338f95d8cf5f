/* moves.c - bytes arrive, all of them, and no others: sizes, alignments, overlaps, numbers. */
#define _GNU_SOURCE
#include "world.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

static const uint64_t sizes[] = {
    0, 1, 63, 64, 65, 4095, 4096, 4097, 65535, 65536, 65537, 1 << 20
};
enum { SIZES = sizeof(sizes) / sizeof(sizes[0]) };

/** [at, at + length) of `from`'s pattern, the rest as it was. */
static void check_local(const struct world *w, uint64_t at, uint64_t offset, uint64_t length)
{
    assert_true(wrong(w->local, 0, at, 1) == 0);
    for (uint64_t i = 0; i < length; i++)
        assert_int_equal(w->local[at + i], pattern(2, offset + i));
    assert_true(wrong(w->local, at + length, 1000, 1) == 0);
}

static void write_one(struct world *w, uint64_t at, uint64_t offset, uint64_t length,
                      enum mc_checksum checksum)
{
    const struct mc_xfer xfer = xfer_of(w, MC_WRITE, at, offset, length);

    tell_fill(w, 0, offset + length + 1000, 2);
    /* What is written looks like pattern 3 of the place where it lands. */
    for (uint64_t i = 0; i < length; i++)
        w->local[at + i] = pattern(3, offset + i);
    assert_int_equal(move(w, &xfer, checksum), MC_OK);
    assert_true(tell_wrong(w, 0, offset, 2) == 0);
    assert_true(tell_wrong(w, offset, length, 3) == 0);
    assert_true(tell_wrong(w, offset + length, 1000, 2) == 0);
}

static void read_one(struct world *w, uint64_t at, uint64_t offset, uint64_t length,
                     enum mc_checksum checksum)
{
    const struct mc_xfer xfer = xfer_of(w, MC_READ, at, offset, length);

    fill(w->local, 0, at + length + 1000, 1);
    assert_int_equal(move(w, &xfer, checksum), MC_OK);
    check_local(w, at, offset, length);
}

static void every_size(struct world *w, uint64_t at, uint64_t offset, enum mc_checksum checksum)
{
    for (uint32_t i = 0; i < SIZES; i++)
        write_one(w, at, offset, sizes[i], checksum);
    tell_fill(w, 0, offset + (1 << 20), 2);
    for (uint32_t i = 0; i < SIZES; i++)
        read_one(w, at, offset, sizes[i], checksum);
}

static void test_every_size_arrives_whole_and_nothing_else_changes(void **state)
{
    struct world *w = *state;

    world_open(w, &(struct world_options){ 0 });
    every_size(w, 4096, 8192, MC_CHECKSUM_DEFAULT);
    world_close(w);
}

static void test_every_size_arrives_unaligned(void **state)
{
    struct world *w = *state;

    world_open(w, &(struct world_options){ .driven = true });
    every_size(w, 4097, 8195, MC_CHECKSUM_NONE);
    every_size(w, 13, 1, MC_CHECKSUM_NONE);
    world_close(w);
}

static void test_every_size_arrives_with_checksums(void **state)
{
    struct world *w = *state;

    world_open(w, &(struct world_options){ 0 });
    if (variant->summed) {
        every_size(w, 5, 64, MC_CHECKSUM_CRC32C);
    } else {
        const struct mc_xfer xfer = xfer_of(w, MC_WRITE, 0, 0, 1000);
        assert_int_equal(move(w, &xfer, MC_CHECKSUM_CRC32C), MC_E_UNSUPPORTED);
    }
    world_close(w);
}

/* Sixteen writers of whole values to one place: every byte is one of theirs. */
static void test_overlapping_targets_hold_a_mixture_and_nothing_else(void **state)
{
    struct world *w = *state;
    enum { WRITERS = 16, EACH = 100000, STEP = 30000 };
    struct mc_xfer xfers[WRITERS];
    bool seen[256] = { false };

    world_open(w, &(struct world_options){ 0 });
    tell_fill(w, 0, SPACE, 2);
    for (uint32_t i = 0; i < WRITERS; i++) {
        memset(w->local + (size_t)i * EACH, (int)(0x80 + i), EACH);
        xfers[i] = xfer_of(w, MC_WRITE, (uint64_t)i * EACH, 1000 + (uint64_t)(i % 4) * STEP, EACH);
    }
    mc_batch *batch = start(w, xfers, WRITERS, 0, MC_CHECKSUM_NONE);
    assert_int_equal(finish(batch), MC_OK);
    mc_batch_close(batch);
    const uint64_t end = 1000 + 3 * STEP + EACH;
    assert_true(tell_wrong(w, 0, 1000, 2) == 0);
    assert_true(tell_wrong(w, end, 10000, 2) == 0);
    const struct mc_xfer back = xfer_of(w, MC_READ, 0, 1000, end - 1000);
    assert_int_equal(move(w, &back, MC_CHECKSUM_NONE), MC_OK);
    for (uint64_t i = 0; i < end - 1000; i++)
        seen[w->local[i]] = true;
    for (int value = 0; value < 256; value++)
        assert_true(!seen[value] || (value >= 0x80 && value < 0x80 + WRITERS));
    world_close(w);
}

/* Reads that overlap here: all see the same bytes, so the result is certain. */
static void test_overlapping_reads_agree(void **state)
{
    struct world *w = *state;
    enum { READERS = 16, EACH = 100000, STEP = 777 };
    struct mc_xfer xfers[READERS];

    world_open(w, &(struct world_options){ 0 });
    tell_fill(w, 0, SPACE, 2);
    fill(w->local, 0, SPACE, 1);
    for (uint32_t i = 0; i < READERS; i++)
        xfers[i] = xfer_of(w, MC_READ, 5000 + (uint64_t)i * STEP, (uint64_t)i * STEP, EACH);
    mc_batch *batch = start(w, xfers, READERS, 0, MC_CHECKSUM_NONE);
    assert_int_equal(finish(batch), MC_OK);
    mc_batch_close(batch);
    check_local(w, 5000, 0, 15 * STEP + EACH);
    world_close(w);
}

/* A window's pieces lie in disorder in the region and are one range to who fills them. */
static void test_a_window_of_scattered_pieces_is_one_range(void **state)
{
    struct world *w = *state;
    enum { PIECES = 7, PIECE = 5000 };
    const uint64_t offsets[PIECES] = { 70000, 10, 300000, 200003, 130000, 5010, 999999 };
    struct mc_window window;

    world_open(w, &(struct world_options){ 0 });
    const struct mc_window_options options = { .region = w->region,
                                               .offsets = offsets,
                                               .count = PIECES,
                                               .piece_bytes = PIECE,
                                               .permissions = BOTH };
    tell_fill(w, 0, SPACE, 2);
    assert_int_equal(tell_grant(w, &options, &window), MC_OK);
    for (uint64_t i = 0; i < (uint64_t)PIECES * PIECE; i++) /* pattern 3 of where each byte lands */
        w->local[i] = pattern(3, offsets[i / PIECE] + i % PIECE);
    struct mc_xfer xfer = xfer_of(w, MC_WRITE, 1234, 1234, PIECES * PIECE - 2000);
    xfer.window = &window;
    assert_int_equal(move(w, &xfer, MC_CHECKSUM_NONE), MC_OK);
    for (uint32_t p = 0; p < PIECES; p++) {
        const uint64_t skip = p == 0 ? 1234 : 0, cut = p == PIECES - 1 ? 2000 - 1234 : 0;
        assert_true(tell_wrong(w, offsets[p] + skip, PIECE - skip - cut, 3) == 0);
        assert_true(tell_wrong(w, offsets[p] + PIECE - cut, 10 + cut, 2) == (p == 1 ? 10 : 0) ||
                    p == 1);
    }
    fill(w->local, 0, SPACE, 1);
    xfer.op = MC_READ;
    assert_int_equal(move(w, &xfer, MC_CHECKSUM_NONE), MC_OK);
    for (uint64_t i = 1234; i < 1234 + xfer.length; i++)
        assert_int_equal(w->local[i], pattern(3, offsets[i / PIECE] + i % PIECE));
    tell_revoke(w, &window);
    assert_int_equal(told_status(w), MC_OK);
    world_close(w);
}

/* Layers of pages: one descriptor, tables on both sides. */
static void test_tables_on_both_sides_put_each_piece_in_its_place(void **state)
{
    struct world *w = *state;
    enum { PIECES = 100, PIECE = 640 };
    static void *local[PIECES];
    static uint64_t remote[PIECES];

    world_open(w, &(struct world_options){ 0 });
    tell_fill(w, 0, SPACE, 2);
    for (uint64_t i = 0; i < PIECES; i++) {
        local[i] = w->local + (i * 37 % PIECES) * 4096;
        remote[i] = (i * 61 % PIECES) * 2048;
        for (uint64_t b = 0; b < PIECE; b++)
            ((uint8_t *)local[i])[64 + b] = pattern(3, 300 + remote[i] + b);
    }
    struct mc_xfer xfer = xfer_of(w, MC_WRITE, 0, 300, PIECE);
    xfer.count = PIECES;
    xfer.local_table = local;
    xfer.local_offset = 64;
    xfer.remote_table = remote;
    assert_int_equal(move(w, &xfer, MC_CHECKSUM_NONE), MC_OK);
    for (uint64_t i = 0; i < PIECES; i++) {
        assert_true(tell_wrong(w, 300 + remote[i], PIECE, 3) == 0);
        assert_true(tell_wrong(w, 300 + remote[i] + PIECE, 2048 - PIECE, 2) == 0);
    }
    world_close(w);
}

int topic_moves(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_every_size_arrives_whole_and_nothing_else_changes),
        WORLD_TEST(test_every_size_arrives_unaligned),
        WORLD_TEST(test_every_size_arrives_with_checksums),
        WORLD_TEST(test_overlapping_targets_hold_a_mixture_and_nothing_else),
        WORLD_TEST(test_overlapping_reads_agree),
        WORLD_TEST(test_a_window_of_scattered_pieces_is_one_range),
        WORLD_TEST(test_tables_on_both_sides_put_each_piece_in_its_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* ------------------------------------------------------------------------------------------ many */

enum { MANY = 100000 };

static void many_single_bytes(struct world *w, enum mc_op op)
{
    struct mc_xfer xfer = xfer_of(w, op, 10, 20, 1);

    xfer.count = MANY;
    xfer.local_stride = 3;
    xfer.remote_stride = 2;
    assert_int_equal(move(w, &xfer, MC_CHECKSUM_NONE), MC_OK);
}

static void test_a_hundred_thousand_bytes_of_one_descriptor_each_find_their_place(void **state)
{
    struct world *w = *state;

    world_open(w, &(struct world_options){ 0 });
    tell_fill(w, 0, 3 * MANY, 2);
    fill(w->local, 0, 4 * MANY, 1);
    for (uint64_t i = 0; i < MANY; i++)
        w->local[10 + 3 * i] = pattern(2, 20 + 2 * i) ^ 1; /* pattern 3, as it happens: 2 ^ 1 */
    many_single_bytes(w, MC_WRITE);
    assert_true(tell_wrong(w, 20, 2 * MANY, 2) == MANY);
    assert_true(tell_wrong(w, 20, 2 * MANY, 3) == MANY);
    assert_true(tell_wrong(w, 20 + 2 * MANY, 1000, 2) == 0);
    fill(w->local, 0, 4 * MANY, 1);
    many_single_bytes(w, MC_READ);
    for (uint64_t i = 0; i < MANY; i++) {
        assert_int_equal(w->local[10 + 3 * i], pattern(3, 20 + 2 * i));
        assert_int_equal(w->local[11 + 3 * i], pattern(1, 11 + 3 * i));
    }
    world_close(w);
}

/* As many transfers as no queue holds, each with its own result. */
static void test_a_batch_larger_than_every_queue_moves_all_of_it(void **state)
{
    struct world *w = *state;
    enum { COUNT = 20000, EACH = 200 };
    struct mc_xfer *xfers = calloc(COUNT, sizeof(*xfers));
    struct mc_xfer_result result;

    world_open(w, &(struct world_options){ .driven = true });
    tell_fill(w, 0, COUNT * EACH, 2);
    for (uint64_t i = 0; i < COUNT; i++) { /* in the opposite order over there */
        xfers[i] = xfer_of(w, MC_WRITE, i * EACH, (COUNT - 1 - i) * EACH, EACH);
        for (uint64_t b = 0; b < EACH; b++)
            w->local[i * EACH + b] = pattern(3, (COUNT - 1 - i) * EACH + b);
    }
    mc_batch *batch = start(w, xfers, COUNT, 0, MC_CHECKSUM_NONE);
    assert_int_equal(finish(batch), MC_OK);
    for (uint64_t i = 0; i < COUNT; i += 97) {
        assert_int_equal(mc_batch_result(batch, i, &result), MC_OK);
        assert_int_equal(result.status, MC_OK);
        assert_true(result.bytes == EACH);
    }
    mc_batch_close(batch);
    assert_true(tell_wrong(w, 0, COUNT * EACH, 3) == 0);
    free(xfers);
    world_close(w);
}

static void test_a_hundred_thousand_transfers_of_one_byte(void **state)
{
    struct world *w = *state;
    struct mc_xfer *xfers = calloc(MANY, sizeof(*xfers));

    world_open(w, &(struct world_options){ 0 });
    tell_fill(w, 0, MANY, 2);
    for (uint64_t i = 0; i < MANY; i++)
        xfers[i] = xfer_of(w, MC_READ, MANY - 1 - i, i, 1);
    mc_batch *batch = start(w, xfers, MANY, 0, MC_CHECKSUM_NONE);
    assert_int_equal(finish(batch), MC_OK);
    mc_batch_close(batch);
    for (uint64_t i = 0; i < MANY; i++)
        assert_int_equal(w->local[MANY - 1 - i], pattern(2, i));
    free(xfers);
    world_close(w);
}

int topic_many(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_a_hundred_thousand_bytes_of_one_descriptor_each_find_their_place),
        WORLD_TEST(test_a_batch_larger_than_every_queue_moves_all_of_it),
        WORLD_TEST(test_a_hundred_thousand_transfers_of_one_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* ----------------------------------------------------------------------------------------- large */

enum { ALIAS = 1 << 20 };

/** A range of `space` bytes at which ALIAS bytes appear again and again. */
static uint8_t *map_small_as_large(uint64_t space)
{
    const int fd = memfd_create("conform", 0);
    uint8_t *memory =
        mmap(NULL, space, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    assert_true(fd >= 0 && memory != MAP_FAILED && ftruncate(fd, ALIAS) == 0);
    for (uint64_t at = 0; at < space; at += ALIAS)
        assert_true(mmap(memory + at, ALIAS, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
                         0) == memory + at);
    close(fd);
    return memory;
}

/* More than four gigabytes in one transfer, between ranges in which little memory appears often; but what the
 * engine allocates is populated, so there the peer's range takes four gigabytes of memory. */
static void test_more_than_four_gigabytes_move_in_one_transfer(void **state)
{
    struct world *w = *state;
    const uint64_t length = (UINT64_C(4) << 30) + 4097, space = (UINT64_C(4) << 30) + (64 << 20);
    struct mc_region region;

    world_open(w, &(struct world_options){ .space = space, .aliased = !variant->allocated });
    uint8_t *local = map_small_as_large(space);
    const struct mc_region_options options = { .address = local, .size = space };
    assert_int_equal(mc_region_register(w->engine, &options, 1, &region, NULL), MC_OK);
    /* Equal bytes everywhere: which copy of them lands last does not matter. */
    memset(local, 0x5b, ALIAS);
    tell_fill(w, 0, 16 << 20, 2);
    struct mc_xfer xfer = xfer_of(w, MC_WRITE, 0, 4095, length);
    xfer.local = local + 1;
    assert_int_equal(move(w, &xfer, MC_CHECKSUM_NONE), MC_OK);
    memset(local, 0, ALIAS);
    xfer = xfer_of(w, MC_READ, 0, UINT64_C(4) << 30, 8192); /* the last that was written */
    assert_int_equal(move(w, &xfer, MC_CHECKSUM_NONE), MC_OK);
    for (uint32_t i = 0; i < 8192; i++)
        assert_int_equal(w->local[i], 0x5b);
    assert_int_equal(mc_region_unregister(w->engine, &region, 1, soon(), NULL), MC_OK);
    (void)munmap(local, space);
    world_close(w);
}

int topic_large(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_more_than_four_gigabytes_move_in_one_transfer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
