/* tokens.h - a list of token ids that grows. One thread; owned, from the allocator given. */
#ifndef INFER_TOKENS_H
#define INFER_TOKENS_H

#include <mooncake/status.h>

/** Token ids that grow. `{ .alloc = a }` is a valid start; tokens_fini() frees. */
struct tokens {
    const struct mc_alloc *alloc; /* borrowed */
    uint32_t *ids;                /* owned; [count] */
    size_t count, capacity;
};

/** Append [count] ids. MC_OK or MC_E_NOMEM. */
mc_status tokens_add(struct tokens *tokens, const uint32_t *ids, size_t count);

void tokens_fini(struct tokens *tokens);

#endif /* INFER_TOKENS_H */
