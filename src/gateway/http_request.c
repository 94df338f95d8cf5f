/* http_request.c - one request: its body as it comes, its answer as it goes, and who hung up. */
#define _POSIX_C_SOURCE 200809L
#include "gateway/http_state.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

enum {
    STREAM_BLOCK = 16 << 10, /* bytes that a stream hands over at once */
    UPLOAD_EXCESS = 4,       /* a body this many times too long is not read to its end */
};

/* ----------------------------------------------------------------------------- a request's life */

/* The daemon goes on with it in the loop's next turn and never here. */
static void resume(http_request *r)
{
    if (!r->suspended)
        return;
    r->suspended = false;
    MHD_resume_connection(r->connection);
    http_run_soon(r->http);
}

static void forget_user(http_request *r)
{
    r->gone = NULL;
    r->user = NULL;
}

static void tell_gone(http_request *r)
{
    void (*gone)(void *) = r->gone;
    void *user = r->user;

    forget_user(r);
    if (gone)
        gone(user);
}

void http_request_abort(http_request *r)
{
    r->state = STATE_ABORTED;
    resume(r);
}

static void hung_up(void *user, uint32_t events)
{
    http_request *r = user;

    if (!(events & OS_HUNG_UP))
        return;
    os_loop_unwatch(r->http->loop, &r->watch);
    http_request_abort(r);
    tell_gone(r);
}

static http_request *request_open(http_server *h, struct MHD_Connection *connection,
                                  const char *method, const char *path)
{
    http_request *r = alloc_zeroed(h->alloc, 1, sizeof(*r));

    if (!r)
        return NULL;
    *r = (http_request){
        .http = h,
        .connection = connection,
        .next = h->first,
        .method = method,
        .path = path,
        .body = BUF_INIT(h->alloc),
        .headers = BUF_INIT(h->alloc),
        .out = BUF_INIT(h->alloc),
    };
    if (h->first)
        h->first->previous = r;
    h->first = r;
    h->active++;
    return r;
}

static void request_close(http_request *r)
{
    http_server *h = r->http;

    os_loop_unwatch(h->loop, &r->watch);
    if (r->next)
        r->next->previous = r->previous;
    if (r->previous)
        r->previous->next = r->next;
    else
        h->first = r->next;
    buf_fini(&r->body);
    buf_fini(&r->headers);
    buf_fini(&r->out);
    alloc_free(h->alloc, r);
    h->active--;
}

/* libmicrohttpd: answered to the end, or cut off. The socket is still open. */
void http_completed(void *user, struct MHD_Connection *connection, void **context,
                    enum MHD_RequestTerminationCode how)
{
    http_server *h = user;
    http_request *r = *context;

    (void)connection;
    (void)how;
    if (!r)
        return;
    *context = NULL;
    tell_gone(r);
    request_close(r);
    if (h->active == 0 && !h->closing)
        h->handler.quiet(h->handler.user);
}

/* ------------------------------------------------------------------------------------- answering */

static ssize_t read_stream(void *user, uint64_t position, char *bytes, size_t size)
{
    http_request *r = user;
    const size_t left = r->out.size - r->sent;

    (void)position;
    if (r->state == STATE_ABORTED)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    if (left > 0) {
        const size_t n = left < size ? left : size;
        memcpy(bytes, r->out.data + r->sent, n);
        r->sent += n;
        if (r->sent == r->out.size) {
            buf_truncate(&r->out, 0);
            r->sent = 0;
        }
        return (ssize_t)n;
    }
    if (r->state == STATE_ENDED)
        return MHD_CONTENT_READER_END_OF_STREAM;
    r->suspended = true;
    MHD_suspend_connection(r->connection);
    return 0;
}

static bool add_headers(const http_request *r, struct MHD_Response *response)
{
    const char *at = r->headers.data, *end = at + r->headers.size;

    if (r->headers.failed)
        return false;
    while (at < end) {
        const char *name = at, *value = name + strlen(name) + 1;
        if (MHD_add_response_header(response, name, value) != MHD_YES)
            return false;
        at = value + strlen(value) + 1;
    }
    return MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, r->content_type) ==
           MHD_YES;
}

static struct MHD_Response *make_response(http_request *r)
{
    if (r->state == STATE_WHOLE) /* the bytes stay in r->out until completed() */
        return r->out.failed ? NULL
                             : MHD_create_response_from_buffer(
                                   r->out.size, r->out.data ? r->out.data : (void *)(uintptr_t) "",
                                   MHD_RESPMEM_PERSISTENT);
    return MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK, read_stream, r, NULL);
}

/* Give libmicrohttpd what there is of an answer, or let the connection wait for it. */
static enum MHD_Result respond(http_request *r)
{
    enum MHD_Result done = MHD_NO;

    if (r->state == STATE_WAITING) {
        r->suspended = true;
        MHD_suspend_connection(r->connection);
        return MHD_YES;
    }
    if (r->state == STATE_ABORTED)
        return MHD_NO;
    struct MHD_Response *response = make_response(r);
    if (!response)
        return MHD_NO;
    if (add_headers(r, response))
        done = MHD_queue_response(r->connection, r->status, response);
    MHD_destroy_response(response);
    r->queued = done == MHD_YES;
    return done;
}

