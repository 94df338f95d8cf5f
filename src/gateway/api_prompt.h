/* api_prompt.h - the part of a request that becomes tokens: a prompt's text or ids, a chat's messages. */
#ifndef GATEWAY_API_PROMPT_H
#define GATEWAY_API_PROMPT_H

#include "gateway/api.h"

/** Read "prompt" or "messages" of request->document. vocab_size: ids are below it. As api_read(). */
bool api_read_prompt(struct api_request *request, uint32_t vocab_size, struct api_error *error_p);

/** Bytes of the longest token; 0: no tokenizer. Looks at all of them. */
uint32_t api_token_bytes_max(const mc_model *model, uint32_t vocab_size);

/** Whether the texts may fit in a context, seen by their length: what cannot is not worth the time that its
 * tokens take, in which nobody else is served. token_bytes_max 0: whatever. As api_read(). */
bool api_may_fit(const struct api_request *request, uint32_t token_bytes_max, uint32_t context_max,
                 struct api_error *error_p);

/** Bytes of one prompt's text (0: it came as ids), or of all messages. */
uint64_t api_text_size(const struct api_request *request, size_t index);

/** Make every prompt's ids (at least one) of its text or the messages, by the model's tokenizer and chat
 * template. Ids that came as such stay. As api_read(). */
bool api_encode(struct api_request *request, const mc_model *model, struct api_error *error_p);

/** The ids, maybe none, of one prompt's text or of the messages; the caller's, mc_tokens_free(). As api_read(). */
bool api_encode_one(const struct api_request *request, size_t index, const mc_model *model,
                    uint32_t **tokens_p, size_t *count_p, struct api_error *error_p);

#endif /* GATEWAY_API_PROMPT_H */
