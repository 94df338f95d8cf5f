/*
 * mooncake/sched.h - the Conductor: events in, decisions out.
 *
 * Not in this release: MC_DECIDE_WAIT (a policy's becomes a refusal for QUEUE_FULL). What is asked for and not
 * there is refused with MC_E_UNSUPPORTED.
 *
 * Life:    mc_sched_open -> (mc_sched_step -> mc_sched_take*)* -> mc_sched_close
 * Threads: a scheduler belongs to one thread; it starts none.
 * Memory:  from the allocator in the options, all of it at open: a step and a decision allocate nothing.
 *          What an event points to is borrowed during the step.
 * Time:    an argument. A step does no input or output, reads no clock and draws no chance but from
 *          its seed: the same options and the same events at the same times give the same decisions,
 *          byte for byte, live, in the simulator and in a test. `now_ns` never goes back (an earlier
 *          one counts as the latest seen). All times are nanoseconds, all sizes tokens or bytes.
 * Errors:  an event that contradicts the state (an unknown instance, a request that ended) is counted
 *          and skipped: MC_E_NOT_FOUND; the state is as before. Nothing here prints.
 * Growth:  as in mooncake/transfer.h. Kinds and reasons are only added; skip those you do not know.
 *
 * What the scheduler knows of an instance is leased: a load report that is not followed by another
 * expires by itself, so a silent instance is neither flooded nor shunned for ever.
 */
#ifndef MC_SCHED_H
#define MC_SCHED_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <mooncake/status.h>

MC_C_BEGIN

typedef struct mc_sched mc_sched; /* opaque: view of the cluster, cost models, policy state */

enum mc_role { MC_ROLE_PREFILL = 1, MC_ROLE_DECODE = 2, MC_ROLE_BOTH = 3, MC_ROLE_STORE = 4 };

/* ------------------------------------------------------------------------------------ cost model */

/**
 * Times of one instance, in seconds and tokens:
 *
 *     prefill(n, p) = p0 + p1 (n - p) + p2 (n^2 - p^2) + p3 p    n tokens, the first p of them reused
 *     step(b, k)    = d0 + d1 b + d2 k                           b sequences, k tokens of context
 *     transfer(x)   = t0 + x / bytes_per_s                       x bytes, shared fairly at both ends
 *
 * All 0: learnt from what is observed, and until then MC_REASON_UNKNOWN_COST decisions.
 */
struct mc_cost {
    double p0, p1, p2, p3;
    double d0, d1, d2;
    double t0, bytes_per_s;  /* its network, each direction */
    double load_bytes_per_s; /* from DRAM into where it computes; 0: not counted */
    double band;             /* relative error (half width) of these; 0: exact */
    double reserved[5];
};

/* ---------------------------------------------------------------------------------------- events */

enum mc_sched_event_kind {
    MC_EVENT_TICK = 1,           /* time passed; nothing else */
    MC_EVENT_INSTANCE = 2,       /* joined, changed, or takes work again after a drain: .instance */
    MC_EVENT_INSTANCE_GONE = 3,  /* died or left: .id; each request there gets a MC_DECIDE_ABORT */
    MC_EVENT_INSTANCE_DRAIN = 4, /* finishes what it has, takes no more: .id */
    MC_EVENT_LOAD = 5,           /* .load */
    MC_EVENT_STORED = 6,         /* blocks can be read at an instance: .blocks */
    MC_EVENT_EVICTED = 7,        /* blocks are gone there: .blocks */
    MC_EVENT_BLOCKS_RESET = 8,   /* forget all blocks of .id (0: of all); a snapshot follows */
    MC_EVENT_REQUEST = 9,        /* came in: .request; asks for a decision */
    MC_EVENT_PREFILL_BEGIN = 10, /* .progress */
    MC_EVENT_PREFILL_END = 11,   /* .progress; asks for MC_DECIDE_DECODE where admission says so */
    MC_EVENT_TRANSFER_BEGIN = 12, /* .transfer */
    MC_EVENT_TRANSFER_END = 13,   /* .transfer */
    MC_EVENT_DECODE_BEGIN = 14,   /* .progress: joined the running batch */
    MC_EVENT_DECODE_STEP = 15,    /* .progress: one step of an instance, for the cost model */
    MC_EVENT_REQUEST_END = 16,    /* .progress: finished, failed or hung up: all it held is free */
    MC_EVENT_SLO = 17,            /* .slo: new defaults */
    MC_EVENT_MEASURED =
        18, /* .progress: what an instance timed of itself, alone: a step of .sequences
                             * with .tokens of context, or (.sequences 0) a prefill; .request is 0 */
};

