/*
 * engine.h - the Transfer Engine from inside: what all files of this room share.
 *
 * Who locks what, and in which order: docs/threads.md. In short, downwards and never upwards:
 *
 *     loop        one thread turns the loop; net, watches, timers and control questions are its
 *     admin       registry: slots, keys, what transports are told about regions and windows
 *     segment     one peer: its description, queues, and entries on their way
 *     leaves      registry.lock (what a pin reads), table, batch, notices, alarm
 */
#ifndef TRANSFER_ENGINE_H
#define TRANSFER_ENGINE_H

#include <pthread.h>
#include <stdatomic.h>

#include <mooncake/transfer.h>

#include "os/loop.h"
#include "os/thread.h"
#include "transfer/registry.h"
#include "transfer/transport.h"

struct net;
struct segment;

enum {
    TRANSPORTS_MAX = 8,
    SPIN_NS = 50000,   /* about what waking a thread costs on a virtual machine */
    PAUSE_NS = 100000, /* between polls of what cannot wake us */
    PATHS_MAX = 3,     /* attempts of one transfer */
    SESSIONS_LIMIT = 65536,
    PUBLISHED_MAX = 4096, /* regions in a descriptor: msg.def's limit */
};

/* Counters of one transport and of the whole engine, in the order of struct mc_transfer_stats. */
#define ENGINE_COUNTS(X) \
    X(read_bytes) \
    X(write_bytes) \
    X(served_read_bytes) \
    X(served_write_bytes) \
    X(transfers_ok) \
    X(transfers_failed) \
    X(transfers_cancelled) \
    X(transfers_timed_out) \
    X(retries) \
    X(refused) \
    X(corrupt) \
    X(notices_sent) \
    X(notices_received) \
    X(notices_refused)

enum engine_count {
#define ENGINE_COUNT_ENUM(name) COUNT_##name,
    ENGINE_COUNTS(ENGINE_COUNT_ENUM) COUNT_COUNT
};

/* Relaxed: counters tell, they do not order. */
struct counts {
    _Atomic uint64_t at[COUNT_COUNT];
};

static inline void count_add(struct counts *counts, enum engine_count which, uint64_t more)
{
    atomic_fetch_add_explicit(&counts->at[which], more, memory_order_relaxed);
}

/** A transport that is open. Set up at open and then only read, but for `counts` and `serving`. */
struct carrier {
    mc_transfer *engine;
    const struct transport_ops *ops;
    const struct transport_ops *base; /* ops, or what a hook wraps: what peers must have keys for */
    char *name;                       /* owned: "tcp", "hook:tcp", as in options and stats */
    const char *wire;                 /* what peers know it by: a hook goes by what it wraps */
    char *settings;                   /* owned, or NULL */
    void *state, *block;              /* private bytes, aligned; block: owned, where they lie */
    struct transport_env env;
    struct transport_caps caps;
    uint8_t address[TRANSPORT_KEY_MAX];
    size_t address_size;
    uint32_t index;
    bool opened;             /* ops->close is due */
    pthread_mutex_t serving; /* serve: one thread at a time */
    struct os_watch watch;   /* the loop's, of serve_fd */
    struct os_timer timer;   /* the loop's: when serve wants to be called */
    struct counts counts;
};

/** A received notice. */
struct notice {
    struct notice *next;
    struct mc_notice head;
    uint8_t message[]; /* [head.size] */
};

struct mc_transfer {
    const struct mc_alloc *alloc;
    struct mc_log log;
    const struct mc_resolver *resolver;
    uint64_t memory_max, lease_ns, quiesce_ns;
    uint32_t sessions_max, regions_max, windows_max, notices_max, streams, flags;
    uint64_t incarnation;
    char *name, *address; /* owned */
    char *topology;       /* owned, or NULL */
    void *secret;         /* owned, or NULL */
    size_t secret_size;
    bool spin; /* more processors than one */

    struct carrier carriers[TRANSPORTS_MAX]; /* by preference */
    uint32_t carrier_count;
    struct registry registry;
    struct counts counts; /* of what belongs to no transport */

    /* The loop. `turning` is held by the one who turns it. */
    pthread_mutex_t turning;
    os_loop *loop;
    struct net *net;
    struct os_thread thread;
    bool threaded; /* the engine has its own thread */
    _Atomic bool stopping;
    bool stirred;           /* the loop's: something happened in this turn */
    struct os_timer alarm;  /* the loop's */
    struct os_timer ticker; /* the loop's */
    struct os_post kick;    /* guarded by kicked */
    _Atomic bool kicked;
    _Atomic uint64_t
        alarm_ns;          /* when deadlines or leases must be looked at; lowered by any thread */
    _Atomic uint32_t busy; /* entries submitted and not finished, of all segments */
    _Atomic bool ticking;
    uint32_t idle_ticks;            /* the loop's */
    struct revocation *revocations; /* the loop's: peers that wait for their windows to be quiet */