/* ------------------------------------------------------------------------------------ receiving */

static bool watch_socket(http_request *r)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(r->connection, MHD_CONNECTION_INFO_CONNECTION_FD);

    if (!info)
        return false;
    r->watch = (struct os_watch){ .fd = info->connect_fd, .ready = hung_up, .user = r };
    return os_loop_watch(r->http->loop, &r->watch, OS_HUNG_UP) == MC_OK;
}

static enum MHD_Result hand_over(http_request *r)
{
    http_server *h = r->http;

    if (r->body.failed || !watch_socket(r))
        return MHD_NO;
    r->state = STATE_WAITING;
    if (r->too_large)
        h->handler.too_large(h->handler.user, r);
    else
        h->handler.request(h->handler.user, r);
    assert(r->state != STATE_WAITING || r->gone);
    return respond(r);
}

/* Known to be too long from its header: refused before it is sent. */
static bool announces_too_much(const http_request *r)
{
    const char *text = http_header(r, MHD_HTTP_HEADER_CONTENT_LENGTH);

    return text && strtoull(text, NULL, 10) > r->http->body_max;
}

static enum MHD_Result take_body(http_request *r, const char *bytes, size_t size)
{
    const uint64_t max = r->http->body_max;

    r->body_seen += size;
    if (r->body_seen > max * UPLOAD_EXCESS)
        return MHD_NO;
    if (r->body_seen > max) {
        r->too_large = true; /* in chunks: an answer is possible at the end only */
        http_body_drop(r);
    } else
        buf_add(&r->body, bytes, size);
    return MHD_YES;
}

/* libmicrohttpd: once with the headers, with each part of the body, at its end, and when resumed. */
enum MHD_Result http_access(void *user, struct MHD_Connection *connection, const char *path,
                            const char *method, const char *version, const char *bytes,
                            size_t *size, void **context)
{
    http_request *r = *context;

    (void)version;
    if (!r) {
        r = request_open(user, connection, method, path);
        if (!r)
            return MHD_NO;
        *context = r;
        if (!announces_too_much(r))
            return MHD_YES;
        r->too_large = true;
        return hand_over(r);
    }
    if (*size > 0) {
        const enum MHD_Result taken =
            r->state == STATE_READING ? take_body(r, bytes, *size) : MHD_YES;
        *size = 0;
        return taken;
    }
    if (r->queued)
        return MHD_YES;
    return r->state == STATE_READING ? hand_over(r) : respond(r);
}

/* ----------------------------------------------------------------------------- the user's side */

const char *http_method(const http_request *r)
{
    return r->method;
}

const char *http_path(const http_request *r)
{
    return r->path;
}

const char *http_header(const http_request *r, const char *name)
{
    return MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND, name);
}

const char *http_body(const http_request *r, size_t *size_p)
{
    *size_p = r->body.size;
    return r->body.data ? r->body.data : "";
}

void http_hold(http_request *r, void (*gone)(void *user), void *user)
{
    assert(r->state == STATE_WAITING && gone);
    r->gone = gone;
    r->user = user;
}

void http_body_drop(http_request *r)
{
    const struct mc_alloc *alloc = r->body.alloc;

    buf_fini(&r->body);
    r->body = BUF_INIT(alloc);
}

static bool is_header_text(const char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            return false;
    return true;
}

void http_header_add(http_request *r, const char *name, const char *value)
{
    if (!is_header_text(value))
        return;
    buf_add(&r->headers, name, strlen(name) + 1);
    buf_add(&r->headers, value, strlen(value) + 1);
}

void http_answer(http_request *r, unsigned status, const char *content_type, struct buf *body)
{
    assert(r->state == STATE_WAITING && body->alloc == r->out.alloc);
    forget_user(r);
    r->status = status;
    r->content_type = content_type;
    r->out = *body;
    *body = BUF_INIT(r->out.alloc);
    r->state = STATE_WHOLE;
    resume(r);
}

void http_stream_begin(http_request *r, const char *content_type)
{
    assert(r->state == STATE_WAITING);
    r->status = MHD_HTTP_OK;
    r->content_type = content_type;
    r->state = STATE_STREAM;
    resume(r);
}

/* What was sent makes room, once it is the larger part: so each byte moves about once. */
static void compact(http_request *r)
{
    if (r->sent < r->out.size / 2 || r->sent == 0)
        return;
    memmove(r->out.data, r->out.data + r->sent, r->out.size - r->sent);
    buf_truncate(&r->out, r->out.size - r->sent);
    r->sent = 0;
}

mc_status http_stream_add(http_request *r, const void *bytes, size_t size)
{
    assert(r->state == STATE_STREAM);
    if (r->out.size - r->sent + size > r->http->stream_max)
        return MC_E_FULL;
    compact(r);
    buf_add(&r->out, bytes, size);
    if (r->out.failed)
        return MC_E_NOMEM;
    resume(r);
    return MC_OK;
}

void http_stream_end(http_request *r)
{
    assert(r->state == STATE_STREAM);
    forget_user(r);
    r->state = STATE_ENDED;
    resume(r);
}

void http_abort(http_request *r)
{
    forget_user(r);
    http_request_abort(r);
}
