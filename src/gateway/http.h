/*
 * http.h - an HTTP/1.1 server inside our loop: whole requests in, whole or streamed answers out.
 *
 * libmicrohttpd parses and frames; its epoll descriptor is watched by our loop and it starts no thread.
 * While a request waits for its answer, or a stream for more bytes, its connection is suspended, and
 * libmicrohttpd does not look at it: this room watches the socket, so a hang-up is known at once. (A client
 * that ends its sending side has hung up, too: it would not be told from one that is gone.)
 *
 * Life:    http_open -> (request -> http_answer | http_stream_begin -> http_stream_add* ->
 *          http_stream_end)* -> http_quiesce -> http_close
 * Threads: one, the loop's.
 * Memory:  bodies are bounded by body_max, what a slow client has not taken by stream_max, connections
 *          by connections_max, request line and headers by headers_max. From the allocator, but for
 *          libmicrohttpd's own.
 * Errors:  what clients send is an event: answered with 4xx by itself where HTTP is broken. A request
 *          belongs to the user from handler.request until it is answered whole, its stream is ended or
 *          aborted, or gone was called; then its pointer is dead.
 */
#ifndef GATEWAY_HTTP_H
#define GATEWAY_HTTP_H

#include "base/buf.h"
#include "os/loop.h"

typedef struct http_server http_server;   /* opaque: listener and connections */
typedef struct http_request http_request; /* opaque: one request and its answer */

struct http_handler {
    /** A request with its whole body. Answer now or later; later needs http_hold(). */
    void (*request)(void *user, http_request *request);
    /** The body is over body_max: answer with 413 now. */
    void (*too_large)(void *user, http_request *request);
    /** No request is under way any more (each time). */
    void (*quiet)(void *user);
    void *user;
};

/** `{ 0 }` but for alloc, loop and listen means the defaults. */
struct http_options {
    const struct mc_alloc *alloc; /* borrowed until close */
    os_loop *loop;                /* borrowed until close */
    const char *listen;           /* "host:port", port 0: any */
    bool insecure;                /* a host that is not loopback may be listened on */
    uint64_t body_max;            /* bytes; default 8 MiB */
    uint64_t stream_max;          /* bytes of a stream not sent yet; default 1 MiB */
    uint32_t headers_max;         /* bytes of request line and headers; default 32 KiB */
    uint32_t connections_max;     /* at a time; default 4096; more wait to be accepted */
    uint32_t idle_s;              /* a connection that neither sends nor takes; default 120 */
    struct http_handler handler;  /* copied; entries set */
};

/** Returns MC_OK, MC_E_ARG (the address), MC_E_DENIED (wide and not insecure), MC_E_EXISTS (taken), MC_E_IO or
 * MC_E_NOMEM. */
mc_status http_open(const struct http_options *options, http_server **server_p,
                    struct mc_error *error);

/** "host:port" with the real port. Lives as long as the server. */
const char *http_address(const http_server *server);

/** Accept no more; what is under way goes on. */
void http_quiesce(http_server *server);

/** Requests under way: received in part or whole, and not answered to the end. */
uint32_t http_active(const http_server *server);

/** Cuts what is under way off; gone is called for held requests. NULL is allowed. */
void http_close(http_server *server);

/* ------------------------------------------------------------------------------- one request */

/** Borrowed until the request is answered. */
const char *http_method(const http_request *request);
const char *http_path(const http_request *request); /* without what is behind '?' */
const char *http_header(const http_request *request, const char *name); /* NULL: not there */
const char *http_body(const http_request *request, size_t *size_p);

/** The answer comes later. gone: the client hung up, or the server closes; called at most once, never from
 * a function of this header but http_close(). */
void http_hold(http_request *request, void (*gone)(void *user), void *user);

/** Free the body's memory early: it is read. */
void http_body_drop(http_request *request);

/** Before the answer begins. Text of both is copied; a value with control characters is left out. */
void http_header_add(http_request *request, const char *name, const char *value);

/** Answer whole. `body` is emptied into the request. */
void http_answer(http_request *request, unsigned status, const char *content_type,
                 struct buf *body);

/** Answer 200 with a body that comes in parts. The first part should be added at once. */
void http_stream_begin(http_request *request, const char *content_type);

/** More bytes, copied, sent soon. MC_OK, MC_E_FULL (more than stream_max wait: nothing was added) or MC_E_NOMEM. */
mc_status http_stream_add(http_request *request, const void *bytes, size_t size);

/** That was all. */
void http_stream_end(http_request *request);

/** End the answer, begun or not, by closing the connection: the client sees that it is cut. */
void http_abort(http_request *request);

#endif /* GATEWAY_HTTP_H */
