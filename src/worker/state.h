/*
 * state.h - what the files of this room share: the worker, its gateways and peers, the requests here.
 *
 *      control.c   what arrives on connections            gateways.c  registration, load reports
 *      tasks.c     the prefill side of requests           peers.c     connections to decode workers
 *      seats.c     the decode side: reservations          answers.c   tokens on their way to a gateway
 *      *_open.c, seat_hand_off.c   what a message must be, and what it becomes
 *      measure.c   timing itself when asked            delay.c     what a timing worker holds back
 *      counters.c  the metric table                       sampling.c  a message's sampling, kept
 *
 * Threads: one, the loop's.
 */
#ifndef WORKER_STATE_H
#define WORKER_STATE_H

#include "base/metric.h"
#include "kv/layout.h"
#include "net/net.h"
#include "os/address.h"
#include "worker/core/decode.h"
#include "worker/core/prefill.h"
#include "worker/pool.h"
#include "worker/push.h"
#include "worker/runner.h"
#include "worker/worker.h"

enum {
    WORKER_INBOX_MAX = 64,      /* events that an outbox makes at once */
    WORKER_RECENT_MAX = 256,    /* hand-offs that ended and may be asked again */
    WORKER_ASKS_MAX = 16,       /* drains that are not answered */
    WORKER_PULL_BLOCKS = 16384, /* of one request: 262,144 tokens */
};

/** A gateway that this worker dials. */
struct gateway_link {
    struct worker *worker;
    net_conn *conn;
    bool registered;
    uint64_t instance, report_ns;
    uint64_t latest;       /* newest request of it */
    char away[200];        /* why it was not reached, as logged last */
    struct os_timer timer; /* next report, or to register again */
};

/** A decode worker that this worker dials. */
struct peer {
    struct peer *next;
    struct worker *worker;
    net_conn *conn;
    uint32_t users;
    uint32_t
        segment; /* its engine's, kept open between requests: connecting takes longer than they do */
    char *address; /* owned */
};

/** How tokens are chosen and an answer ends; arrays owned. */
struct sampling {
    struct mc_sampling values;
    uint32_t *banned, *stops;
    uint32_t banned_count, stop_count;
    uint32_t tokens_max, tokens_min;
    bool ignore_eos;
};

/** The answer's part that goes to the gateway. */
struct answer {
    struct worker *worker;
    struct gateway_link *gateway; /* NULL once it is lost */
    uint64_t request;
    uint64_t index; /* of the next sample */
};

/** Blocks of a sequence, named: to be pulled or put. */
struct blocks {
    struct mc_identity *identities; /* owned; [capacity] */
    struct mc_identity root;
    uint32_t named, capacity;
};

/** Bits of prefill.cache and hand_off.cache. */
enum cache_bits { CACHE_UNREAD = 1, CACHE_UNWRITTEN = 2 };

/** How long a pull may take that nobody said what computing would take of. */
#define TASK_PULL_NS UINT64_C(2000000000)

/** A request that is prefilled here. */
struct task {
    struct worker *worker;
    uint32_t index; /* in worker->tasks */
    struct prefill machine;
    struct prefill_event inbox[WORKER_INBOX_MAX];
    uint32_t inbox_first, inbox_count;
    bool stepping;
    struct os_timer timer;

    struct answer answer; /* gateway, request; the answer when it is decoded here */
    uint64_t cancel_ask;  /* to be answered when it is gone; 0: none */
    struct prefill_place place;
    struct job job;
    uint32_t *tokens; /* owned; [token_count], the prompt */
    uint32_t token_count;
    struct sampling sampling;
    struct blocks blocks;
    uint32_t cache; /* enum cache_bits */
    uint64_t pull_ns;
    struct os_timer pull_timer; /* delay.c's, as the next four */
    uint64_t pull_begin_ns;
    uint32_t pulled_blocks;
    bool held_back;
    uint32_t pull_known;  /* tokens that the gateway knew of in the pool */
    uint32_t pull_most;   /* tokens that may be pulled at all; 0: the pool is not to be read */
    uint32_t copy_blocks; /* once pulled, of so many a further copy is put at copy_node */
    uint64_t copy_node;
    void **pages; /* owned; [page_count] once it started: the prompt's */
    uint32_t page_count;
    uint32_t *checksums; /* owned; [page_count], the first `checked` are there */
    uint32_t checked;
    void **block_pages; /* owned; as in struct job */
    struct mc_sample first;

    /* Only with a decode worker: */
    struct mc_window window;
    uint64_t reservation, decode_incarnation;
    uint32_t segment;
    struct peer *peer;
    uint64_t hand_off_ask, renew_ask; /* 0: none */
    struct wire_slice salt, tenant;   /* owned bytes */

    uint64_t pulled_bytes, pushed_bytes;
};

