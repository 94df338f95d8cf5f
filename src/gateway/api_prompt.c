/* api_prompt.c - prompts and messages, from JSON to tokens. */
#include "gateway/api_prompt.h"

#include <string.h>

#include "base/alloc.h"

static const char INVALID[] = "invalid_request_error";

static bool no_memory(struct api_error *error)
{
    return api_fail(error, 503, "service_unavailable_error", "out_of_memory", NULL,
                    "out of memory for the request");
}

/* ------------------------------------------------------------------------------------- prompts */

static bool read_ids(struct api_request *q, const json_t *list, uint32_t vocab_size,
                     struct api_error *error)
{
    const size_t count = json_array_size(list);

    q->ids = alloc_zeroed(q->alloc, count, sizeof(*q->ids));
    if (!q->ids)
        return no_memory(error);
    for (size_t i = 0; i < count; i++) {
        const json_t *item = json_array_get(list, i);
        if (!json_is_integer(item))
            return api_fail(error, 400, INVALID, "invalid_type", "prompt",
                            "prompt: item %zu is no whole number: a list of token ids has nothing "
                            "else",
                            i);
        const json_int_t id = json_integer_value(item);
        if (id < 0 || id >= (json_int_t)vocab_size)
            return api_fail(error, 400, INVALID, "out_of_range", "prompt",
                            "prompt: item %zu, %" JSON_INTEGER_FORMAT
                            ", is no token id of this model: they are below %u",
                            i, id, vocab_size);
        q->ids[i] = (uint32_t)id;
    }
    q->id_count = count;
    return true;
}

static bool read_text(struct api_request *q, const json_t *value)
{
    q->text = json_string_value(value);
    q->text_size = json_string_length(value);
    return true;
}

/* A string; a list of ids; or a list of one such, as clients that could send more do. */
static bool read_prompt(struct api_request *q, uint32_t vocab_size, struct api_error *error)
{
    const json_t *value = json_object_get(q->document, "prompt");
    const json_t *first = json_array_get(value, 0);

    if (json_is_string(first) || json_is_array(first)) {
        if (json_array_size(value) > 1)
            return api_fail(error, 400, INVALID, "unsupported", "prompt",
                            "prompt: %zu prompts; this release answers one in a request",
                            json_array_size(value));
        value = first;
    }
    if (json_is_string(value))
        return read_text(q, value);
    if (json_is_array(value) && json_array_size(value) > 0)
        return read_ids(q, value, vocab_size, error);
    if (!value || json_is_null(value))
        return api_fail(error, 400, INVALID, "missing", "prompt", "prompt: missing");
    return api_fail(error, 400, INVALID, "invalid_type", "prompt",
                    "prompt: expected a string or a list of token ids, not empty");
}

/* ------------------------------------------------------------------------------------ messages */

static bool fail_message(struct api_error *error, const char *code, size_t index, const char *what)
{
    return api_fail(error, 400, INVALID, code, "messages", "messages[%zu]: %s", index, what);
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
        return no_memory(error);
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
    const char *content;

    if (!json_is_object(message))
        return fail_message(error, "invalid_type", index, "expected an object");
    if (!json_is_string(role) || strlen(json_string_value(role)) != json_string_length(role))
        return fail_message(error, "invalid_type", index, "role: expected a string");
    const json_t *calls = json_object_get(message, "tool_calls");
    if (calls && !json_is_null(calls) && json_array_size(calls) > 0)
        return fail_message(error, "unsupported", index,
                            "tool_calls: not supported by this release");
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
        return api_fail(error, 400, INVALID, "missing", "messages", "messages: missing");
    if (!json_is_array(list) || count == 0)
        return api_fail(error, 400, INVALID, "invalid_type", "messages",
                        "messages: expected a list of messages, not empty");
    if (count > API_MESSAGES_MAX)
        return api_fail(error, 400, INVALID, "out_of_range", "messages",
                        "messages: %zu; at most %d are accepted", count, API_MESSAGES_MAX);
    q->messages = alloc_zeroed(q->alloc, count, sizeof(*q->messages));
    q->joined = alloc_zeroed(q->alloc, count, sizeof(*q->joined));
    if (!q->messages || !q->joined)
        return no_memory(error);
    for (size_t i = 0; i < count; i++)
        if (!read_message(q, json_array_get(list, i), i, error))
            return false;
    return true;
}

bool api_read_prompt(struct api_request *q, uint32_t vocab_size, struct api_error *error)
{
    return q->kind == API_CHAT ? read_messages(q, error) : read_prompt(q, vocab_size, error);
}

/* -------------------------------------------------------------------------------------- tokens */

/* Why the model would not make tokens of it: the client's mistake, or ours. */
static bool fail_encode(const struct api_request *q, const struct mc_error *why,
                        struct api_error *error)
{
    const char *param = q->kind == API_CHAT ? "messages" : "prompt";

    if (why->status == MC_E_NOMEM)
        return no_memory(error);
    return api_fail(error, 400, INVALID,
                    why->status == MC_E_UNSUPPORTED ? "unsupported" : "invalid_value", param,
                    "%s: %.300s", param, why->text);
}

static mc_status encode_chat(const struct api_request *q, const mc_model *model,
                             uint32_t **tokens_p, size_t *count_p, struct mc_error *why)
{
    char *text = NULL;
    size_t size = 0;

    mc_status status = mc_chat_render(model, q->messages, q->message_count, &text, &size, why);
    if (status == MC_OK)
        status = mc_model_encode(model, text, size, MC_ENCODE_BARE, tokens_p, count_p, why);
    mc_text_free(model, text);
    return status;
}

/* The model's allocator frees what it made, so the ids are copied: they are the request's either way. */
static bool keep_ids(struct api_request *q, const uint32_t *tokens, size_t count,
                     struct api_error *error)
{
    if (count == 0)
        return api_fail(error, 400, INVALID, "invalid_value", "prompt",
                        "prompt: it has no token: give it at least one");
    q->ids = alloc_zeroed(q->alloc, count, sizeof(*q->ids));
    if (!q->ids)
        return no_memory(error);
    memcpy(q->ids, tokens, count * sizeof(*tokens));
    q->id_count = count;
    return true;
}

bool api_encode(struct api_request *q, const mc_model *model, struct api_error *error)
{
    struct mc_error why = { 0 };
    uint32_t *tokens = NULL;
    size_t count = 0;
    mc_status status;

    if (q->ids)
        return true;
    if (q->kind == API_CHAT)
        status = encode_chat(q, model, &tokens, &count, &why);
    else
        status = mc_model_encode(model, q->text, q->text_size, q->bare ? MC_ENCODE_BARE : 0,
                                 &tokens, &count, &why);
    if (status != MC_OK)
        return fail_encode(q, &why, error);
    const bool kept = keep_ids(q, tokens, count, error);
    mc_tokens_free(model, tokens);
    return kept;
}
