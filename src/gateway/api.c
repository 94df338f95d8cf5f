/* api.c - a request's JSON: its frame, its sampling, and what is refused by name. */
#include "gateway/api.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "gateway/api_prompt.h"

static const char INVALID[] = "invalid_request_error";

bool api_fail(struct api_error *error, unsigned status, const char *type, const char *code,
              const char *param, const char *format, ...)
{
    va_list args;

    *error = (struct api_error){ .status = status, .type = type, .code = code };
    snprintf(error->param, sizeof(error->param), "%s", param ? param : "");
    va_start(args, format);
    vsnprintf(error->text, sizeof(error->text), format, args);
    va_end(args);
    return false;
}

/* ------------------------------------------------------------------------------ values of fields */

static const char *kind_of(const json_t *value)
{
    static const char *const kinds[] = {
        [JSON_OBJECT] = "an object", [JSON_ARRAY] = "an array", [JSON_STRING] = "a string",
        [JSON_INTEGER] = "a number", [JSON_REAL] = "a number",  [JSON_TRUE] = "true",
        [JSON_FALSE] = "false",      [JSON_NULL] = "null",
    };

    return kinds[json_typeof(value)];
}

/* One field after another; the first failure stays. */
struct reader {
    const json_t *object;
    struct api_error *error;
    bool failed;
};

static json_t *get(const struct reader *r, const char *name)
{
    json_t *value = r->failed ? NULL : json_object_get(r->object, name);

    return json_is_null(value) ? NULL : value;
}

static void expect(struct reader *r, const char *name, const char *what, const json_t *found)
{
    r->failed = true;
    api_fail(r->error, 400, INVALID, "invalid_type", name, "%s: expected %s, found %s", name, what,
             kind_of(found));
}

static void read_bool(struct reader *r, const char *name, bool *out)
{
    const json_t *value = get(r, name);

    if (value && !json_is_boolean(value))
        expect(r, name, "true or false", value);
    else if (value)
        *out = json_is_true(value);
}

static void read_count(struct reader *r, const char *name, uint32_t min, uint32_t max,
                       uint32_t *out)
{
    const json_t *value = get(r, name);

    if (!value)
        return;
    if (!json_is_integer(value)) {
        expect(r, name, "a whole number", value);
        return;
    }
    const json_int_t number = json_integer_value(value);
    if (number < min || number > max) {
        r->failed = true;
        api_fail(r->error, 400, INVALID, "out_of_range", name,
                 "%s: %" JSON_INTEGER_FORMAT " is not within %u to %u", name, number, min, max);
        return;
    }
    *out = (uint32_t)number;
}

static void read_real(struct reader *r, const char *name, double min, double max, float *out)
{
    const json_t *value = get(r, name);

    if (!value)
        return;
    if (!json_is_number(value)) {
        expect(r, name, "a number", value);
        return;
    }
    const double number = json_number_value(value);
    if (!(number >= min && number <= max)) {
        r->failed = true;
        api_fail(r->error, 400, INVALID, "out_of_range", name, "%s: %.9g is not within %g to %g",
                 name, number, min, max);
        return;
    }
    *out = (float)number;
}

/* --------------------------------------------------------------------- what is refused by name */

/* A value of each that asks for nothing. */
enum harmless { ABSENT, FALSE_ONLY, ONE, ZERO, EMPTY, TEXT_NONE, TYPE_TEXT };

static const struct refused {
    const char *name;
    enum harmless harmless;
} refused[] = {
    { "n", ONE },
    { "best_of", ONE },
    { "stop", EMPTY },
    { "stop_token_ids", EMPTY },
    { "include_stop_str_in_output", FALSE_ONLY },
    { "tools", EMPTY },
    { "tool_choice", TEXT_NONE },
    { "functions", EMPTY },
    { "function_call", TEXT_NONE },
    { "response_format", TYPE_TEXT },
    { "structured_outputs", ABSENT },
    { "guided_json", ABSENT },
    { "guided_regex", ABSENT },
    { "guided_choice", ABSENT },
    { "guided_grammar", ABSENT },
    { "logit_bias", EMPTY },
    { "echo", FALSE_ONLY },
    { "suffix", EMPTY },
    { "presence_penalty", ZERO },
    { "frequency_penalty", ZERO },
    { "repetition_penalty", ONE },
    { "min_p", ZERO },
    { "use_beam_search", FALSE_ONLY },
    { "prompt_logprobs", ABSENT },
    { "audio", ABSENT },
    { "prediction", ABSENT },
    { "web_search_options", ABSENT },
    { "add_generation_prompt", ABSENT },
    { "continue_final_message", FALSE_ONLY },
    { "chat_template", ABSENT },
    { "chat_template_kwargs", EMPTY },
    { "cache_salt", EMPTY },
};

