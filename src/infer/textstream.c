/* textstream.c - a model's text functions: encode, render a conversation, and text token by token. */
#include <mooncake/infer.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/utf8.h"
#include "infer/chat.h"
#include "infer/model.h"
#include "infer/normal.h"
#include "os/clock.h"

/*
 * Bytes of tokens go into `kept`; whole characters leave it, repaired, by `shown`. Both are sized for
 * the longest token at open, so that a push, which runs for every token served, allocates nothing.
 */
struct mc_text_stream {
    const struct mc_alloc *alloc;
    const tokenizer *tokenizer; /* borrowed from the model */
    uint32_t vocab_size;        /* the model's: it may pad beyond the tokenizer's words */
    bool keep_special;
    struct buf kept;  /* the start of a character that a later token may finish */
    struct buf shown; /* what the last call handed out */
};

static mc_status need_tokenizer(const mc_model *model, struct mc_error *error)
{
    if (model->tokenizer)
        return MC_OK;
    return error_set(error, MC_E_UNSUPPORTED,
                     "model \"%.200s\" has no tokenizer.json: send token ids instead of text",
                     model->name ? model->name : "");
}

mc_status mc_model_encode(const mc_model *model, const char *text, size_t size, unsigned flags,
                          uint32_t **tokens_p, size_t *count_p, struct mc_error *error)
{
    struct tokens tokens = { .alloc = model->alloc };

    mc_status status = need_tokenizer(model, error);
    if (status == MC_OK)
        status = tokenizer_encode(model->tokenizer, text, size, flags, &tokens, error);
    if (status != MC_OK) {
        tokens_fini(&tokens);
        return status;
    }
    *tokens_p = tokens.ids;
    *count_p = tokens.count;
    return MC_OK;
}

mc_status mc_token_bytes(const mc_model *model, uint32_t token, const char **bytes_p,
                         size_t *size_p)
{
    if (!model->tokenizer)
        return MC_E_UNSUPPORTED;
    return tokenizer_bytes(model->tokenizer, token, true, bytes_p, size_p);
}

void mc_tokens_free(const mc_model *model, uint32_t *tokens)
{
    alloc_free(model->alloc, tokens);
}

void mc_text_free(const mc_model *model, char *text)
{
    alloc_free(model->alloc, text);
}

mc_status mc_chat_render(const mc_model *model, const struct mc_chat_message *messages,
                         size_t count, char **text_p, size_t *size_p, struct mc_error *error)
{
    struct buf text = BUF_INIT(model->alloc);
    char date[CHAT_DATE_SIZE];

    const char *today = model->chat.dated ? chat_date(os_date_s(), date) : NULL;
    const mc_status status = chat_render(&model->chat, messages, count, today, &text, error);
    if (status != MC_OK) {
        buf_fini(&text);
        return status;
    }
    size_t size = 0;
    char *taken = buf_take(&text, &size);
    if (!taken)
        return error_set(error, MC_E_NOMEM, "no memory for the prompt");
    *text_p = taken;
    *size_p = size;
    return MC_OK;
}

/* --------------------------------------------------------------------------------------- stream */

/* Have room for `size` bytes; false when memory is out. */
static bool reserve(struct buf *buf, size_t size)
{
    for (size_t i = 0; i < size; i++)
        buf_add_byte(buf, ' ');
    buf_truncate(buf, 0);
    return !buf->failed;
}

mc_status mc_text_stream_open(const mc_model *model, bool keep_special, mc_text_stream **stream_p,
                              struct mc_error *error)
{
    const mc_status status = need_tokenizer(model, error);

    if (status != MC_OK)
        return status;
    struct mc_text_stream *stream = alloc_zeroed(model->alloc, 1, sizeof(*stream));
    if (!stream)
        return error_set(error, MC_E_NOMEM, "no memory for a text stream");
    *stream = (struct mc_text_stream){ .alloc = model->alloc,
                                       .tokenizer = model->tokenizer,
                                       .vocab_size = model->config.vocab_size,
                                       .keep_special = keep_special,
                                       .kept = BUF_INIT(model->alloc),
                                       .shown = BUF_INIT(model->alloc) };
    /* At most 3 bytes are kept back; U+FFFD is 3 bytes for one. */
    const size_t most = tokenizer_bytes_max(model->tokenizer) + 3;
    if (!reserve(&stream->kept, most) || !reserve(&stream->shown, 3 * most)) {
        mc_text_stream_close(stream);
        return error_set(error, MC_E_NOMEM, "no memory for a text stream");
    }
    *stream_p = stream;
    return MC_OK;
}

/* Hand out the first `size` bytes of what is kept. */
static void show(struct mc_text_stream *stream, size_t size, const char **text_p, size_t *size_p)
{
    struct buf *kept = &stream->kept;

    buf_truncate(&stream->shown, 0);
    text_repair(kept->data, size, &stream->shown);
    memmove(kept->data, kept->data + size, kept->size - size);
    buf_truncate(kept, kept->size - size);
    *text_p = stream->shown.data;
    *size_p = stream->shown.size;
}

mc_status mc_text_stream_push(mc_text_stream *stream, uint32_t token, const char **text_p,
                              size_t *size_p)
{
    const char *bytes = "";
    size_t size = 0;
    const mc_status status =
        tokenizer_bytes(stream->tokenizer, token, stream->keep_special, &bytes, &size);

    /* An id that only pads the model's vocabulary stands for no text. */
    if (status != MC_OK && token >= stream->vocab_size)
        return status;
    buf_add(&stream->kept, bytes, size);
    show(stream, utf8_complete(stream->kept.data, stream->kept.size), text_p, size_p);
    return MC_OK;
}

mc_status mc_text_stream_finish(mc_text_stream *stream, const char **text_p, size_t *size_p)
{
    show(stream, stream->kept.size, text_p, size_p);
    return MC_OK;
}

void mc_text_stream_close(mc_text_stream *stream)
{
    if (!stream)
        return;
    buf_fini(&stream->kept);
    buf_fini(&stream->shown);
    alloc_free(stream->alloc, stream);
}
