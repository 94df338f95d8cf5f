/* http_state.h - the server and its requests inside; for http.c and http_request.c alone. */
#ifndef GATEWAY_HTTP_STATE_H
#define GATEWAY_HTTP_STATE_H

#include <microhttpd.h>

#include "gateway/http.h"
#include "os/address.h"

struct http_server {
    const struct mc_alloc *alloc;
    os_loop *loop;
    struct http_handler handler;
    uint64_t body_max, stream_max;
    struct MHD_Daemon *daemon; /* owned */
    struct os_watch watch;     /* the daemon's epoll descriptor */
    struct os_timer timer;     /* when the daemon wants to run though nothing happened */
    http_request *first;       /* every request under way */
    uint32_t active;
    uint32_t connections_max;
    bool again; /* something changed since the daemon last looked at it */
    bool full;  /* the daemon had connections_max when it last ran */
    bool closing;
    char address[OS_ADDRESS_TEXT];
};

enum state {
    STATE_READING, /* the body */
    STATE_WAITING, /* held, no answer yet */
    STATE_WHOLE,   /* answered whole */
    STATE_STREAM,  /* a stream is under way */
    STATE_ENDED,   /* all of the stream was added */
    STATE_ABORTED,
};

struct http_request {
    http_server *http;                 /* borrowed */
    struct MHD_Connection *connection; /* borrowed; valid until completed() */
    http_request *next, *previous;
    enum state state;
    bool suspended, queued, too_large;
    const char *method, *path; /* borrowed from the connection */
    struct buf body;
    uint64_t body_seen; /* bytes received, also those that were dropped */
    void (*gone)(void *user);
    void *user;
    struct os_watch watch; /* of the socket, for hang-ups */
    unsigned status;
    const char *content_type; /* static */
    struct buf headers;       /* name, NUL, value, NUL, ... */
    struct buf out;           /* the answer, or what of the stream waits from `sent` on */
    size_t sent;
};

/* http.c: let the daemon run in the loop's next turn. Also from within a run: a request's handler may
 * answer others. */
void http_run_soon(http_server *h);

/* http_request.c: libmicrohttpd calls these. */
enum MHD_Result http_access(void *user, struct MHD_Connection *connection, const char *path,
                            const char *method, const char *version, const char *bytes,
                            size_t *size, void **context);
void http_completed(void *user, struct MHD_Connection *connection, void **context,
                    enum MHD_RequestTerminationCode how);

/** Cut off a request, also one that is answered already. */
void http_request_abort(http_request *r);

#endif /* GATEWAY_HTTP_STATE_H */
