/* fuzz_trace.c - a trace of any bytes, whole and in pieces: the same requests, the same error. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "os/sysalloc.h"
#include "sim/trace.h"

struct outcome {
    uint64_t count, sum;
    mc_status end;
    struct mc_error error;
};

static uint64_t fold(uint64_t sum, uint64_t value)
{
    return (sum ^ value) * 0x9e3779b97f4a7c15u;
}

static void note(struct outcome *o, const struct trace_request *q)
{
    if (q->input_tokens < 1 || q->input_tokens > TRACE_TOKENS_MAX ||
        q->output_tokens > TRACE_TOKENS_MAX || q->hash_count != (q->input_tokens - 1) / 512 + 1)
        abort();
    o->count++;
    o->sum = fold(fold(fold(o->sum, q->arrival_ns), q->input_tokens), q->output_tokens);
    for (uint32_t i = 0; i < q->hash_count; i++)
        o->sum = fold(o->sum, q->hash_ids[i]);
}

static struct outcome read_pieces(const uint8_t *data, size_t size, size_t piece)
{
    const struct trace_options options = { .alloc = os_alloc(), .name = "fuzz", .line_max = 4096 };
    struct outcome o = { 0 };
    trace_reader *reader;
    bool finished = false;
    size_t at = 0;

    if (trace_open(&options, &reader, NULL) != MC_OK)
        abort();
    for (;;) {
        struct trace_request q;
        o.end = trace_next(reader, &q, &o.error);
        if (o.end == MC_OK) {
            note(&o, &q);
            continue;
        }
        if (o.end != MC_PENDING || finished)
            break;
        if (at < size) {
            const size_t next = size - at < piece ? size - at : piece;
            /* A copy of its own, gone when the next is fed: reading beyond it is caught. */
            static uint8_t *fed;
            free(fed);
            fed = malloc(next);
            memcpy(fed, data + at, next);
            trace_feed(reader, fed, next);
            at += next;
        } else {
            trace_finish(reader);
            finished = true;
        }
    }
    trace_close(reader);
    if (o.end == MC_PENDING || o.end == MC_E_NOMEM || (o.end == MC_E_NOT_FOUND && o.count == 0))
        abort();
    return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct outcome whole = read_pieces(data, size, size ? size : 1);

    for (size_t piece = 1; piece < 40; piece += 13) {
        const struct outcome cut = read_pieces(data, size, piece);
        if (cut.count != whole.count || cut.sum != whole.sum || cut.end != whole.end ||
            strcmp(cut.error.text, whole.error.text) != 0)
            abort();
    }
    return 0;
}
