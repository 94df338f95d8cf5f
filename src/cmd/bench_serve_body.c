/* bench_serve_body.c - tokens of a prompt become digits or words. */
#include "cmd/bench_serve_body.h"

#include <string.h>

/* Words that tokenizers of English have whole, with the blank before them. */
static const char words[64][9] = {
    " the", " of",    " and",   " to",    " in",   " is",   " you",  " that",  " it",   " he",
    " was", " for",   " on",    " are",   " as",   " with", " his",  " they",  " I",    " at",
    " be",  " this",  " have",  " from",  " or",   " one",  " had",  " by",    " word", " but",
    " not", " what",  " all",   " were",  " we",   " when", " your", " can",   " said", " there",
    " use", " an",    " each",  " which", " she",  " do",   " how",  " their", " if",   " will",
    " up",  " other", " about", " out",   " many", " then", " them", " these", " so",   " some",
    " her", " would", " make",  " like",
};

enum { PIECE = 512 }; /* characters that are gathered before they go to the buffer */

/** A few characters on their way to the buffer. */
struct pen {
    struct buf *out;
    size_t size;
    char piece[PIECE];
};

static void flush(struct pen *pen)
{
    buf_add(pen->out, pen->piece, pen->size);
    pen->size = 0;
}

static void write_number(struct pen *pen, uint32_t number)
{
    char digits[10];
    size_t count = 0;

    do {
        digits[count++] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    while (count > 0)
        pen->piece[pen->size++] = digits[--count];
}

static void write_word(struct pen *pen, const char *word)
{
    const size_t size = strlen(word);

    memcpy(pen->piece + pen->size, word, size);
    pen->size += size;
}

/* Hot. */
static void write_tokens(const struct bench_body *b, const struct scaled *q, struct buf *out)
{
    const uint64_t range = b->token_high - b->token_low;
    struct pen pen = { .out = out };

    for (uint32_t i = 0; i < q->run_count; i++)
        for (uint32_t k = 0; k < q->runs[i].tokens; k++) {
            const uint64_t bits = scale_token(b->seed, q->runs[i].id, k);
            if (pen.size > PIECE - 16)
                flush(&pen);
            if (b->text) {
                write_word(&pen, words[bits >> 58]);
                continue;
            }
            write_number(&pen, b->token_low + (uint32_t)(((bits >> 32) * range) >> 32));
            pen.piece[pen.size++] = ',';
        }
    flush(&pen);
    if (!b->text && !out->failed)
        buf_truncate(out, out->size - 1); /* the last comma; a prompt has at least one token */
}

void bench_body_add(const struct bench_body *b, const struct scaled *q, struct buf *out)
{
    buf_add_text(out, "{\"model\":");
    buf_add_json(out, b->model, strlen(b->model));
    if (b->chat)
        buf_add_text(out, ",\"messages\":[{\"role\":\"user\",\"content\":\"");
    else
        buf_add_text(out, b->text ? ",\"prompt\":\"" : ",\"prompt\":[");
    write_tokens(b, q, out);
    buf_add_text(out, b->chat ? "\"}]" : b->text ? "\"" : "]");
    buf_addf(out,
             ",\"max_tokens\":%u%s,\"temperature\":0,\"stream\":true,"
             "\"stream_options\":{\"include_usage\":true}}",
             q->output_tokens, b->ignore_eos ? ",\"ignore_eos\":true" : "");
}
