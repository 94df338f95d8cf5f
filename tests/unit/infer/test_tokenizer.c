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

/* -------------------------------------------------------------------- small tokenizers, made here */

/* Parts of a tokenizer.json as JSON; NULL: what a good one has. */
struct plan {
    const char *words; /* more of model.vocab, ", \"ab\": 256" and so on; 0 to 255 are the bytes */
    const char *merges, *model; /* model: more of its fields, ", \"dropout\": 0.1" */
    const char *added, *normalizer, *pre, *post, *decoder;
};

/* The words of the bytes, in GPT-2's own definition: what does not print is numbered from 256. */
static void add_byte_words(struct buf *out)
{
    uint32_t others = 256;

    for (uint32_t byte = 0; byte < 256; byte++) {
        const bool prints = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte != 0xad);
        char word[4];
        const size_t size = utf8_encode(prints ? byte : others++, word);
        buf_add_text(out, byte ? "," : "");
        buf_add_json(out, word, size);
        buf_addf(out, ":%u", byte);
    }
}

static const char *or_default(const char *text, const char *fallback)
{
    return text ? text : fallback;
}

static char *make_json(const struct plan *p, size_t *size_p)
{
    struct buf out = BUF_INIT(os_alloc());

    buf_addf(&out, "{\"added_tokens\":%s", or_default(p->added, "[]"));
    buf_addf(&out, ",\"normalizer\":%s", or_default(p->normalizer, "null"));
    buf_addf(&out, ",\"pre_tokenizer\":%s",
             or_default(p->pre, "{\"type\":\"ByteLevel\",\"add_prefix_space\":false}"));
    buf_addf(&out, ",\"post_processor\":%s", or_default(p->post, "null"));
    buf_addf(&out, ",\"decoder\":%s", or_default(p->decoder, "{\"type\":\"ByteLevel\"}"));
    buf_add_text(&out, ",\"model\":{\"type\":\"BPE\",\"vocab\":{");
    add_byte_words(&out);
    buf_addf(&out, "%s}", or_default(p->words, ""));
    buf_addf(&out, ",\"merges\":%s%s}}", or_default(p->merges, "[]"), or_default(p->model, ""));
    return buf_take(&out, size_p);
}

static mc_status open_plan(const struct plan *plan, const struct mc_alloc *alloc,
                           tokenizer **tokenizer_p, struct mc_error *error)
{
    size_t size;
    char *json = make_json(plan, &size);
    const mc_status status =
        tokenizer_open(json, size, "tokenizer.json", alloc, tokenizer_p, error);

    alloc_free(os_alloc(), json);
    return status;
}

/* Encode text by a plan that must open, and compare with ids that end in UINT32_MAX. */
static void assert_ids(const struct plan *plan, const char *text, unsigned flags,
                       const uint32_t *expected)
{
    struct tokens found = { .alloc = os_alloc() };
    struct mc_error error = { 0 };
    tokenizer *t;

    if (open_plan(plan, os_alloc(), &t, &error) != MC_OK)
        fail_msg("%s", error.text);
    encode(t, text, strlen(text), flags, &found);
    for (size_t i = 0; i < found.count; i++)
        assert_int_equal(found.ids[i], expected[i]);
    assert_int_equal(expected[found.count], UINT32_MAX);
    tokens_fini(&found);
    tokenizer_close(t);
}

#define IDS(...) ((const uint32_t[]){ __VA_ARGS__, UINT32_MAX })
#define SPLIT(pattern, behavior, more) \
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":" pattern \
    ",\"behavior\":\"" behavior "\"" more "},{\"type\":\"ByteLevel\",\"use_regex\":false," \
    "\"add_prefix_space\":false}]}"
#define REGEX(pattern) SPLIT("{\"Regex\":\"" pattern "\"}", "Isolated", "")

