/* test_textstream.c - a stream of tokens gives the text of the whole, in whole characters. */
#include "test.h"

#include <stdio.h>

#include "base/alloc.h"
#include "base/prng.h"
#include "base/utf8.h"
#include "infer/model.h"
#include "os/file.h"
#include "os/sysalloc.h"

static const char *const names[] = { "gpt2", "qwen2", "llama3" };

/* A model that has a tokenizer and a ChatML template, and nothing else. */
static void open_model(const char *name, const struct mc_alloc *alloc, struct mc_model *model)
{
    static char model_name[] = "small";
    char file[64], *json;
    struct mc_error error = { 0 };
    size_t size;

    *model = (struct mc_model){ .alloc = alloc, .name = model_name };
    snprintf(file, sizeof(file), "tokenizers/%s.json", name);
    assert_int_equal(os_file_read(test_data(file), 1 << 20, os_alloc(), &json, &size, &error),
                     MC_OK);
    assert_int_equal(tokenizer_open(json, size, file, os_alloc(), &model->tokenizer, &error),
                     MC_OK);
    alloc_free(os_alloc(), json);
}

static void close_model(struct mc_model *model)
{
    tokenizer_close(model->tokenizer);
    chat_fini(&model->chat, model->alloc);
}

static mc_text_stream *open_stream(const struct mc_model *model, bool keep_special)
{
    mc_text_stream *stream = NULL;

    assert_int_equal(mc_text_stream_open(model, keep_special, &stream, NULL), MC_OK);
    return stream;
}

/* What the stream hands out for these ids; every part must be whole characters. */
static void stream_text(const struct mc_model *model, const uint32_t *ids, size_t count,
                        bool keep_special, struct buf *out)
{
    mc_text_stream *stream = open_stream(model, keep_special);

    for (size_t i = 0; i <= count; i++) {
        const char *text;
        size_t size;
        const mc_status status = i < count ? mc_text_stream_push(stream, ids[i], &text, &size)
                                           : mc_text_stream_finish(stream, &text, &size);
        assert_int_equal(status, MC_OK);
        for (size_t at = 0, length; at < size; at += length) {
            uint32_t code;
            length = utf8_decode(text + at, size - at, &code);
            assert_int_not_equal(length, 0);
        }
        buf_add(out, text, size);
    }
    mc_text_stream_close(stream);
}

static void test_any_tokens_stream_to_the_text_of_all_at_once(void **state)
{
    struct buf whole = BUF_INIT(os_alloc()), parts = BUF_INIT(os_alloc());
    uint32_t ids[16];

    (void)state;
    for (size_t n = 0; n < 3; n++) {
        struct mc_model model;
        open_model(names[n], os_alloc(), &model);
        for (uint32_t i = 0; i < 3000; i++) {
            struct prng prng = { .seed = i };
            const uint32_t count = 1 + prng_below(&prng, 16);
            /* Small ids are single bytes: they split characters, and break them. */
            const uint32_t bound = i % 2 ? 256 : tokenizer_size(model.tokenizer);
            for (uint32_t j = 0; j < count; j++)
                ids[j] = prng_below(&prng, bound);
            buf_truncate(&whole, 0);
            buf_truncate(&parts, 0);
            const bool keep = i % 3 != 0;
            assert_int_equal(tokenizer_decode(model.tokenizer, ids, count, keep, &whole), MC_OK);
            stream_text(&model, ids, count, keep, &parts);
            assert_int_equal(parts.size, whole.size);
            assert_memory_equal(parts.size ? parts.data : "", whole.size ? whole.data : "",
                                whole.size);
        }
        close_model(&model);
    }
    buf_fini(&whole);
    buf_fini(&parts);
}

static void push_byte(const struct mc_model *model, mc_text_stream *stream, unsigned char byte,
                      const char *expected)
{
    const char *text;
    size_t size;

    for (uint32_t id = 0; id < tokenizer_size(model->tokenizer); id++) {
        const char *bytes;
        assert_int_equal(tokenizer_bytes(model->tokenizer, id, true, &bytes, &size), MC_OK);
        if (size == 1 && (unsigned char)bytes[0] == byte) {
            assert_int_equal(mc_text_stream_push(stream, id, &text, &size), MC_OK);
            assert_int_equal(size, strlen(expected));
            assert_memory_equal(text, expected, size);
            return;
        }
    }
    fail_msg("no token for byte %u", byte);
}

