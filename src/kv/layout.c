/* layout.c - offsets in a KV page. */
#include "kv/layout.h"

#include <assert.h>

size_t kv_element_bytes(enum mc_dtype dtype)
{
    assert(dtype == MC_DTYPE_F32 || dtype == MC_DTYPE_BF16);
    return dtype == MC_DTYPE_F32 ? 4 : 2;
}

size_t kv_token_bytes(const struct mc_kv_layout *layout)
{
    return (size_t)layout->kv_heads * layout->head_dim * kv_element_bytes(layout->dtype);
}

size_t kv_offset(const struct mc_kv_layout *layout, uint32_t layer, enum kv_part part,
                 uint32_t token)
{
    assert(layer < layout->layers && token < layout->page_tokens);
    return (((size_t)layer * 2 + part) * layout->page_tokens + token) * kv_token_bytes(layout);
}

size_t mc_kv_page_bytes(const struct mc_kv_layout *layout)
{
    return (size_t)layout->layers * 2 * layout->page_tokens * kv_token_bytes(layout);
}
