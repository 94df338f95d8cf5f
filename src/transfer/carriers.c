/* carriers.c - the transports of an engine: which, with which settings, opened and closed. */
#include "transfer/engine.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/error.h"
#include "transfer/transport/table.h"

void *alloc_aligned(const struct mc_alloc *alloc, size_t size, void **block_p)
{
    void *block = alloc_zeroed(alloc, 1, size + 64);

    *block_p = block;
    return block ? (void *)(((uintptr_t)block + 63) / 64 * 64) : NULL;
}

struct carrier *carrier_find(mc_transfer *engine, const void *wire, size_t size)
{
    for (uint32_t i = 0; i < engine->carrier_count; i++) {
        struct carrier *carrier = &engine->carriers[i];
        if (strlen(carrier->wire) == size && memcmp(carrier->wire, wire, size) == 0)
            return carrier;
    }
    return NULL;
}

/* ----------------------------------------------------------------------------------------- settings */

/* One "name.key=value" of a list; the rest comes next. False at the end. */
static bool next_item(const char **at, const char **item_p, size_t *size_p)
{
    while (**at == ',' || **at == ' ')
        (*at)++;
    if (!**at)
        return false;
    *item_p = *at;
    *size_p = strcspn(*at, ",");
    *at += *size_p;
    while (*size_p > 0 && (*item_p)[*size_p - 1] == ' ')
        (*size_p)--;
    return true;
}

static bool has_prefix(const char *item, size_t size, const char *name)
{
    const size_t length = strlen(name);

    return size > length && memcmp(item, name, length) == 0 && item[length] == '.';
}

/* What of `settings` is for this transport, without its name: "key=value,…". A hook gets what it wraps
 * under that one's name. */
static mc_status pick_settings(const mc_transfer *engine, struct carrier *carrier,
                               const char *settings)
{
    struct buf text = BUF_INIT(engine->alloc);
    const char *at = settings ? settings : "", *item;
    size_t size;

    while (next_item(&at, &item, &size)) {
        const bool own = has_prefix(item, size, carrier->ops->name);
        const bool inner = carrier->env.inner && has_prefix(item, size, carrier->env.inner->name);
        if (!own && !inner)
            continue;
        const size_t skip = own ? strlen(carrier->ops->name) + 1 : 0;
        if (text.size > 0)
            buf_add_byte(&text, ',');
        buf_add(&text, item + skip, size - skip);
    }
    const bool failed = text.failed, empty = text.size == 0;
    carrier->settings = failed || empty ? NULL : buf_take(&text, NULL);
    buf_fini(&text);
    return failed ? MC_E_NOMEM : MC_OK;
}

/* Every setting is of a transport that is known, and has a value. */
static mc_status check_settings(const char *settings, struct mc_error *error)
{
    const char *at = settings ? settings : "", *item;
    size_t size;

    while (next_item(&at, &item, &size)) {
        bool known = false;
        for (uint32_t i = 0; transport_table[i]; i++)
            known = known || has_prefix(item, size, transport_table[i]->name);
        if (!known || !memchr(item, '=', size))
            return error_set(error, MC_E_ARG,
                             "settings: \"%.*s\" is not TRANSPORT.KEY=VALUE of a transport here",
                             (int)size, item);
    }
    return MC_OK;
}

/* ----------------------------------------------------------------------------------------- opening */

static void close_one(mc_transfer *engine, struct carrier *carrier)
{
    if (carrier->opened)
        carrier->ops->close(carrier->state);
    pthread_mutex_destroy(&carrier->serving);
    alloc_free(engine->alloc, carrier->block);
    alloc_free(engine->alloc, carrier->settings);
    alloc_free(engine->alloc, carrier->name);
    *carrier = (struct carrier){ 0 };
}

void carriers_close(mc_transfer *engine)
{
    while (engine->carrier_count > 0)
        close_one(engine, &engine->carriers[--engine->carrier_count]);
}

static void fill_env(mc_transfer *engine, struct carrier *carrier,
                     const struct transport_ops *inner)
{
    carrier->env = (struct transport_env){
        .alloc = engine->alloc,
        .log = engine->log,
        .listen = engine->address,
        .topology = engine->topology,
        .settings = carrier->settings,
        .incarnation = engine->incarnation,
        .secret = engine->secret,
        .secret_size = engine->secret_size,
        .sessions_max = engine->sessions_max,
        .streams = engine->streams,
        .inner = inner,
        .pin = pin_of_carrier,
        .unpin = unpin_of_carrier,
        .moved = moved_by_carrier,
        .engine = carrier,
    };
}

