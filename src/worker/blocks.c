/* blocks.c - the names of a sequence's blocks, made as far as they are needed. */
#include <assert.h>

#include "base/alloc.h"
#include "kv/identity.h"
#include "worker/state.h"

mc_status blocks_init(const struct worker *w, struct blocks *blocks,
                      const struct wire_slice *tenant, const struct wire_slice *salt,
                      uint32_t capacity)
{
    static const struct wire_slice nobody = { "default", sizeof("default") - 1 };

    if (tenant->size == 0)
        tenant = &nobody;
    *blocks = (struct blocks){ .capacity = capacity,
                               .identities =
                                   alloc_zeroed(w->alloc, capacity, sizeof(*blocks->identities)) };
    kv_root(&w->fingerprint, tenant->data, tenant->size, salt->data, salt->size, &blocks->root);
    return blocks->identities ? MC_OK : MC_E_NOMEM;
}

void blocks_fini(const struct worker *w, struct blocks *blocks)
{
    alloc_free(w->alloc, blocks->identities);
    blocks->identities = NULL;
}

void blocks_name(struct blocks *blocks, const uint32_t *tokens, uint32_t count)
{
    assert(count <= blocks->capacity);
    for (; blocks->named < count; blocks->named++) {
        const uint32_t i = blocks->named;
        kv_chain_next(i > 0 ? &blocks->identities[i - 1] : &blocks->root,
                      tokens + (size_t)i * KV_PAGE_TOKENS, &blocks->identities[i]);
    }
}
