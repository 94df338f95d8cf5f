/* segment.c - peers: the table of open ones, what is asked of them, and their end. */
#include "transfer/segment.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "net/net.h"
#include "os/clock.h"
#include "transfer/map.h"

/* An id: the place in the table, and above it a count of the place's lives, so that an old id meets
 * nobody for long. */
enum { PLACE_BITS = 17, PLACE_MASK = (1 << PLACE_BITS) - 1, SALT_MASK = 0x7fff };
static_assert((int)SESSIONS_LIMIT <= (int)PLACE_MASK, "every place has an id");

/* ------------------------------------------------------------------------------------- asking (loop) */

static void answered(struct segment *segment, mc_status status, const struct mc_error *error)
{
    segment->failure = status;
    segment->failure_error = (struct mc_error){ 0 };
    if (status != MC_OK && error)
        segment->failure_error = *error;
    segment->rounds++;
    segment->wanted = false;
    atomic_fetch_add(&segment->changes, 1);
    os_wake_all(&segment->changes);
}

/* A new description in place of the old one. Under the segment's lock. */
static void take_description(struct segment *segment, struct description *description)
{
    const struct description *old = segment->description;

    /* Queues to another life of the peer have failed or will: what flies there is theirs to end. */
    if (old && old->incarnation != description->incarnation)
        engine_log(segment->engine, MC_LOG_INFO, "event=peer_restarted peer=%s incarnation=%016llx",
                   segment->name, (unsigned long long)description->incarnation);
    description_close(segment->description);
    segment->description = description;
    segment->read_ns = segment->asked_ns;
    segment->stale = false;
    maps_clean(segment);
}

static void on_description(void *user, mc_status status, const struct wire_frame *frame,
                           const struct mc_error *error)
{
    struct segment *segment = user;
    struct wire_segment_description message;
    struct description *description = NULL;
    struct mc_error text = error ? *error : (struct mc_error){ 0 };

    segment->asking = false;
    if (status == MC_OK)
        status = net_take(frame, WIRE_SEGMENT_DESCRIPTION, &message, &text);
    pthread_mutex_lock(&segment->lock);
    const bool same = status == MC_OK && message.since != 0 && segment->description &&
                      segment->description->incarnation == message.incarnation &&
                      segment->description->version == message.version;
    if (same) { /* nothing has changed */
        segment->read_ns = segment->asked_ns;
        segment->stale = false;
    } else if (status == MC_OK && message.since != 0 &&
               segment->ask.message.segment.known == 0) { /* it would say so for ever */
        status = error_set(&text, MC_E_FORMAT, "%s: tells of changes and was asked for everything",
                           segment->name);
    } else if (status == MC_OK && message.since != 0) {
        segment->ask_all = true; /* changes to what we do not have */
    } else if (status == MC_OK) {
        status =
            description_read(segment->engine, frame->body, frame->body_size, &description, &text);
        if (status == MC_OK)
            take_description(segment, description);
    }
    if (status != MC_OK || !segment->ask_all)
        answered(segment, status, &text);
    route_waiting(segment);
    while (segment_step(segment))
        ;
    segment_unlock(segment);
    segment_call(segment);
    segment_unref(segment);
}

static void on_map(void *user, mc_status status, const struct wire_frame *frame,
                   const struct mc_error *error)
{
    struct map *map = user;
    struct segment *segment = map->segment;

    pthread_mutex_lock(&segment->lock);
    map_answer(map, status, frame, error);
    const bool failed = map->status != MC_OK;
    route_waiting(segment);
    if (failed) /* those of another life go when the description comes */
        maps_clean(segment);
    while (segment_step(segment))
        ;
    segment_unlock(segment);
    segment_unref(segment);
}

/* Ask for what is wanted. Questions hold a ref. */
static void ask_wanted(struct segment *segment)
{
    pthread_mutex_lock(&segment->lock);
    const bool wants = segment->wanted && !segment->asking && !segment->self;
    if (wants) {
        segment->asking = true;
        segment->asked_ns = os_now_ns();
        segment->ask.kind = WIRE_SEGMENT_ASK;
        segment->ask.message.segment = (struct wire_segment_ask){
            .known = segment->description && !segment->ask_all ? segment->description->version : 0,
        };
        segment->ask.until_ns = UINT64_MAX; /* who waits has a deadline of its own */
        segment->ask.answered = on_description;
        segment->ask.user = segment;
        segment->ask_all = false;
    }
    pthread_mutex_unlock(&segment->lock);
    if (wants) {
        segment_ref(segment);
        peer_ask(&segment->control, &segment->ask);
    }
    for (;;) {
        struct map *map;
        pthread_mutex_lock(&segment->lock);
        for (map = segment->maps_unasked ? segment->maps : NULL; map; map = map->next) {
            if (map->status == MC_PENDING && !map->asked)
                break;
        }
        if (map) {
            map->asked = true;
            segment->maps_unasked--;
            map->ask = (struct peer_ask){
                .kind = WIRE_WINDOW_MAP_ASK,
                .message.map = { .generation = map->generation },
                .until_ns = UINT64_MAX,
                .answered = on_map,
                .user = map,
            };
            memcpy(map->ask.message.map.key.bytes, map->key, sizeof(map->key));
        }
        pthread_mutex_unlock(&segment->lock);
        if (!map)
            return;
        segment_ref(segment);
        peer_ask(&segment->control, &map->ask);
    }
}

