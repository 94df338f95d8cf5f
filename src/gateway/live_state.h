/* live_state.h - the records, the watchers, and what was told last; for live*.c alone. */
#ifndef GATEWAY_LIVE_STATE_H
#define GATEWAY_LIVE_STATE_H

#include "gateway/client.h"
#include "gateway/control.h"
#include "gateway/live.h"
#include "gateway/live_minute.h"

/* Where a request is. */
#define LIVE_STAGES(X) \
    X(QUEUE, "queue") \
    X(PULL, "pull") \
    X(PREFILL, "prefill") \
    X(HAND_OFF, "hand_off") \
    X(DECODE, "decode") \
    X(DONE, "done")

enum live_stage {
#define LIVE_STAGE_ENUM(name, text) LIVE_##name,
    LIVE_STAGES(LIVE_STAGE_ENUM)
#undef LIVE_STAGE_ENUM
        LIVE_STAGE_COUNT,
};

enum {
    LIVE_RECORDS = 256,     /* the newest requests; older ones are counted and no more */
    LIVE_NEWS_MAX = 64,     /* records of one event that are new, moved on or ended */
    LIVE_PROGRESS_MAX = 32, /* and others, in which only figures grew */
    LIVE_REFUSALS = 16,     /* different reasons; more are "other" */
    LIVE_CARDS = 64,        /* workers, and nodes, that are told of; the rest is counted */
    LIVE_TEXT = 160,
    LIVE_NAME = 48,
};

/** What changed in a record since it was told. */
enum live_news { LIVE_TOLD, LIVE_GROWN, LIVE_MOVED };

struct live_record {
    uint64_t serial;                         /* 0: none yet */
    uint64_t arrived_ns, first_ns, ended_ns; /* CLOCK_MONOTONIC; 0: not yet */
    uint64_t prompt, reused, output, pulled, pushed;
    uint64_t entered_ns;              /* its stage */
    uint64_t spent_ns[LIVE_DONE];     /* in each stage before */
    uint64_t predicted_ns;            /* to the first token; 0: not */
    uint64_t slo_ttft_ns, slo_tbt_ns; /* asked for with the request; 0: not */
    enum live_stage stage;
    enum live_news news;
    uint32_t tries;
    bool chat, ended;
    bool prefilled;                             /* the prefill worker has said what it reused */
    const char *how;                            /* static; NULL: under way */
    char reason[LIVE_NAME];                     /* of a refusal or failure; "" else */
    char id[LIVE_NAME];                         /* of the request, cut */
    char prefill[LIVE_NAME], decode[LIVE_NAME]; /* workers; "": not placed */
};

/** Requests turned away for one reason. */
struct live_refusal {
    char reason[LIVE_NAME];
    uint64_t count, last_ns;
    char text[LIVE_TEXT]; /* the last one's, in words */
};

/* Parts of an event that go out when their text is another one. */
enum live_part {
    LIVE_GATEWAY,
    LIVE_STAGE_SUMS,
    LIVE_WORKERS,
    LIVE_NODES,
    LIVE_REFUSED,
    LIVE_PARTS
};

struct live_watcher {
    struct gateway *gateway; /* borrowed */
    http_request *http;      /* NULL: this place is free */
};

struct live {
    uint64_t serial;                          /* of the newest record */
    struct live_record records[LIVE_RECORDS]; /* by serial */
    uint64_t stages[LIVE_STAGE_COUNT];        /* requests in each; DONE: not used */
    struct live_minute minute;
    struct live_refusal refusals[LIVE_REFUSALS];
    struct live_watcher watchers[LIVE_WATCHERS];
    uint64_t good_seen; /* of the goodput that is counted */
    uint32_t watching;
    struct os_timer timer;
    uint64_t told_second; /* the last one that watchers know */
    struct buf event;     /* one in the making */
    struct buf part;      /* the same */
    struct buf told[LIVE_PARTS];
};

/* live_text.c: append what watchers are told, as one event of the stream; all of it, or what changed. */

void gateway_live_snapshot(struct gateway *g, uint64_t now_ns, struct buf *out);

/** Afterwards the news count as told. Nothing is appended if there are none. */
void gateway_live_change(struct gateway *g, uint64_t now_ns, struct buf *out);

#endif /* GATEWAY_LIVE_STATE_H */
