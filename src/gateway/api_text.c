/* api_text.c - /tokenize and /detokenize: read, ask the tokenizer, write. */
#include "gateway/api_text.h"

#include "base/alloc.h"
#include "gateway/answer_token.h"
#include "gateway/api_prompt.h"
#include "gateway/api_reader.h"

static uint64_t or_context(const struct api_text_options *o, uint64_t most)
{
    const uint64_t context_bytes = (uint64_t)o->context_max * 8;

    return context_bytes > most ? context_bytes : most;
}

static bool check_size(const struct api_text_options *o, size_t size, struct api_error *error)
{
    const uint64_t most = or_context(o, API_TEXT_BODY_MAX);

    return size <= most || api_fail(error, 413, API_INVALID, "body_too_large", NULL,
                                    "the body: %zu bytes; here at most %llu are accepted", size,
                                    (unsigned long long)most);
}

/* ---------------------------------------------------------------------------------- tokenize */

/* One text, or messages as a chat has them. */
static bool read_tokenize(const struct api_text_options *o, struct api_request *q, bool *strings_p,
                          struct api_error *error)
{
    struct api_reader r = { q->document, error, false };
    bool add_special;

    api_read_model(&r, o->defaults);
    api_refuse_by_name(&r);
    q->kind = api_get(&r, "messages") ? API_CHAT : API_COMPLETION;
    add_special = q->kind == API_COMPLETION;
    api_read_bool(&r, "add_special_tokens", &add_special);
    api_read_bool(&r, "return_token_strs", strings_p);
    q->bare = !add_special;
    const json_t *prompt = api_get(&r, "prompt");
    if (q->kind == API_CHAT && prompt)
        api_refuse(&r, "contradiction", "prompt", "either a prompt or messages, not both");
    else if (prompt && !json_is_string(prompt))
        api_expect(&r, "prompt", "a string", prompt);
    return !r.failed && api_read_prompt(q, o->defaults->vocab_size, error);
}

static bool check_text(const struct api_text_options *o, const struct api_request *q,
                       struct api_error *error)
{
    const char *field = q->kind == API_CHAT ? "messages" : "prompt";
    const uint64_t size = api_text_size(q, 0), most = or_context(o, API_TOKENIZE_MAX);

    return size <= most || api_fail(error, 400, API_INVALID, "out_of_range", field,
                                    "%s: %llu bytes of text; at most %llu are accepted at a time",
                                    field, (unsigned long long)size, (unsigned long long)most);
}

static void write_tokens(const struct api_text_options *o, const uint32_t *tokens, size_t count,
                         bool strings, struct buf *out)
{
    buf_addf(out, "{\"count\":%zu,\"max_model_len\":%u,\"tokens\":[", count, o->context_max);
    for (size_t i = 0; i < count; i++)
        buf_addf(out, i ? ",%u" : "%u", tokens[i]);
    buf_add_text(out, strings ? "],\"token_strs\":[" : "],\"token_strs\":null");
    for (size_t i = 0; strings && i < count; i++) {
        buf_add_text(out, i ? "," : "");
        answer_token_add(o->model, tokens[i], out);
    }
    buf_add_text(out, strings ? "]}\n" : "}\n");
}

bool api_tokenize(const struct api_text_options *o, const char *body, size_t size, struct buf *out,
                  struct api_error *error)
{
    struct api_request q = { .alloc = o->alloc };
    uint32_t *tokens = NULL;
    bool strings = false;
    size_t count = 0;

    const bool done = check_size(o, size, error) && api_parse(body, size, &q.document, error) &&
                      read_tokenize(o, &q, &strings, error) && check_text(o, &q, error) &&
                      api_encode_one(&q, 0, o->model, &tokens, &count, error);
    if (done)
        write_tokens(o, tokens, count, strings, out);
    mc_tokens_free(o->model, tokens);
    api_request_fini(&q);
    return done;
}

/* -------------------------------------------------------------------------------- detokenize */

static mc_status decode(const mc_model *model, bool keep_special, const uint32_t *tokens,
                        size_t count, struct buf *text, struct mc_error *why)
{
    mc_text_stream *stream = NULL;
    const char *part;
    size_t size;

    mc_status status = mc_text_stream_open(model, keep_special, &stream, why);
    for (size_t i = 0; i < count && status == MC_OK; i++) {
        status = mc_text_stream_push(stream, tokens[i], &part, &size);
        if (status == MC_OK)
            buf_add(text, part, size);
    }
    if (status == MC_OK)
        status = mc_text_stream_finish(stream, &part, &size);
    if (status == MC_OK)
        buf_add(text, part, size);
    mc_text_stream_close(stream);
    return status == MC_OK && text->failed ? MC_E_NOMEM : status;
}

static bool write_text(const struct api_text_options *o, bool keep_special, const uint32_t *tokens,
                       size_t count, struct buf *out, struct api_error *error)
{
    struct buf text = BUF_INIT(o->alloc);
    struct mc_error why = { 0 };

    const mc_status status = decode(o->model, keep_special, tokens, count, &text, &why);
    if (status == MC_OK) {
        buf_add_text(out, "{\"prompt\":");
        buf_add_json(out, text.data ? text.data : "", text.size);
        buf_add_text(out, "}\n");
    }
    buf_fini(&text);
    if (status == MC_OK)
        return true;
    if (status == MC_E_NOMEM)
        return api_no_memory(error);
    return api_fail(error, 400, API_INVALID, "unsupported", "tokens", "tokens: %.300s",
                    why.text[0] ? why.text : mc_status_text(status));
}

bool api_detokenize(const struct api_text_options *o, const char *body, size_t size,
                    struct buf *out, struct api_error *error)
{
    const size_t most = o->context_max > API_DETOKENIZE_MAX ? o->context_max : API_DETOKENIZE_MAX;
    json_t *document = NULL;
    uint32_t *tokens = NULL;
    bool skip_special = false;
    size_t count = 0;

    if (!check_size(o, size, error) || !api_parse(body, size, &document, error))
        return false;
    struct api_reader r = { document, error, false };
    api_read_model(&r, o->defaults);
    api_read_bool(&r, "skip_special_tokens", &skip_special);
    const json_t *list = api_get(&r, "tokens");
    if (!list)
        api_refuse(&r, "missing", "tokens", "missing: give a list of token ids");
    else if (!json_is_array(list))
        api_expect(&r, "tokens", "a list of token ids", list);
    else if (json_array_size(list) > most)
        api_refuse(&r, "out_of_range", "tokens", "%zu ids; at most %zu are accepted",
                   json_array_size(list), most);
    api_read_id_list(&r, "tokens", list, o->defaults->vocab_size, o->alloc, &tokens, &count);
    json_decref(document);
    const bool done = !r.failed && write_text(o, !skip_special, tokens, count, out, error);
    alloc_free(o->alloc, tokens);
    return done;
}