static void unwatch_dying(struct segment *segment)
{
    for (struct path *path = segment->dying; path; path = path->next) {
        if (path->watched) {
            os_loop_unwatch(segment->engine->loop, &path->watch);
            path->watched = false;
        }
    }
}

static void segment_free(struct segment *segment)
{
    mc_transfer *engine = segment->engine;

    assert(!segment->waiting.first && !atomic_load(&segment->inbox));
    description_close(segment->description);
    maps_free(segment);
    pthread_mutex_destroy(&segment->lock);
    alloc_free(engine->alloc, segment->name);
    alloc_free(engine->alloc, segment);
}

/* Nobody has it any more. Queues may take their time to be quiet: the ticker comes again. */
static bool bury(struct segment *segment)
{
    mc_transfer *engine = segment->engine;

    peer_close(&segment->control);
    pthread_mutex_lock(&segment->lock);
    for (uint32_t i = 0; i < engine->carrier_count; i++) {
        struct path *path = segment->paths[i];
        if (path && path->watched) {
            os_loop_unwatch(engine->loop, &path->watch);
            path->watched = false;
        }
    }
    unwatch_dying(segment);
    paths_close(segment);
    const bool gone = !segment->dying;
    pthread_mutex_unlock(&segment->lock);
    if (!gone)
        return false;
    pthread_mutex_lock(&engine->table);
    engine->segments[(segment->id & PLACE_MASK) - 1] = NULL;
    engine->segment_count--;
    pthread_mutex_unlock(&engine->table);
    segment_free(segment);
    return true;
}

/* The loop: whatever this segment wants of it. */
static void run(void *user)
{
    struct segment *segment = user;
    mc_transfer *engine = segment->engine;

    atomic_store(&segment->posted, false);
    pthread_mutex_lock(&engine->table);
    const bool dead = segment->refs == 0;
    pthread_mutex_unlock(&engine->table);
    if (dead) {
        if (!bury(segment))
            engine_tick(engine); /* and again then */
        return;
    }
    if (atomic_load(&segment->closed))
        peer_close(&segment->control); /* its questions end; they hold refs */
    else
        ask_wanted(segment);
    pthread_mutex_lock(&segment->lock);
    unwatch_dying(segment);
    while (segment_step(segment))
        ;
    segment_unlock(segment);
}

void segment_call(struct segment *segment)
{
    if (!atomic_exchange(&segment->posted, true))
        os_loop_post(segment->engine->loop, &segment->post);
}

/* ------------------------------------------------------------------------------------- the table */

void segment_ref(struct segment *segment)
{
    pthread_mutex_lock(&segment->engine->table);
    segment->refs++;
    pthread_mutex_unlock(&segment->engine->table);
}

void segment_unref(struct segment *segment)
{
    pthread_mutex_lock(&segment->engine->table);
    assert(segment->refs > 0);
    const bool last = --segment->refs == 0;
    if (last) /* under the lock: the loop frees it as soon as it is called */
        segment_call(segment);
    pthread_mutex_unlock(&segment->engine->table);
}

struct segment *segment_take(mc_transfer *engine, uint32_t id)
{
    const uint32_t place = id & PLACE_MASK;
    struct segment *segment = NULL;

    if (place == 0 || place > engine->sessions_max)
        return NULL;
    pthread_mutex_lock(&engine->table);
    segment = engine->segments[place - 1];
    if (segment && segment->id == id && segment->opens > 0)
        segment->refs++;
    else
        segment = NULL;
    pthread_mutex_unlock(&engine->table);
    return segment;
}

struct segment *segment_at(mc_transfer *engine, uint32_t index)
{
    pthread_mutex_lock(&engine->table);
    struct segment *segment = engine->segments[index];
    if (segment && segment->refs > 0)
        segment->refs++;
    else
        segment = NULL;
    pthread_mutex_unlock(&engine->table);
    return segment;
}