/** A serving instance, or a store node (which only holds blocks). */
struct mc_sched_instance {
    uint64_t id;             /* > 0, never used again */
    uint32_t role;           /* enum mc_role */
    uint32_t stages;         /* nodes that prefill one request as a pipeline; 0 means 1 */
    uint64_t host;           /* equal on one machine: transfers between are local; 0: its own */
    uint64_t kv_tokens_max;  /* working memory */
    uint64_t sequences_max;  /* decoded at a time */
    uint64_t chunk_tokens;   /* prefill chunk; 0: whole prompts */
    uint64_t kv_token_bytes; /* bytes of KVCache for each token */
    uint64_t model;          /* requests go to instances of their model; 0: one model */
    struct mc_cost cost;
    uint64_t reserved[4];
};

struct mc_sched_load {
    uint64_t id;
    uint64_t lease_ns;       /* this report is believed for so long */
    uint64_t queued;         /* requests that wait for prefill */
    uint64_t queued_tokens;  /* of these, still to compute */
    uint64_t running;        /* sequences being decoded */
    uint64_t context_tokens; /* of these, in memory */
    uint64_t free_tokens;    /* of working memory, neither used nor reserved */
    uint64_t send_bytes;     /* transfers queued or under way, outward */
    uint64_t receive_bytes;
    /** The newest request that these figures know of: later placements are added to them. 0: of all. */
    uint64_t latest;
    uint64_t reserved[3];
};

struct mc_sched_blocks {
    uint64_t id;               /* of the instance or store node that holds them */
    const struct mc_key *keys; /* [count] */
    uint64_t count;
    enum mc_medium medium;
    uint32_t reserved32;
};

struct mc_sched_slo {
    uint64_t ttft_ns; /* to the first token; 0: the default (none if that is 0 too) */
    uint64_t tbt_ns;  /* between tokens; 0: as above */
};

struct mc_sched_request {
    uint64_t id;               /* > 0, each larger than those before */
    uint64_t tokens;           /* of the prompt */
    const struct mc_key *keys; /* [key_count], of its whole blocks in order */
    uint64_t key_count;
    uint64_t output_max;  /* tokens; 0: not said */
    uint64_t output_hint; /* an oracle's or the client's own guess; 0: none */
    struct mc_sched_slo slo;
    uint64_t deadline_ns; /* absolute; after it nobody wants the answer; 0: none */
    uint64_t tenant, model;
    uint32_t priority; /* 0: first */
    uint32_t flags;    /* enum mc_request_flags */
    uint64_t barred;   /* an instance that must not prefill it (tried again elsewhere); 0: none */
    uint64_t barred_decode; /* one that must not decode it; 0: none */
    /** Equal when one client asks the same again: by it a refused request is known when it comes back.
     * 0: not said, nothing is kept for it. */
    uint64_t identity;
    uint64_t arrived_ns; /* absolute; its TTFT counts from then; 0: now */
    uint64_t reserved[1];
};

enum mc_request_flags {
    MC_REQUEST_TAKEN =
        1, /* it was placed before and lost its worker: no SLO turns it away any more */
};