static bool is_type_text(const json_t *value)
{
    const char *type = json_string_value(json_object_get(value, "type"));

    return type && strcmp(type, "text") == 0;
}

static bool is_empty(const json_t *value)
{
    return (json_is_array(value) && json_array_size(value) == 0) ||
           (json_is_object(value) && json_object_size(value) == 0) ||
           (json_is_string(value) && json_string_length(value) == 0);
}

static bool asks_for_nothing(const json_t *value, enum harmless harmless)
{
    const char *text = json_string_value(value);

    switch (harmless) {
    case ABSENT:
        return false;
    case FALSE_ONLY:
        return json_is_false(value);
    case ONE:
        return json_is_number(value) && json_number_value(value) == 1;
    case ZERO:
        return json_is_number(value) && json_number_value(value) == 0;
    case EMPTY:
        return is_empty(value);
    case TEXT_NONE:
        return text && strcmp(text, "none") == 0;
    case TYPE_TEXT:
        return is_type_text(value);
    }
    return false;
}

static void refuse_by_name(struct reader *r)
{
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        const json_t *value = get(r, refused[i].name);
        if (!value || asks_for_nothing(value, refused[i].harmless))
            continue;
        r->failed = true;
        api_fail(r->error, 400, INVALID, "unsupported", refused[i].name,
                 "%s: not supported by this release", refused[i].name);
        return;
    }
}

/* ------------------------------------------------------------------------------ known fields */

static void read_model(struct reader *r, const struct api_defaults *defaults)
{
    const json_t *value = get(r, "model");

    if (r->failed)
        return;
    if (!value) {
        r->failed = true;
        api_fail(r->error, 400, INVALID, "missing", "model", "model: missing; \"%.200s\" is served",
                 defaults->model);
    } else if (!json_is_string(value))
        expect(r, "model", "a string", value);
    else if (strcmp(json_string_value(value), defaults->model) != 0) {
        r->failed = true;
        api_fail(r->error, 404, "not_found_error", "model_not_found", "model",
                 "model: \"%.100s\" is not served here; \"%.200s\" is", json_string_value(value),
                 defaults->model);
    }
}

static void read_stream(struct reader *r, struct api_request *q)
{
    read_bool(r, "stream", &q->stream);
    const json_t *options = get(r, "stream_options");
    if (!options)
        return;
    if (!json_is_object(options)) {
        expect(r, "stream_options", "an object", options);
        return;
    }
    struct reader inner = { options, r->error, false };
    read_bool(&inner, "include_usage", &q->include_usage);
    r->failed = inner.failed;
    if (!r->failed && !q->stream) {
        r->failed = true;
        api_fail(r->error, 400, INVALID, "contradiction", "stream_options",
                 "stream_options: only with stream: true");
    }
}

/* vLLM says -1 where we say 0: no limit. */
static void read_top_k(struct reader *r, struct mc_sampling *s)
{
    const json_t *value = get(r, "top_k");

    if (json_is_integer(value) && json_integer_value(value) == -1)
        s->top_k = 0;
    else
        read_count(r, "top_k", 0, UINT32_MAX, &s->top_k);
}

static void read_seed(struct reader *r, struct api_request *q)
{
    const json_t *value = get(r, "seed");

    if (!value)
        return;
    if (!json_is_integer(value)) {
        expect(r, "seed", "a whole number", value);
        return;
    }
    q->sampling.seed = (uint64_t)json_integer_value(value);
    q->has_seed = true;
}

static void read_sampling(struct reader *r, const struct api_defaults *defaults,
                          struct api_request *q)
{
    struct mc_sampling *s = &q->sampling;

    s->temperature = defaults->temperature;
    s->top_p = defaults->top_p;
    s->top_k = defaults->top_k;
    read_real(r, "temperature", 0, 100, &s->temperature);
    read_real(r, "top_p", 0, 1, &s->top_p);
    read_top_k(r, s);
    read_seed(r, q);
    if (s->temperature > 0 && s->temperature < 1e-4f) /* what nobody can tell from greedy */
        s->temperature = 0;
    if (!r->failed && get(r, "top_p") && s->top_p <= 0) {
        r->failed = true;
        api_fail(r->error, 400, INVALID, "out_of_range", "top_p", "top_p: must be above 0");
    }
}

static void read_logprobs(struct reader *r, struct api_request *q)
{
    if (q->kind == API_COMPLETION) {
        q->with_logprobs = get(r, "logprobs") != NULL;
        read_count(r, "logprobs", 0, MC_TOP_LOGPROBS_MAX, &q->sampling.logprobs);
        return;
    }
    read_bool(r, "logprobs", &q->with_logprobs);
    const bool tops = get(r, "top_logprobs") != NULL;
    read_count(r, "top_logprobs", 0, MC_TOP_LOGPROBS_MAX, &q->sampling.logprobs);
    if (!r->failed && tops && !q->with_logprobs) {
        r->failed = true;
        api_fail(r->error, 400, INVALID, "contradiction", "top_logprobs",
                 "top_logprobs: only with logprobs: true");
    }
}

