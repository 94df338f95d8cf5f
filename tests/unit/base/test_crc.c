/* test_crc.c - CRC32C against the published check values, and in pieces. */
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_texts_have_their_published_sums),
        cmocka_unit_test(test_pieces_sum_up_to_the_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