/* "host:port", as far as one can see without asking anybody. */
static bool is_address(const char *name)
{
    const char *colon = strrchr(name, ':');

    if (!colon || colon == name || !colon[1] || strlen(colon + 1) > 5)
        return false;
    uint32_t port = 0;
    for (const char *at = colon + 1; *at; at++) {
        if (*at < '0' || *at > '9')
            return false;
        port = port * 10 + (uint32_t)(*at - '0');
    }
    return port > 0 && port <= 65535;
}

static struct segment *segment_new(mc_transfer *engine, const char *name, bool own)
{
    struct segment *segment = alloc_zeroed(engine->alloc, 1, sizeof(*segment));
    const char *address = own ? engine->address : name;

    if (!segment)
        return NULL;
    segment->name = alloc_text(engine->alloc, address, strlen(address));
    if (!segment->name) {
        alloc_free(engine->alloc, segment);
        return NULL;
    }
    segment->engine = engine;
    segment->own = own;
    segment->self = own && carrier_find(engine, "self", 4) != NULL;
    segment->refs = segment->opens = 1;
    segment->post = (struct os_post){ .run = run, .user = segment };
    pthread_mutex_init(&segment->lock, NULL);
    peer_init(&segment->control, engine->net, engine->loop, segment->name);
    return segment;
}

/* Under engine->table: the open one of that name, or a free place. */
static struct segment *look_up(mc_transfer *engine, const char *name, bool own, uint32_t *free_p)
{
    *free_p = engine->sessions_max;
    for (uint32_t i = engine->sessions_max; i-- > 0;) {
        struct segment *segment = engine->segments[i];
        if (!segment)
            *free_p = i;
        else if (segment->opens > 0 && (own ? segment->own : !strcmp(segment->name, name)))
            return segment;
    }
    return NULL;
}

mc_status mc_segment_open(mc_transfer *engine, const char *name, uint32_t *segment_p,
                          struct mc_error *error)
{
    uint32_t place;

    if (!name || !*name || strlen(name) > MC_NAME_MAX)
        return error_set(error, MC_E_ARG, "a segment's name has 1 to %d bytes", MC_NAME_MAX);
    const bool own = strcmp(name, engine->name) == 0 || strcmp(name, engine->address) == 0;
    if (!own && !is_address(name))
        return error_set(error, MC_E_ARG,
                         "\"%s\" is not host:port, as names are without a resolver", name);
    struct segment *made = segment_new(engine, name, own);
    if (!made)
        return error_set(error, MC_E_NOMEM, "out of memory for a segment");
    pthread_mutex_lock(&engine->table);
    struct segment *segment = look_up(engine, name, own, &place);
    mc_status status = MC_OK;
    if (segment) {
        segment->opens++;
    } else if (place == engine->sessions_max) {
        status = MC_E_FULL;
    } else {
        engine->salts[place] = (uint16_t)((engine->salts[place] + 1) & SALT_MASK);
        made->id = (uint32_t)engine->salts[place] << PLACE_BITS | (place + 1);
        engine->segments[place] = segment = made;
        engine->segment_count++;
        made = NULL;
    }
    if (segment)
        *segment_p = segment->id;
    pthread_mutex_unlock(&engine->table);
    if (made)
        segment_free(made);
    return status == MC_OK ? MC_OK
                           : error_set(error, status, "sessions_max (%u) segments are open",
                                       engine->sessions_max);
}

void mc_segment_close(mc_transfer *engine, uint32_t id)
{
    struct segment *segment = id ? segment_take(engine, id) : NULL;

    if (!segment)
        return;
    pthread_mutex_lock(&engine->table);
    const bool last = segment->opens > 0 && --segment->opens == 0;
    pthread_mutex_unlock(&engine->table);
    if (last) {
        atomic_store(&segment->closed, true);
        atomic_store(&segment->attention, true);
        (void)segment_drive(segment);
        segment_call(segment);
        segment_unref(segment); /* that of the opens */
    }
    segment_unref(segment);
}

void segments_close(mc_transfer *engine)
{
    for (uint32_t i = 0; engine->segments && i < engine->sessions_max; i++) {
        struct segment *segment = engine->segments[i];
        if (segment && segment->opens > 0) {
            segment->opens = 1;
            mc_segment_close(engine, segment->id);
        }
    }
}

/* ------------------------------------------------------------------------------------- what is known */

static void fill_own_info(struct segment *segment, struct mc_segment_info *info_p)
{
    *info_p = (struct mc_segment_info){
        .name = segment->name,
        .transport = "self",
        .incarnation = segment->engine->incarnation,
        .same_host = 1,
    };
    pthread_mutex_lock(&segment->engine->registry.admin);
    info_p->regions = segment->engine->registry.published;
    pthread_mutex_unlock(&segment->engine->registry.admin);
}

