/* api_prompt.c - prompts and messages, from JSON to tokens. */
#include "gateway/api_prompt.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "gateway/api_reader.h"

/* ------------------------------------------------------------------------------------- prompts */

static void read_one(struct api_reader *r, struct api_request *q, const json_t *value,
                     uint32_t vocab_size)
{
    struct api_prompt *prompt = &q->prompts[q->prompt_count++];

    if (json_is_string(value)) {
        prompt->text = json_string_value(value);
        prompt->text_size = json_string_length(value);
    } else
        api_read_id_list(r, "prompt", value, vocab_size, q->alloc, &prompt->ids, &prompt->id_count);
    if (!prompt->text && !prompt->ids)
        api_refuse(
            r, "invalid_type", "prompt",
            "expected a string, a list of token ids, or a list of either, none of them empty");
}

/* A string; a list of ids; a list of strings, or one of lists of ids. What its first item is tells which. */
static void read_prompts(struct api_reader *r, struct api_request *q, uint32_t vocab_size)
{
    const json_t *value = api_get(r, "prompt");
    const json_t *first = json_array_get(value, 0);
    const bool many = json_is_string(first) || json_is_array(first);
    const size_t count = many ? json_array_size(value) : 1;

    if (!value)
        api_refuse(r, "missing", "prompt", "missing: give a string or a list of token ids");
    if (count > API_PROMPTS_MAX)
        api_refuse(r, "out_of_range", "prompt", "%zu prompts; at most %d are accepted at a time",
                   count, API_PROMPTS_MAX);
    if (r->failed)
        return;
    q->prompts = alloc_zeroed(q->alloc, count, sizeof(*q->prompts));
    if (!q->prompts)
        api_reader_no_memory(r);
    for (size_t i = 0; i < count && !r->failed; i++)
        read_one(r, q, many ? json_array_get(value, i) : value, vocab_size);
}

/* ------------------------------------------------------------------------------------ messages */

static bool fail_message(struct api_error *error, const char *code, size_t index, const char *what)
{
    return api_fail(error, 400, API_INVALID, code, "messages", "messages[%zu]: %s", index, what);
}

/* The text of one part of a content, or NULL. */
static const json_t *part_text(const json_t *part)
{
    const char *type = json_string_value(json_object_get(part, "type"));
    const json_t *text = json_object_get(part, "text");

    return type && strcmp(type, "text") == 0 && json_is_string(text) ? text : NULL;
}

static bool join_parts(struct api_request *q, const json_t *parts, size_t index,
                       const char **content_p, struct api_error *error)
{
    struct buf text = BUF_INIT(q->alloc);

    buf_add(&text, "", 0);
    for (size_t i = 0; i < json_array_size(parts); i++) {
        const json_t *part = part_text(json_array_get(parts, i));
        if (!part) {
            buf_fini(&text);
            return fail_message(error, "unsupported", index,
                                "content has a part that is not {\"type\": \"text\", \"text\": "
                                "...}: this release takes text alone");
        }
        if (memchr(json_string_value(part), '\0', json_string_length(part))) {
            buf_fini(&text);
            return fail_message(error, "invalid_value", index, "content has a NUL; a chat is text");
        }
        buf_add(&text, json_string_value(part), json_string_length(part));
    }
    size_t size;
    char *joined = buf_take(&text, &size);
    if (!joined)
        return api_no_memory(error);
    q->joined[q->joined_count++] = joined;
    *content_p = joined;
    return true;
}

static bool read_content(struct api_request *q, const json_t *message, size_t index,
                         const char **content_p, struct api_error *error)
{
    const json_t *content = json_object_get(message, "content");

    if (json_is_array(content))
        return join_parts(q, content, index, content_p, error);
    if (!json_is_string(content))
        return fail_message(error, "invalid_type", index,
                            "content: expected a string or a list of text parts");
    if (memchr(json_string_value(content), '\0', json_string_length(content)))
        return fail_message(error, "invalid_value", index, "content has a NUL; a chat is text");
    *content_p = json_string_value(content);
    return true;
}

static bool read_message(struct api_request *q, const json_t *message, size_t index,
                         struct api_error *error)
{
    const json_t *role = json_object_get(message, "role");
    const char *content = NULL;

    if (!json_is_object(message))
        return fail_message(error, "invalid_type", index, "expected an object");
    if (!json_is_string(role) || strlen(json_string_value(role)) != json_string_length(role))
        return fail_message(error, "invalid_type", index, "role: expected a string");
    const json_t *calls = json_object_get(message, "tool_calls");
    if (calls && !json_is_null(calls) && json_array_size(calls) > 0)
        return fail_message(error, "unsupported", index,
                            "tool_calls: not supported by this release; leave them out");
    if (!read_content(q, message, index, &content, error))
        return false;
    q->messages[q->message_count++] = (struct mc_chat_message){ json_string_value(role), content };
    return true;
}

static bool read_messages(struct api_request *q, struct api_error *error)
{
    const json_t *list = json_object_get(q->document, "messages");
    const size_t count = json_array_size(list);

    if (!list || json_is_null(list))
        return api_fail(error, 400, API_INVALID, "missing", "messages",
                        "messages: missing: give a list of messages");
    if (!json_is_array(list) || count == 0)
        return api_fail(error, 400, API_INVALID, "invalid_type", "messages",
                        "messages: expected a list of messages, not empty");
    if (count > API_MESSAGES_MAX)
        return api_fail(error, 400, API_INVALID, "out_of_range", "messages",
                        "messages: %zu; at most %d are accepted", count, API_MESSAGES_MAX);
    q->messages = alloc_zeroed(q->alloc, count, sizeof(*q->messages));
    q->joined = alloc_zeroed(q->alloc, count, sizeof(*q->joined));
    if (!q->messages || !q->joined)
        return api_no_memory(error);
    for (size_t i = 0; i < count; i++)
        if (!read_message(q, json_array_get(list, i), i, error))
            return false;
    return true;
}

