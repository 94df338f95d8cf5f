/* utf8.c - strict decoding by the table of well-formed sequences (Unicode 15, table 3-7). */
#include "base/utf8.h"

#include <assert.h>

/* Length that the first byte promises, and the bounds of the second byte; 0 for no first byte. */
static size_t lead(unsigned char first, unsigned char *low_p, unsigned char *high_p)
{
    *low_p = 0x80;
    *high_p = 0xbf;
    if (first < 0x80)
        return 1;
    if (first >= 0xc2 && first <= 0xdf)
        return 2;
    if (first >= 0xe0 && first <= 0xef) {
        if (first == 0xe0)
            *low_p = 0xa0;
        if (first == 0xed)
            *high_p = 0x9f;
        return 3;
    }
    if (first >= 0xf0 && first <= 0xf4) {
        if (first == 0xf0)
            *low_p = 0x90;
        if (first == 0xf4)
            *high_p = 0x8f;
        return 4;
    }
    return 0;
}

/* How many of the bytes given belong to a well-formed start; equals the promised length if whole. */
static size_t well_formed(const unsigned char *s, size_t size, size_t *promised_p)
{
    unsigned char low, high;

    *promised_p = size ? lead(s[0], &low, &high) : 0;
    if (*promised_p == 0)
        return 0;
    size_t i = 1;
    for (; i < *promised_p && i < size; i++) {
        if (s[i] < low || s[i] > high)
            break;
        low = 0x80;
        high = 0xbf;
    }
    return i;
}

size_t utf8_decode(const char *text, size_t size, uint32_t *code_p)
{
    const unsigned char *s = (const unsigned char *)text;
    size_t promised;

    if (well_formed(s, size, &promised) != promised || promised == 0)
        return 0;
    uint32_t code = promised == 1 ? s[0] : s[0] & (0x7fu >> promised);
    for (size_t i = 1; i < promised; i++)
        code = code << 6 | (s[i] & 0x3fu);
    *code_p = code;
    return promised;
}

size_t utf8_encode(uint32_t code, char out[4])
{
    assert(code <= 0x10ffff && (code < 0xd800 || code > 0xdfff));
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    const size_t length = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = length; i-- > 1; code >>= 6)
        out[i] = (char)(0x80 | (code & 0x3f));
    out[0] = (char)((0xf00u >> length) | code);
    return length;
}

size_t utf8_complete(const char *text, size_t size)
{
    const unsigned char *s = (const unsigned char *)text;

    for (size_t back = 1; back <= 3 && back <= size; back++) {
        size_t promised;
        const size_t good = well_formed(s + size - back, back, &promised);
        if (promised > back && good == back)
            return size - back;
    }
    return size;
}
