/*
 * tokenizer.h - byte-level BPE as a Hugging Face tokenizer.json describes it.
 *
 * Life:    tokenizer_open -> encode*, decode* -> tokenizer_close
 * Threads: read-only once open; any thread.
 * Memory:  everything is allocated at open; encode allocates scratch and the result.
 * Errors:  texts name the file and the field ("tokenizer.json: model.merges[17]: ...").
 *
 * Stages of encode, and where each lives: ill-formed bytes are repaired (normal.h); added tokens are
 * cut out of the raw text (added.h); the rest is normalised (NFC, normal.h) and searched for the
 * added tokens that want that; what is left is cut by the pre-tokenizer's patterns (pretoken.h) and
 * its bytes are merged (bpe.h); the post-processor adds BOS. What the file asks for and this code
 * lacks is refused by name at open. "truncation" and "padding" are not looked at: they are what
 * whoever saved the file last asked for, and a prompt must not be cut without a word.
 */
#ifndef INFER_TOKENIZER_H
#define INFER_TOKENIZER_H

#include <stdbool.h>

#include <mooncake/status.h>

#include "base/buf.h"
#include "infer/tokens.h"

typedef struct tokenizer tokenizer; /* opaque */

/**
 * json  [size] bytes of tokenizer.json, borrowed during the call; `name` goes before every error.
 *
 * Returns MC_OK, MC_E_FORMAT, MC_E_UNSUPPORTED, MC_E_RANGE or MC_E_NOMEM.
 */
mc_status tokenizer_open(const char *json, size_t size, const char *name,
                         const struct mc_alloc *alloc, tokenizer **tokenizer_p,
                         struct mc_error *error);

/** NULL is allowed. */
void tokenizer_close(tokenizer *t);

/** One more than the highest id. */
uint32_t tokenizer_size(const tokenizer *t);

/** The id of exactly this token (a word of the vocabulary as the file spells it, or an added token's
 * content); false if there is none. */
bool tokenizer_find(const tokenizer *t, const char *token, uint32_t *id_p);

/** flags: enum mc_encode_flags of mooncake/infer.h. Appends to `out`; on failure out is unchanged.
 * MC_OK, MC_E_RANGE (text over 1 GiB, or a pattern that goes on for too long) or MC_E_NOMEM. */
mc_status tokenizer_encode(const tokenizer *t, const char *text, size_t size, unsigned flags,
                           struct tokens *out, struct mc_error *error);

/** The bytes that one token stands for, maybe not whole characters; special ones give "" unless
 * keep_special. *bytes_p is borrowed from the tokenizer. MC_OK or MC_E_RANGE. */
mc_status tokenizer_bytes(const tokenizer *t, uint32_t id, bool keep_special, const char **bytes_p,
                          size_t *size_p);

/** The most bytes that any one token stands for. */
size_t tokenizer_bytes_max(const tokenizer *t);

/** All of it at once; ill-formed UTF-8 becomes U+FFFD. Appends to `out`. MC_OK, MC_E_RANGE, MC_E_NOMEM. */
mc_status tokenizer_decode(const tokenizer *t, const uint32_t *ids, size_t count, bool keep_special,
                           struct buf *out);

#endif /* INFER_TOKENIZER_H */
