/* stats.c - the master's counters, asked for by any thread, and this client's own. */
#include <stdatomic.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "os/clock.h"
#include "store/client/store.h"

/** Who asks owns it until it posts `free`; `word` says that status and stats are final. */
struct stats_ask {
    mc_store *store;
    struct stats_ask *next; /* the loop's: in store->stats */
    struct os_post begin, free;
    uint64_t tag; /* the loop's; 0: not asked */
    bool listed;  /* the loop's */
    mc_status status;
    struct mc_store_stats stats;
    _Atomic uint32_t word;
};

/* The master's names for what it counts. */
#define MASTER_COUNTERS(X) \
    X(nodes) \
    X(objects) \
    X(replicas) \
    X(leases) \
    X(tokens) \
    X(capacity_bytes) \
    X(used_bytes) \
    X(quarantined_bytes) \
    X(evicted_objects) \
    X(evicted_bytes)

static const struct {
    const char *name;
    size_t offset;
} counters[] = {
#define COUNTER(name) { "store_" #name, offsetof(struct mc_store_stats, name) },
    MASTER_COUNTERS(COUNTER)
#undef COUNTER
};

/* ------------------------------------------------------------------------------------- the loop's */

static void own_counters(struct stats_ask *ask)
{
    struct store_client_figures f;

    store_client_figures(ask->store->core, &f);
    ask->stats.get_hits = f.get_hits;
    ask->stats.get_misses = f.get_misses;
    ask->stats.get_failed = f.get_failed;
    ask->stats.put_stored = f.put_stored;
    ask->stats.put_existed = f.put_existed;
    ask->stats.put_failed = f.put_failed;
    ask->stats.get_bytes = f.get_bytes;
    ask->stats.put_bytes = f.put_bytes;
    ask->stats.corrupt = f.corrupt;
}

static void unlist(struct stats_ask *ask)
{
    struct stats_ask **at = &ask->store->stats;

    if (!ask->listed)
        return;
    while (*at != ask)
        at = &(*at)->next;
    *at = ask->next;
    ask->listed = false;
}

static void final(struct stats_ask *ask, mc_status status)
{
    unlist(ask);
    ask->status = status;
    atomic_store_explicit(&ask->word, 1, memory_order_release);
    os_wake_all(&ask->word);
}

static void ask_master(struct stats_ask *ask)
{
    const struct wire_stats message = { .prefix = wire_text("store_") };
    mc_store *store = ask->store;

    if (ask->tag != 0 || !link_is_up(&store->link))
        return;
    ask->tag = STORE_TAG_STATS | (++store->stats_tag & UINT64_C(0xffffffffffff));
    if (link_ask(&store->link, ask->tag, WIRE_STATS, &message, 0) != MC_OK)
        final(ask, MC_E_PEER); /* it has more to answer than it may */
}

static void begin_posted(void *user)
{
    struct stats_ask *ask = user;

    ask->next = ask->store->stats;
    ask->store->stats = ask;
    ask->listed = true;
    ask_master(ask);
}

static void free_posted(void *user)
{
    struct stats_ask *ask = user;

    if (ask->listed && ask->tag != 0)
        link_forget(&ask->store->link, ask->tag);
    unlist(ask);
    alloc_free(ask->store->alloc, ask);
}

static void take_counters(struct stats_ask *ask, struct wire_list items)
{
    struct wire_counter counter;

    while (wire_counter_next(&items, &counter))
        for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++)
            if (counter.name.size == strlen(counters[i].name) &&
                memcmp(counter.name.data, counters[i].name, counter.name.size) == 0)
                memcpy((char *)&ask->stats + counters[i].offset, &counter.value,
                       sizeof(counter.value));
}

void stats_up(mc_store *store)
{
    for (struct stats_ask *ask = store->stats, *next; ask; ask = next) {
        next = ask->next;
        ask_master(ask);
    }
}

void stats_down(mc_store *store)
{
    for (struct stats_ask *ask = store->stats; ask; ask = ask->next)
        ask->tag = 0; /* asked again */
}

bool stats_answer(mc_store *store, uint64_t tag, mc_status status, uint32_t wire,
                  const void *message)
{
    struct stats_ask *ask = store->stats;

    if ((tag & UINT64_C(0xffff) << 48) != STORE_TAG_STATS)
        return false;
    while (ask && ask->tag != tag)
        ask = ask->next;
    if (!ask)
        return true;
    own_counters(ask);
    if (status == MC_OK && wire == WIRE_COUNTERS)
        take_counters(ask, ((const struct wire_counters *)message)->items);
    else
        status = status != MC_OK ? status : MC_E_PEER;
    final(ask, status);
    return true;
}

/* ------------------------------------------------------------------------------------ any thread */

mc_status mc_store_stats(mc_store *store, uint64_t deadline_ns, struct mc_store_stats *stats_p,
                         struct mc_error *error)
{
    const uint64_t until_ns = store_deadline(deadline_ns);
    struct stats_ask *ask = alloc_zeroed(store->alloc, 1, sizeof(*ask));

    if (!ask)
        return error_set(error, MC_E_NOMEM, "out of memory");
    ask->store = store;
    ask->begin = (struct os_post){ .run = begin_posted, .user = ask };
    ask->free = (struct os_post){ .run = free_posted, .user = ask };
    atomic_init(&ask->word, 0);
    os_loop_post(store->loop, &ask->begin);
    while (!atomic_load_explicit(&ask->word, memory_order_acquire) && os_now_ns() < until_ns)
        os_wait_change(&ask->word, 0, until_ns);
    mc_status status = MC_E_TIMEOUT;
    if (atomic_load_explicit(&ask->word, memory_order_acquire)) {
        status = ask->status;
        if (status == MC_OK)
            *stats_p = ask->stats;
    }
    os_loop_post(store->loop, &ask->free);
    return status == MC_OK
               ? MC_OK
               : error_set(error, status, "the master at %s did not tell its counters: %s",
                           store->masters, mc_status_text(status));
}
