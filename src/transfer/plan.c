/* plan.c - cut a transfer into slices. */
#include "transfer/plan.h"

#include "base/alloc.h"

uint64_t plan_pieces(const struct mc_xfer *xfer)
{
    return xfer->count ? xfer->count : 1;
}

char *plan_local(const struct mc_xfer *xfer, uint64_t index)
{
    return xfer->local_table ? (char *)xfer->local_table[index] + xfer->local_offset
                             : (char *)xfer->local + index * xfer->local_stride;
}

static uint64_t remote_of(const struct mc_xfer *xfer, uint64_t index)
{
    return xfer->offset +
           (xfer->remote_table ? xfer->remote_table[index] : index * xfer->remote_stride);
}

/* start + (last piece) * stride + length, or false. */
static bool strided_end(uint64_t start, uint64_t pieces, uint64_t stride, uint64_t length,
                        uint64_t *end_p)
{
    size_t span, end;

    if (!size_mul(pieces - 1, stride, &span) || !size_add(start, span, &end) ||
        !size_add(end, length, &end))
        return false;
    *end_p = end;
    return true;
}

static bool local_is_sound(const struct mc_xfer *xfer, uint64_t pieces)
{
    uint64_t end;

    if (!xfer->local_table)
        return strided_end((uintptr_t)xfer->local, pieces, xfer->local_stride, xfer->length, &end);
    for (uint64_t i = 0; i < pieces; i++) {
        size_t at;
        if (!size_add((uintptr_t)xfer->local_table[i], xfer->local_offset, &at) ||
            !size_add(at, xfer->length, &at))
            return false;
    }
    return true;
}

static bool remote_end(const struct mc_xfer *xfer, uint64_t pieces, uint64_t *end_p)
{
    uint64_t last = 0;

    if (!xfer->remote_table)
        return strided_end(xfer->offset, pieces, xfer->remote_stride, xfer->length, end_p);
    for (uint64_t i = 0; i < pieces; i++) {
        size_t end;
        if (!size_add(xfer->offset, xfer->remote_table[i], &end) ||
            !size_add(end, xfer->length, &end))
            return false;
        last = end > last ? end : last;
    }
    *end_p = last;
    return true;
}

mc_status plan_check(const struct mc_xfer *xfer, uint64_t *end_p)
{
    const uint64_t pieces = plan_pieces(xfer);
    size_t total;

    *end_p = 0;
    if (xfer->length == 0)
        return MC_OK;
    if (!size_mul(pieces, xfer->length, &total) || !local_is_sound(xfer, pieces) ||
        !remote_end(xfer, pieces, end_p))
        return MC_E_RANGE;
    return MC_OK;
}

bool plan_next(const struct mc_xfer *xfer, const struct plan *plan, struct plan_cursor *cursor,
               struct plan_slice *slice_p)
{
    if (xfer->length == 0 || cursor->piece >= plan_pieces(xfer))
        return false;

    const uint64_t offset = remote_of(xfer, cursor->piece) + cursor->done;
    uint64_t length = xfer->length - cursor->done, region_offset = UINT64_MAX;
    if (length > plan->slice_max)
        length = plan->slice_max;
    if (plan->piece_bytes) {
        const uint64_t inside = offset % plan->piece_bytes, piece = offset / plan->piece_bytes;
        if (length > plan->piece_bytes - inside)
            length = plan->piece_bytes - inside;
        if (plan->offsets && piece < plan->count)
            region_offset = plan->offsets[piece] + inside;
    } else {
        region_offset = offset;
    }
    *slice_p = (struct plan_slice){
        .local = plan_local(xfer, cursor->piece) + cursor->done,
        .offset = offset,
        .length = length,
        .region_offset = region_offset,
    };
    cursor->done += length;
    if (cursor->done == xfer->length)
        *cursor = (struct plan_cursor){ .piece = cursor->piece + 1 };
    return true;
}
