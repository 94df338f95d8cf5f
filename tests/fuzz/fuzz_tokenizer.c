/* fuzz_tokenizer.c - any bytes as tokenizer.json; what opens must encode and decode without harm.
 *
 * The input is two parts with a 0xff between them, a byte that JSON never has:
 *     | tokenizer.json; a '@' stands for the 256 words of the bytes | 0xff | text |
 * A text that encodes must come back from a stream of its tokens as from decoding them at once. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/utf8.h"
#include "infer/chat.h"
#include "infer/model.h"
#include "os/sysalloc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { TEXT_MAX = 512 };

static void require(bool condition)
{
    if (!condition)
        abort();
}

/* Every byte needs a word, which a fuzzer would not find by itself. */
static void add_byte_words(struct buf *out)
{
    uint32_t others = 256;

    for (uint32_t byte = 0; byte < 256; byte++) {
        const bool prints = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte != 0xad);
        char word[4];
        const size_t length = utf8_encode(prints ? byte : others++, word);
        buf_add_text(out, byte ? "," : "");
        buf_add_json(out, word, length);
        buf_addf(out, ":%u", byte);
    }
}

static void expand(const char *json, size_t size, struct buf *out)
{
    bool expanded = false;

    for (size_t i = 0; i < size; i++)
        if (json[i] == '@' && !expanded) {
            add_byte_words(out);
            expanded = true;
        } else
            buf_add_byte(out, (unsigned char)json[i]);
    buf_add(out, "", 0);
}

static void stream_all(const mc_model *model, const struct tokens *tokens, struct buf *out)
{
    mc_text_stream *stream;
    const char *text;
    size_t size;

    require(mc_text_stream_open(model, true, &stream, NULL) == MC_OK);
    for (size_t i = 0; i < tokens->count; i++) {
        require(mc_text_stream_push(stream, tokens->ids[i], &text, &size) == MC_OK);
        require(utf8_complete(text, size) == size);
        buf_add(out, text, size);
    }
    require(mc_text_stream_finish(stream, &text, &size) == MC_OK);
    buf_add(out, text, size);
    mc_text_stream_close(stream);
}

static void encode_and_back(tokenizer *t, const char *text, size_t size, unsigned flags)
{
    const mc_model model = { .alloc = os_alloc(), .tokenizer = t };
    struct tokens tokens = { .alloc = os_alloc() };
    struct buf whole = BUF_INIT(os_alloc()), parts = BUF_INIT(os_alloc());
    struct mc_error error = { 0 };

    if (tokenizer_encode(t, text, size, flags, &tokens, &error) == MC_OK) {
        require(tokenizer_decode(t, tokens.ids, tokens.count, true, &whole) == MC_OK);
        stream_all(&model, &tokens, &parts);
        require(whole.size == parts.size &&
                (whole.size == 0 || memcmp(whole.data, parts.data, whole.size) == 0));
    } else
        require(tokens.count == 0 && error.text[0] != '\0');
    buf_fini(&whole);
    buf_fini(&parts);
    tokens_fini(&tokens);
}

/* The same bytes as a chat template: reading it must not fail for any. */
static void read_template(const char *bytes, size_t size)
{
    const struct mc_chat_message messages[] = { { "system", " s\n" },
                                                { "assistant", "<think>t</think>a" },
                                                { "user", "u" } };
    struct buf out = BUF_INIT(os_alloc());
    struct mc_error error = { 0 };
    struct chat chat;

    char *template = alloc_text(os_alloc(), bytes, size);
    require(template && chat_init(&chat, template, "<s>", os_alloc()) == MC_OK);
    const mc_status status = chat_render(&chat, messages, 3, NULL, &out, &error);
    require(status == (chat.family == CHAT_OTHER ? MC_E_UNSUPPORTED : MC_OK));
    chat_fini(&chat, os_alloc());
    buf_fini(&out);
    alloc_free(os_alloc(), template);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *mark = size ? memchr(data, 0xff, size) : NULL;
    const size_t json_size = mark ? (size_t)(mark - data) : size;
    const char *text = mark ? (const char *)mark + 1 : "";
    size_t text_size = mark ? size - json_size - 1 : 0;
    struct buf json = BUF_INIT(os_alloc());
    struct mc_error error = { 0 };
    tokenizer *t;

    if (text_size > TEXT_MAX)
        text_size = TEXT_MAX;
    expand((const char *)data, json_size, &json);
    if (tokenizer_open(json.data, json.size, "fuzz.json", os_alloc(), &t, &error) == MC_OK) {
        encode_and_back(t, text, text_size, 0);
        encode_and_back(t, text, text_size, MC_ENCODE_BARE | MC_ENCODE_NO_SPECIAL);
        tokenizer_close(t);
    } else
        require(strncmp(error.text, "fuzz.json: ", 11) == 0);
    buf_fini(&json);
    read_template((const char *)data, json_size);
    return 0;
}
