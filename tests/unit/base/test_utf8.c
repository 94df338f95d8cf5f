/* test_utf8.c - every code point, and every kind of broken byte, against a table made another way. */
#include "test.h"

#include "base/utf8.h"

/*
 * The table: every well-formed encoding and every proper start of one, written down by shifting bits
 * as RFC 3629's section 3 draws them. Key: the bytes read as one number, most significant first.
 */
enum { CODES = 0x110000 };

static unsigned char start1[1 << 5], start2[1 << 13],
    start3[1 << 21]; /* bits: a start of length n */

static size_t draw(uint32_t code, unsigned char out[4])
{
    if (code < 0x80) {
        out[0] = (unsigned char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (unsigned char)(0xc0 + code / 64);
        out[1] = (unsigned char)(0x80 + code % 64);
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (unsigned char)(0xe0 + code / 4096);
        out[1] = (unsigned char)(0x80 + code / 64 % 64);
        out[2] = (unsigned char)(0x80 + code % 64);
        return 3;
    }
    out[0] = (unsigned char)(0xf0 + code / 262144);
    out[1] = (unsigned char)(0x80 + code / 4096 % 64);
    out[2] = (unsigned char)(0x80 + code / 64 % 64);
    out[3] = (unsigned char)(0x80 + code % 64);
    return 4;
}

static bool is_surrogate(uint32_t code)
{
    return code >= 0xd800 && code <= 0xdfff;
}

static uint32_t key(const unsigned char *bytes, size_t size)
{
    uint32_t k = 0;

    for (size_t i = 0; i < size; i++)
        k = k << 8 | bytes[i];
    return k;
}

static void mark(unsigned char *bits, uint32_t k)
{
    bits[k >> 3] |= (unsigned char)(1u << (k & 7));
}

static bool marked(const unsigned char *bits, uint32_t k)
{
    return bits[k >> 3] >> (k & 7) & 1;
}

static int make_table(void **state)
{
    (void)state;
    for (uint32_t code = 0; code < CODES; code++) {
        unsigned char bytes[4];
        if (is_surrogate(code))
            continue;
        const size_t size = draw(code, bytes);
        if (size > 1)
            mark(start1, bytes[0]);
        if (size > 2)
            mark(start2, key(bytes, 2));
        if (size > 3)
            mark(start3, key(bytes, 3));
    }
    return 0;
}

static bool is_start(const unsigned char *bytes, size_t size)
{
    return marked(size == 1 ? start1 : size == 2 ? start2 : start3, key(bytes, size));
}

static void test_every_code_point_encodes_as_drawn_and_decodes_to_itself(void **state)
{
    (void)state;
    for (uint32_t code = 0; code < CODES; code++) {
        unsigned char want[4];
        char got[4];
        uint32_t back;
        if (is_surrogate(code))
            continue;
        const size_t size = draw(code, want);
        if (utf8_encode(code, got) != size || memcmp(got, want, size) != 0 ||
            utf8_decode(got, size, &back) != size || back != code)
            fail_msg("code point U+%04X", code);
    }
}

/* One of each kind: edges of every row of the table of well-formed sequences, and one beyond. */
static const unsigned char kinds[] = { 0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf,
                                       0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec, 0xed, 0xee,
                                       0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff };
enum { KINDS = sizeof(kinds) };

/* What decoding must give: the code point whose drawing these bytes begin with, or 0 bytes. */
static size_t decode_by_table(const unsigned char *bytes, size_t size, uint32_t *code_p)
{
    static const unsigned char lengths[] = { 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 2, 2, 3, 4 };
    const size_t length = lengths[bytes[0] >> 4];
    unsigned char again[4];

    if (length == 0 || length > size)
        return 0;
    uint32_t code = length == 1 ? bytes[0] : bytes[0] % (256u >> (length + 1));
    for (size_t i = 1; i < length; i++)
        code = code * 64 + bytes[i] % 64;
    if (code >= CODES || is_surrogate(code) || draw(code, again) != length ||
        memcmp(bytes, again, length) != 0)
        return 0;
    *code_p = code;
    return length;
}

static void check_bytes(const unsigned char *bytes, size_t size)
{
    uint32_t want_code = 0, got_code = 0;
    const size_t want = decode_by_table(bytes, size, &want_code);

    if (utf8_decode((const char *)bytes, size, &got_code) != want || got_code != want_code)
        fail_msg("decode of %zu bytes %08x", size, key(bytes, size));

    size_t kept = 0; /* the longest end, up to 3 bytes, that a later byte could complete */
    for (size_t back = 1; back <= 3 && back <= size; back++)
        if (is_start(bytes + size - back, back))
            kept = back;
    if (utf8_complete((const char *)bytes, size) != size - kept)
        fail_msg("complete of %zu bytes %08x", size, key(bytes, size));
}

static void test_every_mix_of_kinds_of_bytes_decodes_and_is_kept_back_by_the_table(void **state)
{
    (void)state;
    unsigned char bytes[4];

    for (size_t a = 0; a < KINDS; a++) {
        bytes[0] = kinds[a];
        check_bytes(bytes, 1);
        for (size_t b = 0; b < KINDS; b++) {
            bytes[1] = kinds[b];
            check_bytes(bytes, 2);
            for (size_t c = 0; c < KINDS; c++) {
                bytes[2] = kinds[c];
                check_bytes(bytes, 3);
                for (size_t d = 0; d < KINDS; d++) {
                    bytes[3] = kinds[d];
                    check_bytes(bytes, 4);
                }
            }
        }
    }
}

static void test_all_pairs_of_bytes_decode_by_the_table(void **state)
{
    (void)state;
    for (unsigned pair = 0; pair < 65536; pair++)
        check_bytes((unsigned char[]){ (unsigned char)(pair >> 8), (unsigned char)pair }, 2);
}

static void test_no_bytes_are_no_character_and_nothing_is_kept_back(void **state)
{
    (void)state;
    uint32_t code = 7;

    assert_int_equal(utf8_decode("", 0, &code), 0);
    assert_int_equal(code, 7);
    assert_int_equal(utf8_complete("", 0), 0);
}

static void test_a_stream_shows_a_character_with_its_last_byte(void **state)
{
    (void)state;
    const char text[] = "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"; /* of 1, 2, 3 and 4 bytes */
    const size_t shown[] = { 0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10 };

    for (size_t size = 0; size < sizeof(text); size++)
        assert_int_equal(utf8_complete(text, size), shown[size]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_code_point_encodes_as_drawn_and_decodes_to_itself),
        cmocka_unit_test(test_every_mix_of_kinds_of_bytes_decodes_and_is_kept_back_by_the_table),
        cmocka_unit_test(test_all_pairs_of_bytes_decode_by_the_table),
        cmocka_unit_test(test_no_bytes_are_no_character_and_nothing_is_kept_back),
        cmocka_unit_test(test_a_stream_shows_a_character_with_its_last_byte),
    };
    return cmocka_run_group_tests(tests, make_table, NULL);
}
