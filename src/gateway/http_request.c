/* http_request.c - one request's user side: what it reads, and how its answer becomes bytes. */
#define _POSIX_C_SOURCE 200809L
#include "gateway/http_state.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/alloc.h"

/* ------------------------------------------------------------------------------------ life */

static void empty(struct buf *buf, const struct mc_alloc *alloc)
{
    if (buf->alloc)
        buf_fini(buf);
    *buf = BUF_INIT(alloc);
}

void http_request_reset(http_request *c)
{
    const struct mc_alloc *alloc = c->http->alloc;

    empty(&c->text, alloc);
    http_body_drop(c);
    empty(&c->headers, alloc);
    empty(&c->head_out, alloc);
    empty(&c->out, alloc);
    c->scan = (struct http_scan){ 0 };
    c->head = (struct http_head){ .method = "", .path = "", .fields = "" };
    c->chunks = (struct http_chunks){ 0 };
    c->left = c->lingered = 0;
    c->head_sent = c->sent = 0;
    c->id[0] = '\0';
    c->keep = c->unread = c->chunked = c->bodiless = false;
    c->gone = NULL;
    c->user = NULL;
}

void http_mark(http_request *c)
{
    http_server *h = c->http;

    if (c->dirty.next)
        return;
    http_link_add(&h->dirty, &c->dirty);
    (void)os_loop_timer(h->loop, &h->flush,
                        os_loop_now(h->loop)); /* it is always set: no failure */
}

static void forget_user(http_request *r)
{
    r->gone = NULL;
    r->user = NULL;
}

/* ------------------------------------------------------------------------------------ reading */

const char *http_method(const http_request *r)
{
    return r->head.method;
}

const char *http_path(const http_request *r)
{
    return r->head.path;
}

const char *http_header(const http_request *r, const char *name)
{
    return http_head_field(&r->head, name, NULL);
}

const char *http_request_id(const http_request *r)
{
    return r->id;
}

const char *http_body(const http_request *r, size_t *size_p)
{
    *size_p = r->body.size;
    return r->body.data ? r->body.data : "";
}

void http_hold(http_request *r, void (*gone)(void *user), void *user)
{
    assert(r->phase == HTTP_WAITING && gone);
    r->gone = gone;
    r->user = user;
}

void http_body_drop(http_request *r)
{
    r->http->bodies -= r->body_bytes;
    r->body_bytes = 0;
    empty(&r->body, r->http->alloc);
}

/* --------------------------------------------------------------------------------------- heads */

static bool is_header_text(const char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            return false;
    return true;
}

void http_header_add(http_request *r, const char *name, const char *value)
{
    if (is_header_text(value) && strcmp(name, "X-Request-Id") != 0)
        buf_addf(&r->headers, "%s: %s\r\n", name, value);
}

static const char *status_text(unsigned status)
{
    static const struct {
        unsigned status;
        const char *text;
    } texts[] = {
        { 200, "OK" },
        { 204, "No Content" },
        { 304, "Not Modified" },
        { 400, "Bad Request" },
        { 401, "Unauthorized" },
        { 403, "Forbidden" },
        { 404, "Not Found" },
        { 405, "Method Not Allowed" },
        { 408, "Request Timeout" },
        { 413, "Content Too Large" },
        { 414, "URI Too Long" },
        { 415, "Unsupported Media Type" },
        { 417, "Expectation Failed" },
        { 429, "Too Many Requests" },
        { 431, "Request Header Fields Too Large" },
        { 500, "Internal Server Error" },
        { 501, "Not Implemented" },
        { 503, "Service Unavailable" },
        { 504, "Gateway Timeout" },
        { 505, "HTTP Version Not Supported" },
    };

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        if (texts[i].status == status)
            return texts[i].text;
    return "Answer";
}

