/* api_prompt.h - the part of a request that becomes tokens: a prompt's text or ids, a chat's messages. */
#ifndef GATEWAY_API_PROMPT_H
#define GATEWAY_API_PROMPT_H

#include "gateway/api.h"

/** Read "prompt" or "messages" of request->document. vocab_size: ids are below it. As api_read(). */
bool api_read_prompt(struct api_request *request, uint32_t vocab_size, struct api_error *error_p);

/** Make request->ids (at least one) of a text or of messages, by the model's tokenizer and chat template. Ids
 * that came as such stay. As api_read(). */
bool api_encode(struct api_request *request, const mc_model *model, struct api_error *error_p);

#endif /* GATEWAY_API_PROMPT_H */
