/*
 * answer.h - answers on their way to a client: samples in, OpenAI's JSON out, whole or in parts.
 *
 * A choice (struct api_answer) keeps text as it will be sent: the strings and lists that it is made of. A
 * whole answer collects them to its end; a stream empties them into a chunk whenever there is something to
 * show. So a streamed answer and a whole one are made by the same lines. What the choices of one request
 * share is its head.
 *
 * Life:    api_answer_init -> api_answer_add*, api_answer_finish -> api_answer_write_* -> api_answer_fini
 * Threads: one.
 * Memory:  from the allocator; bounded by the answer's length (and its logprobs).
 * Errors:  api_answer_add and api_answer_finish: MC_E_NOMEM, MC_E_RANGE (no such token). Writers: out->failed.
 *
 * Stops. A stop text ends the answer where it is first complete, with no sample counted behind the one that
 * completed it; text that could still become one is held back. Both are looked for from the min_tokens-th
 * sample on. `stopped` says that nothing more is taken: whoever makes samples is to be stopped.
 *
 * Floats are written with 9 significant digits, so that they read back bit for bit; the same as
 * `mooncake run --json`.
 */
#ifndef GATEWAY_ANSWER_H
#define GATEWAY_ANSWER_H

#include "gateway/api.h"
#include "wire/msg.h"

/** What the choices of an answer share. */
struct api_head {
    enum api_kind kind;
    bool with_usage;       /* of a stream: a last chunk has it */
    bool continuous_usage; /* each chunk of it has its choice's */
    struct buf text;       /* owned; the object as it begins, up to its choices */
};

/** stream: of chunks. The texts are copied. Returns MC_OK or MC_E_NOMEM. */
mc_status api_head_init(struct api_head *head, const struct mc_alloc *alloc, enum api_kind kind,
                        bool stream, const char *id, const char *model_name, uint64_t created_s);

/** Safe on `{ 0 }`. */
void api_head_fini(struct api_head *head);

/** What is borrowed stays until api_answer_fini(). */
struct api_answer_options {
    const struct mc_alloc *alloc;
    const mc_model *model;
    enum api_kind kind;
    uint32_t index; /* of the choice */
    bool with_logprobs, with_ids, keep_special;
    const struct api_stops *stops; /* borrowed; NULL: none */
    const uint32_t
        *stop_tokens; /* borrowed; [stop_token_count]; whoever makes samples stops at them */
    size_t stop_token_count;
    bool watch_tokens; /* it does not: stop at them here */
    bool show_stop;    /* the stop text, or the stop token's, is shown */
    uint32_t min_tokens;
};

struct api_answer {
    struct api_answer_options o;
    mc_text_stream
        *text_stream;       /* owned; NULL: the model has no tokenizer, the answer is ids alone */
    struct buf text;        /* can be shown */
    struct buf held;        /* may become a stop text */
    struct buf ids;         /* "1,2,3" */
    struct buf logprobs[4]; /* completions: tokens, token_logprobs, top_logprobs, text_offset;
                                  * chats: [0] alone, content */
    uint64_t characters;    /* of the text, held back or not, as Python counts them */
    uint32_t pending;       /* samples since the last chunk */
    uint32_t samples;       /* in all */
    struct api_stop_state stop_state;
    bool stopped;                /* here: no sample is taken any more */
    const struct api_stop *stop; /* the text that ended it */
    const uint32_t *stop_token;  /* the id that did */
    const char *finish;          /* "stop", "length"; NULL: it goes on */
    bool begun;                  /* the first chunk is out */
};

struct api_answer_usage {
    uint64_t prompt_tokens, completion_tokens, cached_tokens;
};

/** Returns MC_OK or MC_E_NOMEM. */
mc_status api_answer_init(struct api_answer *answer, const struct api_answer_options *options);

/** Safe on `{ 0 }`. */
void api_answer_fini(struct api_answer *answer);

/** One sample. ends: it is an end-of-text or stop token, whose text is not shown unless that was asked for. */
mc_status api_answer_add(struct api_answer *answer, const struct wire_sample *sample, bool ends);

/** No sample follows: what was held back comes out. stop: it ended by itself, not by its length. */
mc_status api_answer_finish(struct api_answer *answer, bool stop);

/** Forget all samples: the answer starts anew. Only before the first chunk. */
mc_status api_answer_restart(struct api_answer *answer);

/** Whether a chunk would show something. */
bool api_answer_has_news(const struct api_answer *answer);

/** All of it as one object: choices in the order given. */
void api_answer_write_whole(const struct api_head *head, const struct api_answer *const answers[],
                            size_t count, const struct api_answer_usage *usage, struct buf *out);

/** What came since the last chunk, as one event of a stream (the first chunk of a chat: role, then text). A
 * finished choice says so. usage: of this choice so far. */
void api_answer_write_chunk(const struct api_head *head, struct api_answer *answer,
                            const struct api_answer_usage *usage, struct buf *out);

/** The end of a stream: usage if it was asked for, and [DONE]. */
void api_answer_write_done(const struct api_head *head, const struct api_answer_usage *usage,
                           struct buf *out);

/** `{"error": ...}`; in_stream: as an event of a stream. */
void api_answer_write_error(const struct api_error *error, bool in_stream, struct buf *out);

#endif /* GATEWAY_ANSWER_H */
