/*
 * layout.h - where in a page a key or a value lies (struct mc_kv_layout in mooncake/infer.h).
 *
 *     page: [layer][K, V][token][kv_head][head_dim]
 *
 * so that a layer's part is one range, and all heads of one token lie side by side.
 * Pure values; any thread.
 */
#ifndef KV_LAYOUT_H
#define KV_LAYOUT_H

#include <stddef.h>

#include <mooncake/infer.h>

enum { KV_PAGE_TOKENS = 16 };
enum kv_part { KV_KEY, KV_VALUE };

/** Bytes of one element: 4 or 2. */
size_t kv_element_bytes(enum mc_dtype dtype);

/** Bytes from the page's start to head 0 of `token` (0 .. 15) in `layer`. */
size_t kv_offset(const struct mc_kv_layout *layout, uint32_t layer, enum kv_part part,
                 uint32_t token);

/** Bytes from one token to the next: kv_heads x head_dim elements. */
size_t kv_token_bytes(const struct mc_kv_layout *layout);

/** Pages for `tokens` positions. */
static inline uint32_t kv_pages(uint32_t tokens)
{
    return tokens / KV_PAGE_TOKENS + (tokens % KV_PAGE_TOKENS != 0);
}

#endif /* KV_LAYOUT_H */
