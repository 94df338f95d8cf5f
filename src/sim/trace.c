/* trace.c - cut the bytes into lines, read a line's fields, hold them against each other. */
#include "sim/trace.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/error.h"
#include "sim/scan.h"

enum { FIELDS_MAX = 32 }; /* of one line, so that a twin is found without memory of its own */

struct trace_reader {
    struct trace_options o;
    const char *at, *end; /* what was fed and is not read yet; borrowed */
    struct buf carry;     /* the start of a line whose end was not fed yet */
    uint64_t *ids;        /* owned; [ids_capacity] */
    size_t ids_capacity;
    uint64_t line, requests, last_ns;
    bool finished;
    mc_status status; /* of the first error, for good */
    struct mc_error error;
};

/** The fields of one line. */
struct fields {
    bool timestamp, input, output, hashes; /* seen */
    struct trace_request request;
};

mc_status trace_open(const struct trace_options *options, trace_reader **reader_p,
                     struct mc_error *error)
{
    trace_reader *r = alloc_zeroed(options->alloc, 1, sizeof(*r));

    if (!r)
        return error_set(error, MC_E_NOMEM, "%s: no memory to read it", options->name);
    r->o = *options;
    r->o.block_tokens = r->o.block_tokens ? r->o.block_tokens : TRACE_BLOCK_TOKENS;
    r->o.line_max = r->o.line_max ? r->o.line_max : TRACE_LINE_MAX;
    r->at = r->end = "";
    r->carry = BUF_INIT(options->alloc);
    *reader_p = r;
    return MC_OK;
}

void trace_close(trace_reader *r)
{
    if (!r)
        return;
    buf_fini(&r->carry);
    alloc_free(r->o.alloc, r->ids);
    alloc_free(r->o.alloc, r);
}

void trace_feed(trace_reader *r, const void *bytes, size_t size)
{
    assert(r->at == r->end && !r->finished);
    if (size == 0)
        return; /* `bytes` may be NULL */
    r->at = bytes;
    r->end = r->at + size;
}

void trace_finish(trace_reader *r)
{
    assert(r->at == r->end);
    r->finished = true;
}

/* "file:12: what": kept, since nothing behind an error is worth reading. */
#define FAIL(r, number, ...) \
    ((r)->status = error_set(&(r)->error, number, __VA_ARGS__), \
     error_prefix(&(r)->error, (r)->status, "%s:%" PRIu64, (r)->o.name, (r)->line), (r)->status)

static mc_status no_memory(trace_reader *r)
{
    return FAIL(r, MC_E_NOMEM, "out of memory");
}

/* ----------------------------------------------------------------------------------------- values */

/* How a wrong number is shown: at most this many characters of it. */
static int shown(const struct scan_text *text)
{
    return text->size > 40 ? 40 : (int)text->size;
}

static mc_status take_number(trace_reader *r, struct scan *s, const char *name,
                             struct scan_text *text_p)
{
    if (scan_peek(s) != SCAN_NUMBER)
        return FAIL(r, MC_E_FORMAT, "%s: is not a number", name);
    if (!scan_number(s, text_p))
        return FAIL(r, MC_E_FORMAT, "%s: %s", name, s->problem);
    if (text_p->data[0] == '-')
        return FAIL(r, MC_E_RANGE, "%s: %.*s is negative", name, shown(text_p), text_p->data);
    return MC_OK;
}

static mc_status take_whole(trace_reader *r, struct scan *s, const char *name, uint64_t max,
                            uint64_t *value_p)
{
    struct scan_text text;
    const mc_status status = take_number(r, s, name, &text);

    if (status != MC_OK || scan_whole(&text, max, value_p))
        return status;
    for (size_t i = 0; i < text.size; i++)
        if (text.data[i] < '0' || text.data[i] > '9')
            return FAIL(r, MC_E_FORMAT, "%s: %.*s is not a whole number", name, shown(&text),
                        text.data);
    return FAIL(r, MC_E_RANGE, "%s: %.*s is more than %" PRIu64, name, shown(&text), text.data,
                max);
}

static mc_status take_tokens(trace_reader *r, struct scan *s, const char *name, uint32_t *tokens_p)
{
    uint64_t value;
    const mc_status status = take_whole(r, s, name, TRACE_TOKENS_MAX, &value);

    if (status == MC_OK)
        *tokens_p = (uint32_t)value;
    return status;
}

