/* client.h - a request under way; for client.c, client_new.c and client_end.c alone. */
#ifndef GATEWAY_CLIENT_H
#define GATEWAY_CLIENT_H

#include "gateway/live.h"
#include "gateway/state.h"

#define TENANT "default" /* of every request, until keys name tenants */

struct client {
    gateway *gateway;   /* borrowed */
    http_request *http; /* borrowed; NULL: the client left, or was answered */
    struct client *next, *previous;
    struct client *bucket_next; /* of clients by attempt */
    uint64_t attempt;           /* it is known by; 0: none */
    struct request request;
    struct request_options options;
    struct api_request api;
    struct api_answer answer;
    struct mc_key *keys; /* owned; options.sched borrows them */
    struct buf out;      /* a part in the making */
    struct os_timer timer;
    uint64_t arrived_ns;
    char id[40];         /* of the answer */
    char request_id[65]; /* of the headers and logs */
    char prefill[DEBUG_NAME],
        decode[DEBUG_NAME]; /* workers' names, as they were at the beginning */
    bool begun, given_up;
    struct live_mark live; /* for the live page */
};

/* client.c */

/** Among the requests under way; NULL: no memory. */
struct client *gateway_client_open(gateway *g, http_request *http);

/** Not under way any more. */
void gateway_client_close(struct client *client);

/** Its options are set: from now on it lives by its state machine. It may be gone on return. */
void gateway_client_start(struct client *client);

/* client_end.c */

/** The client may see the answer: headers are known, a stream's first part goes out. */
void gateway_client_begin(struct client *client);

/** Send what a stream has. MC_OK, or why this client cannot be served on: MC_E_FULL (it does not read) or
 * MC_E_NOMEM. */
mc_status gateway_client_flush(struct client *client);

/** The end: the rest of the answer, or an error; the log line; the counters. */
void gateway_client_end(struct client *client, const struct request_out_end *end);

#endif /* GATEWAY_CLIENT_H */
