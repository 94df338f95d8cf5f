/* api.c - a request's JSON: how its answer is made, shown and ended. */
#include "gateway/api.h"

#include <string.h>

#include "base/alloc.h"
#include "gateway/api_prompt.h"
#include "gateway/api_reader.h"

/* ------------------------------------------------------------------------------ known fields */

static void read_stream(struct api_reader *r, struct api_request *q)
{
    api_read_bool(r, "stream", &q->stream);
    const json_t *options = api_get(r, "stream_options");
    if (!options)
        return;
    if (!json_is_object(options)) {
        api_expect(r, "stream_options", "an object", options);
        return;
    }
    struct api_reader inner = { options, r->error, false };
    api_read_bool(&inner, "include_usage", &q->include_usage);
    api_read_bool(&inner, "continuous_usage_stats", &q->continuous_usage);
    q->continuous_usage &= q->include_usage;
    r->failed = inner.failed;
    if (!r->failed && !q->stream)
        api_refuse(r, "contradiction", "stream_options", "only with stream: true");
}

/* vLLM says -1 where we say 0: no limit. */
static void read_top_k(struct api_reader *r, struct mc_sampling *s)
{
    const json_t *value = api_get(r, "top_k");

    if (json_is_integer(value) && json_integer_value(value) == -1)
        s->top_k = 0;
    else
        api_read_count(r, "top_k", 0, UINT32_MAX, &s->top_k);
}

static void read_seed(struct api_reader *r, struct api_request *q)
{
    const json_t *value = api_get(r, "seed");

    if (!value)
        return;
    if (!json_is_integer(value)) {
        api_expect(r, "seed", "a whole number", value);
        return;
    }
    q->sampling.seed = (uint64_t)json_integer_value(value);
    q->has_seed = true;
}

static void read_sampling(struct api_reader *r, const struct api_defaults *defaults,
                          struct api_request *q)
{
    struct mc_sampling *s = &q->sampling;

    s->temperature = defaults->temperature;
    s->top_p = defaults->top_p;
    s->top_k = defaults->top_k;
    api_read_real(r, "temperature", 0, 100, &s->temperature);
    api_read_real(r, "top_p", 0, 1, &s->top_p);
    read_top_k(r, s);
    read_seed(r, q);
    if (s->temperature > 0 && s->temperature < 1e-4f) /* what nobody can tell from greedy */
        s->temperature = 0;
    if (api_get(r, "top_p") && s->top_p <= 0)
        api_refuse(r, "out_of_range", "top_p", "must be above 0");
}

static void read_logprobs(struct api_reader *r, struct api_request *q)
{
    if (q->kind == API_COMPLETION) {
        q->with_logprobs = api_get(r, "logprobs") != NULL;
        api_read_count(r, "logprobs", 0, MC_TOP_LOGPROBS_MAX, &q->sampling.logprobs);
        return;
    }
    api_read_bool(r, "logprobs", &q->with_logprobs);
    const bool tops = api_get(r, "top_logprobs") != NULL;
    api_read_count(r, "top_logprobs", 0, MC_TOP_LOGPROBS_MAX, &q->sampling.logprobs);
    if (tops && !q->with_logprobs)
        api_refuse(r, "contradiction", "top_logprobs", "only with logprobs: true");
}

static void read_lengths(struct api_reader *r, struct api_request *q)
{
    q->max_tokens = q->kind == API_COMPLETION ? API_COMPLETION_TOKENS : 0;
    api_read_count(r, "max_tokens", 1, UINT32_MAX, &q->max_tokens);
    api_read_count(r, "max_completion_tokens", 1, UINT32_MAX, &q->max_tokens);
    api_read_count(r, "min_tokens", 0, UINT32_MAX, &q->min_tokens);
    api_read_bool(r, "ignore_eos", &q->ignore_eos);
    if (q->max_tokens != 0 && q->min_tokens > q->max_tokens)
        api_refuse(r, "contradiction", "min_tokens", "%u is more than max_tokens, %u",
                   q->min_tokens, q->max_tokens);
}

static void read_ours(struct api_reader *r, struct api_request *q)
{
    bool skip_special = true,
         add_special = q->kind == API_COMPLETION; /* a template writes its own */

    api_read_bool(r, "return_token_ids", &q->return_token_ids);
    api_read_bool(r, "skip_special_tokens", &skip_special);
    api_read_bool(r, "add_special_tokens", &add_special);
    q->keep_special = !skip_special;
    q->bare = !add_special;
}

