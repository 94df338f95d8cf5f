/*
 * bench_serve_body.h - the JSON of a request: its prompt as token ids, or as words.
 *
 * Pure: the same seed and runs give the same bytes. Hot: a prompt of thousands of tokens is written without
 * formatting functions.
 */
#ifndef CMD_BENCH_SERVE_BODY_H
#define CMD_BENCH_SERVE_BODY_H

#include <stdbool.h>

#include "base/buf.h"
#include "sim/scale.h"

/** What all requests of a load have in common. */
struct bench_body {
    const char *model;              /* borrowed */
    bool chat, text;                /* chat implies text */
    bool ignore_eos;                /* "ignore_eos": true */
    uint64_t seed;                  /* of the prompts */
    uint32_t token_low, token_high; /* ids are of [low, high) */
};

/** Append the body of one request, streamed with usage. Look at out->failed. */
void bench_body_add(const struct bench_body *body, const struct scaled *request, struct buf *out);

#endif /* CMD_BENCH_SERVE_BODY_H */
