/* answer_sample.c - samples become the strings and lists of a choice, up to what stops it. */
#include <inttypes.h>
#include <string.h>

#include "gateway/answer.h"
#include "gateway/answer_token.h"

/* JSON has no infinity, which is the logprob of a token that cannot come; vLLM writes the same. */
static const float LOGPROB_MIN = -9999;

/* The lists of a completion's logprobs. */
enum { LIST_TOKENS, LIST_LOGPROBS, LIST_TOPS, LIST_OFFSETS, LISTS };

/* -------------------------------------------------------------------------------------- life */

static mc_status open_text(struct api_answer *a)
{
    const mc_status status =
        mc_text_stream_open(a->o.model, a->o.keep_special, &a->text_stream, NULL);

    return status == MC_E_UNSUPPORTED ? MC_OK : status;
}

mc_status api_answer_init(struct api_answer *a, const struct api_answer_options *o)
{
    *a = (struct api_answer){
        .o = *o, .text = BUF_INIT(o->alloc), .held = BUF_INIT(o->alloc), .ids = BUF_INIT(o->alloc)
    };
    for (int i = 0; i < LISTS; i++)
        a->logprobs[i] = BUF_INIT(o->alloc);
    return open_text(a);
}

void api_answer_fini(struct api_answer *a)
{
    if (!a->o.alloc)
        return;
    mc_text_stream_close(a->text_stream);
    buf_fini(&a->text);
    buf_fini(&a->held);
    buf_fini(&a->ids);
    for (int i = 0; i < LISTS; i++)
        buf_fini(&a->logprobs[i]);
    *a = (struct api_answer){ 0 };
}

mc_status api_answer_restart(struct api_answer *a)
{
    const struct api_answer_options o = a->o;

    api_answer_fini(a);
    return api_answer_init(a, &o);
}

/* ---------------------------------------------------------------------------------- logprobs */

static void add_logprob(struct buf *out, float logprob)
{
    buf_addf(out, "%.9g", (double)(logprob > LOGPROB_MIN ? logprob : LOGPROB_MIN));
}

static void add_chat_entry(const struct api_answer *a, uint32_t token, float logprob,
                           struct buf *out)
{
    const char *text;
    size_t size;

    buf_add_text(out, "\"token\":");
    answer_token_add(a->o.model, token, out);
    buf_add_text(out, ",\"logprob\":");
    add_logprob(out, logprob);
    buf_add_text(out, ",\"bytes\":[");
    answer_token_bytes(a->o.model, token, &text, &size);
    for (size_t i = 0; i < size; i++)
        buf_addf(out, "%s%u", i ? "," : "", (unsigned char)text[i]);
    buf_add_byte(out, ']');
}

static void add_chat_logprobs(struct api_answer *a, const struct wire_sample *sample)
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

static void add_top(const struct api_answer *a, uint32_t token, float logprob, struct buf *out)
{
    answer_token_add(a->o.model, token, out);
    buf_add_byte(out, ':');
    add_logprob(out, logprob);
}

/* The chosen token is always among its alternatives, as one more where it is not one of the likeliest. */
static void add_tops(const struct api_answer *a, const struct wire_sample *sample, struct buf *out)
{
    struct wire_list tops = sample->top;
    struct wire_token_logprob top;
    bool has_chosen = false;

    buf_add_byte(out, '{');
    for (unsigned k = 0; wire_token_logprob_next(&tops, &top); k++) {
        buf_add_text(out, k ? "," : "");
        add_top(a, top.token, top.logprob, out);
        has_chosen |= top.token == sample->token;
    }
    if (!has_chosen) {
        buf_add_text(out, sample->top.count ? "," : "");
        add_top(a, sample->token, sample->logprob, out);
    }
    buf_add_byte(out, '}');
}

static void add_text_logprobs(struct api_answer *a, const struct wire_sample *sample)
{
    for (int i = 0; a->pending && i < LISTS; i++)
        buf_add_byte(&a->logprobs[i], ',');
    answer_token_add(a->o.model, sample->token, &a->logprobs[LIST_TOKENS]);
    add_logprob(&a->logprobs[LIST_LOGPROBS], sample->logprob);
    add_tops(a, sample, &a->logprobs[LIST_TOPS]);
    buf_addf(&a->logprobs[LIST_OFFSETS], "%" PRIu64, a->characters);
}

