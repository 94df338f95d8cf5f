/* request.c - a generation's own rules: what may come next, what ends it, what can be shown. */
#include "infer/request.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "kv/layout.h"

static const float TEMPERATURE_MIN = 1e-4f;

const char *request_finish_name(enum request_finish finish)
{
    static const char *const names[] = { "", "stop", "length", "cancelled", "error" };

    return names[finish];
}

/* -------------------------------------------------------------------------------- open, close */

static mc_status check_sampling(const struct mc_sampling *s, struct mc_error *error)
{
    if (!(s->temperature == 0 || (s->temperature >= TEMPERATURE_MIN && isfinite(s->temperature))))
        return error_set(error, MC_E_RANGE, "temperature: %g is neither 0 nor at least %g",
                         (double)s->temperature, (double)TEMPERATURE_MIN);
    if (!(s->top_p >= 0 && s->top_p <= 1))
        return error_set(error, MC_E_RANGE, "top_p: %g is not in 0 to 1", (double)s->top_p);
    if (s->logprobs > MC_TOP_LOGPROBS_MAX)
        return error_set(error, MC_E_RANGE, "logprobs: %u is more than %d", s->logprobs,
                         MC_TOP_LOGPROBS_MAX);
    return MC_OK;
}

static mc_status check_stops(const struct request_options *o, struct mc_error *error)
{
    if (o->stop_count > STOPS_MAX)
        return error_set(error, MC_E_RANGE, "stop: %u texts; at most %d are accepted",
                         o->stop_count, STOPS_MAX);
    if (o->stop_count > 0 && !o->decoder)
        return error_set(error, MC_E_ARG, "stop: needs text, and this model has no tokenizer");
    for (uint32_t i = 0; i < o->stop_count; i++) {
        const size_t size = strlen(o->stops[i]);
        if (size == 0)
            return error_set(error, MC_E_ARG, "stop: an empty text would stop every answer");
        if (size > STOP_BYTES_MAX)
            return error_set(error, MC_E_RANGE, "stop: %zu bytes; at most %d are accepted", size,
                             STOP_BYTES_MAX);
    }
    return MC_OK;
}

static mc_status check(const struct request_options *o, struct mc_error *error)
{
    if (o->prompt_count == 0)
        return error_set(error, MC_E_ARG, "the prompt is empty: give it at least one token");
    if (o->prompt_count >= o->context_max)
        return error_set(error, MC_E_RANGE,
                         "the prompt has %zu tokens; the context holds %u, answer included",
                         o->prompt_count, o->context_max);
    if (o->eos_count > REQUEST_EOS_MAX)
        return error_set(error, MC_E_RANGE, "eos: %u tokens; at most %d are accepted", o->eos_count,
                         REQUEST_EOS_MAX);
    if (o->max_tokens != 0 && o->min_tokens > o->max_tokens)
        return error_set(error, MC_E_RANGE, "min_tokens: %u is more than max_tokens, %u",
                         o->min_tokens, o->max_tokens);
    if (o->banned_count > REQUEST_BANNED_MAX)
        return error_set(error, MC_E_RANGE, "banned: %u tokens; at most %d are accepted",
                         o->banned_count, REQUEST_BANNED_MAX);
    const mc_status status = check_sampling(&o->sampling, error);
    return status == MC_OK ? check_stops(o, error) : status;
}

static bool copy_all(struct request *r, const struct request_options *o)
{
    r->tokens = alloc_zeroed(r->alloc, r->token_max, sizeof(*r->tokens));
    r->pages = alloc_zeroed(r->alloc, kv_pages(r->token_max), sizeof(*r->pages));
    if (!r->tokens || !r->pages)
        return false;
    memcpy(r->tokens, o->prompt, o->prompt_count * sizeof(*r->tokens));
    if (o->banned_count > 0) {
        r->banned =
            alloc_zeroed(r->alloc, (size_t)o->banned_count + r->eos_count, sizeof(*r->banned));
        if (!r->banned)
            return false;
        memcpy(r->banned, o->banned, o->banned_count * sizeof(*r->banned));
        if (r->eos_count)
            memcpy(r->banned + o->banned_count, r->eos, r->eos_count * sizeof(*r->banned));
        r->banned_count = o->banned_count;
    }
    for (uint32_t i = 0; i < o->stop_count; i++) {
        const size_t size = strlen(o->stops[i]);
        r->stops[i] = (struct stop_text){ alloc_text(r->alloc, o->stops[i], size), size };
        if (!r->stops[i].text)
            return false;
        r->stop_count++;
    }
    return true;
}