static void test_split_isolates_or_removes_what_matches_or_what_does_not(void **state)
{
    const char *words = ",\"ab\":256,\"b-\":257,\"-a\":258", *merges = "[\"a b\",\"b -\",\"- a\"]";

    (void)state;
    assert_ids(&(struct plan){ .words = words, .merges = merges, .pre = REGEX("-") }, "b-ab-b", 0,
               IDS('b', '-', 256, '-', 'b'));
    assert_ids(&(struct plan){ .words = words,
                               .merges = merges,
                               .pre = SPLIT("{\"String\":\"-\"}", "Removed", "") },
               "b-ab-b", 0, IDS('b', 256, 'b'));
    assert_ids(
        &(struct plan){ .words = words,
                        .merges = merges,
                        .pre = SPLIT("{\"Regex\":\"[a-b]+\"}", "Removed", ",\"invert\":true") },
        "b-ab-b", 0, IDS('b', 256, 'b'));
    assert_ids(&(struct plan){ .words = words,
                               .merges = merges,
                               .pre = SPLIT("{\"String\":\".\"}", "Removed", "") },
               "ab.-a", 0, IDS(256, 258)); /* a String is no pattern */
    assert_ids(&(struct plan){ .words = words, .merges = merges, .pre = REGEX("x*") }, "abab", 0,
               IDS('a', 'b', 'a', 'b')); /* empty matches cut, too */
}

#define BYTE_LEVEL "{\"type\":\"ByteLevel\"}"
#define DIGITS(individual) \
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\",\"individual_" \
    "digits\":" individual "}," BYTE_LEVEL "]}"

static void test_digits_stand_alone_or_as_numbers(void **state)
{
    const char *words = ",\"12\":256,\"a1\":257", *merges = "[\"1 2\",\"a 1\"]";
    const struct plan each = { .words = words, .merges = merges, .pre = DIGITS("true") };
    const struct plan number = { .words = words, .merges = merges, .pre = DIGITS("false") };

    (void)state;
    /* ByteLevel's add_prefix_space puts a blank (256 words, so id 0x20) before every piece. */
    assert_ids(&each, "a12", 0, IDS(' ', 'a', ' ', '1', ' ', '2'));
    assert_ids(&number, "a12", 0, IDS(' ', 'a', ' ', 256));
}

static void test_template_processing_frames_the_text_unless_bare(void **state)
{
    const struct plan plan = {
        .words = ",\"<s>\":256,\"</s>\":257",
        .post = "{\"type\":\"Sequence\",\"processors\":[{\"type\":\"ByteLevel\"},"
                "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"B\"}},"
                "{\"Sequence\":{\"id\":\"A\"}},{\"SpecialToken\":{\"id\":\"E\"}}],"
                "\"special_tokens\":{\"B\":{\"ids\":[256,256]},\"E\":{\"ids\":[257]}}}]}"
    };

    (void)state;
    assert_ids(&plan, "x", 0, IDS(256, 256, 'x', 257));
    assert_ids(&plan, "", 0, IDS(256, 256, 257));
    assert_ids(&plan, "x", MC_ENCODE_BARE, IDS('x'));
}

static void test_a_pair_that_is_listed_twice_has_its_last_rank(void **state)
{
    const struct plan plan = { .words = ",\"ab\":256,\"bc\":257",
                               .merges = "[[\"a\",\"b\"],[\"b\",\"c\"],[\"a\",\"b\"]]" };

    (void)state;
    assert_ids(&plan, "abc", 0, IDS('a', 257));
}

#define TEMPLATE(single, special) \
    "{\"type\":\"TemplateProcessing\",\"single\":" single ",\"special_tokens\":" special "}"

