/*
 * http.h - an HTTP/1.1 server inside our loop: whole requests in, whole or streamed answers out.
 *
 * One request of a connection is under way at a time; what a client sends behind it waits, and has its turn when
 * the others had theirs.
 * While a request is under way its socket is watched for a hang-up, which is known at once. (A client that
 * ends its sending side has hung up, too: it would not be told from one that is gone.)
 *
 * Life:    http_open -> (request -> http_answer | http_stream_begin -> http_stream_add* ->
 *          http_stream_end)* -> http_quiesce -> http_close
 * Threads: one, the loop's.
 * Memory:  bodies are bounded by body_max, all of them together by bodies_max (a buffer has up to twice as many
 *          bytes as it holds), what a slow client has not taken by stream_max, connections
 *          by connections_max, request line and headers by headers_max. All from the allocator. A
 *          connection without a request holds no buffers.
 * Time:    a request, headers and body, is received within receive_ns of its first byte however slowly
 *          bytes drip, else 408; an answer that is whole is taken within idle_ns; a connection between two
 *          requests stays for idle_ns, or until its place is needed.
 * Errors:  what clients send is an event: what is not HTTP is told to handler.refuse, which answers. A
 *          request belongs to the user from handler.request until it is answered whole, its stream is
 *          ended or aborted, or gone was called; then its pointer is dead.
 */
#ifndef GATEWAY_HTTP_H
#define GATEWAY_HTTP_H

#include "base/buf.h"
#include "os/loop.h"

typedef struct http_server http_server;   /* opaque: listener and connections */
typedef struct http_request http_request; /* opaque: one request and its answer */

struct http_handler {
    /** A request's headers are there, its body is not: true, or answer now to refuse it unread. Optional. */
    bool (*admit)(void *user, http_request *request);
    /** A request with its whole body. Answer now or later; later needs http_hold(). */
    void (*request)(void *user, http_request *request);
    /** What came is not HTTP, too long or too slow: answer now with `status`. code is a word, text a
     * sentence, both static. Method and path may be "". The connection ends with the answer. */
    void (*refuse)(void *user, http_request *request, unsigned status, const char *code,
                   const char *text);
    /** No request is under way any more (each time). */
    void (*quiet)(void *user);
    void *user;
};

/** `{ 0 }` but for alloc, loop, listen and handler means the defaults. */
struct http_options {
    const struct mc_alloc *alloc; /* borrowed until close */
    os_loop *loop;                /* borrowed until close */
    const char *listen;           /* "host:port", port 0: any; NULL: nowhere, for http_adopt() */
    bool insecure;                /* a host that is not loopback may be listened on */
    uint64_t body_max;            /* bytes; default 8 MiB */
    uint64_t bodies_max;      /* of all that are held; default 1 GiB, at least body_max; then 503 */
    uint64_t stream_max;      /* bytes of a stream not sent yet; default 1 MiB */
    uint32_t headers_max;     /* bytes of request line and headers; default 32 KiB */
    uint32_t connections_max; /* at a time; default 8192; more wait to be accepted */
    uint32_t address_max; /* of these from one address that is not loopback; default: no bound */
    uint64_t receive_ns;  /* from a request's first byte to its last; default 30 s */
    uint64_t idle_ns;     /* default 120 s */
    struct http_handler handler; /* copied; entries set */
};

/** What a server has counted since it was opened. */
struct http_counts {
    uint32_t connections, idle;     /* now; without a request */
    uint64_t accepted, turned_away; /* ever; of these closed at once by address_max */
    uint64_t evicted, refused; /* idle ones closed for their place; requests that were not HTTP */
    uint64_t late;             /* closed or refused for not being through in time */
    uint64_t no_room;          /* refused because other bodies had taken bodies_max */
};

/** Returns MC_OK, MC_E_ARG (the address), MC_E_DENIED (wide and not insecure), MC_E_EXISTS (taken), MC_E_IO or
 * MC_E_NOMEM. */
mc_status http_open(const struct http_options *options, http_server **server_p,
                    struct mc_error *error);

/** "host:port" with the real port; "" without. Lives as long as the server. */
const char *http_address(const http_server *server);

/** Serve a stream socket that is connected already and does not block; it is the server's from now on, also
 * when this fails. MC_OK, MC_E_NOMEM or MC_E_IO. */
mc_status http_adopt(http_server *server, int fd);

/** Accept no more; what is under way goes on. */
void http_quiesce(http_server *server);

/** Requests under way: their headers received, and not answered to the end. */
uint32_t http_active(const http_server *server);

struct http_counts http_counts(const http_server *server);

/** Cuts what is under way off; gone is called for held requests. NULL is allowed. */
void http_close(http_server *server);

/* ------------------------------------------------------------------------------- one request */

/** Borrowed until the request is answered. */
const char *http_method(const http_request *request);
/** Decoded; without what is behind '?'. */
const char *http_path(const http_request *request);
/** The first field of this name; NULL: not there. */
const char *http_header(const http_request *request, const char *name);
const char *http_body(const http_request *request, size_t *size_p);

/** What this request is called in logs and in the answer's X-Request-Id, which is added to every answer: the
 * client's X-Request-Id if it is fit for that (at most 64 letters, digits and -_.:), else ours. */
const char *http_request_id(const http_request *request);

/** The answer comes later. gone: the client hung up, or the server closes; called at most once, never from
 * a function of this header but http_close(). */
void http_hold(http_request *request, void (*gone)(void *user), void *user);

/** Free the body's memory early: it is read. */
void http_body_drop(http_request *request);

/** Before the answer begins. Text of both is copied; a value with control characters is left out, and
 * so is an X-Request-Id, which is there anyway. */
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
