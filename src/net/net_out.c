/* net_out.c - one buffer of bytes that wait, sent from its front. */
#include "net/net_out.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/alloc.h"

enum { CAPACITY_FIRST = 4096, CAPACITY_KEPT = 64 << 10 };

/** Make room for `size` bytes at the end. */
static mc_status make_room(struct out *out, size_t size, const struct mc_alloc *alloc)
{
    const size_t waits = out_waits(out);
    size_t needed, capacity = out->capacity ? out->capacity : CAPACITY_FIRST;

    if (!size_add(waits, size, &needed))
        return MC_E_NOMEM;
    if (out->capacity - out->end >= size)
        return MC_OK;
    /* Move to the front only where that frees at least as much as it moves: each byte moves rarely. */
    if (out->begin >= waits && out->capacity >= needed) {
        if (waits)
            memmove(out->bytes, out->bytes + out->begin, waits);
        out->begin = 0;
        out->end = waits;
        return MC_OK;
    }
    while (capacity < needed)
        capacity = capacity > SIZE_MAX / 2 ? needed : capacity * 2;
    if (capacity == out->capacity) /* full, and what was sent is less than half of it */
        capacity *= 2;
    uint8_t *bytes = alloc_bytes(alloc, capacity);
    if (!bytes)
        return MC_E_NOMEM;
    if (waits)
        memcpy(bytes, out->bytes + out->begin, waits);
    alloc_free(alloc, out->bytes);
    *out = (struct out){ .bytes = bytes, .capacity = capacity, .end = waits };
    return MC_OK;
}

mc_status out_add(struct out *out, const void *bytes, size_t size, const struct mc_alloc *alloc)
{
    const mc_status status = make_room(out, size, alloc);

    if (status == MC_OK && size != 0) {
        memcpy(out->bytes + out->end, bytes, size);
        out->end += size;
    }
    return status;
}

mc_status out_message(struct out *out, const struct wire_frame *frame, const void *message,
                      uint64_t max, const struct mc_alloc *alloc)
{
    const enum wire_kind kind = (enum wire_kind)frame->kind;
    const size_t wanted = wire_encoded_size(kind, message);
    struct wire_frame whole = *frame;
    size_t size;

    if (wanted > WIRE_BODY_MAX)
        return MC_E_RANGE;
    if (out_waits(out) + WIRE_HEADER_BYTES + wanted > max)
        return MC_E_FULL;
    mc_status status = make_room(out, WIRE_HEADER_BYTES + wanted, alloc);
    if (status != MC_OK)
        return status;
    uint8_t *head = out->bytes + out->end;
    status = wire_encode(kind, message, head + WIRE_HEADER_BYTES, wanted, &size);
    if (status != MC_OK)
        return status;
    whole.body = head + WIRE_HEADER_BYTES;
    whole.body_size = (uint32_t)size;
    wire_header_encode(&whole, head);
    out->end += WIRE_HEADER_BYTES + size;
    return MC_OK;
}

mc_status out_send(struct out *out, int fd, const struct mc_alloc *alloc)
{
    while (out_waits(out) > 0) {
        const ssize_t n = send(fd, out->bytes + out->begin, out_waits(out), MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS ? MC_PENDING
                                                                               : MC_E_PEER;
        out->begin += (size_t)n;
    }
    out->begin = out->end = 0;
    if (out->capacity > CAPACITY_KEPT)
        out_fini(out, alloc);
    return MC_OK;
}

void out_fini(struct out *out, const struct mc_alloc *alloc)
{
    alloc_free(alloc, out->bytes);
    *out = (struct out){ 0 };
}