static void test_what_is_wrong_with_a_file_is_said_with_file_and_field(void **state)
{
    static const struct {
        struct plan plan;
        mc_status status;
        const char *says;
    } broken[] = {
        { { .merges = "[\"a zz\"]" },
          MC_E_FORMAT,
          "model.merges[0]: \"zz\" is not in model.vocab" },
        { { .words = ",\"ab\":256", .merges = "[\"a b\",\"ab c\"]" },
          MC_E_FORMAT,
          "model.merges[1]: \"abc\" is not in model.vocab" },
        { { .merges = "[\"ab\"]" }, MC_E_FORMAT, "model.merges[0]: neither" },
        { { .merges = "[\"a b c\"]" }, MC_E_FORMAT, "model.merges[0]: neither" },
        { { .merges = "[[\"a\",\"b\",\"c\"]]" }, MC_E_FORMAT, "model.merges[0]: neither" },
        { { .merges = "[[\"a\",1]]" }, MC_E_FORMAT, "model.merges[0]: neither" },
        { { .merges = "{}" }, MC_E_FORMAT, "model.merges is missing or not an array" },
        { { .words = ",\"ab\":65" }, MC_E_FORMAT, "model.vocab[\"ab\"] is 65, but so is \"A\"" },
        { { .words = ",\"A\":256" }, MC_E_FORMAT, "duplicate object key" },
        { { .words = ",\"ab\":257" }, MC_E_FORMAT, "no token has id 256" },
        { { .words = ",\"ab\":-1" }, MC_E_RANGE, "model.vocab[\"ab\"] is -1, but ids are 0 to" },
        { { .words = ",\"ab\":4194304" }, MC_E_RANGE, "model.vocab[\"ab\"] is 4194304" },
        { { .words = ",\"ab\":1.5" }, MC_E_FORMAT, "model.vocab[\"ab\"] is not an integer" },
        { { .model = ",\"dropout\":0.1" }, MC_E_UNSUPPORTED, "model.dropout is set" },
        { { .model = ",\"unk_token\":\"?\"" }, MC_E_UNSUPPORTED, "model.unk_token is set" },
        { { .model = ",\"byte_fallback\":true" }, MC_E_UNSUPPORTED, "model.byte_fallback is set" },
        { { .model = ",\"continuing_subword_prefix\":\"##\"" },
          MC_E_UNSUPPORTED,
          "model.continuing_subword_prefix is set" },
        { { .model = ",\"ignore_merges\":1" }, MC_E_FORMAT, "model.ignore_merges is not true" },
        { { .normalizer = "{\"type\":\"Lowercase\"}" },
          MC_E_UNSUPPORTED,
          "normalizer \"Lowercase\" is not supported" },
        { { .normalizer = "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFKC\"}]}" },
          MC_E_UNSUPPORTED,
          "normalizer \"NFKC\" is not supported" },
        { { .normalizer = "{\"type\":\"Sequence\"}" }, MC_E_FORMAT, "normalizer.normalizers" },
        { { .pre = "null" }, MC_E_UNSUPPORTED, "pre_tokenizer is missing" },
        { { .pre = "{\"type\":\"Whitespace\"}" },
          MC_E_UNSUPPORTED,
          "pre_tokenizer \"Whitespace\" is not supported" },
        { { .pre = "{\"type\":\"Split\"}" }, MC_E_UNSUPPORTED, "the last step and no other" },
        { { .pre = "{\"type\":\"Sequence\",\"pretokenizers\":[" BYTE_LEVEL "," BYTE_LEVEL "]}" },
          MC_E_UNSUPPORTED,
          "the last step and no other" },
        { { .pre = "{\"type\":\"Sequence\"}" }, MC_E_FORMAT, "Sequence has no pretokenizers" },
        { { .pre = SPLIT("{}", "Isolated", "") }, MC_E_FORMAT, "Split needs a pattern" },
        { { .pre = SPLIT("{\"String\":\"\"}", "Isolated", "") }, MC_E_RANGE, "a pattern has 0" },
        { { .pre = SPLIT("{\"String\":\"x\"}", "Contiguous", "") },
          MC_E_UNSUPPORTED,
          "behavior \"Contiguous\" is not supported" },
        { { .pre = SPLIT("{\"String\":\"x\"}", "Removed", ",\"invert\":3") },
          MC_E_FORMAT,
          "invert is not true or false" },
        { { .pre = REGEX("a(b") }, MC_E_FORMAT, "pattern \"a(b\": missing closing parenthesis" },
        { { .pre = REGEX("\\\\w+") }, MC_E_UNSUPPORTED, "\"\\w\" in pattern" },
        { { .pre = REGEX("[^\\\\S ]") }, MC_E_UNSUPPORTED, "\"\\S\" in pattern" },
        { { .pre = REGEX("[a[b]]") }, MC_E_UNSUPPORTED, "\"[b\" in pattern" },
        { { .pre = REGEX("[]a]") }, MC_E_UNSUPPORTED, "\"[]\" in pattern" },
        { { .pre = REGEX("[a&&b]") }, MC_E_UNSUPPORTED, "\"&&\" in pattern" },
        { { .pre = REGEX("a{2}+") }, MC_E_UNSUPPORTED, "\"{2}\" in pattern" },
        { { .pre = REGEX("a{,2}") }, MC_E_UNSUPPORTED, "\"{,\" in pattern" },
        { { .pre = REGEX("(?m)a") }, MC_E_UNSUPPORTED, "\"(?m)\" in pattern" },
        { { .pre = REGEX("(*UCP)a") }, MC_E_UNSUPPORTED, "\"(*\" in pattern" },
        { { .pre = REGEX("(?") }, MC_E_UNSUPPORTED, "\"(?\" in pattern" },
        { { .pre = REGEX("a\\\\") }, MC_E_UNSUPPORTED, "\"\\\" in pattern" },
        { { .pre = REGEX("\\\\pL") }, MC_E_UNSUPPORTED, "\"\\p\" in pattern" },
        { { .decoder = "null" }, MC_E_UNSUPPORTED, "decoder \"null\" is not supported" },
        { { .decoder = "{\"type\":\"WordPiece\"}" }, MC_E_UNSUPPORTED, "decoder \"WordPiece\"" },
        { { .post = "{\"type\":\"BertProcessing\"}" },
          MC_E_UNSUPPORTED,
          "post_processor \"BertProcessing\" is not supported" },
        { { .post = TEMPLATE("[{\"SpecialToken\":{\"id\":\"B\"}},{\"Sequence\":{\"id\":\"A\"}}]",
                             "{}") },
          MC_E_FORMAT,
          "post_processor.special_tokens has no ids for \"B\"" },
        { { .post = TEMPLATE("[{\"SpecialToken\":{\"id\":\"B\"}},{\"Sequence\":{\"id\":\"A\"}}]",
                             "{\"B\":{\"ids\":[999]}}") },
          MC_E_FORMAT,
          "post_processor adds token 999, but the highest id is 255" },
        { { .post = TEMPLATE("[{\"SpecialToken\":{\"id\":\"B\"}},{\"Sequence\":{\"id\":\"A\"}}]",
                             "{\"B\":{\"ids\":[-1]}}") },
          MC_E_RANGE,
          "special_tokens[\"B\"].ids[0] is no token id" },
        { { .post = TEMPLATE("[{\"Sequence\":{\"id\":\"B\"}}]", "{}") },
          MC_E_FORMAT,
          "post_processor.single[0]" },
        { { .post = TEMPLATE("[]", "{}") }, MC_E_FORMAT, "would drop the text" },
        { { .added = "{}" }, MC_E_FORMAT, "added_tokens is not an array" },
        { { .added = "[{\"id\":256}]" }, MC_E_FORMAT, "added_tokens[0] has no id" },
        { { .added = "[{\"id\":256,\"content\":\"\"}]" },
          MC_E_RANGE,
          "added_tokens[0].content has 0 bytes" },
        { { .added = "[{\"id\":4194304,\"content\":\"x\"}]" },
          MC_E_RANGE,
          "added_tokens[0].id is 4194304" },
        { { .added = "[{\"id\":256,\"content\":\"A\"}]" },
          MC_E_FORMAT,
          "model.vocab gives \"A\" id 65" },
        { { .added = "[{\"id\":65,\"content\":\"<a>\"}]" },
          MC_E_FORMAT,
          "which model.vocab gives another word" },
        { { .added = "[{\"id\":256,\"content\":\"<a>\"},{\"id\":256,\"content\":\"<b>\"}]" },
          MC_E_FORMAT,
          "\"<a>\" and \"<b>\" both have id 256" },
        { { .added = "[{\"id\":256,\"content\":\"<a>\"},{\"id\":257,\"content\":\"<a>\"}]" },
          MC_E_FORMAT,
          "added_tokens[1].content is also 0's" },
        { { .added = "[{\"id\":256,\"content\":\"\\u00e5x\",\"normalized\":true},"
                     "{\"id\":257,\"content\":\"\\u212bx\",\"normalized\":true},"
                     "{\"id\":258,\"content\":\"a\\u030ax\",\"normalized\":true},"
                     "{\"id\":259,\"content\":\"A\\u030ax\",\"normalized\":true}]",
            .normalizer = "{\"type\":\"NFC\"}" },
          MC_E_FORMAT,
          "after NFC also" },
        { { .added = "[{\"id\":256,\"content\":\"<a>\",\"lstrip\":\"yes\"}]" },
          MC_E_FORMAT,
          "added_tokens[0].lstrip is not true or false" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++) {
        struct mc_error error = { 0 };
        tokenizer *t = NULL;
        const mc_status status = open_plan(&broken[i].plan, os_alloc(), &t, &error);
        if (status != broken[i].status || !strstr(error.text, broken[i].says) ||
            strncmp(error.text, "tokenizer.json: ", 16) != 0)
            fail_msg("row %zu: %s: \"%s\" does not say \"%s\"", i, mc_status_name(status),
                     error.text, broken[i].says);
        assert_null(t);
    }
}

static void test_bytes_that_are_no_tokenizer_are_errors_that_name_the_file(void **state)
{
    static const struct {
        const char *json, *says;
    } broken[] = {
        { "", "t.json: line 1: " },
        { "{\"model\":", "t.json: line 1: " },
        { "[]", "t.json: not a JSON object" },
        { "{}", "t.json: model is missing" },
        { "{\"model\":{\"type\":\"WordPiece\"}}", "t.json: model.type \"WordPiece\"" },
        { "{\"model\":{\"type\":7}}", "t.json: model.type is not a string" },
        { "{\"model\":{\"type\":\"BPE\"}}", "t.json: model.vocab is missing" },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}",
          "t.json: model.vocab has no word for byte 0x00" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++) {
        struct mc_error error = { 0 };
        tokenizer *t = NULL;
        assert_int_not_equal(tokenizer_open(broken[i].json, strlen(broken[i].json), "t.json",
                                            os_alloc(), &t, &error),
                             MC_OK);
        if (!strstr(error.text, broken[i].says))
            fail_msg("\"%s\" does not say \"%s\"", error.text, broken[i].says);
    }
}

