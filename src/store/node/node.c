/* node.c - lent memory, its windows and its connection to the master. */
#include "store/node/lend.h"

#include <assert.h>
#include <inttypes.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/log.h"
#include "os/clock.h"
#include "store/core/object.h"

#define PLACE_ALIGN 64u
#define QUIET_NS UINT64_C(10000000000) /* how long close waits for a peer that holds memory */

enum { PLACE_BYTES = 8192, PLACES_MIN = 1024, PLACES_MAX = 1 << 24 };

/* ------------------------------------------------------------------------ what the core wants done */

static mc_status out_answer(void *user, uint64_t id, enum wire_kind kind, const void *message)
{
    mc_store_node *node = user;

    return link_answer(&node->link, id, kind, message);
}

static mc_status out_ask(void *user, uint64_t tag, enum wire_kind kind, const void *message)
{
    mc_store_node *node = user;

    return link_ask(&node->link, tag, kind, message, 0);
}

static mc_status out_grant(void *user, uint32_t lent, uint64_t offset, uint64_t size,
                           uint64_t lease_ns, struct mc_window *window_p)
{
    mc_store_node *node = user;
    const struct mc_window_options options = {
        .region = node->regions[LEND_WRITE],
        .offsets = &offset,
        .count = 1,
        .piece_bytes = size,
        .lease_ns = lease_ns,
        .permissions = MC_REMOTE_WRITE,
    };

    (void)lent; /* there is one */
    return mc_window_grant(node->store->transfer, &options, window_p, NULL);
}

static mc_status out_renew(void *user, const struct mc_window *window, uint64_t lease_ns)
{
    mc_store_node *node = user;

    return mc_window_renew(node->store->transfer, window, lease_ns);
}

static mc_status out_revoke(void *user, const struct mc_window *window)
{
    mc_store_node *node = user;
    const mc_status status = mc_window_revoke(node->store->transfer, window, MC_AT_ONCE, NULL);

    return status == MC_E_STALE ? MC_OK : status; /* what is no window cannot be used */
}

static mc_status out_inspect(void *user, uint32_t lent, uint64_t offset, uint64_t size,
                             uint64_t generation, struct mc_object_header *header_p)
{
    mc_store_node *node = user;

    (void)lent;
    return object_inspect(node->memory + offset, size, generation, header_p);
}

/* ----------------------------------------------------------------------------------------- steps */

static void log_epoch(mc_store_node *node)
{
    struct store_node_figures f;

    store_node_figures(node->core, &f);
    if (!f.ready || f.epoch == node->epoch)
        return;
    node->epoch = f.epoch;
    log_write(&node->store->log, MC_LOG_INFO,
              "event=node_ready node=%" PRIu64 " epoch=%016" PRIx64 " objects=%" PRIu64
              " used_bytes=%" PRIu64,
              f.id, f.epoch, f.places, f.used_bytes);
}

void lend_settle(mc_store_node *node)
{
    const mc_status status =
        os_loop_timer(node->store->loop, &node->timer, store_node_next_ns(node->core));

    assert(status == MC_OK); /* it has its place in the heap since open */
    (void)status;
}

static void step(mc_store_node *node, const struct store_node_event *event)
{
    store_node_step(node->core, event, os_now_ns(), &node->out);
    lend_settle(node);
}

static void timer_due(void *user, uint64_t now_ns)
{
    mc_store_node *node = user;
    const struct store_node_event tick = { .kind = STORE_NODE_TICK };

    (void)now_ns;
    (void)os_loop_timer(node->store->loop, &node->timer, UINT64_MAX); /* keeps its place */
    step(node, &tick);
}

static void on_up(void *user)
{
    const struct store_node_event event = { .kind = STORE_NODE_UP };

    step(user, &event);
}

static void on_down(void *user)
{
    const struct store_node_event event = { .kind = STORE_NODE_DOWN };

    step(user, &event);
}

static void on_answer(void *user, uint64_t tag, mc_status status, uint32_t wire,
                      const void *message)
{
    const struct store_node_event event = {
        .kind = STORE_NODE_ANSWER, .id = tag, .status = status, .wire = wire, .message = message
    };

    step(user, &event);
    log_epoch(user);
}

static void on_message(void *user, uint64_t id, uint32_t wire, const void *message)
{
    const struct store_node_event event = {
        .kind = STORE_NODE_MESSAGE, .id = id, .wire = wire, .message = message
    };

    step(user, &event);
}

static const struct link_events link_events = { on_up, on_down, on_answer, on_message };

/* ------------------------------------------------------------------------------------------ open */

static mc_status check_options(const struct mc_store_node_options *o, struct mc_error *error)
{
    for (size_t i = 0; i < sizeof(o->reserved) / sizeof(o->reserved[0]); i++)
        if (o->reserved[i] != 0)
            return error_set(error, MC_E_UNSUPPORTED,
                             "store node: options of a later release; this is %s", mc_version());
    if (o->ssd_path || o->ssd_capacity_bytes != 0)
        return error_set(error, MC_E_UNSUPPORTED,
                         "store node: options.ssd_path: this release keeps objects in DRAM alone");
    if (o->lease_ns != 0)
        return error_set(error, MC_E_UNSUPPORTED,
                         "store node: options.lease_ns: in this release the master says how long");
    if (o->capacity_bytes == 0)
        return error_set(error, MC_E_ARG, "store node: options.capacity_bytes: 0 is nothing");
    return MC_OK;
}