/* Everything up to the body. `length`: of a whole answer. */
static void write_head(http_request *r, uint64_t length)
{
    struct buf *out = &r->head_out;

    r->bodiless = strcmp(r->head.method, "HEAD") == 0 || r->status == 204 || r->status == 304;
    r->keep = r->keep && !r->http->quiesced && (r->phase == HTTP_WHOLE || r->head.is_1_1);
    r->chunked = r->phase == HTTP_STREAM && r->head.is_1_1 && !r->bodiless;
    buf_addf(out, "HTTP/1.1 %u %s\r\nDate: %s\r\nX-Request-Id: %s\r\n", r->status,
             status_text(r->status), http_date(r->http), r->id);
    if (r->headers.size > 0)
        buf_add(out, r->headers.data, r->headers.size);
    if (r->status != 204 && r->status != 304)
        buf_addf(out, "Content-Type: %s\r\n", r->content_type);
    if (r->phase == HTTP_WHOLE && r->status != 204 && r->status != 304)
        buf_addf(out, "Content-Length: %" PRIu64 "\r\n", length);
    else if (r->chunked)
        buf_add_text(out, "Transfer-Encoding: chunked\r\n");
    if (!r->keep)
        buf_add_text(out, "Connection: close\r\n");
    else if (!r->head.is_1_1)
        buf_add_text(out, "Connection: keep-alive\r\n");
    buf_add_text(out, "\r\n");
    if (r->headers.failed || out->failed)
        r->phase = HTTP_ABORTED;
}

/* --------------------------------------------------------------------------------------- answers */

void http_answer(http_request *r, unsigned status, const char *content_type, struct buf *body)
{
    assert(r->phase == HTTP_WAITING && body->alloc == r->out.alloc);
    forget_user(r);
    r->status = status;
    r->content_type = content_type;
    r->out = *body;
    *body = BUF_INIT(r->out.alloc);
    r->phase = r->out.failed ? HTTP_ABORTED : HTTP_WHOLE;
    if (r->phase == HTTP_WHOLE)
        write_head(r, r->out.size);
    if (r->bodiless)
        empty(&r->out, r->http->alloc);
    http_mark(r);
}

void http_stream_begin(http_request *r, const char *content_type)
{
    assert(r->phase == HTTP_WAITING);
    r->status = 200;
    r->content_type = content_type;
    r->phase = HTTP_STREAM;
    write_head(r, 0);
    if (r->phase == HTTP_ABORTED) { /* told by the first part */
        r->phase = HTTP_STREAM;
        r->out.failed = true;
    }
    http_mark(r);
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
    assert(r->phase == HTTP_STREAM);
    if (r->out.size - r->sent + size > r->http->stream_max)
        return MC_E_FULL;
    if (size == 0 || r->bodiless)
        return MC_OK;
    compact(r);
    if (r->chunked)
        buf_addf(&r->out, "%zx\r\n", size);
    buf_add(&r->out, bytes, size);
    if (r->chunked)
        buf_add(&r->out, "\r\n", 2);
    if (r->out.failed)
        return MC_E_NOMEM;
    http_mark(r);
    return MC_OK;
}

void http_stream_end(http_request *r)
{
    assert(r->phase == HTTP_STREAM);
    forget_user(r);
    if (r->chunked)
        buf_add_text(&r->out, "0\r\n\r\n");
    r->phase = r->out.failed ? HTTP_ABORTED : HTTP_ENDED;
    http_mark(r);
}

void http_abort(http_request *r)
{
    forget_user(r);
    r->phase = HTTP_ABORTED;
    http_mark(r);
}

/* --------------------------------------------------------------------------------------- sending */

static void sent(http_request *r, size_t size)
{
    const size_t head = r->head_out.size - r->head_sent;
    const size_t of_head = size < head ? size : head;

    r->head_sent += of_head;
    r->sent += size - of_head;
    if (r->head_sent == r->head_out.size) {
        empty(&r->head_out, r->http->alloc);
        r->head_sent = 0;
    }
    if (r->sent == r->out.size && r->out.size > 0) {
        buf_truncate(&r->out, 0);
        r->sent = 0;
    }
}

static struct iovec part(const struct buf *buf, size_t from)
{
    return buf->size > from ? (struct iovec){ buf->data + from, buf->size - from }
                            : (struct iovec){ NULL, 0 };
}

mc_status http_send(http_request *r)
{
    while (r->head_out.size + r->out.size > r->head_sent + r->sent) {
        struct iovec parts[2] = { part(&r->head_out, r->head_sent), part(&r->out, r->sent) };
        const size_t skip = parts[0].iov_len == 0;
        const struct msghdr message = { .msg_iov = parts + skip, .msg_iovlen = 2 - skip };
        const ssize_t n = sendmsg(r->watch.fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return MC_PENDING;
        if (n < 0 && errno != EINTR)
            return MC_E_PEER;
        if (n > 0)
            sent(r, (size_t)n);
    }
    return MC_OK;
}