/** A reservation, and what is decoded in its pages. */
struct seat {
    struct worker *worker;
    uint32_t index; /* in worker->seats */
    uint64_t id;    /* the reservation's */
    struct decode machine;
    struct decode_event inbox[WORKER_INBOX_MAX];
    uint32_t inbox_first, inbox_count;
    bool stepping;
    struct os_timer timer;
    struct os_timer revoke_timer;
    uint64_t revoke_wait_ns;      /* 0: not revoking */
    struct os_timer verify_timer; /* delay.c's, as the next two */
    mc_status verified;
    bool held_back;

    struct answer answer;
    uint64_t cancel_ask;
    uint64_t holder;
    struct sampling sampling;
    uint32_t prompt_tokens;
    void **pages; /* owned; [page_count] */
    uint32_t page_count, window_pages;
    struct mc_window window;

    net_conn *hand_off_conn; /* who waits for the answer to hand_off_ask; NULL: gone */
    uint64_t hand_off_ask;
    net_conn *renew_conn; /* the same, of the renewal being handled */
    uint64_t renew_ask;
    uint32_t *checksums; /* owned; [window_pages], of the hand-off */
    struct job job;
    struct mc_sample first;
    struct blocks blocks;
    uint32_t cache;     /* enum cache_bits */
    void **block_pages; /* owned */
};

struct recent {
    uint64_t reservation;
    mc_status status;
};

struct drain_ask {
    net_conn *conn;
    uint64_t id;
};

struct worker {
    const struct mc_alloc *alloc;
    os_loop *loop;
    struct mc_log log;
    char *name; /* owned */
    enum mc_role role;
    struct worker_options limits; /* settled numbers; its pointers are not read */
    char address[OS_ADDRESS_TEXT];

    mc_model *model;
    struct mc_model_info info;
    mc_engine *engine;
    const char *kernel; /* as others are told */
    struct mc_engine_limits engine_limits;
    bool timing; /* the engine is one of numbers, of `model_of` */
    struct timing_model model_of;
    uint64_t pull_free_ns, load_free_ns; /* delay.c's */
    struct mc_identity fingerprint;
    uint64_t page_bytes;
    uint32_t context_max;

    mc_transfer *transfer;
    struct mc_transfer_info transfer_info;
    void *memory;
    struct mc_region region;
    mc_store *store;
    struct pages *pages;
    runner *runner;
    net *net;
    struct metrics metrics;
    struct pushes pushes;
    struct pool pool;

    struct gateway_link *gateways; /* owned; [gateway_count] */
    uint32_t gateway_count;
    struct peer *peers;  /* owned; a list */
    struct task **tasks; /* owned; [requests_max] */
    uint32_t task_count;
    struct seat **seats; /* owned; [seats_max] */
    uint32_t seat_count, seats_max;
    uint64_t arrivals, reservations;
    struct measure *measure; /* owned; NULL: nothing is being timed */
    struct recent recent[WORKER_RECENT_MAX];
    uint32_t recent_next;
    struct os_timer line_timer; /* look who can start */

    bool draining, closing;
    void (*drained)(void *user);
    void *drained_user;
    struct drain_ask drain_asks[WORKER_ASKS_MAX];
    uint32_t drain_ask_count;
};

/* worker.c */
void worker_log(const struct worker *w, enum mc_log_level level, const char *format, ...)
    MC_PRINTF(3, 4);
/** Pages came free, or a place in the engine: look, soon, who can start and who waits for a drain. */
void worker_look_soon(struct worker *w);

/* engine_open.c */
/** Model, engine, fingerprint and what follows from them. */
mc_status worker_open_engine(struct worker *w, const struct worker_options *options,
                             struct mc_error *error);

/* gateways.c */
mc_status gateways_open(struct worker *w, const struct worker_options *options,
                        struct mc_error *error);
void gateways_close(struct worker *w);

/* peers.c */
/** The connection to `address` ([size] bytes), dialled if it is not there. One user more. */
mc_status worker_peer_take(struct worker *w, const struct wire_slice *address, struct peer **peer_p,
                           struct mc_error *error);
/** Open the segment `name` of its engine for a request, and keep it for the next. Closed by the caller. */
mc_status worker_peer_segment(struct peer *peer, const char *name, uint32_t *segment_p,
                              struct mc_error *error);
void worker_peer_drop(struct peer *peer); /* NULL is allowed */
void worker_peers_close(struct worker *w);

/* control.c */
extern const struct net_events worker_events; /* of accepted connections */
/** What a gateway asks over the connection that was dialled to it. */
void worker_from_gateway(struct gateway_link *gateway, const struct wire_frame *frame);
/** Answer, if anybody listens. */
void worker_answer(net_conn *conn, uint64_t id, mc_status status, const char *text);
/** Everything that waited for the worker to be empty is told. */
void worker_drained(struct worker *w);
/** A connection is gone: nobody can be answered on it. */
void worker_forget(struct worker *w, const net_conn *conn);
bool worker_is_empty(const struct worker *w);

