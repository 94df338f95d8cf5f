/*
 * live.h - what happens here now, for whoever watches: the page at / and its stream of events, /live.
 *
 * Every request leaves a record in a ring: where it is, what it costs, how it ended; never a word of its
 * prompt or answer. While nobody watches that is all: figures are written into memory there is. Each watcher
 * is told everything once (event "snapshot"), and then, five times a second, what has changed (event
 * "change"); once a second, also when nothing has, so that silence means a broken line. The JSON of both is
 * described in docs/live-page.md.
 *
 * Life:    gateway_live_open -> ... -> gateway_live_end_watching (draining) -> gateway_live_close
 * Threads: one, the gateway's.
 * Memory:  one block at open, and two buffers that grow to the longest event. Watchers are LIVE_WATCHERS at
 *          most; one that does not read is cut off when its stream is full.
 * Errors:  open only. Without memory for an event, watchers are cut off; they come again.
 */
#ifndef GATEWAY_LIVE_H
#define GATEWAY_LIVE_H

#include "gateway/api.h"
#include "gateway/http.h"

struct gateway;
struct client;
struct request_event;
struct request_out_end;

enum { LIVE_WATCHERS = 8 };

/** What a client keeps of its record. `{ 0 }`: it has none. */
struct live_mark {
    uint64_t serial;          /* of the record, from 1 */
    uint64_t token_ns;        /* when the last tokens came */
    uint64_t output;          /* tokens seen in this attempt */
    uint64_t pulled, pushed;  /* bytes, the same */
    uint64_t prefill, decode; /* where it is placed */
    uint32_t stage, phase;    /* enum live_stage; the last prefill_progress.phase */
    bool first;               /* the first token was counted */
    bool prefilled;           /* the prefill's end has come */
};

mc_status gateway_live_open(struct gateway *g, struct mc_error *error);
void gateway_live_close(struct gateway *g);

/** End the watchers' streams: nobody waits for them to go. */
void gateway_live_end_watching(struct gateway *g);

/** GET / and GET /live. */
void gateway_live_page(struct gateway *g, http_request *http);
void gateway_live_watch(struct gateway *g, http_request *http);

/* What the gateway tells, each where it happens: */

/** A request begins its way. */
void gateway_live_begin(struct gateway *g, struct client *client);

/** It took a step. Hot: once for each event of each request. */
void gateway_live_step(struct gateway *g, struct client *client, const struct request_event *event);

/** It ends; `how` is an enum gateway_end. */
void gateway_live_end(struct gateway *g, struct client *client, const struct request_out_end *end,
                      uint32_t how);

/** One was turned away before it began. */
void gateway_live_refused(struct gateway *g, const struct api_error *error);

#endif /* GATEWAY_LIVE_H */