/* Milliseconds, perhaps with a fraction; what is finer than a nanosecond is dropped. */
static mc_status take_time(trace_reader *r, struct scan *s, uint64_t *ns_p)
{
    struct scan_text text;
    const mc_status status = take_number(r, s, "timestamp", &text);
    uint64_t ms = 0, ns = 0, unit = 1000000;

    if (status != MC_OK)
        return status;
    const char *point = memchr(text.data, '.', text.size);
    const struct scan_text whole = { text.data, point ? (size_t)(point - text.data) : text.size,
                                     false };
    if (memchr(text.data, 'e', text.size) || memchr(text.data, 'E', text.size))
        return FAIL(r, MC_E_FORMAT, "timestamp: %.*s has an exponent", shown(&text), text.data);
    if (!scan_whole(&whole, TRACE_MS_MAX, &ms))
        return FAIL(r, MC_E_RANGE, "timestamp: %.*s ms is too late for any clock", shown(&text),
                    text.data);
    for (size_t i = whole.size + 1; i < text.size && unit > 1; i++) {
        unit /= 10;
        ns += (uint64_t)(text.data[i] - '0') * unit;
    }
    *ns_p = ms * 1000000 + ns;
    return MC_OK;
}

static bool make_room(trace_reader *r, size_t count)
{
    if (count < r->ids_capacity)
        return true;
    const size_t capacity = r->ids_capacity ? r->ids_capacity * 2 : 256;
    uint64_t *ids = alloc_resize(r->o.alloc, r->ids, capacity, sizeof(*ids));
    if (!ids)
        return false;
    r->ids = ids;
    r->ids_capacity = capacity;
    return true;
}

static mc_status take_hashes(trace_reader *r, struct scan *s, uint32_t *count_p)
{
    mc_status status;
    uint32_t count = 0;

    if (scan_peek(s) != SCAN_ARRAY)
        return FAIL(r, MC_E_FORMAT, "hash_ids: is not an array");
    for (bool more = scan_array(s); more && scan_element(s); count++) {
        if (!make_room(r, count))
            return no_memory(r);
        status = take_whole(r, s, "hash_ids", TRACE_HASH_MAX, &r->ids[count]);
        if (status != MC_OK)
            return status;
    }
    if (s->problem)
        return FAIL(r, MC_E_FORMAT, "hash_ids: %s", s->problem);
    *count_p = count; /* fits: a line is not that long */
    return MC_OK;
}

/* ------------------------------------------------------------------------------------------ lines */

static mc_status take_field(trace_reader *r, struct scan *s, const struct scan_text *key,
                            struct fields *f)
{
    struct trace_request *request = &f->request;

    if (scan_is(key, "timestamp")) {
        f->timestamp = true;
        return take_time(r, s, &request->arrival_ns);
    }
    if (scan_is(key, "input_length")) {
        f->input = true;
        return take_tokens(r, s, "input_length", &request->input_tokens);
    }
    if (scan_is(key, "output_length")) {
        f->output = true;
        return take_tokens(r, s, "output_length", &request->output_tokens);
    }
    if (scan_is(key, "hash_ids")) {
        f->hashes = true;
        return take_hashes(r, s, &request->hash_count);
    }
    if (!scan_skip(s))
        return FAIL(r, MC_E_FORMAT, "%.*s: %s", shown(key), key->data, s->problem);
    return MC_OK;
}

static mc_status read_fields(trace_reader *r, struct scan *s, struct fields *f)
{
    struct scan_text keys[FIELDS_MAX];
    uint32_t count = 0;
    mc_status status = MC_OK;

    if (scan_peek(s) != SCAN_OBJECT)
        return FAIL(r, MC_E_FORMAT, "expected an object, {\"timestamp\": ...}");
    for (bool more = scan_object(s); more && scan_key(s, &keys[count]);) {
        const struct scan_text *key = &keys[count];
        for (uint32_t i = 0; i < count; i++)
            if (keys[i].size == key->size && memcmp(keys[i].data, key->data, key->size) == 0)
                return FAIL(r, MC_E_FORMAT, "%.*s: comes twice", shown(key), key->data);
        status = take_field(r, s, key, f);
        if (status != MC_OK)
            return status;
        if (++count == FIELDS_MAX)
            return FAIL(r, MC_E_RANGE, "more than %d fields", FIELDS_MAX - 1);
    }
    if (!scan_end(s))
        return FAIL(r, MC_E_FORMAT, "at byte %zu: %s", (size_t)(s->at - s->start) + 1, s->problem);
    return MC_OK;
}