static void test_a_pattern_that_backtracks_for_ever_is_an_error(void **state)
{
    /* [cd], not c: PCRE2 looks for a character that must be there before it tries anything. */
    static const char *const hostile[] = { REGEX("(a+)+[cd]"), REGEX("a*a*a*a*a*a*[cd]"),
                                           REGEX("(?:a|a)*[cd]"), REGEX("(?=(a+)+[cd])[ab]") };
    static char text[3000];

    (void)state;
    memset(text, 'a', sizeof(text));
    for (size_t i = 0; i < sizeof(hostile) / sizeof(hostile[0]); i++) {
        const struct plan plan = { .pre = hostile[i] };
        struct tokens found = { .alloc = os_alloc() };
        struct mc_error error = { 0 };
        tokenizer *t;
        assert_int_equal(open_plan(&plan, os_alloc(), &t, NULL), MC_OK);
        assert_int_equal(tokenizer_encode(t, text, sizeof(text), 0, &found, &error), MC_E_RANGE);
        assert_non_null(strstr(error.text, "goes on for too long"));
        assert_int_equal(found.count, 0);
        tokens_fini(&found);
        tokenizer_close(t);
    }
}

static void test_long_runs_of_anything_come_back(void **state)
{
    /* Each is where something quadratic might hide; a megabyte of that would take hours. */
    static const char *const units[] = { "a", " ", "\n", " \n", "\xcc\xa3\xcc\x88", "<r>", "'" };
    struct tokens found = { .alloc = os_alloc() };
    struct buf text = BUF_INIT(os_alloc()), back = BUF_INIT(os_alloc());
    tokenizer *t = open_data("llama3", os_alloc());

    (void)state;
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        buf_truncate(&text, 0);
        buf_truncate(&back, 0);
        while (text.size < (i < 2 ? 1u << 20 : 1u << 17))
            buf_add_text(&text, units[i]);
        encode(t, text.data, text.size, MC_ENCODE_BARE, &found);
        assert_int_equal(tokenizer_decode(t, found.ids, found.count, true, &back), MC_OK);
        assert_int_equal(back.size, text.size);
        assert_memory_equal(back.data, text.data, text.size);
    }
    tokens_fini(&found);
    buf_fini(&text);
    buf_fini(&back);
    tokenizer_close(t);
}