/** What became of a request, or what an instance did: what is not known is 0. */
struct mc_sched_progress {
    uint64_t request;     /* 0: in DECODE_STEP */
    uint64_t id;          /* the instance */
    uint64_t tokens;      /* computed (prefill), context (step), or output (end) */
    uint64_t reused;      /* tokens not computed because they were in the cache */
    uint64_t sequences;   /* in the step */
    uint64_t duration_ns; /* it took */
    uint32_t status;      /* REQUEST_END: 0 finished, 1 failed, 2 client left, 3 deadline */
    uint32_t reserved32;
    uint64_t gap_ns; /* REQUEST_END: mean of its longest tenth of gaps between tokens */
    uint64_t reserved[1];
};

struct mc_sched_transfer {
    uint64_t request;  /* 0: a replication */
    uint64_t from, to; /* instances */
    uint64_t bytes;
    uint64_t duration_ns; /* at the end */
    uint32_t status;      /* at the end: 0 moved, 1 failed */
    uint32_t reserved32;
};

struct mc_sched_event {
    uint32_t kind; /* enum mc_sched_event_kind */
    uint32_t reserved;
    union {
        uint64_t id;
        struct mc_sched_instance instance;
        struct mc_sched_load load;
        struct mc_sched_blocks blocks;
        struct mc_sched_request request;
        struct mc_sched_progress progress;
        struct mc_sched_transfer transfer;
        struct mc_sched_slo slo;
    };
};

/* ------------------------------------------------------------------------------------- decisions */

enum mc_decision_kind {
    MC_DECIDE_PLACE = 1,  /* prefill and decode there; pull first if `holder` is set */
    MC_DECIDE_REFUSE = 2, /* answer 429 with Retry-After: retry_after_ns */
    MC_DECIDE_WAIT = 3,   /* kept here; decided again after retry_after_ns at the latest */
    MC_DECIDE_DECODE =
        4, /* prefill has ended: go on at `decode` (maybe another one than said); with
                             MC_ADMIT_STAGES, where MC_DECIDE_REFUSE may come instead */
    MC_DECIDE_REPLICATE =
        5, /* copy a hot prefix: `keys`, holder -> prefill (of the pool: node to node); no
                                request. Comes behind the MC_DECIDE_PLACE that tipped it, whose worker
                                has these blocks soon */
    MC_DECIDE_ABORT = 6, /* an accepted request can no longer be served: stop its work */
};

/* Why: name, number, words. Numbers never change meaning; new ones go at the end. */
#define MC_REASON_MAP(X) \
    X(NONE, 0, "no reason") \
    X(LEAST_TTFT, 1, "least predicted time to the first token") \
    X(LOCAL_PREFIX, 2, "its own cache holds the longest prefix") \
    X(PULL_PREFIX, 3, "pulling the prefix is cheaper than computing it") \
    X(LEAST_LOAD, 4, "least loaded") \
    X(TURN, 5, "its turn") \
    X(CHANCE, 6, "drawn at random") \
    X(ONLY_ONE, 7, "the only instance that could") \
    X(POLICY, 8, "the policy's own score") \
    X(HOT_PREFIX, 9, "a hot prefix is spread") \
    X(BATCHED, 10, "delayed to be batched with its prefix") \
    X(UNKNOWN_COST, 11, "times are not known yet") \
    X(WITHIN_SLO, 12, "its objectives can be kept") \
    X(SPREAD, 13, "fewer join to decode at about that time") \
    X(TTFT_SLO, 32, "the first token would be late") \
    X(TBT_SLO, 33, "tokens would come too slowly") \
    X(DECODE_LOAD, 34, "decoding would be overloaded when the prefill ends") \
    X(KV_MEMORY, 35, "no instance has memory for its KVCache") \
    X(NO_INSTANCE, 36, "no instance of this model and role is alive") \
    X(TOO_LONG, 37, "longer than any instance takes") \
    X(DEADLINE, 38, "nobody would wait for the answer") \
    X(QUEUE_FULL, 39, "too many requests wait") \
    X(TENANT, 40, "the tenant's share is used up") \
    X(INSTANCE_LOST, 41, "its instance died")

