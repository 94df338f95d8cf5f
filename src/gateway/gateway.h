/*
 * gateway.h - the role that clients talk to: OpenAI's API in front, workers and the scheduler behind.
 *
 * Life:    gateway_open -> (its loop turns) -> gateway_drain -> gateway_close
 * Threads: one, the loop's.
 * Memory:  from the allocator; requests, connections and bodies are bounded by the options.
 * Errors:  open refuses what cannot work, with a text that names the option. Later, whatever clients and
 *          workers do is an event: answered, logged, counted.
 *
 * Workers dial `control_listen` and register; while none is there, requests are answered with 503 and
 * Retry-After. The gateway needs the model's directory for its tokenizer, chat template and limits; weights
 * need not be there.
 */
#ifndef GATEWAY_GATEWAY_H
#define GATEWAY_GATEWAY_H

#include <mooncake/sched.h>
#include <mooncake/store.h>

#include "base/buf.h"
#include "os/loop.h"

typedef struct gateway gateway; /* opaque */

/** `{ 0 }` but for alloc, loop and model means the defaults. Texts and bytes are copied. */
struct gateway_options {
    const struct mc_alloc *alloc; /* borrowed until close; required */
    os_loop *loop;                /* borrowed until close; required */
    struct mc_log log;
    const char *name;           /* as in logs and hellos; default "gateway" */
    const char *listen;         /* HTTP, "host:port"; default "127.0.0.1:8000" */
    const char *control_listen; /* workers, "host:port"; default "127.0.0.1:0" */
    bool insecure;              /* either may be more than loopback without a secret or key */
    const struct auth
        *auth;          /* borrowed until close: who may use the API; NULL or empty: everybody */
    const void *secret; /* [secret_size], shared with workers and master; NULL: none */
    size_t secret_size;
    const char *master;               /* "host:port" of the pool's; NULL: no pool */
    const char *model;                /* directory; required */
    const char *model_name;           /* as clients say it; default: the directory's last part */
    const char *policy;               /* of the scheduler; default: its own */
    const char *policy_parameters;    /* default: its own */
    uint64_t slo_ttft_ns;             /* objectives of requests that do not say; default: none */
    uint64_t slo_tbt_ns;              /* between tokens, on average */
    enum mc_admission admission;      /* who is refused by prediction; default: the scheduler's */
    const char *admission_parameters; /* default: its own */
    const char *replication;          /* as in struct mc_sched_options */
    bool unmeasured;                  /* workers are not asked to time themselves */
    uint64_t body_max;                /* bytes of a request; default 8 MiB */
    uint64_t bodies_max;              /* of all that are held; default 1 GiB, at least body_max */
    uint64_t stream_max;              /* bytes that a client has not taken; default 1 MiB */
    uint32_t headers_max;             /* bytes of request line and headers; default 32 KiB */
    uint64_t receive_ns;              /* from a request's first byte to its last; default 30 s */
    uint64_t request_ns;              /* a request takes no longer; default: no limit */
    uint64_t patience_ns;             /* waited for room or a worker; default 10 s */
    uint64_t report_ns;               /* how often workers report; default 100 ms */
    uint64_t first_lease_ns;          /* a worker's first report comes within; default 5 s */
    uint32_t requests_max;            /* at a time; default 1024; then 429 */
    uint32_t connections_max;         /* of HTTP; default 8192; more wait to be accepted */
    uint32_t address_max; /* of these, from one address beyond loopback; default: no bound */
    uint32_t workers_max; /* default 256 */
    uint32_t tries_max;   /* attempts of a request; default 3 */
    uint64_t idle_ns;     /* an idle HTTP connection lives so long; default 120 s */
    const char *record; /* a file that the scheduler's events and decisions go to; default: none */
    bool debug_headers; /* X-Mooncake-Bar: <worker> bars it from prefilling; for tests */
};

/** Returns MC_OK, MC_E_ARG, MC_E_RANGE, MC_E_DENIED (a wide address), MC_E_EXISTS (address taken), MC_E_NOT_FOUND (model,
 * policy), MC_E_FORMAT, MC_E_UNSUPPORTED, MC_E_IO or MC_E_NOMEM. */
mc_status gateway_open(const struct gateway_options *options, gateway **gateway_p,
                       struct mc_error *error);

/** "host:port" with real ports. Live as long as the gateway. */
const char *gateway_address(const gateway *gateway);
const char *gateway_control_address(const gateway *gateway);

/** Accept no connection and no request any more (503); `done` is called, once, from the loop, when no
 * request is under way. */
void gateway_drain(gateway *gateway, void (*done)(void *user), void *user);

/** Ends what is under way: clients are cut off, workers told. NULL is allowed. */
void gateway_close(gateway *gateway);

/** What it counts, as /metrics shows it. */
void gateway_metrics(gateway *gateway, struct buf *out);

#endif /* GATEWAY_GATEWAY_H */
