/*
 * world.h - an engine, and a peer of it in another process that does what it is told.
 *
 * The suite is one program, run as `conform VARIANT TOPIC`: a variant says how bytes travel and what memory
 * they travel between. For `self` the peer is the engine itself and what it is told is done at once.
 *
 * Life:    world_open -> tell_*, batches ... -> world_close; after a failed assertion world_end() kills
 *          what is left.
 * Threads: the test's own. A peer has an engine with a thread of its own.
 * Time:    everything that is waited for is bounded by PATIENCE_NS.
 */
#ifndef CONFORM_WORLD_H
#define CONFORM_WORLD_H

#include "test.h"

#include <sys/types.h>

#include <mooncake/transfer.h>

#include "os/clock.h"

#define SECOND_NS UINT64_C(1000000000)
#define PATIENCE_NS (60 * SECOND_NS)

enum {
    SPACE = 8 << 20, /* bytes of memory at each end, unless asked otherwise */
    BOTH = MC_REMOTE_READ | MC_REMOTE_WRITE,
    PIECES_MAX = 64,
};

struct variant {
    const char *name;
    const char *transports; /* of both engines */
    bool own;               /* the peer is the engine itself */
    bool allocated;         /* memory from mc_memory_alloc(), else any */
    bool summed;            /* its transport makes checksums, else it says MC_E_UNSUPPORTED */
    bool hook;
};

/** The variant of this run. */
extern const struct variant *variant;

/** What world_open() makes; `{ 0 }` is the usual. */
struct world_options {
    bool driven;          /* our engine has no thread of its own */
    const char *settings; /* of our engine's transports */
    uint64_t space;       /* bytes at the peer */
    bool aliased;         /* the peer's memory is one small piece, mapped again and again */
};

struct world {
    mc_transfer *engine;
    uint8_t *local; /* [SPACE], registered */
    struct mc_region local_region;
    bool local_registered;
    uint32_t segment;
    char name[MC_NAME_MAX + 1]; /* of the peer's engine */
    struct mc_region region;    /* the peer's whole memory, BOTH */
    uint64_t space, incarnation;
    pid_t pid;         /* 0: none */
    int fd;            /* to the peer; -1: none */
    struct host *host; /* of `self` */
};

void world_open(struct world *world, const struct world_options *options);
/** In good order: the peer says that it ended well, and nothing is left in quarantine. */
void world_close(struct world *world);
/** Whatever state it is in: kill the peer. Safe on `{ 0 }` and after world_close(). */
void world_end(struct world *world);

/** Setup and teardown of a test with a world in *state. */
int world_setup(void **state);
int world_teardown(void **state);
#define WORLD_TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

/** The byte at `index` of the pattern `seed`; no two seeds below 32 agree at any index. */
static inline uint8_t pattern(uint64_t seed, uint64_t index)
{
    return (uint8_t)((index * 7 + (index >> 8) * 13 + (index >> 16)) << 5 | (seed & 31));
}

void fill(uint8_t *memory, uint64_t from, uint64_t size, uint64_t seed);
/** How many bytes of [from, from + size) are not the pattern's. */
uint64_t wrong(const uint8_t *memory, uint64_t from, uint64_t size, uint64_t seed);

/* ------------------------------------------------------------------------------- what a peer does */

/** Its memory becomes the pattern; waits until it is. */
void tell_fill(struct world *world, uint64_t from, uint64_t size, uint64_t seed);
/** How many bytes of its memory are not the pattern's. */
uint64_t tell_wrong(struct world *world, uint64_t from, uint64_t size, uint64_t seed);
/** A second region over all of its memory. */
struct mc_region tell_register(struct world *world, uint32_t permissions, uint32_t flags);
/** The answer comes with told_status(): unregistering waits for quiet, and we may be the ones to make it. */
void tell_unregister(struct world *world, struct mc_region region);
mc_status tell_grant(struct world *world, const struct mc_window_options *options,
                     struct mc_window *window_p);
void tell_revoke(struct world *world, const struct mc_window *window);
mc_status told_status(struct world *world);
/** Whether that answer is here; drives nothing. */
bool told_ready(struct world *world);

/** Signals to the peer; kill also waits for its end. */
void peer_stop(struct world *world);
void peer_continue(struct world *world);
void peer_kill(struct world *world);

/* ------------------------------------------------------------------------------------- transfers */

/** One transfer of `length` bytes between local + at and offset `offset` of the peer's region. */
struct mc_xfer xfer_of(const struct world *world, enum mc_op op, uint64_t at, uint64_t offset,
                       uint64_t length);

/** A batch of its own, submitted and waited for. */
mc_status move(struct world *world, const struct mc_xfer *xfer, enum mc_checksum checksum);

/** Open a batch of `count` transfers and submit it. */
mc_batch *start(struct world *world, const struct mc_xfer *xfers, size_t count,
                uint64_t deadline_ns, enum mc_checksum checksum);

/** Wait for its end; fails the test when it does not come in time. */
mc_status finish(mc_batch *batch);

static inline uint64_t soon(void)
{
    return os_now_ns() + PATIENCE_NS;
}

/** Until `ns` have gone by, drive the engine: what was on its way has time to arrive. */
void let_pass(struct world *world, uint64_t ns);

/** From here on nothing may touch `memory`: filled with a pattern, and poisoned where ASan is. */
void guard(uint8_t *memory, size_t size);
/** Nothing did. */
void unguard(uint8_t *memory, size_t size);

/** Steps at which phases are looked for: PHASES of them, rising. */
enum { PHASES = 12, LOAD = 56, LOAD_EACH = 128 * 1024 };
extern const uint32_t phases[PHASES];

/** LOAD transfers that fill a good part of the memory; of the window if there is one. */
void load(const struct world *world, enum mc_op op, const struct mc_window *window,
          struct mc_xfer xfers[LOAD]);

/** Poll until `steps` are over or the batch is final. */
void take_steps(mc_batch *batch, uint32_t steps);

/* --------------------------------------------------------------------------------------- topics */

int topic_moves(void);
int topic_many(void);
int topic_large(void);
int topic_threads(void);
int topic_refusals(void);
int topic_revokes(void);
int topic_cancels(void);
int topic_peers(void);
int topic_faults(void);

enum { SKIPPED = 77 };

#endif /* CONFORM_WORLD_H */
