/*
 * api_text.h - text to tokens and back for clients: /tokenize and /detokenize, in vLLM's shapes.
 *
 * Threads: one. Memory: the body's document during the call, and what is written to `out`.
 * Errors:  false: *error_p says why not, as in api.h; out may have been begun.
 */
#ifndef GATEWAY_API_TEXT_H
#define GATEWAY_API_TEXT_H

#include "gateway/api.h"

/** At a time, because nobody else is served meanwhile: so many, or what a context is if that is more. */
enum {
    API_TOKENIZE_MAX = 65536,    /* bytes of text; or 8 for each token of the context */
    API_DETOKENIZE_MAX = 65536,  /* tokens */
    API_TEXT_BODY_MAX = 1 << 20, /* bytes of a body, escapes included; or the same 8 */
};

/** What the two endpoints know of the gateway. */
struct api_text_options {
    const struct api_defaults *defaults;
    const mc_model *model;
    const struct mc_alloc *alloc;
    uint32_t context_max;
};

/** {"prompt"} or {"messages"} to {"count", "max_model_len", "tokens", "token_strs"}. */
bool api_tokenize(const struct api_text_options *options, const char *body, size_t size,
                  struct buf *out, struct api_error *error_p);

/** {"tokens"} to {"prompt"}. */
bool api_detokenize(const struct api_text_options *options, const char *body, size_t size,
                    struct buf *out, struct api_error *error_p);

#endif /* GATEWAY_API_TEXT_H */