static void
test_a_character_comes_out_with_its_last_byte_and_what_breaks_it_shows_both(void **state)
{
    struct mc_model model;
    const char *text;
    size_t size;

    (void)state;
    open_model("gpt2", os_alloc(), &model);
    mc_text_stream *stream = open_stream(&model, true);
    push_byte(&model, stream, 0xf0, "");
    push_byte(&model, stream, 0x9f, "");
    push_byte(&model, stream, 0x98, "");
    push_byte(&model, stream, 0x80, "\xf0\x9f\x98\x80");
    push_byte(&model, stream, 0xe2, "");
    push_byte(&model, stream, 0x82, "");
    push_byte(&model, stream, 'A',
              "\xef\xbf\xbd"
              "A");
    push_byte(&model, stream, 0xff, "\xef\xbf\xbd");
    push_byte(&model, stream, 0xc3, "");
    push_byte(&model, stream, 0xc3, "\xef\xbf\xbd");
    assert_int_equal(mc_text_stream_finish(stream, &text, &size), MC_OK);
    assert_int_equal(size, 3);
    assert_memory_equal(text, "\xef\xbf\xbd", 3);
    assert_int_equal(mc_text_stream_finish(stream, &text, &size), MC_OK);
    assert_int_equal(size, 0);
    assert_int_equal(mc_text_stream_push(stream, UINT32_MAX, &text, &size), MC_E_RANGE);
    mc_text_stream_close(stream);
    mc_text_stream_close(NULL);
    close_model(&model);
}

static void test_an_id_that_pads_the_vocabulary_has_no_text(void **state)
{
    (void)state;
    struct mc_model model;
    const char *text;
    size_t size = 1;

    open_model("gpt2", os_alloc(), &model);
    const uint32_t words = tokenizer_size(model.tokenizer);
    model.config.vocab_size = words + 2;
    mc_text_stream *stream = open_stream(&model, true);
    assert_int_equal(mc_text_stream_push(stream, words, &text, &size), MC_OK);
    assert_int_equal(size, 0);
    assert_int_equal(mc_text_stream_push(stream, words + 1, &text, &size), MC_OK);
    assert_int_equal(mc_text_stream_push(stream, words + 2, &text, &size), MC_E_RANGE);
    mc_text_stream_close(stream);
    close_model(&model);
}

static void test_pushing_tokens_allocates_nothing(void **state)
{
    struct mc_model model;
    struct faulty f;

    (void)state;
    faulty_init(&f, -1);
    open_model("llama3", &f.alloc, &model);
    mc_text_stream *stream = open_stream(&model, true);
    const long calls = f.calls;
    for (uint32_t id = 0; id < tokenizer_size(model.tokenizer); id++) {
        const char *text;
        size_t size;
        assert_int_equal(mc_text_stream_push(stream, id, &text, &size), MC_OK);
    }
    assert_int_equal(f.calls, calls);
    mc_text_stream_close(stream);
    close_model(&model);
    assert_int_equal(f.held, 0);
}

static void test_without_a_tokenizer_text_is_refused_by_the_models_name(void **state)
{
    static char name[] = "bare-model";
    const struct mc_model model = { .alloc = os_alloc(), .name = name };
    const struct mc_chat_message hello = { "user", "hi" };
    struct mc_error error = { 0 };
    mc_text_stream *stream;
    uint32_t *tokens;
    size_t count;
    char *text;

    (void)state;
    assert_int_equal(mc_model_encode(&model, "x", 1, 0, &tokens, &count, &error), MC_E_UNSUPPORTED);
    assert_non_null(strstr(error.text, "\"bare-model\" has no tokenizer.json"));
    assert_int_equal(mc_text_stream_open(&model, true, &stream, &error), MC_E_UNSUPPORTED);
    assert_int_equal(mc_chat_render(&model, &hello, 1, &text, &count, &error), MC_E_UNSUPPORTED);
}