enum mc_reason {
#define MC_REASON_ENUM(name, number, words) MC_REASON_##name = (number),
    MC_REASON_MAP(MC_REASON_ENUM)
#undef MC_REASON_ENUM
};

/** What is expected, each part in nanoseconds. ttft is what the parts add up to after overlap. */
struct mc_prediction {
    uint64_t queue_ns, transfer_ns, prefill_ns;
    uint64_t ttft_ns, ttft_low_ns, ttft_high_ns; /* with the confidence band */
    uint64_t tbt_ns, tbt_high_ns;
    uint64_t output_tokens; /* 0: not predicted */
    double decode_load;     /* predicted at the end of prefill; 1: at its SLO */
    uint64_t other_ns;      /* of ttft: what learnt times had besides the three parts */
    uint64_t reserved[1];
};

struct mc_decision {
    uint32_t kind;   /* enum mc_decision_kind */
    uint32_t reason; /* enum mc_reason */
    uint64_t request;
    uint64_t prefill;          /* instance; 0: none */
    uint64_t decode;           /* instance; 0: none, or decided at MC_EVENT_PREFILL_END */
    uint64_t holder;           /* to pull from: instance or store node; 0: nothing to pull */
    uint64_t pull_tokens;      /* to pull, counted from the prompt's start */
    uint64_t reuse_tokens;     /* not to be computed: own cache and pull together */
    uint64_t order;            /* in the prefill instance's queue, lower first; 0: as it comes */
    uint64_t retry_after_ns;   /* REFUSE: 0: never (TOO_LONG). WAIT: 0: at the next event */
    const struct mc_key *keys; /* of a replication; borrowed until the next step */
    uint64_t key_count;
    struct mc_prediction predicted;
    double score;        /* the policy's, for the record */
    uint64_t considered; /* instances looked at */
    uint64_t pull_ns; /* computing what is pulled would take so long: no pull may; 0: not known */
    /** PLACE: enum mc_reason for which it would have been refused if enough had been observed, or if it
     * were not let through to find out; 0: none. */
    uint32_t soft;
    uint32_t flags; /* enum mc_decision_flags */
    uint64_t reserved[2];
};

enum mc_decision_flags {
    MC_DECISION_BACK = 1,   /* it was refused before, and came back when it was told to */
    MC_DECISION_BOOKED = 2, /* REFUSE: room is kept for it after retry_after_ns */
    MC_DECISION_STAGED =
        4, /* PLACE: MC_EVENT_PREFILL_END is answered: DECODE, or REFUSE, which ends it */
};

/* -------------------------------------------------------------------------------------- policies */

/** An instance as a policy sees it, while one request is being decided. */
struct mc_view_instance {
    uint64_t id, host, model;
    /** enum mc_role, less what it cannot do for this request: no MC_ROLE_PREFILL where it is barred,
     * draining or too small. May be 0: it only holds blocks then. */
    uint32_t role;
    uint32_t flags;          /* enum mc_view_flags */
    uint64_t matched_tokens; /* prefix of this request in its own cache */
    uint64_t queue_ns;       /* until it could begin to prefill this request */
    uint64_t queued, queued_tokens, running, context_tokens, free_tokens;
    uint64_t kv_tokens_max, sequences_max;  /* what free_tokens and running are parts of */
    uint64_t send_busy_ns, receive_busy_ns; /* its network is booked for so long */
    uint64_t tbt_ns;                        /* of its running batch, now */
    uint64_t last_ns;                       /* when it was last given a request; 0: never */
    /** What matched_tokens will be when the prompts that were placed there are computed; 0: not known. */
    uint64_t coming_tokens;
    uint64_t reserved[2];
};

enum mc_view_flags {
    MC_VIEW_DRAINING = 1,
    MC_VIEW_EXPIRED = 2, /* its load report's lease is over: figures are the model's alone */
};

struct mc_view_columns;
struct mc_view_work;

/**
 * What a policy may ask. The scheduler fills it for one call; a test fills its own. Instances are in
 * the order of their ids, store nodes (MC_ROLE_STORE: they only hold) among them; indices are into
 * `instances`. The functions allocate nothing and depend on the view alone.
 */
