/*
 * cluster.h - for tests: a master on a thread of its own, nodes and clients with real engines, all over
 * loopback in this process.
 *
 * Times bound what a test may take if something is wrong; no test waits for one to go by.
 */
#ifndef UNIT_STORE_CLUSTER_H
#define UNIT_STORE_CLUSTER_H

#include "test.h"

#include <stdio.h>

#include <mooncake/store.h>

#include "os/clock.h"
#include "os/loop.h"
#include "os/sysalloc.h"
#include "os/thread.h"
#include "store/core/object.h"
#include "store/master/server.h"

#define SECOND_NS UINT64_C(1000000000)

static inline uint64_t in_seconds(uint64_t seconds)
{
    return os_now_ns() + seconds * SECOND_NS;
}

static inline mc_transfer *open_engine(const struct mc_transfer_options *options)
{
    mc_transfer *engine = NULL;
    struct mc_error error = { 0 };

    if (mc_transfer_open(options, &engine, &error) != MC_OK)
        fail_msg("engine: %s", error.text);
    return engine;
}

/* --------------------------------------------------------------------------------------- master */

struct master {
    os_loop *loop;
    store_server *server;
    struct os_thread thread;
    struct os_post post;
    char address[80];
};

static inline void master_stop(void *user)
{
    struct master *master = user;

    os_loop_stop(master->loop);
}

static inline void master_turn(void *user)
{
    struct master *master = user;

    os_loop_run(master->loop);
}

/** Small tables: they are filled at open. */
static inline struct store_server_options small_master(void)
{
    return (struct store_server_options){
        .alloc = os_alloc(),
        .listen = "127.0.0.1:0",
        .connections_max = 64,
        .master = { .objects_max = 4096,
                    .nodes_max = 8,
                    .lents_max = 8,
                    .tokens_max = 4096,
                    .leases_max = 256,
                    .lease_items_max = 8192,
                    .requests_max = 256,
                    .events_max = 4096,
                    .subscribers_max = 8,
                    .gone_ns = 200000000 },
    };
}

static inline void master_open(struct master *master, const struct store_server_options *options)
{
    struct store_server_options o = options ? *options : small_master();
    struct mc_error error = { 0 };

    *master = (struct master){ .loop = NULL };
    assert_int_equal(os_loop_open(os_alloc(), &master->loop, NULL), MC_OK);
    o.loop = master->loop;
    if (store_server_open(&o, &master->server, &error) != MC_OK)
        fail_msg("master: %s", error.text);
    snprintf(master->address, sizeof(master->address), "%s", store_server_address(master->server));
    assert_int_equal(os_thread_start(&master->thread, master_turn, master, NULL), MC_OK);
}

static inline void master_close(struct master *master)
{
    master->post = (struct os_post){ .run = master_stop, .user = master };
    os_loop_post(master->loop, &master->post);
    os_thread_join(&master->thread);
    store_server_close(master->server);
    os_loop_close(master->loop);
    *master = (struct master){ .loop = NULL };
}

/** Another life at the same address. */
static inline void master_restart(struct master *master)
{
    char address[80];
    struct store_server_options o = small_master();

    memcpy(address, master->address, sizeof(address));
    o.listen = address;
    master_close(master);
    master_open(master, &o);
}

/* ------------------------------------------------------------------------------ nodes and clients */

struct member {
    mc_transfer *engine;
    mc_store *store;
    mc_store_node *node;
    uint8_t *memory; /* registered; [size] */
    size_t size;
    struct mc_region region;
};

static inline mc_store *open_store(mc_transfer *engine, const char *master)
{
    const struct mc_store_options options = { .master = master,
                                              .transfer = engine,
                                              .timeout_ns = 20 * SECOND_NS };
    struct mc_error error = { 0 };
    mc_store *store = NULL;

    if (mc_store_open(&options, &store, &error) != MC_OK)
        fail_msg("store: %s", error.text);
    return store;
}

static inline void member_open(struct member *m, const char *master, const char *transports)
{
    const struct mc_transfer_options options = { .transports = transports };

    *m = (struct member){ .engine = open_engine(&options) };
    m->store = open_store(m->engine, master);
}