static void test_a_model_encodes_and_renders_and_frees(void **state)
{
    const struct mc_chat_message hello = { "user", "Hello" };
    struct mc_error error = { 0 };
    struct mc_model model;
    uint32_t *tokens = NULL;
    size_t count = 0;
    char *text = NULL;
    const char *template =
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + "
        "message['content'] + '<|im_end|>\\n' }}{% endfor %}{{ '<|im_start|>assistant\\n' }}";

    (void)state;
    open_model("llama3", os_alloc(), &model);
    assert_int_equal(chat_init(&model.chat, template, NULL, os_alloc()), MC_OK);
    assert_int_equal(mc_chat_render(&model, &hello, 1, &text, &count, &error), MC_OK);
    assert_string_equal(text, "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n");
    assert_int_equal(count, strlen(text));
    mc_text_free(&model, text);
    assert_int_equal(mc_model_encode(&model, "Hello", 5, 0, &tokens, &count, &error), MC_OK);
    assert_in_range(count, 2, 6); /* BOS and the word */
    mc_tokens_free(&model, tokens);
    assert_int_equal(mc_model_encode(&model, "", 0, MC_ENCODE_BARE, &tokens, &count, &error),
                     MC_OK);
    assert_int_equal(count, 0);
    assert_null(tokens);
    close_model(&model);
}

static void test_a_token_is_its_bytes_special_ones_too(void **state)
{
    struct mc_model model;
    const char *bytes = NULL;
    size_t size = 0, total = 0;
    uint32_t *tokens = NULL, special;
    size_t count;

    (void)state;
    open_model("llama3", os_alloc(), &model);
    assert_int_equal(
        mc_model_encode(&model, "Say \xe2\x82\xac 5", 9, MC_ENCODE_BARE, &tokens, &count, NULL),
        MC_OK);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(mc_token_bytes(&model, tokens[i], &bytes, &size), MC_OK);
        assert_memory_equal(bytes, "Say \xe2\x82\xac 5" + total, size);
        total += size;
    }
    assert_int_equal(total, 9);
    assert_true(tokenizer_find(model.tokenizer, "<|im_end|>", &special));
    assert_int_equal(mc_token_bytes(&model, special, &bytes, &size), MC_OK);
    assert_int_equal(size, 10);
    assert_memory_equal(bytes, "<|im_end|>", 10);
    assert_int_equal(mc_token_bytes(&model, UINT32_MAX, &bytes, &size), MC_E_RANGE);
    mc_tokens_free(&model, tokens);
    close_model(&model);
    model.tokenizer = NULL;
    assert_int_equal(mc_token_bytes(&model, 0, &bytes, &size), MC_E_UNSUPPORTED);
}

static void test_every_failed_allocation_leaves_nothing_behind(void **state)
{
    struct mc_model model;
    bool done = false;

    (void)state;
    open_model("llama3", os_alloc(), &model);
    for (long k = 0; !done; k++) {
        struct faulty f;
        mc_text_stream *stream = NULL;
        uint32_t *tokens = NULL;
        size_t count;
        faulty_init(&f, k);
        model.alloc = &f.alloc;
        const mc_status opened = mc_text_stream_open(&model, true, &stream, NULL);
        const mc_status encoded = mc_model_encode(&model, "some text", 9, 0, &tokens, &count, NULL);
        done = f.calls <= k;
        assert_true(opened == MC_OK || opened == MC_E_NOMEM);
        assert_true(encoded == MC_OK || encoded == MC_E_NOMEM);
        assert_true(done == (opened == MC_OK && encoded == MC_OK));
        assert_true((opened == MC_OK) == (stream != NULL));
        mc_text_stream_close(stream);
        if (encoded == MC_OK)
            mc_tokens_free(&model, tokens);
        assert_int_equal(f.held, 0);
        assert_true(!done || k > 2);
    }
    model.alloc = os_alloc();
    close_model(&model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_tokens_stream_to_the_text_of_all_at_once),
        cmocka_unit_test(
            test_a_character_comes_out_with_its_last_byte_and_what_breaks_it_shows_both),
        cmocka_unit_test(test_an_id_that_pads_the_vocabulary_has_no_text),
        cmocka_unit_test(test_pushing_tokens_allocates_nothing),
        cmocka_unit_test(test_without_a_tokenizer_text_is_refused_by_the_models_name),
        cmocka_unit_test(test_a_model_encodes_and_renders_and_frees),
        cmocka_unit_test(test_a_token_is_its_bytes_special_ones_too),
        cmocka_unit_test(test_every_failed_allocation_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
