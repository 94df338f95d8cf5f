/* normal.c - repair and normalise text; the tables of Unicode are utf8proc's. */
#include "infer/normal.h"

#include <string.h>

#include <utf8proc.h>

#include "base/alloc.h"
#include "base/utf8.h"

static const char replacement[] = "\xef\xbf\xbd"; /* U+FFFD */

static size_t ascii_span(const char *text, size_t size)
{
    size_t i = 0;

    for (uint64_t word; size - i >= sizeof(word); i += sizeof(word)) {
        memcpy(&word, text + i, sizeof(word));
        if (word & 0x8080808080808080u)
            break;
    }
    while (i < size && (unsigned char)text[i] < 0x80)
        i++;
    return i;
}

/* Bytes of well-formed text from the start. */
static size_t good_span(const char *text, size_t size)
{
    size_t i = 0;

    while (i < size) {
        uint32_t code;
        i += ascii_span(text + i, size - i);
        const size_t length = i < size ? utf8_decode(text + i, size - i, &code) : 0;
        if (length == 0)
            break;
        i += length;
    }
    return i;
}

/* Bytes (1..3) of the maximal ill-formed part: the longest start of a character that breaks off. */
static size_t bad_span(const char *text, size_t size)
{
    size_t length = 1;

    while (length < 3 && length < size && utf8_complete(text, length + 1) == 0)
        length++;
    return length;
}

bool text_is_utf8(const char *text, size_t size)
{
    return good_span(text, size) == size;
}

void text_repair(const char *text, size_t size, struct buf *out)
{
    for (size_t i = 0; i < size;) {
        const size_t good = good_span(text + i, size - i);

        buf_add(out, text + i, good);
        i += good;
        if (i < size) {
            buf_add(out, replacement, 3);
            i += bad_span(text + i, size - i);
        }
    }
}

/* ----------------------------------------------------------------------------------------- NFC */

/* Characters that NFC leaves alone and that never compose with what stands before them; most text.
 * What is not in the list is only slower. */
static bool is_stable(uint32_t code)
{
    return code < 0x300 || (code >= 0x400 && code <= 0x482) || (code >= 0x4e00 && code <= 0x9fff) ||
           (code >= 0xac00 && code <= 0xd7a3);
}

static uint32_t combining_class(int32_t code)
{
    return (uint32_t)utf8proc_get_property(code)->combining_class;
}

/* Code points that grow. */
struct codes {
    const struct mc_alloc *alloc;
    int32_t *data; /* owned; [count] */
    size_t count, capacity;
};

enum { DECOMPOSED_MAX = 16 }; /* code points of one character; Unicode's longest is 4 */

/* Append the canonical decomposition of one character; false when memory is out. */
static bool decompose(struct codes *codes, uint32_t code)
{
    if (codes->capacity - codes->count < DECOMPOSED_MAX) {
        const size_t capacity = codes->capacity * 2 + 4 * DECOMPOSED_MAX;
        int32_t *data = alloc_resize(codes->alloc, codes->data, capacity, sizeof(*data));
        if (!data)
            return false;
        codes->data = data;
        codes->capacity = capacity;
    }
    int boundary = 0;
    const utf8proc_ssize_t n =
        utf8proc_decompose_char((int32_t)code, codes->data + codes->count, DECOMPOSED_MAX,
                                UTF8PROC_STABLE | UTF8PROC_COMPOSE, &boundary);
    if (n < 0 || n > DECOMPOSED_MAX)
        codes->data[codes->count++] = (int32_t)code; /* not a character: stays what it is */
    else
        codes->count += (size_t)n;
    return true;
}

/* Put a run of marks into canonical order: stable, by class. utf8proc's own ordering swaps
 * neighbours, which a text of a million marks would turn into hours. */