static bool read_chat(struct api_request *q, struct api_error *error)
{
    q->prompts = alloc_zeroed(q->alloc, 1, sizeof(*q->prompts));
    if (!q->prompts)
        return api_no_memory(error);
    q->prompt_count = 1;
    return read_messages(q, error);
}

bool api_read_prompt(struct api_request *q, uint32_t vocab_size, struct api_error *error)
{
    struct api_reader r = { q->document, error, false };

    if (q->kind == API_CHAT)
        return read_chat(q, error);
    read_prompts(&r, q, vocab_size);
    return !r.failed;
}

/* -------------------------------------------------------------------------------------- tokens */

/* Where an error is: "prompt", or the one of several. */
static const char *place(const struct api_request *q, size_t index, char text[32])
{
    if (q->kind == API_CHAT)
        return "messages";
    if (q->prompt_count == 1)
        return "prompt";
    snprintf(text, 32, "prompt[%zu]", index);
    return text;
}

/* Why the model would not make tokens of it: the client's mistake, or ours. */
static bool fail_encode(const struct api_request *q, size_t index, const struct mc_error *why,
                        struct api_error *error)
{
    char text[32];

    if (why->status == MC_E_NOMEM)
        return api_no_memory(error);
    return api_fail(error, 400, API_INVALID,
                    why->status == MC_E_UNSUPPORTED ? "unsupported" : "invalid_value",
                    q->kind == API_CHAT ? "messages" : "prompt", "%s: %.300s",
                    place(q, index, text), why->text);
}

static mc_status encode_chat(const struct api_request *q, const mc_model *model,
                             uint32_t **tokens_p, size_t *count_p, struct mc_error *why)
{
    char *text = NULL;
    size_t size = 0;

    mc_status status = mc_chat_render(model, q->messages, q->message_count, &text, &size, why);
    if (status == MC_OK)
        status = mc_model_encode(model, text, size, q->bare ? MC_ENCODE_BARE : 0, tokens_p, count_p,
                                 why);
    mc_text_free(model, text);
    return status;
}

uint32_t api_token_bytes_max(const mc_model *model, uint32_t vocab_size)
{
    size_t most = 0;

    for (uint32_t id = 0; id < vocab_size; id++) {
        const char *bytes;
        size_t size;
        if (mc_token_bytes(model, id, &bytes, &size) == MC_OK && size > most)
            most = size;
    }
    return (uint32_t)most;
}

uint64_t api_text_size(const struct api_request *q, size_t index)
{
    uint64_t size = q->prompts[index].text ? q->prompts[index].text_size : 0;

    for (size_t i = 0; i < q->message_count; i++)
        size += strlen(q->messages[i].content);
    return size;
}

/* A token stands for at most so many bytes, or for what a normalizer made of up to three times as many (the
 * Kelvin sign becomes a K); four leaves room. */
bool api_may_fit(const struct api_request *q, uint32_t token_bytes_max, uint32_t context_max,
                 struct api_error *error)
{
    const uint64_t most = (uint64_t)token_bytes_max * 4 * context_max;
    char text[32];

    for (size_t i = 0; i < q->prompt_count && most > 0; i++)
        if (api_text_size(q, i) > most)
            return api_fail(error, 400, API_INVALID, "context_length_exceeded",
                            q->kind == API_CHAT ? "messages" : "prompt",
                            "%s: %llu bytes are more than the %u tokens that the context holds",
                            place(q, i, text), (unsigned long long)api_text_size(q, i),
                            context_max);
    return true;
}

/* The model's allocator frees what it made, so the ids are copied: they are the request's either way. */
static bool keep_ids(struct api_request *q, size_t index, const uint32_t *tokens, size_t count,
                     struct api_error *error)
{
    struct api_prompt *prompt = &q->prompts[index];
    char text[32];

    if (count == 0)
        return api_fail(error, 400, API_INVALID, "invalid_value", "prompt",
                        "%s: it has no token: give it at least one", place(q, index, text));
    prompt->ids = alloc_zeroed(q->alloc, count, sizeof(*prompt->ids));
    if (!prompt->ids)
        return api_no_memory(error);
    memcpy(prompt->ids, tokens, count * sizeof(*tokens));
    prompt->id_count = count;
    return true;
}

bool api_encode_one(const struct api_request *q, size_t index, const mc_model *model,
                    uint32_t **tokens_p, size_t *count_p, struct api_error *error)
{
    const struct api_prompt *prompt = &q->prompts[index];
    struct mc_error why = { 0 };
    mc_status status;

    if (q->kind == API_CHAT)
        status = encode_chat(q, model, tokens_p, count_p, &why);
    else
        status = mc_model_encode(model, prompt->text, prompt->text_size,
                                 q->bare ? MC_ENCODE_BARE : 0, tokens_p, count_p, &why);
    return status == MC_OK || fail_encode(q, index, &why, error);
}

bool api_encode(struct api_request *q, const mc_model *model, struct api_error *error)
{
    bool done = true;

    for (size_t i = 0; i < q->prompt_count && done; i++) {
        uint32_t *tokens = NULL;
        size_t count = 0;
        if (q->prompts[i].ids)
            continue;
        done = api_encode_one(q, i, model, &tokens, &count, error) &&
               keep_ids(q, i, tokens, count, error);
        mc_tokens_free(model, tokens);
    }
    return done;
}