static mc_status lend_memory(mc_store_node *node, const struct mc_store_node_options *o,
                             struct mc_error *error)
{
    void *memory;

    mc_status status =
        mc_memory_alloc(node->store->transfer, o->capacity_bytes, o->location, &memory, error);
    if (status != MC_OK)
        return status;
    node->memory = memory;
    node->size = o->capacity_bytes;
    node->objects_max = o->objects_max;
    const struct mc_region_options regions[LEND_REGIONS] = {
        [LEND_READ] = { .address = memory,
                        .size = node->size,
                        .location = o->location,
                        .tag = "pool",
                        .permissions = MC_REMOTE_READ },
        [LEND_WRITE] = { .address = memory,
                         .size = node->size,
                         .location = o->location,
                         .tag = "pool, to be written",
                         .permissions = MC_REMOTE_WRITE,
                         .flags = MC_REGION_PRIVATE },
    };
    status = mc_region_register(node->store->transfer, regions, LEND_REGIONS, node->regions, error);
    node->registered = status == MC_OK;
    return status;
}

static uint32_t places_for(uint64_t size, uint64_t wanted)
{
    const uint64_t places = wanted ? wanted : size / PLACE_BYTES;

    return places < PLACES_MIN ? PLACES_MIN : places > PLACES_MAX ? PLACES_MAX : (uint32_t)places;
}

static mc_status open_core(mc_store_node *node)
{
    struct mc_transfer_info info;
    const struct store_node_lent lent = { .region = node->regions[LEND_READ],
                                          .size = node->size,
                                          .align = PLACE_ALIGN };

    (void)mc_transfer_info(node->store->transfer, &info);
    const struct store_node_options options = {
        .alloc = node->store->alloc,
        .lent = &lent,
        .lent_count = 1,
        .segment = info.name,
        .incarnation = info.incarnation,
        .host = *net_host(node->net),
        .places_max = places_for(node->size, node->objects_max),
    };
    node->out = (struct store_node_out){
        .answer = out_answer,
        .ask = out_ask,
        .grant = out_grant,
        .renew = out_renew,
        .revoke = out_revoke,
        .inspect = out_inspect,
        .user = node,
    };
    const mc_status status = store_node_open(&options, &node->core);
    return status == MC_OK
               ? MC_OK
               : error_set(&node->error, status, "store node: %s", mc_status_text(status));
}

static void open_in_loop(void *argument)
{
    mc_store_node *node = argument;
    mc_store *store = node->store;

    node->timer = (struct os_timer){ .due = timer_due, .user = node };
    node->opened = os_loop_timer(store->loop, &node->timer, UINT64_MAX);
    if (node->opened == MC_OK)
        node->opened = store_net_open(store, NET_NODE, store->name, &node->net, &node->error);
    if (node->opened == MC_OK)
        node->opened = open_core(node);
    if (node->opened == MC_OK)
        node->opened = link_open(&node->link, node->net, store->masters, store->alloc, &store->log,
                                 &link_events, node, &node->error);
}

mc_status mc_store_node_open(mc_store *store, const struct mc_store_node_options *options,
                             mc_store_node **node_p, struct mc_error *error)
{
    static const struct mc_store_node_options nothing;
    const struct mc_store_node_options *o = options ? options : &nothing;

    mc_status status = check_options(o, error);
    if (status != MC_OK)
        return status;
    mc_store_node *node = alloc_zeroed(store->alloc, 1, sizeof(*node));
    if (!node)
        return error_set(error, MC_E_NOMEM, "out of memory for a store node");
    node->store = store;
    status = lend_memory(node, o, error);
    if (status == MC_OK) {
        store_run(store, open_in_loop, node);
        status = node->opened;
        if (status != MC_OK)
            error_set(error, status, "%s",
                      node->error.text[0] ? node->error.text : mc_status_text(status));
    }
    if (status != MC_OK) {
        mc_store_node_close(node);
        return status;
    }
    *node_p = node;
    return MC_OK;
}

/* ----------------------------------------------------------------------------------------- close */

static void close_in_loop(void *argument)
{
    mc_store_node *node = argument;

    link_close(&node->link);
    net_close(node->net);
    os_loop_timer_stop(node->store->loop, &node->timer);
    store_node_close(node->core);
}

/* Nobody can touch the memory any more; else it stays as it is until its engine is closed. */
static bool take_back(mc_store_node *node)
{
    struct mc_error error = { 0 };

    if (!node->registered)
        return true;
    const mc_status status = mc_region_unregister(node->store->transfer, node->regions,
                                                  LEND_REGIONS, os_now_ns() + QUIET_NS, &error);
    if (status == MC_OK)
        return true;
    log_write(&node->store->log, MC_LOG_ERROR,
              "event=memory_abandoned bytes=%" PRIu64 " status=%s reason=\"%s\"", node->size,
              mc_status_name(status), error.text);
    return false;
}

void mc_store_node_close(mc_store_node *node)
{
    if (!node)
        return;
    mc_store *store = node->store;
    store_run(store, close_in_loop, node);
    if (take_back(node))
        mc_memory_free(store->transfer, node->memory);
    alloc_free(store->alloc, node);
}
