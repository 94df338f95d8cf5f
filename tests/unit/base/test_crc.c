/* test_crc.c - CRC32C against the published check values, in pieces, and both ways to compute it. */
#include "test.h"

#include "base/crc.h"
#include "base/prng.h"

static void test_known_texts_have_their_published_sums(void **state)
{
    (void)state;
    uint8_t bytes[32];

    assert_true(crc32c(0, "123456789", 9) == 0xe3069283u); /* the catalogue's check value */
    memset(bytes, 0, sizeof(bytes));
    assert_true(crc32c(0, bytes, 32) == 0x8a9136aau); /* RFC 3720, B.4 */
    memset(bytes, 0xff, sizeof(bytes));
    assert_true(crc32c(0, bytes, 32) == 0x62a8ab43u);
    for (uint8_t i = 0; i < 32; i++)
        bytes[i] = i;
    assert_true(crc32c(0, bytes, 32) == 0x46dd794eu);
    assert_true(crc32c(0, NULL, 0) == 0);
}

static void test_pieces_sum_up_to_the_whole(void **state)
{
    (void)state;
    uint8_t bytes[300];
    struct prng prng = { .seed = 1 };

    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)prng_next(&prng);
    const uint32_t whole = crc32c(0, bytes, sizeof(bytes));
    for (size_t cut = 0; cut <= sizeof(bytes); cut++)
        assert_true(crc32c(crc32c(0, bytes, cut), bytes + cut, sizeof(bytes) - cut) == whole);
}

/** From the polynomial, bit by bit: what every other way must agree with. */
static uint32_t by_bits(uint32_t crc, const uint8_t *bytes, size_t size)
{
    crc = ~crc;
    for (size_t i = 0; i < size; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (0x82f63b78u & (0u - (crc & 1)));
    }
    return ~crc;
}

enum { SPACE = 300, ROOM = 16 }; /* sizes; bytes before and behind */

/** Random bytes, the same ones each time. */
static void fill(uint8_t *bytes, size_t size, uint64_t seed)
{
    struct prng prng = { .seed = seed };

    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)prng_next(&prng);
}

static void test_every_small_size_and_alignment_agrees_with_the_polynomial(void **state)
{
    (void)state;
    uint8_t bytes[SPACE + ROOM];

    fill(bytes, sizeof(bytes), 2);
    for (size_t size = 0; size <= SPACE; size++) {
        for (size_t at = 0; at < 8; at++) {
            const uint32_t sum = by_bits(7, bytes + at, size);
            assert_true(crc32c(7, bytes + at, size) == sum);
            assert_true(crc32c_plain(7, bytes + at, size) == sum);
        }
    }
}

typedef uint32_t copying(uint32_t crc, void *to, const void *from, size_t size);

static void check_copies(copying *copy)
{
    uint8_t from[SPACE + ROOM], to[SPACE + 2 * ROOM], expected[SPACE + 2 * ROOM];

    fill(from, sizeof(from), 3);
    for (size_t size = 0; size <= SPACE; size++) {
        const size_t at = size % 8, there = size / 8 % ROOM;

        memset(to, 0xee, sizeof(to));
        memset(expected, 0xee, sizeof(expected));
        memcpy(expected + there, from + at, size);
        assert_true(copy(9, to + there, from + at, size) == by_bits(9, from + at, size));
        assert_memory_equal(to, expected, sizeof(to));
    }
    assert_true(copy(5, NULL, NULL, 0) == 5);
}

static void test_a_copy_is_exact_and_summed_at_every_small_size(void **state)
{
    (void)state;
    check_copies(crc32c_copy);
    check_copies(crc32c_copy_plain);
}

/* Long enough for several rounds of every loop: 65,536 is the piece that transfers sum. */
static void test_long_ranges_agree_both_ways(void **state)
{
    (void)state;
    enum { LONG = 65536 + 5000 };
    uint8_t *bytes = malloc(LONG), *to = malloc(LONG);
    struct prng prng = { .seed = 4 };

    assert_non_null(bytes);
    assert_non_null(to);
    fill(bytes, LONG, 5);
    for (int round = 0; round < 50; round++) {
        const size_t at = prng_below(&prng, 64);
        const size_t size = round == 0 ? 65536 : prng_below(&prng, LONG - 64);
        const uint32_t sum = crc32c_plain(1, bytes + at, size);

        assert_true(crc32c(1, bytes + at, size) == sum);
        assert_true(crc32c_copy(1, to, bytes + at, size) == sum);
        assert_memory_equal(to, bytes + at, size);
    }
    assert_true(crc32c(0, bytes, LONG) == by_bits(0, bytes, LONG));
    free(to);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_small_size_and_alignment_agrees_with_the_polynomial),
        cmocka_unit_test(test_a_copy_is_exact_and_summed_at_every_small_size),
        cmocka_unit_test(test_long_ranges_agree_both_ways),
        cmocka_unit_test(test_known_texts_have_their_published_sums),
        cmocka_unit_test(test_pieces_sum_up_to_the_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
