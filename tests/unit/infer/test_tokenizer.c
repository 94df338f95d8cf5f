/* test_tokenizer.c - the tokenizers against the `tokenizers` package on 10,000 strings, and refusals.
 *
 * The strings and expectations: tools/make_tokenizer_fixtures.py, whose rules are repeated here. */
#include "test.h"

#include <stdio.h>

#include <jansson.h>

#include <mooncake/infer.h>

#include "base/alloc.h"
#include "base/prng.h"
#include "base/utf8.h"
#include "infer/tokenizer.h"
#include "os/file.h"
#include "os/sysalloc.h"

enum { STRINGS = 10000, SEQUENCES = 2000, SAMPLES = 100 };

/* --------------------------------------------------------------------------- the fixtures' rules */

static char *read_data(const char *name, size_t *size_p)
{
    char path[128], *data;
    struct mc_error error = { 0 };

    snprintf(path, sizeof(path), "tokenizers/%s", name);
    if (os_file_read(test_data(path), 16 << 20, os_alloc(), &data, size_p, &error) != MC_OK)
        fail_msg("%s", error.text);
    return data;
}

static tokenizer *open_data(const char *name, const struct mc_alloc *alloc)
{
    struct mc_error error = { 0 };
    tokenizer *t = NULL;
    char file[64];
    size_t size;

    snprintf(file, sizeof(file), "%s.json", name);
    char *json = read_data(file, &size);
    if (tokenizer_open(json, size, file, alloc, &t, &error) != MC_OK)
        fail_msg("%s", error.text);
    alloc_free(os_alloc(), json);
    return t;
}

struct fragments {
    char *text;
    struct {
        const char *bytes;
        size_t size;
    } parts[4096];
    uint32_t count;
};

static int hex(char c)
{
    return c <= '9' ? c - '0' : c - 'a' + 10;
}

/* One fragment a line, bytes as \xNN; unescaped in place. */
static void read_fragments(struct fragments *f)
{
    size_t size;

    f->text = read_data("fragments.txt", &size);
    f->count = 0;
    for (char *in = f->text, *out = f->text; *in; in++) {
        char *begin = out;
        for (; *in != '\n'; in++) {
            *out = *in;
            if (*in == '\\') {
                *out = (char)(hex(in[2]) << 4 | hex(in[3]));
                in += 3;
            }
            out++;
        }
        assert_in_range(f->count, 0, 4095);
        f->parts[f->count].bytes = begin;
        f->parts[f->count++].size = (size_t)(out - begin);
    }
}

static const uint32_t ranges[][2] = {
    { 0x20, 0x7e },       { 0xa0, 0x24f },      { 0x300, 0x36f },   { 0x370, 0x3ff },
    { 0x400, 0x52f },     { 0x591, 0x5f4 },     { 0x621, 0x6ff },   { 0x900, 0x97f },
    { 0x1100, 0x11ff },   { 0x1e00, 0x1fff },   { 0x2000, 0x206f }, { 0x2100, 0x22ff },
    { 0x2460, 0x27bf },   { 0x3000, 0x30ff },   { 0x4e00, 0x9fef }, { 0xac00, 0xd7a3 },
    { 0xf900, 0xfa6d },   { 0xfb00, 0xfb4f },   { 0xff01, 0xffee }, { 0x1d400, 0x1d7ff },
    { 0x1f300, 0x1f64f }, { 0x2f800, 0x2fa1d },
};

static void make_string(uint32_t index, const struct fragments *f, struct buf *out)
{
    struct prng prng = { .seed = index };

    buf_truncate(out, 0);
    buf_add(out, "", 0);
    for (uint32_t n = 1 + prng_below(&prng, 20); n > 0; n--) {
        const uint32_t kind = prng_below(&prng, 32);
        if (kind == 0)
            buf_add_byte(out, (unsigned char)prng_below(&prng, 256));
        else if (kind == 1) {
            const uint32_t *range = ranges[prng_below(&prng, sizeof(ranges) / sizeof(ranges[0]))];
            char bytes[4];
            const uint32_t code = range[0] + prng_below(&prng, range[1] - range[0] + 1);
            buf_add(out, bytes, utf8_encode(code, bytes));
        } else {
            const uint32_t part = prng_below(&prng, f->count);
            const uint32_t most = index % 50 == 0 ? 200 : 12;
            for (uint32_t i = kind == 2 ? 2 + prng_below(&prng, most) : 1; i > 0; i--)
                buf_add(out, f->parts[part].bytes, f->parts[part].size);
        }
    }
}

static uint32_t fnv(uint32_t hash, const void *data, size_t size)
{
    for (const unsigned char *p = data; size > 0; p++, size--)
        hash = (hash ^ *p) * 0x01000193;
    return hash;
}

static const uint32_t fnv_start = 0x811c9dc5;

static uint32_t fnv_tokens(uint32_t hash, const struct tokens *tokens)
{
    for (size_t i = 0; i < tokens->count; i++) {
        const uint32_t id = tokens->ids[i];
        const unsigned char bytes[4] = { (unsigned char)id, (unsigned char)(id >> 8),
                                         (unsigned char)(id >> 16), (unsigned char)(id >> 24) };
        hash = fnv(hash, bytes, 4);
    }
    return hash;
}

