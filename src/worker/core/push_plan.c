/* push_plan.c - from how far the engine is to one strided transfer. */
#include "worker/core/push_plan.h"

#include <assert.h>

/* Layers of [begin, end) that are in the pages. */
static uint32_t layers_there(const struct push_cursor *c, const struct push_ready *ready,
                             uint32_t layers)
{
    if (c->end <= ready->done)
        return layers;
    return c->end <= ready->chunk_end && c->begin >= ready->done ? ready->chunk_layers : 0;
}

static void open_span(struct push_cursor *c, const struct push_ready *ready,
                      const struct push_layout *layout, uint32_t pages_max)
{
    const uint64_t most = c->begin + (uint64_t)pages_max * layout->page_tokens;

    if (ready->done > c->begin)
        c->end = ready->done < most ? ready->done : (uint32_t)most;
    else if (ready->chunk_layers > 0)
        c->end = ready->chunk_end;
    c->layers = 0;
}

bool push_next(struct push_cursor *c, const struct push_ready *ready,
               const struct push_layout *layout, uint32_t pages_max, struct push_span *span_p)
{
    assert(pages_max > 0);
    if (c->begin % layout->page_tokens != 0)
        return false; /* the prompt ended within a page */
    if (c->end == c->begin)
        open_span(c, ready, layout, pages_max);
    const uint32_t there = c->end > c->begin ? layers_there(c, ready, layout->layers) : 0;
    if (there <= c->layers)
        return false;
    *span_p = (struct push_span){ c->begin, c->end, c->layers, there - c->layers };
    c->layers = there;
    if (there == layout->layers) {
        c->begin = c->end;
        c->layers = 0;
    }
    return true;
}

bool push_complete(const struct push_cursor *c, uint32_t tokens)
{
    return c->begin == c->end && c->begin >= tokens;
}

struct push_piece push_piece_of(const struct push_layout *layout, const struct push_span *span)
{
    const uint32_t first = span->begin / layout->page_tokens;
    const uint32_t behind = (span->end + layout->page_tokens - 1) / layout->page_tokens;
    const uint64_t page_bytes = layout->layers * layout->layer_bytes;
    const uint64_t offset = span->layer * layout->layer_bytes;

    assert(span->begin % layout->page_tokens == 0 && span->end > span->begin);
    assert(span->layer_count > 0 && span->layer + span->layer_count <= layout->layers);
    return (struct push_piece){
        .first_page = first,
        .page_count = behind - first,
        .local_offset = offset,
        .length = span->layer_count * layout->layer_bytes,
        .remote_offset = first * page_bytes + offset,
        .remote_stride = page_bytes,
    };
}
