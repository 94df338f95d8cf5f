/*
 * answer.h - a finished generation as one line of JSON, in the shape of an OpenAI completion.
 *
 * Pure: it is told everything. Beside OpenAI's fields, choices[0].tokens has the ids of the answer and
 * "timing" what --timing measured.
 */
#ifndef CMD_ANSWER_H
#define CMD_ANSWER_H

#include <mooncake/infer.h>

#include "base/buf.h"
#include "cmd/timing.h"

/** The bytes of one token: as the answer shows it (shown; special ones may be empty there), or as it is
 * spelt. Borrowed until the next call. */
struct token_texts {
    void (*get)(void *context, uint32_t token, bool shown, const char **text_p, size_t *size_p);
    void *context; /* borrowed */
};

struct answer {
    bool chat; /* chat.completion, else text_completion */
    const char *id, *model;
    uint64_t created_s; /* since 1970 */
    const char *text;   /* [text_size] */
    size_t text_size;
    const char *finish_reason; /* "stop", "length", "cancelled" */
    uint32_t prompt_count;
    const struct mc_sample *samples; /* [sample_count], one for each token of the answer */
    uint32_t sample_count;
    bool with_logprobs;
    const struct token_texts *texts; /* needed with_logprobs */
    const struct timing *timing;     /* NULL: none */
};

/** One line, with its newline. */
void answer_write(const struct answer *answer, struct buf *out);

#endif /* CMD_ANSWER_H */