    /* Peers. */
    pthread_mutex_t table;     /* leaf: segments, their refs and opens */
    struct segment **segments; /* owned; [sessions_max] */
    uint16_t *salts;           /* owned; [sessions_max]: lives of each place in the table */
    uint32_t segment_count;

    /* Batches that may have a deadline. */
    pthread_mutex_t batches_lock; /* only leaves are taken under it */
    struct mc_batch *batches;
    uint32_t batch_count;

    /* Notices received. */
    pthread_mutex_t notices_lock; /* leaf */
    struct notice *notices, **notices_end;
    uint32_t notice_count;
    _Atomic uint32_t notice_changes;
};

/* ---- time */

/** A public deadline as a time that can be compared. */
static inline uint64_t deadline_of(uint64_t deadline_ns)
{
    return deadline_ns == MC_FOREVER ? UINT64_MAX : deadline_ns;
}

/** Have deadlines and leases looked at by `at_ns` at the latest. Any thread. */
void engine_alarm(mc_transfer *engine, uint64_t at_ns);

/** Entries are on their way: the loop looks after those that nobody waits for. Any thread. */
void engine_tick(mc_transfer *engine);

/** Sleep until *word is not `seen`, `until_ns`, or a while: look again. Turns the loop if nobody else
 * does. Any thread that holds no lock. */
void engine_pause(mc_transfer *engine, _Atomic uint32_t *word, uint32_t seen, uint64_t until_ns);

/** Turn the loop once without waiting, if nobody else does; false if somebody does. *stirred_p becomes
 * true if something happened. */
bool engine_turn(mc_transfer *engine, bool *stirred_p);

/* ---- logs */

void engine_log(const mc_transfer *engine, enum mc_log_level level, const char *format, ...)
    MC_PRINTF(3, 4);

/* ---- memory for private bytes */

/** `size` zeroed bytes aligned to 64; *block_p is what alloc_free() gets. NULL: out of memory. */
void *alloc_aligned(const struct mc_alloc *alloc, size_t size, void **block_p);

/* ---- carriers.c */

/** Open what options ask for. On failure nothing stays open. */
mc_status carriers_open(mc_transfer *engine, const struct mc_transfer_options *options,
                        struct mc_error *error);
void carriers_close(mc_transfer *engine);

/** The open transport that a peer's text means, or NULL. */
struct carrier *carrier_find(mc_transfer *engine, const void *wire, size_t size);

/* ---- loop.c */

/** Open loop and net, listen; before the transports. */
mc_status loop_open(mc_transfer *engine, const struct mc_transfer_options *options,
                    struct mc_error *error);
/** Watch what transports serve and start the thread; after the transports. */
mc_status loop_start(mc_transfer *engine, struct mc_error *error);
/** Stop the thread: from here on the caller turns the loop. */
void loop_stop(mc_transfer *engine);
void loop_close(mc_transfer *engine);

/** Have `engine` looked at soon by whoever turns the loop. Any thread. */
void engine_kick(mc_transfer *engine);

/** Move along what carrier serves; skipped when another thread is at it. */
void carrier_serve(struct carrier *carrier);

/* ---- answer.c: what peers ask on the control port. The loop's. */

struct net_events;
extern const struct net_events answer_events;

/** Look again after the windows that peers wait for; returns when to come back, UINT64_MAX: none. */
uint64_t answer_revocations(mc_transfer *engine, uint64_t now_ns);
void answer_close(mc_transfer *engine);

/* ---- notice.c */

/** Keep a notice from a peer: MC_OK, MC_E_RANGE, MC_E_FULL or MC_E_NOMEM. Any thread. */
mc_status notice_keep(mc_transfer *engine, const char *from, uint64_t incarnation, const void *name,
                      size_t name_size, const void *message, size_t size);
void notices_close(mc_transfer *engine);

/* ---- stats.c */

struct buf;

/** Deliver every counter by its name to `each`. */
void stats_walk(mc_transfer *engine, void (*each)(void *user, const char *name, uint64_t value),
                void *user);

#endif /* TRANSFER_ENGINE_H */