mc_status request_open(const struct request_options *o, struct request **request_p,
                       struct mc_error *error)
{
    assert(o->output && o->alloc && !o->sampling.banned);
    const mc_status status = check(o, error);
    if (status != MC_OK)
        return status;

    struct request *r = alloc_zeroed(o->alloc, 1, sizeof(*r));
    if (!r)
        return error_set(error, MC_E_NOMEM, "out of memory for a request");
    const uint32_t prompt_count = (uint32_t)o->prompt_count, room = o->context_max - prompt_count;
    *r = (struct request){
        .alloc = o->alloc,
        .prompt_count = prompt_count,
        .token_count = prompt_count,
        .token_max =
            prompt_count + (o->max_tokens != 0 && o->max_tokens < room ? o->max_tokens : room),
        .sampling = o->sampling,
        .eos_count = o->eos_count,
        .min_tokens = o->min_tokens,
        .ignore_eos = o->ignore_eos,
        .has_decoder = o->decoder != NULL,
        .held = BUF_INIT(o->alloc),
        .shown = BUF_INIT(o->alloc),
        .output = o->output,
        .user = o->user,
    };
    if (o->decoder)
        r->decoder = *o->decoder;
    if (o->eos_count)
        memcpy(r->eos, o->eos, o->eos_count * sizeof(*r->eos));
    if (!copy_all(r, o)) {
        const uint32_t token_max = r->token_max;
        request_close(r);
        return error_set(error, MC_E_NOMEM, "out of memory for a request of %u tokens", token_max);
    }
    *request_p = r;
    return MC_OK;
}

void request_close(struct request *r)
{
    if (!r)
        return;
    assert(r->page_count == 0 && r->arrival == 0);
    const struct mc_alloc *alloc = r->alloc;
    for (uint32_t i = 0; i < r->stop_count; i++)
        alloc_free(alloc, r->stops[i].text);
    buf_fini(&r->held);
    buf_fini(&r->shown);
    alloc_free(alloc, r->banned);
    alloc_free(alloc, r->pages);
    alloc_free(alloc, r->tokens);
    alloc_free(alloc, r);
}

/* ------------------------------------------------------------------------------- stop strings */

/*
 * Where in the held text a stop string begins that ends behind `from`. The one that ends first counts,
 * the longest of those that end there: so it is found at the same place however the text was cut into
 * tokens.
 */
static bool find_stop(const struct request *r, size_t from, size_t *begin_p)
{
    for (size_t end = from + 1; end <= r->held.size; end++) {
        size_t longest = 0;
        for (uint32_t i = 0; i < r->stop_count; i++) {
            const struct stop_text *stop = &r->stops[i];
            if (stop->size <= end && stop->size > longest &&
                memcmp(r->held.data + end - stop->size, stop->text, stop->size) == 0)
                longest = stop->size;
        }
        if (longest) {
            *begin_p = end - longest;
            return true;
        }
    }
    return false;
}

/* Bytes at the end of the held text that later text may complete to a stop string. */
static size_t count_hopeful(const struct request *r)
{
    size_t most = 0;

    for (uint32_t i = 0; i < r->stop_count; i++) {
        const struct stop_text *stop = &r->stops[i];
        size_t n = stop->size - 1 < r->held.size ? stop->size - 1 : r->held.size;
        while (n > most && memcmp(r->held.data + r->held.size - n, stop->text, n) != 0)
            n--;
        most = n > most ? n : most;
    }
    return most;
}

/* The first `size` bytes of the held text can be shown. */
static void show(struct request *r, size_t size)
{
    if (size == 0)
        return;
    buf_add(&r->shown, r->held.data, size);
    memmove(r->held.data, r->held.data + size, r->held.size - size);
    buf_truncate(&r->held, r->held.size - size);
}