static uint32_t u32_at(const char *data, size_t index)
{
    const unsigned char *p = (const unsigned char *)data + 4 * index;

    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint32_t hash_texts(const tokenizer *t, const uint32_t *ids, size_t count)
{
    struct buf text = BUF_INIT(os_alloc());

    assert_int_equal(tokenizer_decode(t, ids, count, false, &text), MC_OK);
    buf_add_byte(&text, 0);
    assert_int_equal(tokenizer_decode(t, ids, count, true, &text), MC_OK);
    const uint32_t hash = fnv(fnv_start, text.data, text.size);
    buf_fini(&text);
    return hash;
}

static void encode(const tokenizer *t, const char *text, size_t size, unsigned flags,
                   struct tokens *out)
{
    struct mc_error error = { 0 };

    out->count = 0;
    if (tokenizer_encode(t, text, size, flags, out, &error) != MC_OK)
        fail_msg("%s", error.text);
}

/* ------------------------------------------------------------------------------- the comparisons */

/* Print a string that differs: its bytes, the ids we found and, of the first 100, those expected. */
static void explain(const char *name, uint32_t index, const struct buf *text,
                    const struct tokens *found)
{
    size_t size;

    printf("%s, string %u:\n  bytes: ", name, index);
    for (size_t i = 0; i < text->size; i++)
        if (text->data[i] > ' ' && text->data[i] < 0x7f && text->data[i] != '\\')
            putchar(text->data[i]);
        else
            printf("\\x%02x", (unsigned char)text->data[i]);
    printf("\n  found:");
    for (size_t i = 0; i < found->count; i++)
        printf(" %u", found->ids[i]);
    if (index < SAMPLES) {
        char *json = read_data("samples.json", &size);
        json_t *samples = json_loadb(json, size, 0, NULL);
        const json_t *ids = json_array_get(json_object_get(samples, name), index);
        printf("\n  expected:");
        for (size_t i = 0; i < json_array_size(ids); i++)
            printf(" %d", (int)json_integer_value(json_array_get(ids, i)));
        json_decref(samples);
        alloc_free(os_alloc(), json);
    }
    printf("\n");
}

/* What is wrong with string `index`, or NULL. */
static const char *compare(const tokenizer *t, const struct buf *text, const char *expected,
                           uint32_t index, struct tokens *full, struct tokens *other)
{
    const uint32_t separator = UINT32_MAX;
    struct tokens mark = { .ids = (uint32_t *)(uintptr_t)&separator, .count = 1 };

    encode(t, text->data, text->size, 0, full);
    encode(t, text->data, text->size, MC_ENCODE_BARE, other);
    const uint32_t hash = fnv_tokens(fnv_tokens(fnv_tokens(fnv_start, full), &mark), other);
    if (full->count != u32_at(expected, 4 * index))
        return "the number of ids differs";
    if (hash != u32_at(expected, 4 * index + 1))
        return "ids differ";
    encode(t, text->data, text->size, MC_ENCODE_BARE | MC_ENCODE_NO_SPECIAL, other);
    if (fnv_tokens(fnv_start, other) != u32_at(expected, 4 * index + 2))
        return "ids of special tokens as ordinary text differ";
    if (hash_texts(t, full->ids, full->count) != u32_at(expected, 4 * index + 3))
        return "decoded texts differ";
    return NULL;
}

static void compare_all(const char *name)
{
    static struct fragments f;
    struct tokens full = { .alloc = os_alloc() }, other = { .alloc = os_alloc() };
    struct buf text = BUF_INIT(os_alloc());
    uint32_t wrong = 0;
    char file[64];
    size_t size;

    tokenizer *t = open_data(name, os_alloc());
    snprintf(file, sizeof(file), "%s.expected", name);
    char *expected = read_data(file, &size);
    assert_int_equal(size, 16 * STRINGS);
    read_fragments(&f);
    for (uint32_t i = 0; i < STRINGS; i++) {
        make_string(i, &f, &text);
        const char *difference = compare(t, &text, expected, i, &full, &other);
        if (difference && wrong++ < 5) {
            explain(name, i, &text, &full);
            printf("  %s\n", difference);
        }
    }
    tokens_fini(&full);
    tokens_fini(&other);
    buf_fini(&text);
    alloc_free(os_alloc(), f.text);
    alloc_free(os_alloc(), expected);
    tokenizer_close(t);
    assert_int_equal(wrong, 0);
}

static void test_gpt2_encodes_and_decodes_as_the_package_does(void **state)
{
    (void)state;
    compare_all("gpt2");
}

static void test_qwen2_encodes_and_decodes_as_the_package_does(void **state)
{
    (void)state;
    compare_all("qwen2");
}

static void test_llama3_encodes_and_decodes_as_the_package_does(void **state)
{
    (void)state;
    compare_all("llama3");
}

static void test_any_ids_decode_as_the_package_does(void **state)
{
    static const char *const names[] = { "gpt2", "qwen2", "llama3" };

    (void)state;
    for (size_t n = 0; n < 3; n++) {
        char file[64];
        size_t size;
        tokenizer *t = open_data(names[n], os_alloc());
        snprintf(file, sizeof(file), "%s.decoded", names[n]);
        char *expected = read_data(file, &size);
        assert_int_equal(size, 4 * SEQUENCES);
        for (uint32_t i = 0; i < SEQUENCES; i++) {
            struct prng prng = { .seed = 1000000 + i };
            uint32_t ids[12];
            const uint32_t count = 1 + prng_below(&prng, 12);
            for (uint32_t j = 0; j < count; j++)
                ids[j] = prng_below(&prng, tokenizer_size(t));
            if (hash_texts(t, ids, count) != u32_at(expected, i))
                fail_msg("%s: sequence %u decodes to another text", names[n], i);
        }
        alloc_free(os_alloc(), expected);
        tokenizer_close(t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gpt2_encodes_and_decodes_as_the_package_does),
        cmocka_unit_test(test_qwen2_encodes_and_decodes_as_the_package_does),
        cmocka_unit_test(test_llama3_encodes_and_decodes_as_the_package_does),
        cmocka_unit_test(test_any_ids_decode_as_the_package_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
