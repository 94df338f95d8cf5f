/*
 * http_client.h - many HTTP requests at once, in the caller's loop: libcurl drives the protocol, the loop its
 * sockets and its timer.
 *
 * Life:    http_client_open -> http_client_begin* -> (header*, data*, end)* -> http_client_close
 * Threads: one, the loop's. No thread is started: the host's name is resolved once, at open.
 * Memory:  a call is the caller's and stays where it is until its end; so do path and body. Connections are kept
 *          and used again.
 * Errors:  what goes wrong with one request is told at its end. Proxies of the environment are not asked.
 */
#ifndef CMD_HTTP_CLIENT_H
#define CMD_HTTP_CLIENT_H

#include <stdbool.h>

#include "os/loop.h"

typedef struct http_client http_client; /* opaque */
struct http_exchange;                   /* the client's side of a call */

/** `{ 0 }` and then: alloc, loop, url. */
struct http_client_options {
    const struct mc_alloc *alloc; /* borrowed */
    os_loop *loop;                /* borrowed */
    const char *url; /* "http://host:8000", perhaps with a path that comes before all others */
    const char *const
        *headers;        /* "Name: value" of every request, NULL at the end; may be NULL. Copied */
    uint64_t connect_ns; /* until a connection stands; 0: 10 s */
    uint64_t timeout_ns; /* of a whole request; 0: none */
};

/** How a call ended. */
struct http_end {
    mc_status
        status; /* MC_OK: the answer came whole; E_PEER, E_TIMEOUT, E_CANCELLED (data said stop), E_NOMEM, E_IO */
    long code;        /* HTTP's, 0: no answer began */
    const char *text; /* what went wrong, else ""; borrowed for the call */
};

/** One request. `{ 0 }` and then what is above the line. */
struct http_call {
    const char *path; /* "/v1/models" */
    const char *body; /* NULL: GET, else POST */
    size_t body_size;
    /** A header of the answer, not ended by NUL. May be NULL. */
    void (*header)(void *user, const char *name, size_t name_size, const char *value,
                   size_t value_size);
    /** Bytes of the answer's body; false: no more of it, which ends the call. May be NULL. */
    bool (*data)(void *user, const char *bytes, size_t size);
    /** Once, last; the call is the caller's again and may be begun anew. Never within begin or cancel. */
    void (*end)(void *user, const struct http_end *end);
    void *user;
    /* ------ the client's */
    http_client *client;
    struct http_exchange *exchange;
};

/** Returns MC_OK, MC_E_ARG (not a URL that is understood), MC_E_NOT_FOUND (no such host), MC_E_NOMEM or
 * MC_E_IO. */
mc_status http_client_open(const struct http_client_options *options, http_client **client_p,
                           struct mc_error *error);

/** Calls that have not ended are cancelled. NULL is allowed. */
void http_client_close(http_client *client);

/** Returns MC_OK, after which `end` will be called, or MC_E_NOMEM. */
mc_status http_client_begin(http_client *client, struct http_call *call);

/** Break off: nothing of the call is called any more. Not begun, or ended: nothing happens. Not to be called
 * from `header` or `data`. */
void http_client_cancel(http_client *client, struct http_call *call);

#endif /* CMD_HTTP_CLIENT_H */
