/*
 * answer_part.h - what one event of a streamed answer, or an error's body, tells a client that counts.
 *
 * As OpenAI's API has them. Pure; nothing is kept.
 */
#ifndef CMD_ANSWER_PART_H
#define CMD_ANSWER_PART_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct answer_part {
    bool done;     /* it was "[DONE]" */
    bool token;    /* it brings a token: text, or a piece too short to be shown */
    bool finished; /* a choice has a finish_reason */
    bool error;    /* it is one; code and message say which */
    bool usage;    /* the next three are told */
    uint64_t prompt_tokens, completion_tokens, cached_tokens;
    bool cached;       /* cached_tokens is told, too */
    char code[64];     /* of an error: its code, or else its type; "" */
    char message[200]; /* of an error; "" */
};

/** Returns false where the bytes are not JSON, or not an object; `part_p` is written in every case. */
bool answer_part_read(const char *data, size_t size, struct answer_part *part_p);

#endif /* CMD_ANSWER_PART_H */