struct mc_view {
    uint64_t now_ns;
    const struct mc_view_instance *instances; /* [count] */
    uint64_t count;
    /** The longest prefix anywhere; store nodes count as one: each block is read where it lies. */
    uint64_t best_matched_tokens;
    uint64_t block_tokens;
    struct mc_sched_slo slo; /* of this request, defaults filled in */
    uint64_t (*prefill_ns)(const struct mc_view *view, uint64_t index, uint64_t tokens,
                           uint64_t reused);
    uint64_t (*transfer_ns)(const struct mc_view *view, uint64_t from, uint64_t to,
                            uint64_t tokens);
    /** With so many more sequences and tokens of context than now. */
    uint64_t (*tbt_ns)(const struct mc_view *view, uint64_t index, uint64_t sequences,
                       uint64_t tokens);
    /** The best instance to pull `tokens` of this request from to `to`; UINT64_MAX: none. Where only the
     * store nodes together have them: the one that has most. */
    uint64_t (*holder)(const struct mc_view *view, uint64_t to, uint64_t tokens);
    /** 64 random bits, of the scheduler's seed, the request and `counter` alone. */
    uint64_t (*chance)(const struct mc_view *view, uint64_t counter);
    void *context; /* the view's own */
    /** Until it could begin to prefill this request if the decision's `order` were that: those before it in
     * the queue alone. Optional; NULL: as queue_ns. */
    uint64_t (*wait_ns)(const struct mc_view *view, uint64_t index, uint64_t order);
    /**
     * [count], or NULL: what need not be asked twice. Of two instances of one kind, other than 0, and with equal
     * matched_tokens prefill_ns() says the same, and so do holder() for more tokens than they have and
     * transfer_ns() from there.
     */
    const uint8_t *kinds;
    /** Optional: for who looks at every instance. */
    const struct mc_view_columns *columns;
    /** Optional, with columns: likewise; the same at each call. */
    const struct mc_view_work *(*work)(const struct mc_view *view);
    /** Optional. If the prefill ended so long after now: how many prompts of mean length, for each instance that decodes,
     * would join at about the same time. With it: that length, of those that came lately. */
    double (*crowd)(const struct mc_view *view, uint64_t after_ns);
    double mean_tokens;
};

#define MC_VIEW_NEVER (UINT64_MAX / 2) /* any time may be added to it */

/** What is in `instances`, and nothing else between: [count] each. */
struct mc_view_columns {
    const uint64_t *queue_ns; /* MC_VIEW_NEVER: it cannot prefill this request */
    const uint64_t *last_ns;
    const uint32_t *matched; /* [matched_count], rising: only these have matched_tokens */
    uint64_t matched_count;
};

/** Of each instance, [count]. */
struct mc_view_work {
    const uint64_t *rest_ns; /* prefill_ns() if best_matched_tokens of it are reused */
    /** Where nothing of it is: transfer_ns() of best_matched_tokens from holder() is at least that. */
    const uint64_t *pull_ns;
};

/** Placement: one table, one file, one line in the options. */
struct mc_policy {
    const char *name;    /* "conductor" */
    const char *summary; /* one line for --help */
    size_t state_bytes;  /* zeroed at open, aligned to 16; passed to each call */
    /** Optional. Read "key=value,key=value"; MC_OK, or MC_E_ARG with a text that names the key. */
    mc_status (*init)(void *state, const char *parameters, struct mc_error *error);
    /**
     * Required. Fill kind (MC_DECIDE_PLACE, _REFUSE or _WAIT), reason, prefill, holder and pull_tokens,
     * and, if it has a view of them, decode, order, retry_after_ns, score, predicted.queue_ns (0: what
     * is before it now) and reuse_tokens (up to coming_tokens); the decision arrives zeroed but for
     * `request`. The last tie goes to the lower id. The scheduler does the rest, for every policy alike: a
     * decode of 0 becomes the instance with memory and the least predicted TBT, the rest of `predicted` is
     * filled in, and admission may then turn a placement into a refusal.
     */
    void (*place)(void *state, const struct mc_view *view, const struct mc_sched_request *request,
                  struct mc_decision *decision);
    /** Optional: every event, after the view has taken it in. */
    void (*observe)(void *state, uint64_t now_ns, const struct mc_sched_event *event);
    uint64_t reserved[4];
};