static void test_unknown_ids_are_out_of_range_and_words_are_found(void **state)
{
    tokenizer *t = open_data("llama3", os_alloc());
    struct buf text = BUF_INIT(os_alloc());
    const uint32_t size = tokenizer_size(t);
    const char *bytes;
    size_t count;
    uint32_t id = 0;

    (void)state;
    assert_int_equal(tokenizer_decode(t, &size, 1, true, &text), MC_E_RANGE);
    assert_int_equal(tokenizer_bytes(t, size, true, &bytes, &count), MC_E_RANGE);
    assert_false(tokenizer_find(t, "no such word", &id));
    assert_true(tokenizer_find(t, "\xc4\xa0unreachable", &id));
    assert_int_equal(tokenizer_bytes(t, id, true, &bytes, &count), MC_OK);
    assert_int_equal(count, 12);
    assert_memory_equal(bytes, " unreachable", count);
    assert_true(tokenizer_find(t, "<|im_end|>", &id));
    assert_int_equal(tokenizer_bytes(t, id, false, &bytes, &count), MC_OK);
    assert_int_equal(count, 0);
    assert_int_equal(tokenizer_bytes(t, id, true, &bytes, &count), MC_OK);
    assert_memory_equal(bytes, "<|im_end|>", count);
    buf_fini(&text);
    tokenizer_close(t);
}

