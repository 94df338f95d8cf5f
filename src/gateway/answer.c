/* answer.c - choices and what they share, as JSON. */
#include "gateway/answer.h"

#include <inttypes.h>
#include <string.h>

/* The lists of a completion's logprobs. */
static const char *const list_names[] = { "tokens", "token_logprobs", "top_logprobs",
                                          "text_offset" };

enum { LISTS = sizeof(list_names) / sizeof(list_names[0]) };

/* -------------------------------------------------------------------------------------- head */

mc_status api_head_init(struct api_head *head, const struct mc_alloc *alloc, enum api_kind kind,
                        bool stream, const char *id, const char *model_name, uint64_t created_s)
{
    const char *object = kind == API_COMPLETION ? "text_completion"
                         : stream               ? "chat.completion.chunk"
                                                : "chat.completion";

    *head = (struct api_head){ .kind = kind, .text = BUF_INIT(alloc) };
    buf_addf(&head->text, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%" PRIu64 ",\"model\":", id,
             object, created_s);
    buf_add_json(&head->text, model_name, strlen(model_name));
    buf_add_text(&head->text, ",\"choices\":[");
    return head->text.failed ? MC_E_NOMEM : MC_OK;
}

void api_head_fini(struct api_head *head)
{
    if (head->text.alloc)
        buf_fini(&head->text);
    *head = (struct api_head){ 0 };
}

static void write_head(const struct api_head *head, struct buf *out)
{
    buf_add(out, head->text.data, head->text.size);
}

static void write_usage(const struct api_answer_usage *usage, struct buf *out)
{
    buf_addf(out,
             "{\"prompt_tokens\":%" PRIu64 ",\"completion_tokens\":%" PRIu64
             ",\"total_tokens\":%" PRIu64 ",\"prompt_tokens_details\":{\"cached_tokens\":%" PRIu64
             "}}",
             usage->prompt_tokens, usage->completion_tokens,
             usage->prompt_tokens + usage->completion_tokens, usage->cached_tokens);
}

/* ------------------------------------------------------------------------------------ choice */

static void write_logprobs(const struct api_answer *a, struct buf *out)
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

/* Why it ended, in OpenAI's words, and by what, as vLLM says it. */
static void write_finish(const struct api_answer *a, struct buf *out)
{
    buf_add_text(out, ",\"finish_reason\":");
    if (!a->finish) {
        buf_add_text(out, "null");
        return;
    }
    buf_add_json(out, a->finish, strlen(a->finish));
    buf_add_text(out, ",\"stop_reason\":");
    if (a->stop)
        buf_add_json(out, a->stop->text, a->stop->size);
    else if (a->stop_token)
        buf_addf(out, "%u", *a->stop_token);
    else
        buf_add_text(out, "null");
}

/* Behind the text of a choice, to its end. */
static void write_rest(const struct api_answer *a, struct buf *out)
{
    buf_add_text(out, ",\"logprobs\":");
    write_logprobs(a, out);
    write_finish(a, out);
    if (a->o.with_ids) {
        buf_add_text(out, ",\"tokens\":[");
        buf_add(out, a->ids.data, a->ids.size);
        buf_add_byte(out, ']');
    }
    buf_add_byte(out, '}');
}

static void write_text(const struct api_answer *a, struct buf *out)
{
    buf_add_json(out, a->text.data ? a->text.data : "", a->text.size);
}

static void write_choice(const struct api_answer *a, struct buf *out)
{
    const bool chat = a->o.kind == API_CHAT;

    buf_addf(out, "{\"index\":%u,", a->o.index);
    buf_add_text(out, chat ? "\"message\":{\"role\":\"assistant\",\"content\":" : "\"text\":");
    write_text(a, out);
    buf_add_text(out, chat ? "}" : "");
    write_rest(a, out);
}

void api_answer_write_whole(const struct api_head *head, const struct api_answer *const answers[],
                            size_t count, const struct api_answer_usage *usage, struct buf *out)
{
    write_head(head, out);
    for (size_t i = 0; i < count; i++) {
        buf_add_text(out, i ? "," : "");
        write_choice(answers[i], out);
    }
    buf_add_text(out, "],\"usage\":");
    write_usage(usage, out);
    buf_add_text(out, "}\n");
}

/* ------------------------------------------------------------------------------------ stream */

/* The end of an event: OpenAI has a null where usage is to come later. */
static void end_event(const struct api_head *head, const struct api_answer_usage *usage,
                      struct buf *out)
{
    if (!head->with_usage) {
        buf_add_text(out, "]}\n\n");
        return;
    }
    buf_add_text(out, "],\"usage\":");
    if (usage)
        write_usage(usage, out);
    else
        buf_add_text(out, "null");
    buf_add_text(out, "}\n\n");
}

/* A chat's first event says who speaks, before any text. */
static void write_role(const struct api_head *head, const struct api_answer *a,
                       const struct api_answer_usage *usage, struct buf *out)
{
    const struct api_answer_usage none = { usage->prompt_tokens, 0, usage->cached_tokens };

    buf_add_text(out, "data: ");
    write_head(head, out);
    buf_addf(out,
             "{\"index\":%u,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,"
             "\"finish_reason\":null}",
             a->o.index);
    end_event(head, head->continuous_usage ? &none : NULL, out);
}

static void write_delta(const struct api_answer *a, struct buf *out)
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

/* It is told. */
static void empty(struct api_answer *a)
{
    buf_truncate(&a->text, 0);
    buf_truncate(&a->ids, 0);
    for (int i = 0; i < LISTS; i++)
        buf_truncate(&a->logprobs[i], 0);
    a->pending = 0;
}

void api_answer_write_chunk(const struct api_head *head, struct api_answer *a,
                            const struct api_answer_usage *usage, struct buf *out)
{
    if (!a->begun && a->o.kind == API_CHAT)
        write_role(head, a, usage, out);
    a->begun = true;
    buf_add_text(out, "data: ");
    write_head(head, out);
    buf_addf(out, "{\"index\":%u,", a->o.index);
    write_delta(a, out);
    write_rest(a, out);
    end_event(head, head->continuous_usage ? usage : NULL, out);
    empty(a);
}

void api_answer_write_done(const struct api_head *head, const struct api_answer_usage *usage,
                           struct buf *out)
{
    if (head->with_usage) {
        buf_add_text(out, "data: ");
        write_head(head, out);
        end_event(head, usage, out);
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

void api_answer_write_error(const struct api_error *error, bool in_stream, struct buf *out)
{
    buf_add_text(out, in_stream ? "data: {\"error\":{\"message\":" : "{\"error\":{\"message\":");
    buf_add_json(out, error->text, strlen(error->text));
    add_name(out, "type", error->type);
    add_name(out, "param", error->param);
    add_name(out, "code", error->code);
    buf_add_text(out, in_stream ? "}}\n\n" : "}}\n");
}
