/* test_object.c - the bytes of an object. */
#include "test.h"

#include "base/crc.h"
#include "store/core/object.h"
#include "wire/bytes.h"

enum { LENGTH = 2 * MC_OBJECT_PIECE + 10 };

static const struct mc_identity identity = { { 1, 2, 3, 250 } };

/** An object in `bytes`, its payload given in three ranges that do not end where pieces do. */
static size_t make(uint8_t *bytes, uint64_t length, uint64_t generation)
{
    struct mc_object_header header;
    uint8_t *payload = bytes + sizeof(header);
    const uint64_t third = length / 3;
    const struct mc_range ranges[] = { { payload, third },
                                       { payload + third, 0 },
                                       { payload + third, length - third } };
    uint32_t sums[8];

    for (uint64_t i = 0; i < length; i++)
        payload[i] = (uint8_t)(i * 7 ^ i >> 9);
    object_header_make(&header, &identity, length, generation);
    memcpy(bytes, &header, sizeof(header));
    object_sum(ranges, 3, length, sums);
    object_trailer_make(&header, sums, mc_object_pieces(length), payload + length);
    return (size_t)mc_object_bytes(length);
}

static void test_what_is_made_is_found_whole(void **state)
{
    static const uint64_t lengths[] = {
        0, 1, 63, MC_OBJECT_PIECE - 1, MC_OBJECT_PIECE, MC_OBJECT_PIECE + 1, LENGTH
    };
    uint8_t *bytes = malloc(mc_object_bytes(LENGTH));

    (void)state;
    for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
        const size_t size = make(bytes, lengths[i], 9);
        struct mc_object_header header;
        assert_int_equal(object_inspect(bytes, size, 9, &header), MC_OK);
        assert_int_equal(header.length, lengths[i]);
        assert_int_equal(object_header_check(&header, &identity, lengths[i], 9), MC_OK);
        assert_int_equal(object_header_check(&header, &identity, lengths[i], 8), MC_E_STALE);
        assert_int_equal(object_inspect(bytes, size, 8, &header), MC_E_STALE);
        assert_int_equal(object_inspect(bytes, size - 1, 9, &header), MC_E_CORRUPT);
    }
    free(bytes);
}

static void test_the_trailer_is_as_the_header_draws_it(void **state)
{
    uint8_t bytes[256];
    struct mc_object_header header;

    (void)state;
    make(bytes, 100, 5);
    memcpy(&header, bytes, sizeof(header));
    assert_int_equal(header.header_crc, crc32c(0, bytes, 60));
    assert_int_equal(get_u32(bytes + 164), crc32c(0, bytes + 64, 100) ^ header.header_crc);
}

static void test_every_flipped_bit_is_seen(void **state)
{
    uint8_t bytes[256];
    const size_t size = make(bytes, 100, 5);
    struct mc_object_header header;

    (void)state;
    for (size_t bit = 0; bit < 8 * size; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_not_equal(object_inspect(bytes, size, 5, &header), MC_OK);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_int_equal(object_inspect(bytes, size, 5, &header), MC_OK);
}

/** A writer that died after its header: beneath lie payload and trailer of the one before, just as long. */
static void test_a_new_header_over_old_bytes_is_not_whole(void **state)
{
    uint8_t bytes[256];
    const size_t size = make(bytes, 100, 5);
    const struct mc_identity other = { { 77 } };
    struct mc_object_header header;

    (void)state;
    object_header_make(&header, &other, 100, 6);
    memcpy(bytes, &header, sizeof(header));
    assert_int_equal(object_inspect(bytes, size, 6, &header), MC_E_CORRUPT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_made_is_found_whole),
        cmocka_unit_test(test_the_trailer_is_as_the_header_draws_it),
        cmocka_unit_test(test_every_flipped_bit_is_seen),
        cmocka_unit_test(test_a_new_header_over_old_bytes_is_not_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