/* ----------------------------------------------------------------------------- failure sweeps */

/* Everything that takes memory: merges, added tokens of all kinds, NFC, a regex, a template. */
static const struct plan rich = {
    .words = ",\"ab\":256,\"\xc3\x84"
             "ab\":257",
    .merges = "[\"a b\",[\"\xc3\x84\",\"ab\"]]",
    .model = ",\"ignore_merges\":true",
    .normalizer = "{\"type\":\"NFC\"}",
    .pre = REGEX("\\\\s+|[^\\\\s]+"),
    .added = "[{\"id\":258,\"content\":\"<s>\",\"special\":true},"
             "{\"id\":259,\"content\":\"o\\u0308\",\"normalized\":true,\"rstrip\":true}]",
    .post = TEMPLATE("[{\"SpecialToken\":{\"id\":\"B\"}},{\"Sequence\":{\"id\":\"A\"}}]",
                     "{\"B\":{\"ids\":[258]}}"),
};

/* Text that is ill-formed, not normalised, in several pieces, one of them long. */
static const char rich_text[] = "ab\xff<s>e\xcc\x81\xcc\xa3 \xcc\x88\xcc\xa3o\xcc\x88  "
                                "abababababababababababababababababababababababababababababababab";

static mc_status open_and_encode(const struct mc_alloc *alloc)
{
    struct tokens found = { .alloc = alloc };
    struct buf text = BUF_INIT(alloc);
    tokenizer *t;

    mc_status status = open_plan(&rich, alloc, &t, NULL);
    if (status != MC_OK)
        return status;
    status = tokenizer_encode(t, rich_text, sizeof(rich_text) - 1, 0, &found, NULL);
    assert_true(status == MC_OK || found.count == 0);
    if (status == MC_OK)
        status = tokenizer_decode(t, found.ids, found.count, true, &text);
    buf_fini(&text);
    tokens_fini(&found);
    tokenizer_close(t);
    return status;
}

