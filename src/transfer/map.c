/* map.c - where the pieces of peers' windows lie. */
#include "transfer/map.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "net/net.h"

#define MAPS_BYTES ((uint64_t)64 << 20)

static struct map **bucket_of(struct segment *segment, const uint64_t key[2])
{
    return &segment->map_buckets[key[0] % MAP_BUCKETS];
}

struct map *map_find(struct segment *segment, const struct mc_window *window)
{
    for (struct map *map = *bucket_of(segment, window->key); map; map = map->beside) {
        if (map->key[0] == window->key[0] && map->key[1] == window->key[1] &&
            map->generation == window->generation)
            return map;
    }
    return NULL;
}

static void map_free(struct map *map)
{
    struct segment *segment = map->segment;
    const struct mc_alloc *alloc = segment->engine->alloc;
    struct map **at = bucket_of(segment, map->key);

    while (*at != map)
        at = &(*at)->beside;
    *at = map->beside;
    *(map->previous ? &map->previous->next : &segment->maps) = map->next;
    *(map->next ? &map->next->previous : &segment->oldest_map) = map->previous;
    segment->map_count--;
    segment->map_bytes -= map->count * sizeof(uint64_t);
    alloc_free(alloc, map->offsets);
    alloc_free(alloc, map->keys);
    alloc_free(alloc, map);
}

static bool is_idle(const struct map *map)
{
    return map->users == 0 && map->status != MC_PENDING;
}

static void make_room(struct segment *segment)
{
    while (segment->map_count >= MAPS_MAX || segment->map_bytes > MAPS_BYTES) {
        struct map *oldest = segment->oldest_map;
        while (oldest && !is_idle(oldest))
            oldest = oldest->previous;
        if (!oldest)
            return;
        map_free(oldest);
    }
}

struct map *map_new(struct segment *segment, const struct mc_window *window)
{
    const struct mc_alloc *alloc = segment->engine->alloc;

    make_room(segment);
    struct map *map = alloc_zeroed(alloc, 1, sizeof(*map));
    struct transport_key *keys = alloc_zeroed(alloc, segment->engine->carrier_count, sizeof(*keys));
    if (!map || !keys) {
        alloc_free(alloc, map);
        alloc_free(alloc, keys);
        return NULL;
    }
    struct map **bucket = bucket_of(segment, window->key);
    *map = (struct map){
        .next = segment->maps,
        .beside = *bucket,
        .segment = segment,
        .key = { window->key[0], window->key[1] },
        .generation = window->generation,
        .incarnation = window->incarnation,
        .status = MC_PENDING,
        .keys = keys,
    };
    *(segment->maps ? &segment->maps->previous : &segment->oldest_map) = map;
    segment->maps = *bucket = map;
    segment->map_count++;
    segment->maps_unasked++;
    return map;
}

void map_unuse(struct map *map, bool forget)
{
    assert(map->users > 0);
    map->users--;
    map->useless = map->useless || forget;
    if (map->users == 0 && map->useless)
        map_free(map);
}

static mc_status read_map(struct map *map, const struct wire_window_map *message)
{
    mc_transfer *engine = map->segment->engine;
    struct wire_list keys = message->keys;
    struct wire_transport_key key;

    if (message->piece_bytes == 0 || message->offsets.count == 0)
        return MC_E_FORMAT;
    map->offsets = alloc_zeroed(engine->alloc, message->offsets.count, sizeof(uint64_t));
    if (!map->offsets)
        return MC_E_NOMEM;
    map->count = message->offsets.count;
    map->segment->map_bytes += map->count * sizeof(uint64_t);
    for (uint32_t i = 0; i < message->offsets.count; i++)
        map->offsets[i] = wire_u64_at(&message->offsets, i);
    map->region = message->region;
    map->piece_bytes = message->piece_bytes;
    while (wire_transport_key_next(&keys, &key)) {
        const struct carrier *carrier =
            carrier_find(engine, key.transport.data, key.transport.size);
        if (!carrier || key.key.size > TRANSPORT_KEY_MAX)
            continue;
        struct transport_key *its = &map->keys[carrier->index];
        if (key.key.size > 0)
            memcpy(its->bytes, key.key.data, key.key.size);
        its->size = key.key.size;
        its->opened = true;
    }
    return MC_OK;
}

void map_answer(struct map *map, mc_status status, const struct wire_frame *frame,
                const struct mc_error *error)
{
    struct wire_window_map message;

    if (error)
        map->error = *error;
    if (status == MC_OK)
        status = net_take(frame, WIRE_WINDOW_MAP, &message, &map->error);
    if (status == MC_OK)
        status = read_map(map, &message);
    if (status != MC_OK && map->error.status == MC_OK)
        error_set(&map->error, status, "%s: where a window lies: %s", map->segment->name,
                  mc_status_text(status));
    map->status = status;
}

void maps_clean(struct segment *segment)
{
    const uint64_t life = segment->description ? segment->description->incarnation : 0;

    for (struct map *map = segment->maps, *next; map; map = next) {
        next = map->next;
        const bool useless =
            map->status != MC_OK || map->useless || (life != 0 && map->incarnation != life);
        if (is_idle(map) && useless)
            map_free(map);
    }
}

void maps_free(struct segment *segment)
{
    while (segment->maps)
        map_free(segment->maps);
}
