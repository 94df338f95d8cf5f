/* answer_token.c - one token as JSON. */
#include "gateway/answer_token.h"

#include <stdbool.h>

#include "base/utf8.h"

void answer_token_bytes(const mc_model *model, uint32_t token, const char **text_p, size_t *size_p)
{
    if (mc_token_bytes(model, token, text_p, size_p) == MC_OK)
        return;
    *text_p = ""; /* a model without tokenizer, or an id that pads its vocabulary */
    *size_p = 0;
}

static bool is_utf8(const char *text, size_t size)
{
    uint32_t code;
    size_t length = 1;

    for (size_t i = 0; i < size && length > 0; i += length)
        length = utf8_decode(text + i, size - i, &code);
    return length > 0;
}

void answer_token_spell(uint32_t token, const char *text, size_t size, struct buf *out)
{
    if (size == 0) {
        buf_addf(out, "\"token_id:%u\"", token);
        return;
    }
    if (is_utf8(text, size)) {
        buf_add_json(out, text, size);
        return;
    }
    buf_add_text(out, "\"bytes:");
    for (size_t i = 0; i < size; i++)
        buf_addf(out, "\\\\x%02x", (unsigned char)text[i]);
    buf_add_byte(out, '"');
}

void answer_token_add(const mc_model *model, uint32_t token, struct buf *out)
{
    const char *text;
    size_t size;

    answer_token_bytes(model, token, &text, &size);
    answer_token_spell(token, text, size, out);
}
