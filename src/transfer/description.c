/* description.c - a segment as it is published: written from the registry, read from a peer's bytes. */
#include "transfer/description.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "net/net.h"

#define CONTROL "control" /* the endpoint that is no transport: where questions go */

/* --------------------------------------------------------------------------------------- reading */

static void read_endpoints(mc_transfer *engine, struct wire_list endpoints,
                           struct description *description)
{
    struct wire_endpoint endpoint;

    while (wire_endpoint_next(&endpoints, &endpoint)) {
        if (endpoint.transport.size == sizeof(CONTROL) - 1 &&
            memcmp(endpoint.transport.data, CONTROL, sizeof(CONTROL) - 1) == 0) {
            description->control = endpoint.address;
            continue;
        }
        const struct carrier *carrier =
            carrier_find(engine, endpoint.transport.data, endpoint.transport.size);
        if (carrier && endpoint.address.size <= TRANSPORT_KEY_MAX)
            description->endpoints[carrier->index] =
                (struct peer_key){ endpoint.address.data, endpoint.address.size };
    }
}

static void read_region(mc_transfer *engine, const struct wire_region *from, struct peer_region *to)
{
    static const uint8_t empty[1];
    struct wire_list keys = from->keys;
    struct wire_transport_key key;

    *to = (struct peer_region){
        .handle = { .id = from->id, .generation = from->generation },
        .address = from->address,
        .size = from->size,
        .permissions = from->permissions,
        .tag = from->tag,
        .location = from->location,
    };
    while (wire_transport_key_next(&keys, &key)) {
        const struct carrier *carrier =
            carrier_find(engine, key.transport.data, key.transport.size);
        if (carrier && key.key.size <= TRANSPORT_KEY_MAX)
            to->keys[carrier->index] =
                (struct peer_key){ key.key.size ? key.key.data : empty, key.key.size };
    }
}

static int by_id(const void *a, const void *b)
{
    const struct peer_region *x = a, *y = b;

    return x->handle.id < y->handle.id ? -1 : x->handle.id > y->handle.id;
}

/* By insertion from a sorted start is quadratic and qsort has no context: sort pairs. */
struct place {
    uint64_t address;
    uint32_t index;
};

static int by_address(const void *a, const void *b)
{
    const struct place *x = a, *y = b;

    if (x->address != y->address)
        return x->address < y->address ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

static mc_status make_index(struct description *description)
{
    struct place *places = alloc_zeroed(description->alloc, description->count, sizeof(*places));
    uint64_t end = 0;

    if (!places)
        return MC_E_NOMEM;
    for (uint32_t i = 0; i < description->count; i++)
        places[i] = (struct place){ description->regions[i].address, i };
    qsort(places, description->count, sizeof(*places), by_address);
    for (uint32_t i = 0; i < description->count; i++) {
        const struct peer_region *region = &description->regions[places[i].index];
        description->by_address[i] = places[i].index;
        end = region->address + region->size > end ? region->address + region->size : end;
        description->ends[i] = end;
    }
    alloc_free(description->alloc, places);
    return MC_OK;
}

static mc_status read_regions(mc_transfer *engine, struct wire_list regions,
                              struct description *description, struct mc_error *error)
{
    struct wire_region region;

    description->regions =
        alloc_zeroed(engine->alloc, regions.count, sizeof(*description->regions));
    description->by_address = alloc_zeroed(engine->alloc, regions.count, sizeof(uint32_t));
    description->ends = alloc_zeroed(engine->alloc, regions.count, sizeof(uint64_t));
    if (!description->regions || !description->by_address || !description->ends)
        return error_set(error, MC_E_NOMEM, "out of memory for a description");
    while (wire_region_next(&regions, &region)) {
        if (region.id == 0 || region.generation == 0 || region.size > UINT64_MAX - region.address)
            return error_set(error, MC_E_FORMAT, "a description with a region that cannot be");
        read_region(engine, &region, &description->regions[description->count++]);
    }
    qsort(description->regions, description->count, sizeof(*description->regions), by_id);
    if (make_index(description) != MC_OK)
        return error_set(error, MC_E_NOMEM, "out of memory for a description");
    return MC_OK;
}

mc_status description_read(mc_transfer *engine, const uint8_t *body, size_t size,
                           struct description **description_p, struct mc_error *error)
{
    struct wire_segment_description message;
    struct description *description = alloc_zeroed(engine->alloc, 1, sizeof(*description));

    if (!description)
        return error_set(error, MC_E_NOMEM, "out of memory for a description");
    description->alloc = engine->alloc;
    description->bytes = alloc_bytes(engine->alloc, size);
    mc_status status = MC_E_NOMEM;
    if (description->bytes) {
        memcpy(description->bytes, body, size);
        status = wire_decode(WIRE_SEGMENT_DESCRIPTION, description->bytes, size, &message, error);
    } else {
        error_set(error, MC_E_NOMEM, "out of memory for a description");
    }
    if (status == MC_OK && message.incarnation == 0)
        status = error_set(error, MC_E_FORMAT, "a description without an incarnation");
    if (status == MC_OK) {
        description->incarnation = message.incarnation;
        description->version = message.version;
        description->host = message.host;
        read_endpoints(engine, message.endpoints, description);
        status = read_regions(engine, message.regions, description, error);
    }
    if (status != MC_OK) {
        description_close(description);
        return status;
    }
    *description_p = description;
    return MC_OK;
}

void description_close(struct description *description)
{
    if (!description)
        return;
    alloc_free(description->alloc, description->regions);
    alloc_free(description->alloc, description->by_address);
    alloc_free(description->alloc, description->ends);
    alloc_free(description->alloc, description->bytes);
    alloc_free(description->alloc, description);
}

const struct peer_region *description_region(const struct description *description, uint32_t id,
                                             uint64_t generation)
{
    const struct peer_region wanted = { .handle = { .id = id } };
    const struct peer_region *region = bsearch(&wanted, description->regions, description->count,
                                               sizeof(*description->regions), by_id);

    return region && region->handle.generation == generation ? region : NULL;
}

const struct peer_region *description_find(const struct description *description, uint64_t address,
                                           uint64_t size)
{
    uint32_t low = 0, high = description->count;

    if (size > UINT64_MAX - address)
        return NULL;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (description->regions[description->by_address[middle]].address <= address)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low > 0 && description->ends[low - 1] >= address + size; low--) {
        const struct peer_region *region = &description->regions[description->by_address[low - 1]];
        if (region->address + region->size >= address + size)
            return region;
    }
    return NULL;
}