/** transports: NULL, all. */
static inline void node_open(struct member *m, const char *master, size_t capacity,
                             const char *transports)
{
    const struct mc_store_node_options options = { .capacity_bytes = capacity };
    struct mc_error error = { 0 };

    member_open(m, master, transports);
    if (mc_store_node_open(m->store, &options, &m->node, &error) != MC_OK)
        fail_msg("node: %s", error.text);
}

/** With `size` bytes of registered memory. */
static inline void client_open(struct member *m, const char *master, size_t size,
                               const char *transports)
{
    member_open(m, master, transports);
    m->size = size;
    m->memory = calloc(1, size);
    assert_non_null(m->memory);
    const struct mc_region_options options = { .address = m->memory,
                                               .size = size,
                                               .flags = MC_REGION_PRIVATE };
    assert_int_equal(mc_region_register(m->engine, &options, 1, &m->region, NULL), MC_OK);
}

static inline void member_close(struct member *m)
{
    mc_store_node_close(m->node);
    mc_store_close(m->store);
    if (m->memory)
        assert_int_equal(mc_region_unregister(m->engine, &m->region, 1, in_seconds(10), NULL),
                         MC_OK);
    mc_transfer_close(m->engine);
    free(m->memory);
    *m = (struct member){ .engine = NULL };
}

/** Wait until the master says so many nodes and at least so many objects. */
static inline void wait_for(mc_store *store, uint64_t nodes, uint64_t objects)
{
    const uint64_t end_ns = in_seconds(20);
    struct mc_store_stats stats = { 0 };
    struct mc_error error = { 0 };

    do {
        if (mc_store_stats(store, end_ns, &stats, &error) != MC_OK)
            fail_msg("%s", error.text);
        assert_true(os_now_ns() < end_ns);
        os_yield();
    } while (stats.nodes != nodes || stats.objects < objects ||
             (nodes > 0 && stats.capacity_bytes == 0));
}

/* -------------------------------------------------------------------------------------- requests */

static inline struct mc_identity identity(const char *name)
{
    struct mc_identity id;

    assert_int_equal(mc_identity_of_name(NULL, name, strlen(name), &id), MC_OK);
    return id;
}

static inline struct mc_key key_of(const char *name)
{
    const struct mc_identity id = identity(name);

    return object_key(&id);
}

/** To its end. */
static inline mc_status finish(mc_store_request *request)
{
    const mc_status status = mc_store_request_wait(request, in_seconds(30));

    assert_int_not_equal(status, MC_PENDING);
    mc_store_request_close(request);
    return status;
}

/** Bytes that only this object has. */
static inline void paint(uint8_t *bytes, size_t size, const char *name)
{
    uint32_t x = 2166136261u;

    for (const char *c = name; *c; c++)
        x = (x ^ (uint8_t)*c) * 16777619u;
    for (size_t i = 0; i < size; i++) {
        x = x * 1664525u + 1013904223u;
        bytes[i] = (uint8_t)(x >> 24);
    }
}

/** Put `size` painted bytes, made at the start of the client's memory. */
static inline mc_status put(struct member *m, const char *name, size_t size, uint32_t replicas)
{
    const struct mc_range range = { m->memory, size };
    struct mc_put item = { .identity = identity(name), .ranges = &range, .count = 1 };
    const struct mc_placement placement = { .replicas = replicas };
    mc_store_request *request = NULL;

    paint(m->memory, size, name);
    assert_int_equal(mc_store_put_begin(m->store, &item, 1, &placement, 0, &request), MC_OK);
    const mc_status status = finish(request);
    return status == MC_OK ? item.status : status;
}

/** Get into the client's memory, which is poisoned before, and compare. */
static inline mc_status get(struct member *m, const char *name, size_t size)
{
    const struct mc_range range = { m->memory, m->size };
    struct mc_get item = { .identity = identity(name), .ranges = &range, .count = 1 };
    mc_store_request *request = NULL;

    memset(m->memory, 0xee, m->size);
    assert_int_equal(mc_store_get_begin(m->store, &item, 1, 0, &request), MC_OK);
    const mc_status status = finish(request);
    if (status != MC_OK || item.status != MC_OK)
        return status != MC_OK ? status : item.status;
    assert_int_equal(item.length, size);
    uint8_t *wanted = malloc(size + 1);
    assert_non_null(wanted);
    paint(wanted, size, name);
    assert_memory_equal(m->memory, wanted, size);
    free(wanted);
    return MC_OK;
}

#endif /* UNIT_STORE_CLUSTER_H */