/** How long an answer will be. */
struct mc_length_predictor {
    const char *name;   /* "history" */
    size_t state_bytes; /* zeroed at open */
    /** Tokens, >= 1. */
    uint64_t (*predict)(void *state, const struct mc_sched_request *request);
    /** Optional: a request of this many output tokens has ended. */
    void (*observe)(void *state, const struct mc_sched_request *request, uint64_t output_tokens);
    uint64_t reserved[2];
};

enum mc_admission {
    MC_ADMIT_DEFAULT,       /* MC_ADMIT_EARLY_SYSTEM; without an SLO that refuses nothing */
    MC_ADMIT_ALL,           /* refuse only what cannot run at all */
    MC_ADMIT_STAGES,        /* each stage when its turn comes (the paper's baseline) */
    MC_ADMIT_EARLY,         /* at arrival, by the load now */
    MC_ADMIT_EARLY_SYSTEM,  /* at arrival, by the decode load predicted for the pool */
    MC_ADMIT_EARLY_REQUEST, /* at arrival, by the predicted length of each request */
};

/* ----------------------------------------------------------------------------------- the scheduler */

/** What is 0 has its default, but for `alloc`. */
struct mc_sched_options {
    const struct mc_alloc *alloc; /* required: it has no memory of its own; borrowed until close */
    /** By name: "algorithm1" (the default in this release), "conductor" (our own), "local", "least-loaded", "round-robin", "random";
     * other routers' formulas: "dynamo", "lmetric", "llm-d", "sglang", "aibrix", "preble". */
    const char *policy;
    const char *policy_parameters;    /* "threshold=1.2,…"; copied; default: the policy's own */
    const struct mc_policy *policies; /* [policy_count], besides the built-in ones; borrowed */
    uint64_t policy_count;
    const struct mc_length_predictor *predictor; /* default: learnt from history; borrowed */
    enum mc_admission admission;
    uint32_t flags;          /* 0 */
    struct mc_sched_slo slo; /* defaults of requests */
    uint64_t seed;
    uint64_t block_tokens;  /* of a key; default 16 */
    uint64_t instances_max; /* default 1024 */
    uint64_t requests_max;  /* decided and not ended; default 65536 */
    uint64_t blocks_max;    /* in the index, oldest forgotten; default 2^20 */
    uint64_t waiting_max;   /* requests kept by MC_DECIDE_WAIT; default 1024 */
    /** "name=number,…": threshold=1 (of the SLO, for the upper end of what is predicted), observations=20
     * (of a learnt cost, before it refuses), quantile=0.95 (of the errors seen: the upper end; 0.6 with
     * "conductor"), retry=300 (seconds: the longest retry_after_ns), bookings=1 (0: no room is kept for who comes back),
     * pool=0 (1: the decode load is the mean of all, not that of the one chosen; and MC_ADMIT_EARLY counts
     * those who are there, not those on their way), gaps=0 (0.5 with "conductor"; above 0: TBT is the mean of a
     * request's longest tenth of gaps, see mc_sched_progress.gap_ns, and what this share of requests kept). */
    const char *admission_parameters;
    /** "name=number,…", or "on" for the defaults: rate=1 (copies a second at most), gain=4 (a copy is ordered
     * when so many times its cost was lost for want of it, for each copy there is), asked=8 (times in the
     * window), window=60 (seconds). NULL or "off": nothing is replicated. */
    const char *replication;
    uint64_t reserved[7];
};

