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

static void check(const struct api_request *q)
{
    const struct mc_sampling *s = &q->sampling;
    const int prompts = (q->text != NULL) + (q->ids != NULL) + (q->messages != NULL);

    if (prompts != 1 || (q->ids && q->id_count == 0) || (q->messages && q->message_count == 0))
        abort();
    for (size_t i = 0; i < q->id_count; i++)
        if (q->ids[i] >= 1000)
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