/* The fields are there and agree with each other. */
static mc_status check(trace_reader *r, const struct fields *f)
{
    const struct trace_request *q = &f->request;
    const char *missing = !f->timestamp ? "timestamp"
                          : !f->input   ? "input_length"
                          : !f->output  ? "output_length"
                          : !f->hashes  ? "hash_ids"
                                        : NULL;

    if (missing)
        return FAIL(r, MC_E_FORMAT, "%s: is missing", missing);
    if (q->input_tokens == 0)
        return FAIL(r, MC_E_RANGE, "input_length: a prompt has at least one token");
    const uint32_t blocks = (q->input_tokens - 1) / r->o.block_tokens + 1;
    if (q->hash_count != blocks)
        return FAIL(r, MC_E_FORMAT,
                    "hash_ids: %" PRIu32 " of them; %" PRIu32 " tokens in blocks of %" PRIu32
                    " make %" PRIu32,
                    q->hash_count, q->input_tokens, r->o.block_tokens, blocks);
    if (!r->o.unsorted && r->requests > 0 && q->arrival_ns < r->last_ns)
        return FAIL(r, MC_E_FORMAT,
                    "timestamp: %.15g ms is before the %.15g ms of the request above; sort the "
                    "file by time",
                    (double)q->arrival_ns / 1e6, (double)r->last_ns / 1e6);
    return MC_OK;
}

static bool blank(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (text[i] != ' ' && text[i] != '\t' && text[i] != '\r')
            return false;
    return true;
}

/* MC_PENDING: it was blank. */
static mc_status read_line(trace_reader *r, const char *text, size_t size,
                           struct trace_request *request_p)
{
    struct scan scan = scan_begin(text, size);
    struct fields f = { 0 };

    if (blank(text, size))
        return MC_PENDING;
    if (r->line == 1 && size >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
        return FAIL(r, MC_E_FORMAT, "begins with a byte order mark; save it as plain UTF-8");
    mc_status status = read_fields(r, &scan, &f);
    if (status == MC_OK)
        status = check(r, &f);
    if (status != MC_OK)
        return status;
    r->requests++;
    r->last_ns = f.request.arrival_ns;
    f.request.hash_ids = r->ids;
    f.request.line = r->line;
    *request_p = f.request;
    return MC_OK;
}

/* -------------------------------------------------------------------------------- bytes to lines */

/* The next line, borrowed: from what was fed, or from `carry` where it came in pieces. MC_PENDING: its end was
 * not fed yet; MC_E_NOT_FOUND: there is none. */
static mc_status next_line(trace_reader *r, const char **text_p, size_t *size_p)
{
    const size_t fed = (size_t)(r->end - r->at);
    const char *newline = fed ? memchr(r->at, '\n', fed) : NULL;
    const size_t size = newline ? (size_t)(newline - r->at) : fed;
    const char *text = r->at;

    if (r->carry.size + size > r->o.line_max) {
        r->line++;
        return FAIL(r, MC_E_RANGE, "the line is longer than %zu bytes", r->o.line_max);
    }
    if (!newline || r->carry.size > 0) {
        if (size > 0)
            buf_add(&r->carry, r->at, size);
        if (r->carry.failed)
            return no_memory(r);
        text = r->carry.data;
    }
    r->at += size + (newline != NULL);
    if (!newline && !r->finished)
        return MC_PENDING;
    if (!newline && r->carry.size == 0)
        return MC_E_NOT_FOUND;
    *text_p = text;
    *size_p = text == r->carry.data ? r->carry.size : size;
    r->line++;
    return MC_OK;
}

static mc_status next_request(trace_reader *r, struct trace_request *request_p)
{
    for (;;) {
        const char *text = ""; /* optimising compilers cannot see that next_line() sets both */
        size_t size = 0;
        mc_status status = next_line(r, &text, &size);

        if (status == MC_E_NOT_FOUND && r->requests == 0)
            return r->status = error_set(&r->error, MC_E_FORMAT, "%s: no request in it", r->o.name);
        if (status != MC_OK)
            return status;
        status = read_line(r, text, size, request_p);
        buf_truncate(&r->carry, 0); /* the request has its numbers by now */
        if (status != MC_PENDING)
            return status;
    }
}

mc_status trace_next(trace_reader *r, struct trace_request *request_p, struct mc_error *error)
{
    const mc_status status = r->status == MC_OK ? next_request(r, request_p) : r->status;

    if (r->status != MC_OK)
        error_set(error, r->status, "%s", r->error.text);
    return status;
}
