/* answer.c - samples become the strings and lists of a choice, and those become JSON. */
#include "gateway/answer.h"

#include <inttypes.h>
#include <string.h>

#include "base/utf8.h"

/* JSON has no infinity, which is the logprob of a token that cannot come; vLLM writes the same. */
static const float LOGPROB_MIN = -9999;

/* The lists of a completion's logprobs. */
enum { LIST_TOKENS, LIST_LOGPROBS, LIST_TOPS, LIST_OFFSETS, LISTS };

static const char *const list_names[LISTS] = { "tokens", "token_logprobs", "top_logprobs",
                                               "text_offset" };

static mc_status open_text(struct answer *a)
{
    const mc_status status =
        mc_text_stream_open(a->o.model, a->o.keep_special, &a->text_stream, NULL);

    return status == MC_E_UNSUPPORTED ? MC_OK : status;
}

mc_status answer_init(struct answer *a, const struct answer_options *o)
{
    *a = (struct answer){ .o = *o, .text = BUF_INIT(o->alloc), .ids = BUF_INIT(o->alloc) };
    for (int i = 0; i < LISTS; i++)
        a->logprobs[i] = BUF_INIT(o->alloc);
    return open_text(a);
}

void answer_fini(struct answer *a)
{
    if (!a->o.alloc)
        return;
    mc_text_stream_close(a->text_stream);
    buf_fini(&a->text);
    buf_fini(&a->ids);
    for (int i = 0; i < LISTS; i++)
        buf_fini(&a->logprobs[i]);
    *a = (struct answer){ 0 };
}

static void empty(struct answer *a)
{
    buf_truncate(&a->text, 0);
    buf_truncate(&a->ids, 0);
    for (int i = 0; i < LISTS; i++)
        buf_truncate(&a->logprobs[i], 0);
    a->pending = 0;
}

mc_status answer_restart(struct answer *a)
{
    empty(a);
    a->characters = 0;
    a->samples = 0;
    mc_text_stream_close(a->text_stream);
    a->text_stream = NULL;
    return open_text(a);
}

/* ------------------------------------------------------------------------------------- samples */

static void add_logprob(struct buf *out, float logprob)
{
    buf_addf(out, "%.9g", (double)(logprob > LOGPROB_MIN ? logprob : LOGPROB_MIN));
}

static bool is_utf8(const char *text, size_t size)
{
    uint32_t code;
    size_t length = 1;

    for (size_t i = 0; i < size && length > 0; i += length)
        length = utf8_decode(text + i, size - i, &code);
    return length > 0;
}

static void token_bytes(const struct answer *a, uint32_t token, const char **text_p, size_t *size_p)
{
    if (mc_token_bytes(a->o.model, token, text_p, size_p) == MC_OK)
        return;
    *text_p = ""; /* a model without tokenizer, or an id that pads its vocabulary */
    *size_p = 0;
}

