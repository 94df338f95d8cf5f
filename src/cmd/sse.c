/* sse.c - lines, and what the two kinds of line that matter mean: data, and the empty one that ends an event. */
#include "cmd/sse.h"

#include <string.h>

void sse_init(struct sse *s, const struct mc_alloc *alloc)
{
    *s = (struct sse){ .line = BUF_INIT(alloc), .data = BUF_INIT(alloc) };
}

void sse_fini(struct sse *s)
{
    buf_fini(&s->line);
    buf_fini(&s->data);
}

void sse_reset(struct sse *s)
{
    buf_truncate(&s->line, 0);
    buf_truncate(&s->data, 0);
    s->line.failed = s->data.failed = false;
    s->any = s->carriage = false;
}

static mc_status take_data(struct sse *s, const char *text, size_t size)
{
    if (s->data.size + size >= SSE_EVENT_MAX)
        return MC_E_RANGE;
    if (s->any)
        buf_add_byte(&s->data, '\n');
    buf_add(&s->data, text, size);
    s->any = true;
    return s->data.failed ? MC_E_NOMEM : MC_OK;
}

/* Comments, and fields other than data, say nothing here. */
static mc_status take_line(struct sse *s, const char *line, size_t size, sse_event *event,
                           void *user)
{
    if (size == 0) {
        const bool wanted = !s->any || event(user, s->data.data, s->data.size);
        buf_truncate(&s->data, 0);
        s->any = false;
        return wanted ? MC_OK : MC_E_CANCELLED;
    }
    if (size < 4 || memcmp(line, "data", 4) != 0 || (size > 4 && line[4] != ':'))
        return MC_OK;
    const size_t skip = size == 4 ? 4 : size > 5 && line[5] == ' ' ? 6 : 5;
    return take_data(s, line + skip, size - skip);
}

static mc_status carry(struct sse *s, const char *bytes, size_t size)
{
    if (s->line.size + size >= SSE_EVENT_MAX)
        return MC_E_RANGE;
    buf_add(&s->line, bytes, size);
    return s->line.failed ? MC_E_NOMEM : MC_OK;
}

/* The next line's end, or `end`. */
static const char *line_end(const char *at, const char *end)
{
    while (at < end && *at != '\n' && *at != '\r')
        at++;
    return at;
}

mc_status sse_feed(struct sse *s, const char *bytes, size_t size, sse_event *event, void *user)
{
    const char *at = bytes, *end = bytes + size;
    mc_status status = MC_OK;

    while (at < end && status == MC_OK) {
        if (s->carriage && *at == '\n') {
            s->carriage = false;
            at++;
            continue;
        }
        s->carriage = false;
        const char *stop = line_end(at, end);
        if (stop == end || s->line.size > 0) {
            status = carry(s, at, (size_t)(stop - at));
            if (stop == end || status != MC_OK)
                return status;
            status = take_line(s, s->line.data, s->line.size, event, user);
            buf_truncate(&s->line, 0);
        } else {
            status = take_line(s, at, (size_t)(stop - at), event, user);
        }
        s->carriage = *stop == '\r';
        at = stop + 1;
    }
    return status;
}
