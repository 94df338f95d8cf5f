/*
 * state.h - what the gateway's files share: the gateway, its workers, its clients.
 *
 * One thread, the loop's, touches all of it. Events come in by four doors, each of which ends with
 * gateway_pump(): HTTP (client.c), workers' messages (control.c), the pool's events (pool.c), timers.
 * Whatever an event makes the scheduler decide waits in `pending` and is handed on by the pump, so no step of
 * a request ever runs inside another one's.
 */
#ifndef GATEWAY_STATE_H
#define GATEWAY_STATE_H

#include "base/metric.h"
#include "gateway/answer.h"
#include "gateway/core/request.h"
#include "gateway/gateway.h"
#include "gateway/gateway_metrics.h"
#include "gateway/http.h"
#include "gateway/gateway_log.h"
#include "gateway/recorder.h"
#include "net/net.h"
#include "os/address.h"

struct client;
struct live;
struct worker;

/** What the control side's connections call us with. */
struct gateway_control_user {
    gateway *gateway;
    struct worker *worker; /* NULL: not up yet */
};

/** Something for the attempt of a request, not given to it yet. */
struct pending {
    enum request_event_kind kind; /* DECIDED, NOT_DECIDED, NOT_RESERVED, NOT_TAKEN, GIVE_UP */
    uint64_t attempt, from;
    mc_status status; /* of the last four; the text is its words */
    struct mc_decision decision;
};

/** A node of the pool, as an instance of the scheduler. */
struct pool_node {
    uint64_t node;          /* as the master calls it */
    uint64_t instance;      /* as the scheduler does */
    uint64_t blocks, bytes; /* it holds, by the events that came */
};

enum {
    POOL_NODES_MAX = 1024,
    CLIENT_BUCKETS = 1024, /* of the map from attempts to clients */
    KEYS_MAX = 65536,      /* block keys of a prompt that the scheduler sees: 2^20 tokens */
    DEBUG_NAME = 64,       /* bytes of a worker's name in a header */
};

struct pool {
    mc_transfer *transfer; /* owned; NULL: no pool */
    mc_store *store;
    mc_store_events *events;
    struct os_watch watch;
    struct pool_node *nodes; /* owned; [POOL_NODES_MAX] */
    uint32_t node_count;
};

struct gateway {
    const struct mc_alloc *alloc; /* borrowed */
    os_loop *loop;                /* borrowed */
    struct mc_log log;
    struct gateway_options options; /* defaults filled in; texts in `texts` */
    char *texts[8];                 /* owned copies */
    uint32_t text_count;
    void *secret; /* owned copy, or NULL */
    uint64_t started_s;
    mc_model *model;
    struct mc_model_info info;
    struct api_defaults defaults;
    mc_sched *sched;
    recorder *recorder; /* owned; NULL: nothing is recorded */
    struct os_timer sched_timer;
    struct metrics metrics;
    http_server *http;
    struct http_counts http_seen; /* what of its counts the metrics have */
    net *net;
    char control_address[OS_ADDRESS_TEXT];

    uint64_t last_instance; /* ids given out: workers and nodes, never again */
    uint64_t last_request;  /* ids of attempts */
    bool has_fingerprint;   /* of the workers there are, or of the last there were */
    struct mc_identity fingerprint;
    uint32_t context_max;   /* likewise; 0: there were none */
    struct worker *workers; /* connections of the control side, registered or not */
    uint32_t worker_count;
    uint64_t heard_ns;  /* a worker's report came last; 0: none did */
    uint64_t measuring; /* instance that times itself; 0: none */
    struct os_timer measure_timer;
    struct ask *asks; /* unanswered */
    struct gateway_control_user control_user;

    struct client *clients; /* every request under way */
    uint32_t client_count;
    struct client *buckets[CLIENT_BUCKETS];
    struct pending *pending; /* owned ring; [pending_max] */
    uint32_t pending_max, pending_first, pending_count;

