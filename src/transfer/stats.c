/* stats.c - counters, of each transport and of all. */
#include "transfer/engine.h"

#include <stdio.h>
#include <string.h>

#include "transfer/segment.h"

static uint64_t read_count(const struct counts *counts, enum engine_count which)
{
    return atomic_load_explicit(&counts->at[which], memory_order_relaxed);
}

static void add_counts(const struct counts *counts, struct mc_transfer_stats *stats)
{
#define ADD_COUNT(name) stats->name += read_count(counts, COUNT_##name);
    ENGINE_COUNTS(ADD_COUNT)
#undef ADD_COUNT
}

static void add_gauges(mc_transfer *engine, struct mc_transfer_stats *stats)
{
    struct registry *registry = &engine->registry;

    pthread_mutex_lock(&registry->admin);
    stats->regions = registry->region_count;
    stats->windows = registry->window_count;
    stats->registered_bytes = registry->registered_bytes;
    stats->quarantined_bytes = registry->quarantined_bytes;
    pthread_mutex_unlock(&registry->admin);
    pthread_mutex_lock(&engine->table);
    stats->sessions = engine->segment_count;
    pthread_mutex_unlock(&engine->table);
}

mc_status mc_transfer_stats(const mc_transfer *transfer, uint32_t index,
                            struct mc_transfer_stats *stats_p)
{
    mc_transfer *engine = (mc_transfer *)(uintptr_t)transfer; /* locks are not part of what it is */
    struct mc_transfer_stats stats = { .transport = "" };

    if (index != UINT32_MAX && index >= engine->carrier_count)
        return MC_E_RANGE;
    if (index != UINT32_MAX) {
        stats.transport = engine->carriers[index].name;
        add_counts(&engine->carriers[index].counts, &stats);
    } else {
        for (uint32_t i = 0; i < engine->carrier_count; i++)
            add_counts(&engine->carriers[i].counts, &stats);
        add_counts(&engine->counts, &stats);
        add_gauges(engine, &stats);
    }
    *stats_p = stats;
    return MC_OK;
}

void stats_walk(mc_transfer *engine, void (*each)(void *user, const char *name, uint64_t value),
                void *user)
{
    struct mc_transfer_stats all;
    char name[64];

    (void)mc_transfer_stats(engine, UINT32_MAX, &all);
#define TELL(field) each(user, "transfer_" #field, all.field);
    ENGINE_COUNTS(TELL)
    TELL(sessions)
    TELL(regions)
    TELL(windows)
    TELL(registered_bytes)
    TELL(quarantined_bytes)
#undef TELL
    for (uint32_t i = 0; i < engine->carrier_count; i++) {
        const struct carrier *carrier = &engine->carriers[i];
#define TELL(field) \
    snprintf(name, sizeof(name), "transfer_%s_" #field, carrier->wire); \
    each(user, name, read_count(&carrier->counts, COUNT_##field));
        ENGINE_COUNTS(TELL)
#undef TELL
    }
}
