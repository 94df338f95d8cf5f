/*
 * request.h - one generation: its tokens, how the next is chosen, when it ends, the text it shows.
 *
 * Knows nothing of engines and pages beyond holding them for the batcher (infer/batcher.h), so that
 * the same code ends a request in `mooncake run`, in the worker and in tests with a fake engine.
 *
 * Life:    request_open -> batcher_add, events... , the event with a finish -> request_close
 * Threads: one.
 * Memory:  tokens and page table are taken at open. Texts grow with what a stop string holds back.
 * Errors:  open refuses what cannot be served, with both numbers. Later failures end the request with
 *          REQUEST_ERROR and a text.
 */
#ifndef INFER_REQUEST_H
#define INFER_REQUEST_H

#include <mooncake/infer.h>

#include "base/buf.h"

enum { STOPS_MAX = 16, STOP_BYTES_MAX = 1024, REQUEST_EOS_MAX = 64, REQUEST_BANNED_MAX = 1024 };

enum request_finish {
    REQUEST_RUNNING,
    REQUEST_STOP,      /* an end-of-text token or a stop string */
    REQUEST_LENGTH,    /* max_tokens, or the context is full */
    REQUEST_CANCELLED, /* batcher_cancel() */
    REQUEST_ERROR,
};

/** "stop", "length", "cancelled", "error"; "" while running. Static. */
const char *request_finish_name(enum request_finish finish);

/** What turns tokens into text. All entries as in mc_text_stream_push and _finish. */
struct decoder {
    mc_status (*push)(void *context, uint32_t token, const char **text_p, size_t *size_p);
    mc_status (*finish)(void *context, const char **text_p, size_t *size_p);
    void *context; /* borrowed */
};

static inline mc_status decoder_stream_push(void *context, uint32_t token, const char **text_p,
                                            size_t *size_p)
{
    return mc_text_stream_push((mc_text_stream *)context, token, text_p, size_p);
}

static inline mc_status decoder_stream_finish(void *context, const char **text_p, size_t *size_p)
{
    return mc_text_stream_finish((mc_text_stream *)context, text_p, size_p);
}

/** The decoder of a model's text stream, which must outlive it. */
static inline struct decoder decoder_of_stream(mc_text_stream *stream)
{
    return (struct decoder){ decoder_stream_push, decoder_stream_finish, stream };
}

struct request;

struct request_event {
    const struct mc_sample *sample; /* the token just made; NULL: none (cancelled, failed) */
    const char *text;           /* [text_size] bytes that can be shown now: whole characters that
                                     * can no longer become part of a stop string */
    size_t text_size;           /* may be 0 */
    enum request_finish finish; /* not REQUEST_RUNNING: this was the last event */
    const char *why;            /* with REQUEST_ERROR: what went wrong; else NULL */
};

/** Everything in `event` is borrowed during the call. In the last event the request already has no
 * pages and is the caller's again: it may be closed here. */
typedef void request_output(void *user, struct request *request, const struct request_event *event);

struct request_options {
    const uint32_t *prompt; /* [prompt_count], copied; at least 1 */
    size_t prompt_count;
    uint32_t context_max; /* tokens, prompt and answer together */
    uint32_t max_tokens;  /* of the answer; 0: as many as the context holds */
    uint32_t min_tokens;  /* neither end-of-text nor a stop string ends it before */
    const uint32_t *eos;  /* [eos_count <= REQUEST_EOS_MAX], copied */
    uint32_t eos_count;
    bool ignore_eos;        /* end-of-text is never chosen */
    const uint32_t *banned; /* [banned_count <= REQUEST_BANNED_MAX], copied; never chosen */
    uint32_t banned_count;
    const char *const
        *stops;          /* [stop_count <= STOPS_MAX], copied; each 1 .. STOP_BYTES_MAX bytes */
    uint32_t stop_count; /* needs a decoder */
    struct mc_sampling sampling;   /* copied; leave `banned` out of it: the request makes its own */
    const struct decoder *decoder; /* copied; NULL: tokens only, no text */
    request_output *output;        /* set */
    void *user;                    /* passed to output */
    const struct mc_alloc *alloc;  /* borrowed until close */
};

struct stop_text {
    char *text; /* owned */
    size_t size;
};

/** Read by all; written by request.c, the last part by batcher.c. */
struct request {
    const struct mc_alloc *alloc;
    uint32_t *tokens; /* owned; [token_max], prompt and answer; the first token_count are set */
    uint32_t prompt_count; /* 1 .. token_max - 1 */
    uint32_t token_count;
    uint32_t token_max;
    enum request_finish finish;

    struct mc_sampling sampling;
    uint32_t eos[REQUEST_EOS_MAX], eos_count;
    uint32_t min_tokens;
    bool ignore_eos;
    uint32_t *banned; /* owned; what is always banned, then eos; NULL: nothing is always banned */
    uint32_t banned_count; /* of the first */
    struct stop_text stops[STOPS_MAX];
    uint32_t stop_count;
    struct decoder decoder;
    bool has_decoder;
    struct buf held;         /* text not shown yet: it may be the start of a stop string */
    struct buf shown;        /* text of the event in the making */
    struct mc_sample sample; /* of the event in the making */
    bool has_sample;
    char why[200]; /* "" unless finish is REQUEST_ERROR */
    request_output *output;
    void *user;

    void **pages; /* owned; [pages of token_max], the first page_count are held */
    uint32_t page_count;
    uint32_t computed; /* tokens whose KV is in the pages */
    uint64_t arrival;  /* order of batcher_add; 0: not in a batcher */
    bool cancelled;
    bool
        pinned; /* set before batcher_add by who brought pages for all of its tokens and lets others
                  * read them by this table: never preempted */
};

/**
 * Check and copy everything.
 *
 * Returns MC_OK, MC_E_ARG (empty prompt or stop string, stop strings without a decoder), MC_E_RANGE (the
 * prompt fills the context, a sampling value out of bounds) or MC_E_NOMEM.
 */
mc_status request_open(const struct request_options *options, struct request **request_p,
                       struct mc_error *error);

/** How the next token is to be chosen; valid until the next request_take(). */
const struct mc_sampling *request_sampling(struct request *request);

/** Add the token that was sampled: text, stop strings and limits are looked at, request->finish is
 * set, and request_emit() is due. */
void request_take(struct request *request, const struct mc_sample *sample);

/** End a running request without a token: REQUEST_CANCELLED, or REQUEST_ERROR with `why`. What text was
 * held back is shown. request_emit() is due. */
void request_end(struct request *request, enum request_finish finish, const char *why);

/** Call output with what take or end made. The request may be gone afterwards. */
void request_emit(struct request *request);

/** Must not be in a batcher. NULL is allowed. */
void request_close(struct request *request);

/** Tokens of the answer so far. */
static inline uint32_t request_made(const struct request *request)
{
    return request->token_count - request->prompt_count;
}

#endif /* INFER_REQUEST_H */