static bool order_run(const struct mc_alloc *alloc, int32_t *run, size_t count)
{
    size_t start[257] = { 0 };
    int32_t *sorted = alloc_zeroed(alloc, count, sizeof(*sorted));

    if (!sorted)
        return false;
    for (size_t i = 0; i < count; i++)
        start[combining_class(run[i]) + 1]++;
    for (size_t c = 1; c < 257; c++)
        start[c] += start[c - 1];
    for (size_t i = 0; i < count; i++)
        sorted[start[combining_class(run[i])]++] = run[i];
    memcpy(run, sorted, count * sizeof(*run));
    alloc_free(alloc, sorted);
    return true;
}

static bool order_marks(struct codes *codes)
{
    for (size_t i = 0; i < codes->count;) {
        const size_t begin = i;
        bool ordered = true;
        uint32_t last = 0;

        for (uint32_t c; i < codes->count && (c = combining_class(codes->data[i])) != 0; i++) {
            ordered &= c >= last;
            last = c;
        }
        if (!ordered && !order_run(codes->alloc, codes->data + begin, i - begin))
            return false;
        if (i == begin)
            i++;
    }
    return true;
}

/* The NFC form of a part that no neighbour composes with. */
static bool compose(const char *text, size_t size, struct codes *codes, struct buf *out)
{
    codes->count = 0;
    for (size_t i = 0; i < size;) {
        uint32_t code = 0;
        i += utf8_decode(text + i, size - i, &code);
        if (!decompose(codes, code))
            return false;
    }
    if (!order_marks(codes))
        return false;
    const utf8proc_ssize_t count = utf8proc_normalize_utf32(
        codes->data, (utf8proc_ssize_t)codes->count, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    for (utf8proc_ssize_t i = 0; i < count; i++) {
        char bytes[4];
        buf_add(out, bytes, utf8_encode((uint32_t)codes->data[i], bytes));
    }
    return true;
}

/* From *at on, step over characters that are stable (or are not); *last_p: where the last began. */
static void skip(const char *text, size_t size, bool stable, size_t *at, size_t *last_p)
{
    while (*at < size) {
        uint32_t code = 0;
        const size_t length = utf8_decode(text + *at, size - *at, &code);
        if (is_stable(code) != stable)
            return;
        *last_p = *at;
        *at += length;
    }
}

void text_nfc(const char *text, size_t size, struct buf *out)
{
    struct codes codes = { .alloc = out->alloc };

    for (size_t begin = 0; begin < size;) {
        size_t end = begin, last = begin, unused;

        if (ascii_span(text + begin, size - begin) == size - begin) {
            buf_add(out, text + begin, size - begin);
            break;
        }
        /* Stable characters are copied, all but the last: a mark may follow that it composes with. */
        skip(text, size, true, &end, &last);
        if (end == size)
            last = size;
        buf_add(out, text + begin, last - begin);
        skip(text, size, false, &end, &unused);
        if (!compose(text + last, end - last, &codes, out)) {
            out->failed = true;
            break;
        }
        begin = end;
    }
    alloc_free(codes.alloc, codes.data);
}

/* ------------------------------------------------------------------------- classes of characters */

bool char_is_blank(uint32_t code)
{
    return (code >= 0x9 && code <= 0xd) || code == 0x20 || code == 0x85 || code == 0xa0 ||
           code == 0x1680 || (code >= 0x2000 && code <= 0x200a) || code == 0x2028 ||
           code == 0x2029 || code == 0x202f || code == 0x205f || code == 0x3000;
}

bool char_is_word(uint32_t code)
{
    switch (utf8proc_category((int32_t)code)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default:
        break;
    }
    /* Joiners, and the circled and squared letters: symbols that are Alphabetic all the same. */
    return code == 0x200c || code == 0x200d || (code >= 0x24b6 && code <= 0x24e9) ||
           (code >= 0x1f130 && code <= 0x1f149) || (code >= 0x1f150 && code <= 0x1f169) ||
           (code >= 0x1f170 && code <= 0x1f189);
}
