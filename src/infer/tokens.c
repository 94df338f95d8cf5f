/* tokens.c - token ids, doubled when full. */
#include "infer/tokens.h"

#include <string.h>

#include "base/alloc.h"

mc_status tokens_add(struct tokens *tokens, const uint32_t *ids, size_t count)
{
    size_t needed;

    if (count == 0)
        return MC_OK;
    if (!size_add(tokens->count, count, &needed))
        return MC_E_NOMEM;
    if (needed > tokens->capacity) {
        const size_t capacity = needed < 32 ? 64 : needed * 2;
        uint32_t *grown = alloc_resize(tokens->alloc, tokens->ids, capacity, sizeof(*grown));
        if (!grown)
            return MC_E_NOMEM;
        tokens->ids = grown;
        tokens->capacity = capacity;
    }
    memcpy(tokens->ids + tokens->count, ids, count * sizeof(*ids));
    tokens->count = needed;
    return MC_OK;
}

void tokens_fini(struct tokens *tokens)
{
    if (tokens->alloc)
        alloc_free(tokens->alloc, tokens->ids);
    *tokens = (struct tokens){ .alloc = tokens->alloc };
}