/* task_open.c */
mc_status task_open(struct worker *w, struct gateway_link *gateway,
                    const struct wire_prefill *message, struct mc_error *error);
void task_free(struct task *task); /* nothing is held any more */

/* tasks.c */
void task_due(void *user, uint64_t now_ns);
void task_news(void *owner, const struct runner_news *news);
struct task *task_find(const struct worker *w, const struct gateway_link *gateway,
                       uint64_t request);
/** ask: to be answered when it is gone; 0: none. */
void task_cancel(struct task *task, uint64_t ask);
void task_happen(struct task *task, struct prefill_event event);
/** Start those whose turn it is and who get pages. */
void tasks_start(struct worker *w);

/* delay.c: with a timing model events come as late as they would; else at once. */
void delay_pull_begin(struct task *task);
void delay_pulled(struct task *task, uint32_t blocks);
void delay_pull_stop(struct task *task); /* nobody waits for it: at once */
void delay_verified(struct seat *seat, mc_status status);
void delay_verify_stop(struct seat *seat);
/** Of so many bytes of its pages: what they stand for. */
uint64_t worker_stands_for(const struct worker *w, uint64_t bytes);

/* seat_open.c */
mc_status seat_open(struct worker *w, struct gateway_link *gateway,
                    const struct wire_reserve *message, struct seat **seat_p,
                    struct mc_error *error);
void seat_free(struct seat *seat); /* nothing is held any more */
/** As asked, within bounds. */
uint64_t seat_lease(const struct worker *w, uint64_t asked_ns);
void seat_drop_pages(struct seat *seat);

/* seats.c */
void seat_happen(struct seat *seat, struct decode_event event);
void seat_due(void *user, uint64_t now_ns);
void seat_revoke_due(void *user, uint64_t now_ns);
void seat_news(void *owner, const struct runner_news *news);
struct seat *seat_find(const struct worker *w, const struct gateway_link *gateway,
                       uint64_t request);
struct seat *seat_of(const struct worker *w, uint64_t reservation);
void seat_cancel(struct seat *seat, uint64_t ask);
/** Wait until its window is quiet, at most until then; its pages go either way. For the end alone. */
void seat_quieten(struct seat *seat, uint64_t until_ns);
/** Nobody can be answered on it any more. */
void seats_forget_conn(struct worker *w, const net_conn *conn);

/* seat_hand_off.c */
void seat_hand_off(struct worker *w, net_conn *conn, uint64_t ask,
                   const struct wire_hand_off *message);
void seat_renew(struct worker *w, net_conn *conn, uint64_t ask,
                const struct wire_reservation_renew *message);
void seat_verify(struct seat *seat); /* answers with DECODE_VERIFIED */

/* answers.c */
/** One more token of the answer, or its end. Ends the request when the gateway does not take it: false. */
bool answer_token(struct answer *answer, const struct mc_sample *sample, enum request_finish finish,
                  uint64_t step_ns);
void answer_failed(struct answer *answer, mc_status status, const char *text);
/** samples: a place for one, with its list. */
struct wire_sample answer_sample(const struct mc_sample *sample,
                                 struct wire_token_logprob top[MC_TOP_LOGPROBS_MAX]);
bool answer_read_sample(const struct wire_sample *message, struct mc_sample *sample_p);

/* sampling.c */
mc_status sampling_read(const struct worker *w, const struct wire_sampling *message,
                        struct sampling *sampling_p, struct mc_error *error);
void sampling_fini(const struct worker *w, struct sampling *sampling);
/** A request for the engine over `sampling`; only_first: it makes one token, for a hand-off. */
mc_status sampling_request(const struct worker *w, const struct sampling *sampling,
                           const uint32_t *tokens, uint32_t count, bool only_first, struct job *job,
                           struct mc_error *error);

/* blocks.c */
mc_status blocks_init(const struct worker *w, struct blocks *blocks,
                      const struct wire_slice *tenant, const struct wire_slice *salt,
                      uint32_t capacity);
void blocks_fini(const struct worker *w, struct blocks *blocks);
/** Name blocks up to `count` from the tokens of the sequence. */
void blocks_name(struct blocks *blocks, const uint32_t *tokens, uint32_t count);

/* counters.c */
mc_status counters_open(struct worker *w);
void counters_close(struct worker *w);
/** Bring the gauges up to date. */
void counters_refresh(struct worker *w);
void counters_answer(struct worker *w, net_conn *conn, uint64_t ask,
                     const struct wire_slice *prefix);