/* Under its lock. */
static void fill_info(struct segment *segment, struct mc_segment_info *info_p)
{
    const struct description *description = segment->description;

    *info_p = (struct mc_segment_info){ .name = segment->name, .transport = "" };
    info_p->incarnation = description->incarnation;
    info_p->age_ns = os_now_ns() - segment->read_ns;
    info_p->regions = description->count;
    for (uint32_t i = segment->engine->carrier_count; i-- > 0;) {
        const struct path *path = segment->paths[i];
        if (!path || !path->proved)
            continue;
        info_p->transport = path->carrier->name;
        if (path->carrier->caps.flags & TRANSPORT_SAME_HOST)
            info_p->same_host = 1;
    }
}

mc_status mc_segment_info(mc_transfer *engine, uint32_t id, bool refresh, uint64_t deadline_ns,
                          struct mc_segment_info *info_p, struct mc_error *error)
{
    const uint64_t until_ns = deadline_of(deadline_ns);
    struct segment *segment = segment_take(engine, id);
    mc_status status = MC_PENDING;
    uint32_t target = 0;

    if (!segment)
        return error_set(error, MC_E_NOT_FOUND, "no segment %u is open", id);
    if (segment->self) {
        fill_own_info(segment, info_p);
        segment_unref(segment);
        return MC_OK;
    }
    pthread_mutex_lock(&segment->lock);
    const bool out = refresh && segment->wanted; /* a question that is out is older than this one */
    target = segment->rounds + (out ? 2 : 1);
    for (;;) {
        const uint32_t seen = atomic_load(&segment->changes);
        const bool answered_us = (int32_t)(segment->rounds - target) >= 0;
        if (segment->description && !segment->stale &&
            (!refresh || (answered_us && segment->failure == MC_OK))) {
            fill_info(segment, info_p);
            status = MC_OK;
        } else if (answered_us && segment->failure != MC_OK) {
            status = segment->failure;
            if (error)
                *error = segment->failure_error;
        } else if (atomic_load(&segment->closed)) { /* meanwhile: nothing is asked any more */
            status = error_set(error, MC_E_NOT_FOUND, "%s was closed", segment->name);
        } else if (os_now_ns() >= until_ns) {
            status = error_set(error, MC_E_TIMEOUT, "%s did not answer in time", segment->name);
        } else {
            segment->wanted = true;
        }
        segment_unlock(segment);
        if (status != MC_PENDING)
            break;
        segment_call(segment);
        engine_pause(engine, &segment->changes, seen, until_ns);
        pthread_mutex_lock(&segment->lock);
    }
    segment_unref(segment);
    return status;
}

static void copy_text(char to[64], const void *text, size_t size)
{
    const size_t fits = size < 63 ? size : 63;

    if (fits > 0)
        memcpy(to, text, fits);
    to[fits] = '\0';
}

mc_status mc_segment_region(mc_transfer *engine, uint32_t id, uint32_t index,
                            struct mc_segment_region *region_p)
{
    struct segment *segment = segment_take(engine, id);
    mc_status status = MC_E_NOT_FOUND;

    if (!segment)
        return MC_E_STALE;
    if (segment->self) {
        status = own_region(engine, index, region_p);
        segment_unref(segment);
        return status;
    }
    pthread_mutex_lock(&segment->lock);
    if (segment->description && index < segment->description->count) {
        const struct peer_region *region = &segment->description->regions[index];
        *region_p = (struct mc_segment_region){
            .region = region->handle,
            .address = region->address,
            .size = region->size,
            .permissions = region->permissions,
        };
        copy_text(region_p->tag, region->tag.data, region->tag.size);
        copy_text(region_p->location, region->location.data, region->location.size);
        status = MC_OK;
    }
    segment_unlock(segment);
    segment_unref(segment);
    return status;
}

mc_status mc_segment_find(mc_transfer *engine, uint32_t id, uint64_t address, uint64_t size,
                          struct mc_region *region_p, uint64_t *offset_p)
{
    struct segment *segment = segment_take(engine, id);
    mc_status status = MC_E_NOT_FOUND;

    if (!segment)
        return MC_E_NOT_FOUND;
    if (segment->self) {
        status = own_find(engine, address, size, region_p, offset_p);
        segment_unref(segment);
        return status;
    }
    pthread_mutex_lock(&segment->lock);
    if (!segment->description) {
        status = MC_PENDING;
        segment->wanted = true;
    } else {
        const struct peer_region *region = description_find(segment->description, address, size);
        if (region) {
            *region_p = region->handle;
            *offset_p = address - region->address;
            status = MC_OK;
        }
    }
    segment_unlock(segment);
    if (status == MC_PENDING)
        segment_call(segment);
    segment_unref(segment);
    return status;
}
