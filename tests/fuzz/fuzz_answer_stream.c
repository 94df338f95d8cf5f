/* fuzz_answer_stream.c - what a server streams, of any bytes: whole and in pieces it is the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/answer_part.h"
#include "cmd/sse.h"
#include "os/sysalloc.h"

struct outcome {
    uint64_t events, sum;
};

static void fold(struct outcome *o, uint64_t value)
{
    o->sum = (o->sum ^ value) * 0x9e3779b97f4a7c15u;
}

static bool hear(void *user, const char *data, size_t size)
{
    struct outcome *o = user;
    struct answer_part part;
    char *copy = malloc(size ? size : 1); /* exact size: reading past it is caught */

    if (!copy)
        abort();
    memcpy(copy, data, size);
    const bool json = answer_part_read(copy, size, &part);
    free(copy);
    if (!memchr(part.code, '\0', sizeof(part.code)) ||
        !memchr(part.message, '\0', sizeof(part.message)) || (part.cached && !json && part.done))
        abort();
    o->events++;
    fold(o, (uint64_t)json | (uint64_t)part.done << 1 | (uint64_t)part.token << 2 |
                (uint64_t)part.error << 3 | (uint64_t)part.usage << 4);
    fold(o, part.prompt_tokens ^ part.completion_tokens << 20 ^ part.cached_tokens << 40);
    fold(o, strlen(part.code) << 16 | strlen(part.message));
    return true;
}

static struct outcome read_pieces(const uint8_t *data, size_t size, size_t piece)
{
    struct outcome o = { 0 };
    struct sse sse;

    sse_init(&sse, os_alloc());
    for (size_t at = 0; at < size; at += piece) {
        const size_t next = size - at < piece ? size - at : piece;
        char *fed = malloc(next);
        if (!fed)
            abort();
        memcpy(fed, data + at, next);
        if (sse_feed(&sse, fed, next, hear, &o) != MC_OK && size < SSE_EVENT_MAX)
            abort();
        free(fed);
    }
    sse_fini(&sse);
    return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct outcome whole = read_pieces(data, size, size ? size : 1);

    for (size_t piece = 1; piece < 30; piece += 7) {
        const struct outcome cut = read_pieces(data, size, piece);
        if (size < SSE_EVENT_MAX && (cut.events != whole.events || cut.sum != whole.sum))
            abort();
    }
    return 0;
}
