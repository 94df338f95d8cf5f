/*
 * sse.h - server-sent events from bytes that come in pieces: the data of each event, whole.
 *
 * Life:    sse_init -> sse_feed* -> sse_reset (another stream) -> sse_fini
 * Threads: one. Pure.
 * Memory:  one line and one event, at most SSE_EVENT_MAX bytes each.
 */
#ifndef CMD_SSE_H
#define CMD_SSE_H

#include <stdbool.h>

#include "base/buf.h"

enum { SSE_EVENT_MAX = 1 << 20 };

struct sse {
    struct buf line; /* the start of a line whose end did not come yet */
    struct buf data; /* of the event so far; lines joined by newlines */
    bool any;        /* the event has data, perhaps none of any length */
    bool carriage;   /* the last byte was a CR: an LF behind it belongs to it */
};

/** What an event carried: [size] bytes with NUL behind them, borrowed. False: no more is wanted. */
typedef bool sse_event(void *user, const char *data, size_t size);

void sse_init(struct sse *sse, const struct mc_alloc *alloc);
void sse_fini(struct sse *sse);

/** Forget what came; the memory is kept. */
void sse_reset(struct sse *sse);

/** Lines end with LF, CR or CRLF. Returns MC_OK; MC_E_CANCELLED (`event` said so), MC_E_RANGE (a line or an
 * event is too long) or MC_E_NOMEM, after which only reset and fini are due. */
mc_status sse_feed(struct sse *sse, const char *bytes, size_t size, sse_event *event, void *user);

#endif /* CMD_SSE_H */
