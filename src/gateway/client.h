/*
 * client.h - requests under way; for client.c, client_new.c, client_end.c and call.c alone.
 *
 * A call is what a client asked by one HTTP request. Each of its prompts is a request of its own towards the
 * scheduler and the workers, and one choice of the answer: a struct client. They end one by one, the call
 * with the last of them. When one fails, the client is told at once and the others are given up.
 */
#ifndef GATEWAY_CLIENT_H
#define GATEWAY_CLIENT_H

#include "gateway/live.h"
#include "gateway/state.h"

#define TENANT "default" /* of every request, until keys name tenants */

/** One prompt, on its way to its answer. */
struct client {
    gateway *gateway;                /* borrowed */
    struct call *call;               /* borrowed; it owns this one */
    const struct api_prompt *prompt; /* borrowed from the call: its tokens */
    struct client *next, *previous;  /* of those under way */
    struct client *bucket_next;      /* of clients by attempt */
    uint64_t attempt;                /* it is known by; 0: none */
    struct request request;
    struct request_options options;
    struct api_answer answer;
    struct mc_key *keys; /* owned; options.sched borrows them */
    struct os_timer timer;
    char prefill[DEBUG_NAME],
        decode[DEBUG_NAME]; /* workers' names, as they were at the beginning */
    bool open;              /* under way */
    bool begun, given_up;
    struct live_mark live; /* for the live page */
    struct {
        uint64_t attempt, tokens, node;
    } copy; /* of that attempt's prefix, a further one at that node of the pool; attempt 0: none */
};

/** One HTTP request. */
struct call {
    gateway *gateway;   /* borrowed */
    http_request *http; /* borrowed; NULL: the client left, or was answered */
    struct api_request api;
    struct api_head head;
    struct client *clients; /* owned; [count]: one for each prompt */
    uint32_t count;
    uint32_t open;  /* of them: under way */
    uint32_t walks; /* loops over them that are going on: it is not freed before */
    bool begun;     /* a stream's headers are out */
    bool failed;    /* the client was told of an error */
    struct buf out; /* a part in the making */
    uint64_t arrived_ns;
    char request_id[65]; /* of the headers and logs */
};

/* call.c */

/** NULL: no memory. To be freed by the last client that closes, or by gateway_call_free(). */
struct call *gateway_call_open(gateway *g, http_request *http);

/** No client of it is open. */
void gateway_call_free(struct call *call);

/** Its choice may be seen: a stream's headers go out with the first. */
void gateway_call_begin(struct call *call);

/** Send what a stream has of a choice. MC_OK, or why this client cannot be served on: MC_E_FULL (it does not
 * read) or MC_E_NOMEM. */
mc_status gateway_call_flush(struct call *call, struct client *client);

/** A choice is whole: a stream is told; the last one ends the answer. */
void gateway_call_choice(struct call *call, struct client *client);

/** One failed: the client is told, the others are given up. */
void gateway_call_fail(struct call *call, const struct api_error *error);

/** The client was told of an error, by whomever: what is still under way of its answer is given up. */
void gateway_call_give_up(struct call *call);

/* client.c */

/** Under way from now on: client `index` of the call, all of whose clients are zeroed. */
struct client *gateway_client_open(struct call *call, uint32_t index);

/** Not under way any more. The call goes with its last one. */
void gateway_client_close(struct client *client);

/** The options of all are set: from now on they live by their state machines. They may be gone on return. */
void gateway_clients_start(struct call *call);

/** It cannot be served on: it ends with `status` in the pump's next turn. */
void gateway_client_give_up(struct client *client, mc_status status);

/* client_end.c */

/** Its choice may be seen. */
void gateway_client_begin(struct client *client);

/** The end: the rest of the choice, or an error; the log line; the counters. */
void gateway_client_end(struct client *client, const struct request_out_end *end);

#endif /* GATEWAY_CLIENT_H */