/* A token that is no whole text is spelt as OpenAI does, so that two of them differ. */
static void add_token(const struct answer *a, uint32_t token, struct buf *out)
{
    const char *text;
    size_t size;

    token_bytes(a, token, &text, &size);
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

static void add_chat_entry(const struct answer *a, uint32_t token, float logprob, struct buf *out)
{
    const char *text;
    size_t size;

    buf_add_text(out, "\"token\":");
    add_token(a, token, out);
    buf_add_text(out, ",\"logprob\":");
    add_logprob(out, logprob);
    buf_add_text(out, ",\"bytes\":[");
    token_bytes(a, token, &text, &size);
    for (size_t i = 0; i < size; i++)
        buf_addf(out, "%s%u", i ? "," : "", (unsigned char)text[i]);
    buf_add_byte(out, ']');
}

static void add_chat_logprobs(struct answer *a, const struct wire_sample *sample)
{
    struct buf *out = &a->logprobs[0];
    struct wire_list tops = sample->top;
    struct wire_token_logprob top;

    buf_add_text(out, a->pending ? ",{" : "{");
    add_chat_entry(a, sample->token, sample->logprob, out);
    buf_add_text(out, ",\"top_logprobs\":[");
    for (unsigned k = 0; wire_token_logprob_next(&tops, &top); k++) {
        buf_add_text(out, k ? ",{" : "{");
        add_chat_entry(a, top.token, top.logprob, out);
        buf_add_byte(out, '}');
    }
    buf_add_text(out, "]}");
}

static void add_text_logprobs(struct answer *a, const struct wire_sample *sample)
{
    struct wire_list tops = sample->top;
    struct wire_token_logprob top;

    for (int i = 0; a->pending && i < LISTS; i++)
        buf_add_byte(&a->logprobs[i], ',');
    add_token(a, sample->token, &a->logprobs[LIST_TOKENS]);
    add_logprob(&a->logprobs[LIST_LOGPROBS], sample->logprob);
    struct buf *out = &a->logprobs[LIST_TOPS];
    buf_add_byte(out, '{');
    for (unsigned k = 0; wire_token_logprob_next(&tops, &top); k++) {
        buf_add_text(out, k ? "," : "");
        add_token(a, top.token, out);
        buf_add_byte(out, ':');
        add_logprob(out, top.logprob);
    }
    buf_add_byte(out, '}');
    buf_addf(&a->logprobs[LIST_OFFSETS], "%" PRIu64, a->characters);
}

static void show(struct answer *a, const char *text, size_t size)
{
    buf_add(&a->text, text, size);
    for (size_t i = 0; i < size; i++)
        a->characters += ((unsigned char)text[i] & 0xc0) != 0x80; /* each has one such byte */
}

static mc_status check(const struct answer *a)
{
    bool failed = a->text.failed || a->ids.failed;

    for (int i = 0; i < LISTS; i++)
        failed = failed || a->logprobs[i].failed;
    return failed ? MC_E_NOMEM : MC_OK;
}

mc_status answer_add(struct answer *a, const struct wire_sample *sample, bool ends)
{
    const char *text = "";
    size_t size = 0;

    if (a->o.with_logprobs && a->o.kind == API_CHAT)
        add_chat_logprobs(a, sample);
    else if (a->o.with_logprobs)
        add_text_logprobs(a, sample);
    buf_addf(&a->ids, "%s%u", a->pending ? "," : "", sample->token);
    if (a->text_stream && !ends) {
        const mc_status status = mc_text_stream_push(a->text_stream, sample->token, &text, &size);
        if (status != MC_OK)
            return status;
    }
    show(a, text, size);
    a->pending++;
    a->samples++;
    return check(a);
}

mc_status answer_finish(struct answer *a)
{
    const char *text = "";
    size_t size = 0;

    if (a->text_stream) {
        const mc_status status = mc_text_stream_finish(a->text_stream, &text, &size);
        if (status != MC_OK)
            return status;
    }
    show(a, text, size);
    return check(a);
}

bool answer_has_news(const struct answer *a)
{
    return a->text.size > 0 || (a->pending > 0 && (a->o.with_logprobs || a->o.with_ids));
}

/* ---------------------------------------------------------------------------------------- JSON */

static void write_logprobs(const struct answer *a, struct buf *out)
{
    if (!a->o.with_logprobs) {
        buf_add_text(out, "null");
        return;
    }
    if (a->o.kind == API_CHAT) {
        buf_add_text(out, "{\"content\":[");
        buf_add(out, a->logprobs[0].data, a->logprobs[0].size);
        buf_add_text(out, "]}");
        return;
    }
    for (int i = 0; i < LISTS; i++) {
        buf_addf(out, "%s\"%s\":[", i ? "]," : "{", list_names[i]);
        buf_add(out, a->logprobs[i].data, a->logprobs[i].size);
    }
    buf_add_text(out, "]}");
}

/* Behind the text of a choice, to its end. */
static void write_rest(const struct answer *a, const char *finish, struct buf *out)
{
    buf_add_text(out, ",\"logprobs\":");
    write_logprobs(a, out);
    buf_add_text(out, ",\"finish_reason\":");
    if (finish)
        buf_add_json(out, finish, strlen(finish));
    else
        buf_add_text(out, "null");
    if (a->o.with_ids) {
        buf_add_text(out, ",\"tokens\":[");
        buf_add(out, a->ids.data, a->ids.size);
        buf_add_byte(out, ']');
    }
    buf_add_byte(out, '}');
}

static void write_text(const struct answer *a, struct buf *out)
{
    buf_add_json(out, a->text.data ? a->text.data : "", a->text.size);
}

static void write_head(const struct answer *a, const char *object, struct buf *out)
{
    buf_addf(out, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%" PRIu64 ",\"model\":", a->o.id,
             object, a->o.created_s);
    buf_add_json(out, a->o.model_name, strlen(a->o.model_name));
}

static void write_usage(const struct answer *a, const struct answer_usage *usage, struct buf *out)
{
    buf_addf(out,
             "{\"prompt_tokens\":%" PRIu64 ",\"completion_tokens\":%u,\"total_tokens\":%" PRIu64
             ",\"prompt_tokens_details\":{\"cached_tokens\":%" PRIu64 "}}",
             usage->prompt_tokens, a->samples, usage->prompt_tokens + a->samples,
             usage->cached_tokens);
}

void answer_write_whole(const struct answer *a, const char *finish,
                        const struct answer_usage *usage, struct buf *out)
{
    const bool chat = a->o.kind == API_CHAT;

    write_head(a, chat ? "chat.completion" : "text_completion", out);
    buf_add_text(out, ",\"choices\":[{\"index\":0,");
    buf_add_text(out, chat ? "\"message\":{\"role\":\"assistant\",\"content\":" : "\"text\":");
    write_text(a, out);
    buf_add_text(out, chat ? "}" : "");
    write_rest(a, finish, out);
    buf_add_text(out, "],\"usage\":");
    write_usage(a, usage, out);
    buf_add_text(out, "}\n");
}

static const char *chunk_object(const struct answer *a)
{
    return a->o.kind == API_CHAT ? "chat.completion.chunk" : "text_completion";
}

/* A chat's first event says who speaks, before any text. */
static void write_role(const struct answer *a, struct buf *out)
{
    buf_add_text(out, "data: ");
    write_head(a, chunk_object(a), out);
    buf_add_text(out, ",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":"
                      "\"\"},\"logprobs\":null,\"finish_reason\":null}]");
    buf_add_text(out, a->o.with_usage ? ",\"usage\":null}\n\n" : "}\n\n");
}

static void write_delta(const struct answer *a, struct buf *out)
{
    if (a->o.kind == API_COMPLETION) {
        buf_add_text(out, "\"text\":");
        write_text(a, out);
        return;
    }
    buf_add_text(out, "\"delta\":{");
    if (a->text.size > 0) {
        buf_add_text(out, "\"content\":");
        write_text(a, out);
    }
    buf_add_byte(out, '}');
}

void answer_write_chunk(struct answer *a, const char *finish, struct buf *out)
{
    if (!a->begun && a->o.kind == API_CHAT)
        write_role(a, out);
    a->begun = true;
    buf_add_text(out, "data: ");
    write_head(a, chunk_object(a), out);
    buf_add_text(out, ",\"choices\":[{\"index\":0,");
    write_delta(a, out);
    write_rest(a, finish, out);
    buf_add_text(out, a->o.with_usage ? "],\"usage\":null}\n\n" : "]}\n\n");
    empty(a);
}

void answer_write_done(const struct answer *a, const struct answer_usage *usage, struct buf *out)
{
    if (a->o.with_usage) {
        buf_add_text(out, "data: ");
        write_head(a, chunk_object(a), out);
        buf_add_text(out, ",\"choices\":[],\"usage\":");
        write_usage(a, usage, out);
        buf_add_text(out, "}\n\n");
    }
    buf_add_text(out, "data: [DONE]\n\n");
}

static void add_name(struct buf *out, const char *field, const char *text)
{
    buf_addf(out, ",\"%s\":", field);
    if (text && *text)
        buf_add_json(out, text, strlen(text));
    else
        buf_add_text(out, "null");
}

void answer_write_error(const struct api_error *error, bool in_stream, struct buf *out)
{
    buf_add_text(out, in_stream ? "data: {\"error\":{\"message\":" : "{\"error\":{\"message\":");
    buf_add_json(out, error->text, strlen(error->text));
    add_name(out, "type", error->type);
    add_name(out, "param", error->param);
    add_name(out, "code", error->code);
    buf_add_text(out, in_stream ? "}}\n\n" : "}}\n");
}