/* -------------------------------------------------------------------------------------- text */

/* The first `size` bytes that are held back can be shown. */
static void release(struct api_answer *a, size_t size)
{
    if (size == 0)
        return;
    buf_add(&a->text, a->held.data, size);
    memmove(a->held.data, a->held.data + size, a->held.size - size);
    buf_truncate(&a->held, a->held.size - size);
}

/* A stop text ends at byte `end` of what is held back. */
static void stop_at(struct api_answer *a, const struct api_stop *stop, size_t end)
{
    a->stopped = true;
    a->stop = stop;
    release(a, a->o.show_stop ? end : end - stop->size);
    buf_truncate(&a->held, 0);
}

/* At most as much is held back as the longest stop text has bytes, whatever comes. */
static void watch_text(struct api_answer *a, const char *text, size_t size)
{
    const size_t from = a->held.size;

    buf_add(&a->held, text, size);
    if (a->held.failed)
        return;
    for (size_t i = from; i < a->held.size; i++) {
        const struct api_stop *stop =
            api_stop_push(a->o.stops, &a->stop_state, (unsigned char)a->held.data[i]);
        if (stop && a->samples >= a->o.min_tokens) {
            stop_at(a, stop, i + 1);
            return;
        }
    }
    release(a, a->held.size - api_stop_hopeful(a->o.stops, &a->stop_state));
}

static void take_text(struct api_answer *a, const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++)
        a->characters += ((unsigned char)text[i] & 0xc0) != 0x80; /* each has one such byte */
    if (a->o.stops && a->o.stops->count > 0)
        watch_text(a, text, size);
    else
        buf_add(&a->text, text, size);
}

static mc_status check(const struct api_answer *a)
{
    bool failed = a->text.failed || a->held.failed || a->ids.failed;

    for (int i = 0; i < LISTS; i++)
        failed = failed || a->logprobs[i].failed;
    return failed ? MC_E_NOMEM : MC_OK;
}

/* ----------------------------------------------------------------------------------- samples */

static const uint32_t *find_stop_token(const struct api_answer *a, uint32_t token)
{
    for (size_t i = 0; i < a->o.stop_token_count; i++)
        if (a->o.stop_tokens[i] == token)
            return &a->o.stop_tokens[i];
    return NULL;
}

/* Whether the sample ends the answer as a token, here or where it was made. */
static bool is_last(struct api_answer *a, uint32_t token, bool ends)
{
    if (!ends && !(a->o.watch_tokens && a->samples >= a->o.min_tokens))
        return false;
    a->stop_token = find_stop_token(a, token);
    a->stopped = !ends && a->stop_token;
    return ends || a->stopped;
}

static void add_lists(struct api_answer *a, const struct wire_sample *sample)
{
    if (a->o.with_logprobs && a->o.kind == API_CHAT)
        add_chat_logprobs(a, sample);
    else if (a->o.with_logprobs)
        add_text_logprobs(a, sample);
    if (a->o.with_ids)
        buf_addf(&a->ids, "%s%u", a->pending ? "," : "", sample->token);
    a->pending++;
    a->samples++;
}

mc_status api_answer_add(struct api_answer *a, const struct wire_sample *sample, bool ends)
{
    const char *text = "";
    size_t size = 0;

    if (a->stopped)
        return MC_OK;
    add_lists(a, sample);
    const bool last = is_last(a, sample->token, ends);
    if (a->text_stream && (!last || (a->stop_token && a->o.show_stop))) {
        const mc_status status = mc_text_stream_push(a->text_stream, sample->token, &text, &size);
        if (status != MC_OK)
            return status;
    }
    take_text(a, text, size);
    return check(a);
}

mc_status api_answer_finish(struct api_answer *a, bool stop)
{
    const char *text = "";
    size_t size = 0;

    if (a->text_stream && !a->stop) {
        const mc_status status = mc_text_stream_finish(a->text_stream, &text, &size);
        if (status != MC_OK)
            return status;
        take_text(a, text, size);
    }
    if (!a->held.failed)
        release(a, a->held.size);
    a->finish = stop || a->stopped ? "stop" : "length";
    return check(a);
}

bool api_answer_has_news(const struct api_answer *a)
{
    return a->text.size > 0 || (a->pending > 0 && (a->o.with_logprobs || a->o.with_ids));
}