    struct pool pool;
    struct live *live; /* owned; what watchers are told */
    bool draining;
    void (*drained)(void *user);
    void *drained_user;
    struct os_timer drain_timer;
};

/* gateway.c ------------------------------------------------------------------------------------- */

/** Give an event to the scheduler and keep what it decides for the pump. */
mc_status gateway_schedule(gateway *g, const struct mc_sched_event *event);

/** Something for an attempt, to be given to it by the pump. */
void gateway_later(gateway *g, const struct pending *pending);

/** Hand on what is pending until nothing is; then see to the scheduler's clock and to a drain. */
void gateway_pump(gateway *g);

/* client.c -------------------------------------------------------------------------------------- */

/** A completion or chat; answered now or later. */
void gateway_client_take(gateway *g, http_request *http, enum api_kind kind);

/** The attempt was placed, and that has tipped it: its worker shall put a further copy of its prefix. */
void gateway_client_copy(gateway *g, uint64_t attempt, const struct mc_decision *replicate);

/** Give `pending` to whom it is for; nobody: counted. */
void gateway_client_deliver(gateway *g, const struct pending *pending);

/** Give an event of a worker to the attempt that it names; nobody: counted. */
void gateway_client_event(gateway *g, const struct request_event *event);

/** Instance `instance` is gone: tell every request. The scheduler knows already. */
void gateway_clients_lost(gateway *g, uint64_t instance);

/** End all: shutting down. */
void gateway_clients_close(gateway *g);

/* control.c ------------------------------------------------------------------------------------- */

mc_status gateway_control_open(gateway *g, struct mc_error *error);
void gateway_control_close(gateway *g);

/** NULL: not there (any more). */
struct worker *gateway_control_find(const gateway *g, uint64_t instance);
const struct worker *gateway_control_find_name(const gateway *g, const char *name);

const char *gateway_worker_name(const struct worker *worker);
uint64_t gateway_worker_instance(const struct worker *worker);
/** Incarnation of its engine, and where it listens. */
uint64_t gateway_worker_incarnation(const struct worker *worker);
const char *gateway_worker_address(const struct worker *worker);

/** Whether requests could be served: somebody prefills and somebody decodes. */
bool gateway_control_can_serve(const gateway *g);

/** The longest context that every worker takes; the model's if there is none. */
uint32_t gateway_control_context_max(const gateway *g);

/** Ask a worker for an attempt; what comes back is given to it as an event. `message` is the struct of
 * WIRE_RESERVE or WIRE_PREFILL. Returns as net_ask, MC_E_PEER if it is not there. */
mc_status gateway_control_ask(gateway *g, uint64_t instance, enum wire_kind kind,
                              const void *message, uint64_t attempt);

/** Nobody waits for the answer. */
void gateway_control_cancel(gateway *g, uint64_t instance,
                            const struct wire_request_cancel *cancel);

/* pool.c ---------------------------------------------------------------------------------------- */

mc_status gateway_pool_open(gateway *g, struct mc_error *error);
void gateway_pool_close(gateway *g);

/** The node behind an instance of the scheduler; 0: none. */
uint64_t gateway_pool_node_of(const gateway *g, uint64_t instance);

/* entrance.c ------------------------------------------------------------------------------------ */

/** Who may ask, before the body is read: an http_handler's admit and refuse; `user` is the gateway. */
bool gateway_entrance_admit(void *user, http_request *http);
void gateway_entrance_refuse(void *user, http_request *http, unsigned status, const char *code,
                             const char *text);

bool gateway_entrance_has_keys(const gateway *g);

/** Bring the metrics of connections up to date. */
void gateway_entrance_count(gateway *g);

/* route.c --------------------------------------------------------------------------------------- */

/** Requests by HTTP, to whom they are for. */
struct http_handler gateway_route_handler(gateway *g);

/** Answer with OpenAI's error object, and count it. */
void gateway_route_error(gateway *g, http_request *http, const struct api_error *error);

/** Count an answer by its status. */
void gateway_route_count(gateway *g, unsigned status);

#endif /* GATEWAY_STATE_H */