#define WORKER_METRICS(X) \
    X(pages, "pages", GAUGE, NONE, NULL, NULL, "KVCache pages of this worker.") \
    X(pages_free, "pages_free", GAUGE, NONE, NULL, NULL, "Pages that nobody holds.") \
    X(pages_reserved, "pages_reserved", GAUGE, NONE, NULL, NULL, \
      "Pages of reservations whose prompt is not there yet.") \
    X(pages_quarantined, "pages_quarantined", GAUGE, NONE, NULL, NULL, \
      "Pages whose window is revoked and not quiet yet.") \
    X(reservations, "reservations", GAUGE, NONE, NULL, NULL, \
      "Reservations, those whose answer is being made included.") \
    X(queued, "queued", GAUGE, NONE, NULL, NULL, "Requests that wait for their turn.") \
    X(prefilling, "prefilling", GAUGE, NONE, NULL, NULL, \
      "Requests that are pulled, computed or handed off.") \
    X(decoding, "decoding", GAUGE, NONE, NULL, NULL, "Sequences whose answer is being made.") \
    X(gateways, "gateways", GAUGE, NONE, NULL, NULL, \
      "Gateways that this worker is registered at.") \
    X(draining, "draining", GAUGE, NONE, NULL, NULL, "1: takes no more.") \
    X(prefills, "prefills", COUNTER, NONE, NULL, NULL, "Requests taken to be prefilled.") \
    X(reserved, "reserved", COUNTER, NONE, NULL, NULL, "Reservations granted.") \
    X(joined, "joined", COUNTER, NONE, NULL, NULL, "Prompts taken over from another worker.") \
    X(handed_off, "handed_off", COUNTER, NONE, NULL, NULL, \
      "Prompts that another worker took over.") \
    X(cancelled, "cancelled", COUNTER, NONE, NULL, NULL, "Requests cancelled, on either side.") \
    X(failed, "failed", COUNTER, NONE, NULL, NULL, "Requests that failed, on either side.") \
    X(refused, "refused", COUNTER, NONE, NULL, NULL, "Prefills and reservations refused.") \
    X(expired, "expired", COUNTER, NONE, NULL, NULL, "Reservations whose lease ended.") \
    X(corrupt, "corrupt", COUNTER, NONE, NULL, NULL, \
      "Hand-offs whose pages did not match their checksums.") \
    X(prompt_tokens, "prompt_tokens", COUNTER, NONE, NULL, NULL, "Tokens of prompts computed.") \
    X(reused_tokens, "reused_tokens", COUNTER, NONE, NULL, NULL, "Tokens of prompts pulled.") \
    X(output_tokens, "output_tokens", COUNTER, NONE, NULL, NULL, "Tokens chosen.") \
    X(steps, "steps", COUNTER, NONE, NULL, NULL, "Steps of the engine.") \
    X(preemptions, "preemptions", COUNTER, NONE, NULL, NULL, \
      "Sequences thrown out of memory and computed again.") \
    X(pulled, "pulled", COUNTER, BYTES, NULL, NULL, "KVCache pulled from the pool.") \
    X(pulls_failed, "pulls_failed", COUNTER, NONE, NULL, NULL, \
      "Blocks asked for that did not come.") \
    X(pushed, "pushed", COUNTER, BYTES, NULL, NULL, "KVCache pushed to decode workers.") \
    X(put, "put", COUNTER, BYTES, NULL, NULL, "KVCache put to the pool.") \
    X(puts_stored, "puts_stored", COUNTER, NONE, NULL, NULL, "Blocks put to the pool.") \
    X(puts_copied, "puts_copied", COUNTER, NONE, NULL, NULL, \
      "Of these: further copies of hot blocks.") \
    X(puts_existed, "puts_existed", COUNTER, NONE, NULL, NULL, "Blocks that the pool had.") \
    X(puts_failed, "puts_failed", COUNTER, NONE, NULL, NULL, "Blocks that the pool did not take.") \
    X(puts_dropped, "puts_dropped", COUNTER, NONE, NULL, NULL, \
      "Blocks not put: the queue was full, or the request was cancelled.") \
    X(transfer_read, "transfer_read", COUNTER, BYTES, NULL, &worker_transports, \
      "Bytes read from peers by the Transfer Engine.") \
    X(transfer_written, "transfer_written", COUNTER, BYTES, NULL, &worker_transports, \
      "Bytes written to peers by the Transfer Engine.") \
    X(transfer_served, "transfer_served", COUNTER, BYTES, NULL, &worker_transports, \
      "Bytes that peers read and wrote here.")
enum { WORKER_METRICS(METRIC_ENUM) }; /* worker_transports is counters.c's */

static inline void worker_count(struct worker *w, uint32_t row, uint64_t count)
{
    metric_add(&w->metrics, row, 0, count);
}

#endif /* WORKER_STATE_H */