static void test_every_failed_allocation_leaves_nothing_behind(void **state)
{
    bool done = false;

    (void)state;
    for (long k = 0; !done; k++) {
        struct faulty f;
        faulty_init(&f, k);
        const mc_status status = open_and_encode(&f.alloc);
        done = f.calls <= k;
        if (done)
            assert_int_equal(status, MC_OK);
        else if (status != MC_OK)
            assert_int_equal(status, MC_E_NOMEM);
        assert_int_equal(f.held, 0);
        assert_true(!done || k > 30);
    }
}

/* jansson's allocator is global and has no context. */
static struct faulty json_memory;

static void *json_take(size_t size)
{
    return json_memory.alloc.alloc(json_memory.alloc.context, size);
}

static void json_give(void *p)
{
    json_memory.alloc.free(json_memory.alloc.context, p);
}

static void test_json_without_memory_is_an_error_and_leaves_nothing(void **state)
{
    static const char json[] = "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1},"
                               "\"merges\":[\"a b\",[\"a\",\"b\"]],\"x\":[1.5,true,null]}}";
    json_malloc_t take;
    json_free_t give;
    bool done = false;

    (void)state;
    json_get_alloc_funcs(&take, &give);
    for (long k = 0; !done; k++) {
        struct mc_error error = { 0 };
        tokenizer *t = NULL;
        faulty_init(&json_memory, k);
        json_set_alloc_funcs(json_take, json_give);
        const mc_status status =
            tokenizer_open(json, sizeof(json) - 1, "t.json", os_alloc(), &t, &error);
        json_set_alloc_funcs(take, give);
        assert_int_not_equal(status, MC_OK); /* the vocabulary lacks most bytes */
        assert_int_equal(json_memory.held, 0);
        done = json_memory.calls <= k;
        assert_true(done == (strstr(error.text, "no word for byte") != NULL));
        assert_true(!done || k > 10);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gpt2_encodes_and_decodes_as_the_package_does),
        cmocka_unit_test(test_qwen2_encodes_and_decodes_as_the_package_does),
        cmocka_unit_test(test_llama3_encodes_and_decodes_as_the_package_does),
        cmocka_unit_test(test_any_ids_decode_as_the_package_does),
        cmocka_unit_test(test_split_isolates_or_removes_what_matches_or_what_does_not),
        cmocka_unit_test(test_digits_stand_alone_or_as_numbers),
        cmocka_unit_test(test_template_processing_frames_the_text_unless_bare),
        cmocka_unit_test(test_a_pair_that_is_listed_twice_has_its_last_rank),
        cmocka_unit_test(test_what_is_wrong_with_a_file_is_said_with_file_and_field),
        cmocka_unit_test(test_bytes_that_are_no_tokenizer_are_errors_that_name_the_file),
        cmocka_unit_test(test_a_pattern_that_backtracks_for_ever_is_an_error),
        cmocka_unit_test(test_long_runs_of_anything_come_back),
        cmocka_unit_test(test_unknown_ids_are_out_of_range_and_words_are_found),
        cmocka_unit_test(test_every_failed_allocation_leaves_nothing_behind),
        cmocka_unit_test(test_json_without_memory_is_an_error_and_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