static void read_lengths(struct reader *r, struct api_request *q)
{
    q->max_tokens = q->kind == API_COMPLETION ? API_COMPLETION_TOKENS : 0;
    read_count(r, "max_tokens", 1, UINT32_MAX, &q->max_tokens);
    read_count(r, "max_completion_tokens", 1, UINT32_MAX, &q->max_tokens);
    read_count(r, "min_tokens", 0, UINT32_MAX, &q->min_tokens);
    read_bool(r, "ignore_eos", &q->ignore_eos);
    if (!r->failed && q->max_tokens != 0 && q->min_tokens > q->max_tokens) {
        r->failed = true;
        api_fail(r->error, 400, INVALID, "contradiction", "min_tokens",
                 "min_tokens: %u is more than max_tokens, %u", q->min_tokens, q->max_tokens);
    }
}

static void read_ours(struct reader *r, struct api_request *q)
{
    bool skip_special = true, add_special = true;

    read_bool(r, "return_token_ids", &q->return_token_ids);
    read_bool(r, "skip_special_tokens", &skip_special);
    if (q->kind == API_COMPLETION)
        read_bool(r, "add_special_tokens", &add_special);
    q->keep_special = !skip_special;
    q->bare = !add_special;
}

/* ---------------------------------------------------------------------------------- document */

/* Before it is parsed, so that a parser's stack is no matter of what a client sends. Brackets in strings do
 * not count; whether the rest is JSON is the parser's question. */
static bool is_deep(const char *body, size_t size)
{
    unsigned depth = 0;
    bool quoted = false;

    for (size_t i = 0; i < size; i++) {
        const char c = body[i];
        if (quoted && c == '\\')
            i++;
        else if (c == '"')
            quoted = !quoted;
        else if (!quoted && (c == '[' || c == '{') && ++depth > API_DEPTH_MAX)
            return true;
        else if (!quoted && (c == ']' || c == '}') && depth > 0)
            depth--;
    }
    return false;
}

static bool parse(const char *body, size_t size, json_t **document_p, struct api_error *error)
{
    json_error_t reason;

    if (is_deep(body, size))
        return api_fail(error, 400, INVALID, "invalid_json", NULL,
                        "the body: arrays and objects more than %d deep", API_DEPTH_MAX);
    json_t *document = json_loadb(body, size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &reason);
    if (!document && json_error_code(&reason) == json_error_out_of_memory)
        return api_fail(error, 503, "service_unavailable_error", "out_of_memory", NULL,
                        "out of memory for the request");
    if (!document)
        return api_fail(error, 400, INVALID, "invalid_json", NULL,
                        "the body: line %d, column %d: not valid JSON: %.160s", reason.line,
                        reason.column, reason.text);
    if (!json_is_object(document)) {
        api_fail(error, 400, INVALID, "invalid_json", NULL,
                 "the body: expected an object, found %s", kind_of(document));
        json_decref(document);
        return false;
    }
    *document_p = document;
    return true;
}

bool api_read(enum api_kind kind, const char *body, size_t size,
              const struct api_defaults *defaults, const struct mc_alloc *alloc,
              struct api_request *q, struct api_error *error)
{
    *q = (struct api_request){ .kind = kind, .alloc = alloc };
    if (!parse(body, size, &q->document, error))
        return false;
    struct reader r = { q->document, error, false };
    read_model(&r, defaults);
    refuse_by_name(&r);
    read_stream(&r, q);
    read_sampling(&r, defaults, q);
    read_logprobs(&r, q);
    read_lengths(&r, q);
    read_ours(&r, q);
    return !r.failed && api_read_prompt(q, defaults->vocab_size, error);
}

void api_request_settle(struct api_request *q)
{
    for (size_t i = 0; i < q->joined_count; i++)
        alloc_free(q->alloc, q->joined[i]);
    alloc_free(q->alloc, q->joined);
    alloc_free(q->alloc, q->messages);
    json_decref(q->document);
    q->joined = NULL;
    q->joined_count = 0;
    q->messages = NULL;
    q->message_count = 0;
    q->document = NULL;
    q->text = NULL;
    q->text_size = 0;
}

void api_request_fini(struct api_request *q)
{
    if (!q->alloc)
        return;
    api_request_settle(q);
    alloc_free(q->alloc, q->ids);
    *q = (struct api_request){ 0 };
}