/* --------------------------------------------------------------------------------------- writing */

static uint32_t write_endpoints(mc_transfer *engine, struct wire_endpoint *endpoints)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < engine->carrier_count; i++) {
        const struct carrier *carrier = &engine->carriers[i];
        if (carrier->address_size > 0)
            endpoints[count++] = (struct wire_endpoint){
                .transport = wire_text(carrier->wire),
                .address = { carrier->address, (uint32_t)carrier->address_size },
            };
    }
    endpoints[count++] = (struct wire_endpoint){ .transport = wire_text(CONTROL),
                                                 .address = wire_text(engine->address) };
    return count;
}

/* A transport that cannot reach the memory gives an empty key: peers need not try it. */
static bool is_key(const struct transport_key *key)
{
    return key->opened && key->size > 0;
}

static void write_region(mc_transfer *engine, const struct region *region, struct wire_region *to,
                         struct wire_transport_key *keys)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < engine->carrier_count; i++) {
        if (is_key(&region->keys[i]))
            keys[count++] = (struct wire_transport_key){
                .transport = wire_text(engine->carriers[i].wire),
                .key = { region->keys[i].bytes, region->keys[i].size },
            };
    }
    *to = (struct wire_region){
        .id = region->handle.id,
        .generation = region->handle.generation,
        .address = (uintptr_t)region->address,
        .size = region->size,
        .permissions = region->permissions,
        .tag = wire_text(region->tag),
        .location = wire_text(region->location),
        .keys = { .items = keys, .count = count },
    };
}

mc_status description_tell(mc_transfer *engine, uint64_t known,
                           mc_status (*tell)(void *user,
                                             const struct wire_segment_description *message),
                           void *user)
{
    struct registry *registry = &engine->registry;
    struct wire_endpoint endpoints[TRANSPORTS_MAX + 1];
    struct wire_region *regions = NULL;
    struct wire_transport_key *keys = NULL;
    uint32_t count = 0;

    pthread_mutex_lock(&registry->admin);
    struct wire_segment_description message = {
        .name = wire_text(engine->name),
        .incarnation = engine->incarnation,
        .version = registry->version,
        .endpoints = { .items = endpoints, .count = write_endpoints(engine, endpoints) },
        .host = *net_host(engine->net),
    };
    if (known == registry->version) {
        message.since = known;
    } else {
        regions = alloc_zeroed(engine->alloc, registry->published, sizeof(*regions));
        keys = alloc_zeroed(engine->alloc, (size_t)registry->published * engine->carrier_count,
                            sizeof(*keys));
    }
    mc_status status = known == registry->version || (regions && keys) ? MC_OK : MC_E_NOMEM;
    for (uint32_t i = 0; status == MC_OK && regions && i < engine->regions_max; i++) {
        const struct region *region = registry->slots[i].region;
        if (!region || region->closing || (region->flags & MC_REGION_PRIVATE))
            continue;
        assert(count < registry->published);
        write_region(engine, region, &regions[count], &keys[(size_t)count * engine->carrier_count]);
        count++;
    }
    message.regions = (struct wire_list){ .items = regions, .count = count };
    if (status == MC_OK)
        status = tell(user, &message);
    pthread_mutex_unlock(&registry->admin);
    alloc_free(engine->alloc, regions);
    alloc_free(engine->alloc, keys);
    return status;
}

mc_status window_tell(mc_transfer *engine, const uint64_t key[2], uint64_t generation,
                      uint64_t peer,
                      mc_status (*tell)(void *user, const struct wire_window_map *message),
                      void *user)
{
    static const uint64_t nought = 0;
    struct wire_transport_key keys[TRANSPORTS_MAX];
    const struct transport_access access = { .key = { key[0], key[1] },
                                             .generation = generation,
                                             .peer = peer };

    pthread_mutex_lock(&engine->registry.admin);
    const struct window *window = NULL;
    mc_status status = pin_check(engine, &access, &window);
    if (status == MC_OK) {
        const bool one = !window->offsets; /* side by side, pieces are one */
        struct wire_window_map message = {
            .region = window->grant.region,
            .piece_bytes = one ? window->grant.size : window->grant.piece_bytes,
            .offsets = { one ? &nought : window->offsets, one ? 1 : (uint32_t)window->count },
        };
        for (uint32_t i = 0; i < engine->carrier_count; i++) {
            if (is_key(&window->keys[i]))
                keys[message.keys.count++] = (struct wire_transport_key){
                    .transport = wire_text(engine->carriers[i].wire),
                    .key = { window->keys[i].bytes, window->keys[i].size },
                };
        }
        message.keys.items = keys;
        status = tell(user, &message);
    }
    pthread_mutex_unlock(&engine->registry.admin);
    return status;
}
