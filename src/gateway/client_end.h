/* client_end.h - a request under way, and what its client sees: the answer's beginning, parts and end. */
#ifndef GATEWAY_CLIENT_END_H
#define GATEWAY_CLIENT_END_H

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
    struct answer answer;
    struct mc_key *keys; /* owned; options.sched borrows them */
    struct buf out;      /* a part in the making */
    struct os_timer timer;
    uint64_t arrived_ns;
    char id[40];         /* of the answer */
    char request_id[65]; /* of the headers and logs */
    char prefill[DEBUG_NAME],
        decode[DEBUG_NAME]; /* workers' names, as they were at the beginning */
    bool begun, given_up;
};

/** The client may see the answer: headers are known, a stream's first part goes out. */
void client_begin(struct client *client);

/** Send what a stream has. MC_OK, or why this client cannot be served on: MC_E_FULL (it does not read), MC_E_NOMEM. */
mc_status client_flush(struct client *client);

/** The end: the rest of the answer, or an error; the log line; the counters. */
void client_end(struct client *client, const struct request_out_end *end);

#endif /* GATEWAY_CLIENT_END_H */
