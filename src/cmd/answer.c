/* answer.c - the two shapes of OpenAI's answers, text and chat. */
#include "cmd/answer.h"

#include <inttypes.h>
#include <string.h>

#include "base/utf8.h"
#include "gateway/answer_token.h"
#include "infer/normal.h"

/* JSON has no infinity, which is the logprob of a token that cannot come; vLLM writes the same. */
static const float LOGPROB_MIN = -9999;

static void add_logprob(struct buf *out, float logprob)
{
    buf_addf(out, "%.9g", (double)(logprob > LOGPROB_MIN ? logprob : LOGPROB_MIN));
}

static void add_token(const struct answer *a, uint32_t token, struct buf *out)
{
    const char *text;
    size_t size;

    a->texts->get(a->texts->context, token, false, &text, &size);
    answer_token_spell(token, text, size, out);
}

static size_t characters(const struct buf *text)
{
    size_t count = 0;

    for (size_t i = 0; i < text->size; i++)
        count += ((unsigned char)text->data[i] & 0xc0) != 0x80; /* each has one such byte */
    return count;
}

/* Where each token's text begins, in characters as Python counts them. Counted in what is shown: a
 * character that several tokens spell comes with the last, ill-formed bytes as U+FFFD. */
static void add_text_offsets(const struct answer *a, struct buf *out)
{
    struct buf kept = BUF_INIT(out->alloc), shown = BUF_INIT(out->alloc);
    const char *text;
    size_t size, offset = 0;

    buf_add_text(out, "],\"text_offset\":[");
    for (uint32_t i = 0; i < a->sample_count; i++) {
        buf_addf(out, "%s%zu", i ? "," : "", offset);
        a->texts->get(a->texts->context, a->samples[i].chosen.token, true, &text, &size);
        buf_add(&kept, text, size);
        if (kept.failed)
            break;
        const size_t ready = utf8_complete(kept.data, kept.size);
        buf_truncate(&shown, 0);
        text_repair(kept.data, ready, &shown);
        offset += characters(&shown);
        memmove(kept.data, kept.data + ready, kept.size - ready);
        buf_truncate(&kept, kept.size - ready);
    }
    buf_add_byte(out, ']');
    out->failed = out->failed || kept.failed || shown.failed;
    buf_fini(&kept);
    buf_fini(&shown);
}

static void add_top(const struct answer *a, struct mc_token_logprob top, struct buf *out)
{
    add_token(a, top.token, out);
    buf_add_byte(out, ':');
    add_logprob(out, top.logprob);
}

/* The chosen token is always among them, as one more where it is not one of the likeliest. */
static void add_tops(const struct answer *a, const struct mc_sample *sample, struct buf *out)
{
    bool has_chosen = false;

    buf_add_byte(out, '{');
    for (uint32_t k = 0; k < sample->top_count; k++) {
        buf_add_text(out, k ? "," : "");
        add_top(a, sample->top[k], out);
        has_chosen |= sample->top[k].token == sample->chosen.token;
    }
    if (!has_chosen) {
        buf_add_text(out, sample->top_count ? "," : "");
        add_top(a, sample->chosen, out);
    }
    buf_add_byte(out, '}');
}

static void add_text_logprobs(const struct answer *a, struct buf *out)
{
    buf_add_text(out, "{\"tokens\":[");
    for (uint32_t i = 0; i < a->sample_count; i++) {
        buf_add_text(out, i ? "," : "");
        add_token(a, a->samples[i].chosen.token, out);
    }
    buf_add_text(out, "],\"token_logprobs\":[");
    for (uint32_t i = 0; i < a->sample_count; i++) {
        buf_add_text(out, i ? "," : "");
        add_logprob(out, a->samples[i].chosen.logprob);
    }
    buf_add_text(out, "],\"top_logprobs\":[");
    for (uint32_t i = 0; i < a->sample_count; i++) {
        buf_add_text(out, i ? "," : "");
        add_tops(a, &a->samples[i], out);
    }
    add_text_offsets(a, out);
    buf_add_byte(out, '}');
}

static void add_chat_entry(const struct answer *a, struct mc_token_logprob entry, struct buf *out)
{
    const char *text;
    size_t size;

    buf_add_text(out, "\"token\":");
    add_token(a, entry.token, out);
    buf_add_text(out, ",\"logprob\":");
    add_logprob(out, entry.logprob);
    buf_add_text(out, ",\"bytes\":[");
    a->texts->get(a->texts->context, entry.token, false, &text, &size);
    for (size_t i = 0; i < size; i++)
        buf_addf(out, "%s%u", i ? "," : "", (unsigned char)text[i]);
    buf_add_byte(out, ']');
}

static void add_chat_logprobs(const struct answer *a, struct buf *out)
{
    buf_add_text(out, "{\"content\":[");
    for (uint32_t i = 0; i < a->sample_count; i++) {
        const struct mc_sample *sample = &a->samples[i];
        buf_add_text(out, i ? ",{" : "{");
        add_chat_entry(a, sample->chosen, out);
        buf_add_text(out, ",\"top_logprobs\":[");
        for (uint32_t k = 0; k < sample->top_count; k++) {
            buf_add_text(out, k ? ",{" : "{");
            add_chat_entry(a, sample->top[k], out);
            buf_add_byte(out, '}');
        }
        buf_add_text(out, "]}");
    }
    buf_add_text(out, "]}");
}

static void add_choice(const struct answer *a, struct buf *out)
{
    buf_add_text(out, "{\"index\":0,");
    buf_add_text(out, a->chat ? "\"message\":{\"role\":\"assistant\",\"content\":" : "\"text\":");
    buf_add_json(out, a->text, a->text_size);
    buf_add_text(out, a->chat ? "},\"logprobs\":" : ",\"logprobs\":");
    if (!a->with_logprobs)
        buf_add_text(out, "null");
    else if (a->chat)
        add_chat_logprobs(a, out);
    else
        add_text_logprobs(a, out);
    buf_addf(out, ",\"finish_reason\":\"%s\",\"tokens\":[", a->finish_reason);
    for (uint32_t i = 0; i < a->sample_count; i++)
        buf_addf(out, "%s%u", i ? "," : "", a->samples[i].chosen.token);
    buf_add_text(out, "]}");
}

void answer_write(const struct answer *a, struct buf *out)
{
    buf_addf(out, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%" PRIu64 ",\"model\":", a->id,
             a->chat ? "chat.completion" : "text_completion", a->created_s);
    buf_add_json(out, a->model, strlen(a->model));
    buf_add_text(out, ",\"choices\":[");
    add_choice(a, out);
    buf_addf(out, "],\"usage\":{\"prompt_tokens\":%u,\"completion_tokens\":%u,\"total_tokens\":%u}",
             a->prompt_count, a->sample_count, a->prompt_count + a->sample_count);
    if (a->timing) {
        buf_add_text(out, ",\"timing\":");
        timing_json(a->timing, out);
    }
    buf_add_text(out, "}\n");
}