static mc_status open_state(mc_transfer *engine, struct carrier *carrier, struct mc_error *error)
{
    carrier->state = alloc_aligned(engine->alloc, carrier->ops->transport_bytes, &carrier->block);
    if (!carrier->state)
        return error_set(error, MC_E_NOMEM, "%s: out of memory", carrier->name);
    carrier->opened = true; /* close accepts what was opened half-way */
    mc_status status = carrier->ops->open(carrier->state, &carrier->env, error);
    if (status == MC_OK)
        status = carrier->ops->describe(carrier->state, carrier->address, &carrier->address_size);
    if (status == MC_OK && (carrier->caps.queue_depth == 0 || carrier->caps.slice_max == 0))
        return error_set(error, MC_E_UNSUPPORTED, "%s: its table says nothing of queues",
                         carrier->name);
    return status;
}

/* Open "tcp" or "hook:tcp". Absent: MC_E_UNSUPPORTED, and nothing is left behind. */
static mc_status open_one(mc_transfer *engine, const char *name, size_t size, const char *settings,
                          struct mc_error *error)
{
    const char *colon = memchr(name, ':', size);
    const size_t outer = colon ? (size_t)(colon - name) : size;
    const struct transport_ops *ops = transport_find(name, outer);
    const struct transport_ops *inner = colon ? transport_find(colon + 1, size - outer - 1) : NULL;

    if (!ops || (colon && !inner) || (!colon && strcmp(ops->name, "hook") == 0))
        return error_set(error, MC_E_ARG, "transports: \"%.*s\" is not one", (int)size, name);
    if (engine->carrier_count == TRANSPORTS_MAX)
        return error_set(error, MC_E_ARG, "transports: more than %d", TRANSPORTS_MAX);
    const char *wire = inner ? inner->name : ops->name;
    if (carrier_find(engine, wire, strlen(wire)))
        return error_set(error, MC_E_ARG, "transports: %s twice", wire);

    struct carrier *carrier = &engine->carriers[engine->carrier_count];
    *carrier = (struct carrier){ .engine = engine,
                                 .ops = ops,
                                 .base = inner ? inner : ops,
                                 .wire = wire,
                                 .index = engine->carrier_count };
    pthread_mutex_init(&carrier->serving, NULL);
    carrier->name = alloc_text(engine->alloc, name, size);
    carrier->env.inner = inner;
    mc_status status = carrier->name ? pick_settings(engine, carrier, settings) : MC_E_NOMEM;
    fill_env(engine, carrier, inner);
    if (status != MC_OK) {
        error_set(error, status, "out of memory for a transport");
    } else {
        status = ops->abi == TRANSPORT_ABI ? ops->probe(&carrier->env, &carrier->caps)
                                           : MC_E_UNSUPPORTED;
        if (status != MC_OK)
            error_set(error, status, "%s: not on this machine: %.*s", carrier->name,
                      (int)sizeof(carrier->caps.found), carrier->caps.found);
        else
            status = open_state(engine, carrier, error);
    }
    if (status != MC_OK) {
        close_one(engine, carrier);
        return status;
    }
    engine->carrier_count++;
    return MC_OK;
}

mc_status carriers_open(mc_transfer *engine, const struct mc_transfer_options *o,
                        struct mc_error *error)
{
    const char *at = o->transports ? o->transports : "", *item;
    size_t size;
    mc_status status = check_settings(o->settings, error);

    while (status == MC_OK && next_item(&at, &item, &size))
        status = open_one(engine, item, size, o->settings, error);
    for (uint32_t i = 0; status == MC_OK && !o->transports && transport_table[i]; i++) {
        const char *name = transport_table[i]->name;
        if (strcmp(name, "hook") == 0) /* only where it is asked for */
            continue;
        status = open_one(engine, name, strlen(name), o->settings, error);
        if (status == MC_E_UNSUPPORTED) {
            engine_log(engine, MC_LOG_INFO, "event=transport_absent transport=%s", name);
            status = MC_OK;
        }
    }
    if (status == MC_OK && engine->carrier_count == 0)
        status = error_set(error, MC_E_ARG, "transports: none is named");
    if (status != MC_OK)
        carriers_close(engine);
    return status;
}