/**
 * Open a scheduler.
 *
 * Returns MC_OK, MC_E_NOT_FOUND (no such policy: the text lists them), MC_E_ARG (its parameters, no
 * allocator), MC_E_RANGE (a limit), MC_E_UNSUPPORTED (not in this release) or MC_E_NOMEM.
 */
MC_API MC_MUST_USE mc_status mc_sched_open(const struct mc_sched_options *options,
                                           mc_sched **sched_p, struct mc_error *error);

/** NULL is allowed. */
MC_API void mc_sched_close(mc_sched *sched);

/**
 * Take in one event at `now_ns`. Decisions that follow wait in the scheduler: take them before the
 * next step, or they are lost (counted).
 *
 * Returns MC_OK, MC_E_NOT_FOUND (an instance or request that is not known), MC_E_EXISTS (a request id
 * again), MC_E_FULL (a limit of the options), MC_E_ARG (an event that contradicts itself) or
 * MC_E_UNSUPPORTED (a kind that this release does not know). A MC_EVENT_REQUEST that is refused gets
 * a decision, not an error.
 */
MC_API MC_MUST_USE mc_status mc_sched_step(mc_sched *sched, uint64_t now_ns,
                                           const struct mc_sched_event *event);

/** Take up to `capacity` decisions, oldest first. MC_OK, or MC_E_NOT_FOUND (none). */
MC_API mc_status mc_sched_take(mc_sched *sched, struct mc_decision *decisions_p, size_t capacity,
                               size_t *count_p);

/** When a MC_EVENT_TICK is due at the latest; UINT64_MAX: not. Returns MC_OK. */
MC_API mc_status mc_sched_due(const mc_sched *sched, uint64_t *due_ns_p);

struct mc_sched_stats {
    uint64_t events, events_skipped, decisions_lost;
    uint64_t placed, refused, waited, replicated, aborted;
    uint64_t refused_by[64];    /* by enum mc_reason, where it is below 64 */
    uint64_t would_have_met;    /* refused, but shadow evaluation says it would have met its SLO */
    uint64_t wasted_prefill_ns; /* prefill of requests that were refused or aborted later */
    uint64_t instances, instances_expired, requests, waiting, blocks; /* now */
    double ttft_error, tbt_error; /* relative, moving mean of |predicted - observed| / observed */
    uint64_t soft_refused;        /* placed, though .soft says why not */
    uint64_t booked;              /* refused with room kept for them */
    uint64_t back, back_placed;   /* of these: came back in time; and were placed then */
    uint64_t shadowed; /* refusals that shadow evaluation has judged, would_have_met among them */
    double ttft_error_p50, ttft_error_p90; /* of the last 128: |predicted - observed| / observed */
    uint64_t reserved[1];
};

/** Counters since open, and what there is now. Returns MC_OK. */
MC_API mc_status mc_sched_stats(const mc_sched *sched, struct mc_sched_stats *stats_p);

/**
 * One event and its time as bytes, for the record that the simulator replays: numbered fields, so that
 * later releases read older records. (The options are settings: whoever records writes them first.)
 *
 * bytes_p  [capacity]; *size_p of them are written.
 *
 * Returns MC_OK, MC_E_RANGE (capacity) or MC_E_ARG.
 */
MC_API MC_MUST_USE mc_status mc_sched_event_encode(uint64_t now_ns,
                                                   const struct mc_sched_event *event,
                                                   void *bytes_p, size_t capacity, size_t *size_p);

/**
 * The other way.
 *
 * event_p  its pointers lead into `bytes` and `keys`.
 * keys     [key_capacity], working memory for the event's keys.
 *
 * Returns MC_OK, MC_E_FORMAT (where and what, in the text), MC_E_RANGE (key_capacity).
 */
MC_API MC_MUST_USE mc_status mc_sched_event_decode(const void *bytes, size_t size,
                                                   struct mc_key *keys, size_t key_capacity,
                                                   uint64_t *now_ns_p,
                                                   struct mc_sched_event *event_p,
                                                   struct mc_error *error);

MC_C_END

#endif /* MC_SCHED_H */
