/*
 * push_plan.h - what of a prompt's KVCache is to be pushed next, and where its bytes lie.
 *
 * A page is [layer][K, V][token][head][dim], so a run of layers is one range of each page, and a span (some
 * successive pages, some successive layers) is one strided transfer: as many pieces as pages, each
 * `length` bytes.
 *
 *      local:   page_table[first_page + i] + offset            i in [0, page_count)
 *      window:  first_page x page_bytes + offset + i x page_bytes
 *
 * The engine says how far it is: `done` positions in all layers, and of the chunk behind them up to
 * `chunk_end` the first `chunk_layers` layers. The cursor says what was planned: whole pages before
 * `begin`, and of the pages up to `end` the first `layers` layers. When pushes keep up, a span is one
 * layer of one chunk; when they lag, it is all that has gathered. The engine never waits for them.
 *
 * Pure values; any thread.
 */
#ifndef WORKER_CORE_PUSH_PLAN_H
#define WORKER_CORE_PUSH_PLAN_H

#include <stdbool.h>
#include <stdint.h>

/** Where the engine is. done <= chunk_end; chunk_end = done when no chunk is under way. */
struct push_ready {
    uint32_t done, chunk_end; /* positions */
    uint32_t chunk_layers;
};

/** What was planned. `{ 0 }` at the start. */
struct push_cursor {
    uint32_t begin, end; /* positions; begin on a page boundary */
    uint32_t layers;     /* of [begin, end) */
};

/** A part to push: positions [begin, end), layers [layer, layer + layer_count). */
struct push_span {
    uint32_t begin, end;
    uint32_t layer, layer_count;
};

/** How pages are laid out. */
struct push_layout {
    uint32_t layers, page_tokens;
    uint64_t layer_bytes; /* of one layer, K and V, in one page */
};

/** A span's bytes: one strided transfer. */
struct push_piece {
    uint32_t first_page, page_count;
    uint64_t local_offset;  /* in each page */
    uint64_t length;        /* of each piece */
    uint64_t remote_offset; /* in the window, of the first piece */
    uint64_t remote_stride; /* page_bytes */
};

/**
 * Take the next span that can be pushed; false: none yet.
 *
 * pages_max  a span of whole pages is cut to so many, > 0.
 */
bool push_next(struct push_cursor *cursor, const struct push_ready *ready,
               const struct push_layout *layout, uint32_t pages_max, struct push_span *span_p);

/** Everything up to `tokens` was planned. */
bool push_complete(const struct push_cursor *cursor, uint32_t tokens);

struct push_piece push_piece_of(const struct push_layout *layout, const struct push_span *span);

#endif /* WORKER_CORE_PUSH_PLAN_H */
