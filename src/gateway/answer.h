/*
 * answer.h - an answer on its way to the client: samples in, OpenAI's JSON out, whole or in parts.
 *
 * What is kept is text as it will be sent: the strings and lists that a choice is made of. A whole answer
 * collects them to its end; a stream empties them into a chunk whenever there is something to show. So a
 * streamed answer and a whole one are made by the same lines.
 *
 * Life:    answer_init -> answer_add*, answer_finish -> answer_write_* -> answer_fini
 * Threads: one.
 * Memory:  from the allocator; bounded by the answer's length (and its logprobs).
 * Errors:  answer_add and answer_finish: MC_E_NOMEM, MC_E_RANGE (no such token). Writers: out->failed.
 *
 * Floats are written with 9 significant digits, so that they read back bit for bit; the same as
 * `mooncake run --json`.
 */
#ifndef GATEWAY_ANSWER_H
#define GATEWAY_ANSWER_H

#include "gateway/api.h"
#include "wire/msg.h"

/** What all parts of an answer say. Texts are borrowed until answer_fini(). */
struct answer_options {
    const struct mc_alloc *alloc;
    const mc_model *model;
    enum api_kind kind;
    const char *id, *model_name;
    uint64_t created_s;
    bool with_logprobs, with_ids, keep_special;
    bool with_usage; /* of a stream: a last chunk has it */
};

struct answer {
    struct answer_options o;
    mc_text_stream
        *text_stream;       /* owned; NULL: the model has no tokenizer, the answer is ids alone */
    struct buf text;        /* can be shown */
    struct buf ids;         /* "1,2,3" */
    struct buf logprobs[4]; /* completions: tokens, token_logprobs, top_logprobs, text_offset;
                                  * chats: [0] alone, content */
    uint64_t characters;    /* of the text, as Python counts them */
    uint32_t pending;       /* samples since the last chunk */
    uint32_t samples;       /* in all */
    bool begun;             /* the first chunk is out */
};

struct answer_usage {
    uint64_t prompt_tokens, cached_tokens;
};

/** Returns MC_OK or MC_E_NOMEM. */
mc_status answer_init(struct answer *answer, const struct answer_options *options);

/** Safe on `{ 0 }`. */
void answer_fini(struct answer *answer);

/** One sample. ends: it is an end-of-text token, whose text is not shown. */
mc_status answer_add(struct answer *answer, const struct wire_sample *sample, bool ends);

/** No sample follows: what the text held back comes out. */
mc_status answer_finish(struct answer *answer);

/** Forget all samples: the answer starts anew. Only before the first chunk. */
mc_status answer_restart(struct answer *answer);

/** Whether a chunk would show something. */
bool answer_has_news(const struct answer *answer);

/** All of it as one object. finish: "stop", "length". */
void answer_write_whole(const struct answer *answer, const char *finish,
                        const struct answer_usage *usage, struct buf *out);

/** What came since the last chunk, as one event of a stream (the first chunk of a chat: role, then text).
 * finish: NULL while it goes on. */
void answer_write_chunk(struct answer *answer, const char *finish, struct buf *out);

/** The end of a stream: usage if it was asked for, and [DONE]. */
void answer_write_done(const struct answer *answer, const struct answer_usage *usage,
                       struct buf *out);

/** `{"error": ...}`; in_stream: as an event of a stream. */
void answer_write_error(const struct api_error *error, bool in_stream, struct buf *out);

#endif /* GATEWAY_ANSWER_H */