/* ------------------------------------------------------------------------------ stops and salt */

static void read_stop_text(struct api_reader *r, struct api_request *q, const json_t *value)
{
    const size_t size = json_string_length(value);

    if (!json_is_string(value))
        api_expect(r, "stop", "a string, or a list of strings", value);
    else if (size == 0)
        api_refuse(r, "invalid_value", "stop", "an empty text would stop every answer");
    else if (size > API_STOP_BYTES_MAX)
        api_refuse(r, "out_of_range", "stop", "a text of %zu bytes; at most %d are accepted", size,
                   API_STOP_BYTES_MAX);
    if (!r->failed && !api_stops_add(&q->stops, json_string_value(value), size, q->alloc))
        api_reader_no_memory(r);
}

static void read_stops(struct api_reader *r, struct api_request *q)
{
    const json_t *value = api_get(r, "stop");
    const size_t count = json_array_size(value);

    if (value && !json_is_array(value))
        read_stop_text(r, q, value);
    else if (count > API_STOPS_MAX)
        api_refuse(r, "out_of_range", "stop", "%zu texts; at most %d are accepted", count,
                   API_STOPS_MAX);
    for (size_t i = 0; i < count && !r->failed; i++)
        read_stop_text(r, q, json_array_get(value, i));
    api_read_bool(r, "include_stop_str_in_output", &q->show_stop);
}

static void read_stop_tokens(struct api_reader *r, uint32_t vocab_size, struct api_request *q)
{
    const json_t *list = api_get(r, "stop_token_ids");
    const size_t count = json_array_size(list);

    if (list && !json_is_array(list))
        api_expect(r, "stop_token_ids", "a list of token ids", list);
    else if (count > API_STOP_TOKENS_MAX)
        api_refuse(r, "out_of_range", "stop_token_ids", "%zu ids; at most %d are accepted", count,
                   API_STOP_TOKENS_MAX);
    api_read_id_list(r, "stop_token_ids", list, vocab_size, q->alloc, &q->stop_tokens,
                     &q->stop_token_count);
}

static void read_salt(struct api_reader *r, struct api_request *q)
{
    const json_t *value = api_get(r, "cache_salt");
    const size_t size = json_string_length(value);

    if (value && !json_is_string(value))
        api_expect(r, "cache_salt", "a string", value);
    else if (size > API_SALT_MAX)
        api_refuse(r, "out_of_range", "cache_salt", "%zu bytes; at most %d are accepted", size,
                   API_SALT_MAX);
    if (r->failed || size == 0)
        return;
    q->salt = alloc_text(q->alloc, json_string_value(value), size);
    q->salt_size = size;
    if (!q->salt)
        api_reader_no_memory(r);
}

/* ----------------------------------------------------------------------------------- all of it */

bool api_read(enum api_kind kind, const char *body, size_t size,
              const struct api_defaults *defaults, const struct mc_alloc *alloc,
              struct api_request *q, struct api_error *error)
{
    *q = (struct api_request){ .kind = kind, .alloc = alloc };
    if (!api_parse(body, size, &q->document, error))
        return false;
    struct api_reader r = { q->document, error, false };
    api_read_model(&r, defaults);
    api_refuse_by_name(&r);
    read_stream(&r, q);
    read_sampling(&r, defaults, q);
    read_logprobs(&r, q);
    read_lengths(&r, q);
    read_ours(&r, q);
    read_stops(&r, q);
    read_stop_tokens(&r, defaults->vocab_size, q);
    read_salt(&r, q);
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
    for (size_t i = 0; i < q->prompt_count; i++)
        q->prompts[i].text = NULL;
}

void api_request_fini(struct api_request *q)
{
    if (!q->alloc)
        return;
    api_request_settle(q);
    for (size_t i = 0; i < q->prompt_count; i++)
        alloc_free(q->alloc, q->prompts[i].ids);
    alloc_free(q->alloc, q->prompts);
    api_stops_fini(&q->stops, q->alloc);
    alloc_free(q->alloc, q->stop_tokens);
    alloc_free(q->alloc, q->salt);
    *q = (struct api_request){ 0 };
}
