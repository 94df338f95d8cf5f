/* answer_token.h - one token as JSON. */
#ifndef GATEWAY_ANSWER_TOKEN_H
#define GATEWAY_ANSWER_TOKEN_H

#include <mooncake/infer.h>

#include "base/buf.h"

/** The bytes that a token stands for; none for an id without any. */
void answer_token_bytes(const mc_model *model, uint32_t token, const char **text_p, size_t *size_p);

/** A token and its bytes as a JSON string. One that is no whole text is spelt as OpenAI does, so that two of them
 * differ: "bytes:\xe2\x82", "token_id:7". */
void answer_token_spell(uint32_t token, const char *text, size_t size, struct buf *out);

/** The same, of a model's token. */
void answer_token_add(const mc_model *model, uint32_t token, struct buf *out);

#endif /* GATEWAY_ANSWER_TOKEN_H */
