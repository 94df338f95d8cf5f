/*
 * fuzz_completions.c - any bytes as the body of a completion (first byte even) or a chat: refused with a
 * status and a text, or every value is within what the rest relies on.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/api.h"
#include "os/sysalloc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_ids(const uint32_t *ids, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (ids[i] >= 1000)
            abort();
}

static void check_prompt(const struct api_prompt *p)
{
    if ((p->text != NULL) + (p->ids != NULL) != 1 || (p->ids && p->id_count == 0))
        abort();
    check_ids(p->ids, p->id_count);
}

/* It is found where it is, and not before. */
static void check_stop(const struct api_stops *stops, uint32_t index)
{
    const struct api_stop *stop = &stops->items[index];
    struct api_stops alone = { .items = { *stop }, .count = 1 };
    struct api_stop_state state = { 0 };

    if (stop->size == 0 || stop->size > API_STOP_BYTES_MAX)
        abort();
    for (uint32_t i = 0; i < stop->size; i++)
        if ((api_stop_push(&alone, &state, (unsigned char)stop->text[i]) != NULL) !=
            (i + 1 == stop->size))
            abort();
}

static void check(const struct api_request *q)
{
    const struct mc_sampling *s = &q->sampling;

    if (q->prompt_count == 0 || q->prompt_count > API_PROMPTS_MAX ||
        (q->message_count > 0) != (q->kind == API_CHAT) ||
        (q->kind == API_CHAT && q->prompt_count != 1))
        abort();
    for (size_t i = 0; i < q->prompt_count && q->kind == API_COMPLETION; i++)
        check_prompt(&q->prompts[i]);
    for (uint32_t i = 0; i < q->stops.count; i++)
        check_stop(&q->stops, i);
    check_ids(q->stop_tokens, q->stop_token_count);
    if (q->stop_token_count > API_STOP_TOKENS_MAX || q->salt_size > API_SALT_MAX ||
        (q->salt_size > 0) != (q->salt != NULL) || (q->continuous_usage && !q->include_usage))
        abort();
    for (size_t i = 0; i < q->message_count; i++)
        if (!q->messages[i].role || !q->messages[i].content)
            abort();
    if (!(s->temperature == 0 || (s->temperature >= 1e-4f && s->temperature <= 100)) ||
        !(s->top_p > 0 && s->top_p <= 1) || s->logprobs > MC_TOP_LOGPROBS_MAX)
        abort();
    if (q->max_tokens && q->min_tokens > q->max_tokens)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct api_defaults defaults = {
        .temperature = 1, .top_p = 1, .vocab_size = 1000, .model = "m"
    };
    struct api_request q;
    struct api_error e = { 0 };

    if (size == 0)
        return 0;
    if (api_read(data[0] % 2 ? API_CHAT : API_COMPLETION, (const char *)data + 1, size - 1,
                 &defaults, os_alloc(), &q, &e))
        check(&q);
    else if (e.status < 400 || e.status > 599 || e.text[0] == '\0' || !e.type)
        abort();
    api_request_fini(&q);
    return 0;
}