/* True: a stop string is there, what precedes it is shown and the rest is dropped. */
static bool add_text(struct request *r, const char *text, size_t size)
{
    const size_t from = r->held.size;
    size_t begin;

    buf_add(&r->held, text, size);
    if (r->held.failed)
        return false;
    if (request_made(r) >= r->min_tokens && find_stop(r, from, &begin)) {
        show(r, begin);
        buf_truncate(&r->held, 0);
        return true;
    }
    show(r, r->held.size - count_hopeful(r));
    return false;
}

/* --------------------------------------------------------------------------------------- steps */

static bool is_eos(const struct request *r, uint32_t token)
{
    for (uint32_t i = 0; i < r->eos_count; i++)
        if (r->eos[i] == token)
            return true;
    return false;
}

const struct mc_sampling *request_sampling(struct request *r)
{
    const bool must_go_on = r->ignore_eos || request_made(r) < r->min_tokens;

    if (r->banned) {
        r->sampling.banned = r->banned;
        r->sampling.banned_count = r->banned_count + (must_go_on ? r->eos_count : 0);
    } else {
        r->sampling.banned = must_go_on ? r->eos : NULL;
        r->sampling.banned_count = must_go_on ? r->eos_count : 0;
    }
    return &r->sampling;
}

static void fail(struct request *r, const char *why)
{
    r->finish = REQUEST_ERROR;
    snprintf(r->why, sizeof(r->why), "%s", why);
}

/* The end of the text: what the decoder and the stop strings held back comes out. */
static void flush(struct request *r)
{
    const char *text;
    size_t size;

    if (!r->has_decoder)
        return;
    const mc_status status = r->decoder.finish(r->decoder.context, &text, &size);
    if (status != MC_OK)
        fail(r, mc_status_text(status));
    else if (add_text(r, text, size) && r->finish == REQUEST_LENGTH)
        r->finish = REQUEST_STOP;
    show(r, r->held.size);
}

static void check_memory(struct request *r)
{
    if (!r->held.failed && !r->shown.failed)
        return;
    fail(r, "out of memory for the text");
    buf_fini(&r->held);
    buf_fini(&r->shown);
}

static void take_text(struct request *r, uint32_t token)
{
    const char *text;
    size_t size;

    const mc_status status = r->decoder.push(r->decoder.context, token, &text, &size);
    if (status != MC_OK)
        fail(r, mc_status_text(status));
    else if (add_text(r, text, size))
        r->finish = REQUEST_STOP;
}

void request_take(struct request *r, const struct mc_sample *sample)
{
    const uint32_t token = sample->chosen.token;
    bool stopped_in_text = false;

    assert(r->finish == REQUEST_RUNNING && r->token_count < r->token_max);
    r->tokens[r->token_count++] = token;
    r->sample = *sample;
    r->has_sample = true;
    buf_truncate(&r->shown, 0);
    if (is_eos(r, token))
        r->finish = REQUEST_STOP; /* its text is not part of the answer */
    else if (r->has_decoder) {
        take_text(r, token);
        stopped_in_text = r->finish != REQUEST_RUNNING;
    }
    if (r->finish == REQUEST_RUNNING && r->token_count == r->token_max)
        r->finish = REQUEST_LENGTH;
    if (r->finish != REQUEST_RUNNING && !stopped_in_text)
        flush(r);
    check_memory(r);
}

void request_end(struct request *r, enum request_finish finish, const char *why)
{
    assert(r->finish == REQUEST_RUNNING && finish != REQUEST_RUNNING);
    r->finish = finish;
    r->has_sample = false;
    buf_truncate(&r->shown, 0);
    flush(r);
    check_memory(r);
    if (finish == REQUEST_ERROR)
        fail(r, why);
}

void request_emit(struct request *r)
{
    const struct request_event event = {
        .sample = r->has_sample ? &r->sample : NULL,
        .text = r->shown.size ? r->shown.data : "",
        .text_size = r->shown.size,
        .finish = r->finish,
        .why = r->finish == REQUEST_ERROR ? r->why : NULL,
    };

    r->output(r->user, r, &event);
}
