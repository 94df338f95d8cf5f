/*
 * transport_pair.h - a transport's two ends in one thread: an engine that knows one region, and who asks
 * it. For tests of a transport without the Transfer Engine.
 */
#ifndef TRANSPORT_PAIR_H
#define TRANSPORT_PAIR_H

#include "test.h"

#include "os/clock.h"

#include "transfer/transport.h"

enum { PAIR_REGION = 7, PAIR_GENERATION = 1000, PAIR_SERVER = 11, PAIR_CLIENT = 22 };

/** What stands behind env.pin: one region. */
struct pair_engine {
    uint8_t *memory; /* [size] */
    uint64_t size;
    uint32_t permissions;
    uint64_t generation;
    uint64_t pins, pinned; /* so far; now */
    uint64_t pins_max;     /* the region is stale after so many pins */
    uint64_t peer;         /* who asked last */
    uint64_t moved[2];     /* bytes, by op */
};

struct pair {
    const struct transport_ops *ops;
    struct faulty memory;
    struct pair_engine engine;
    struct transport_env server_env, client_env;
    void *server, *client, *queue;
    bool queue_open;
    uint8_t address[TRANSPORT_KEY_MAX];
    size_t address_size;
    uint64_t shift_ns;    /* added to the clock that both ends see */
    uint64_t patience_ns; /* a test that needs longer fails */
};

static inline mc_status pair_pin(void *context, const struct transport_access *access,
                                 void **address_p, uint64_t *pin_p)
{
    struct pair_engine *engine = context;
    const uint32_t needed = access->op == MC_READ ? MC_REMOTE_READ : MC_REMOTE_WRITE;

    engine->peer = access->peer;
    if (access->key[0] != 0 || access->key[1] != 0 || access->region != PAIR_REGION)
        return MC_E_DENIED;
    if (access->generation != engine->generation || engine->pins >= engine->pins_max)
        return MC_E_STALE;
    if (!(engine->permissions & needed))
        return MC_E_DENIED;
    if (access->offset > engine->size || access->length > engine->size - access->offset)
        return MC_E_RANGE;
    engine->pins++;
    engine->pinned++;
    *address_p = engine->memory + access->offset;
    *pin_p = engine->pins;
    return MC_OK;
}

static inline void pair_unpin(void *context, uint64_t pin)
{
    struct pair_engine *engine = context;

    (void)pin;
    assert_true(engine->pinned > 0);
    engine->pinned--;
}

static inline void pair_moved(void *context, enum mc_op op, uint64_t bytes)
{
    ((struct pair_engine *)context)->moved[op] += bytes;
}

static inline void *pair_bytes(size_t size)
{
    void *p = NULL;

    assert_int_equal(posix_memalign(&p, 64, (size + 63) / 64 * 64 + 64), 0);
    memset(p, 0, (size + 63) / 64 * 64 + 64);
    return p;
}

static inline void pair_env(struct pair *pair, struct transport_env *env, uint64_t incarnation)
{
    *env = (struct transport_env){
        .alloc = &pair->memory.alloc,
        .listen = "127.0.0.1:0",
        .incarnation = incarnation,
        .pin = pair_pin,
        .unpin = pair_unpin,
        .moved = pair_moved,
        .engine = &pair->engine,
    };
}

/** Everything but the opening: `memory` is the region. */
static inline void pair_init(struct pair *pair, const struct transport_ops *ops, void *memory,
                             uint64_t size)
{
    memset(pair, 0, sizeof(*pair));
    pair->ops = ops;
    faulty_init(&pair->memory, -1);
    pair->engine = (struct pair_engine){ .memory = memory,
                                         .size = size,
                                         .permissions = MC_REMOTE_READ | MC_REMOTE_WRITE,
                                         .generation = PAIR_GENERATION,
                                         .pins_max = UINT64_MAX };
    pair_env(pair, &pair->server_env, PAIR_SERVER);
    pair_env(pair, &pair->client_env, PAIR_CLIENT);
    pair->server = pair_bytes(ops->transport_bytes);
    pair->client = pair_bytes(ops->transport_bytes);
    pair->queue = pair_bytes(ops->queue_bytes);
    pair->patience_ns = UINT64_C(60000000000);
}

static inline mc_status pair_open(struct pair *pair, struct mc_error *error)
{
    mc_status status = pair->ops->open(pair->server, &pair->server_env, error);

    if (status == MC_OK)
        status = pair->ops->open(pair->client, &pair->client_env, error);
    if (status == MC_OK)
        status = pair->ops->describe(pair->server, pair->address, &pair->address_size);
    return status;
}

static inline mc_status pair_connect_to(struct pair *pair, uint64_t incarnation,
                                        struct mc_error *error)
{
    const struct transport_peer peer = { .name = "peer",
                                         .incarnation = incarnation,
                                         .address = pair->address,
                                         .address_size = pair->address_size,
                                         .same_host = 1 };

    memset(pair->queue, 0, pair->ops->queue_bytes);
    const mc_status status = pair->ops->queue_open(pair->client, &peer, pair->queue, error);
    pair->queue_open = status == MC_OK;
    return status;
}

static inline void pair_connect(struct pair *pair)
{
    struct mc_error error = { 0 };

    if (pair_open(pair, &error) != MC_OK || pair_connect_to(pair, PAIR_SERVER, &error) != MC_OK)
        fail_msg("%s", error.text);
}

static inline void pair_disconnect(struct pair *pair)
{
    if (pair->queue_open)
        assert_int_equal(pair->ops->queue_close(pair->queue), MC_OK);
    pair->queue_open = false;
}

static inline void pair_close(struct pair *pair)
{
    pair_disconnect(pair);
    pair->ops->close(pair->client);
    pair->ops->close(pair->server);
    free(pair->queue);
    free(pair->client);
    free(pair->server);
    assert_int_equal(pair->memory.held, 0);
    assert_int_equal(pair->engine.pinned, 0);
}

static inline uint64_t pair_now(const struct pair *pair)
{
    return os_now_ns() + pair->shift_ns;
}

static inline void pair_serve(struct pair *pair)
{
    uint64_t next_ns;

    pair->ops->serve(pair->server, pair_now(pair), &next_ns);
    assert_int_equal(pair->engine.pinned, 0); /* nothing is pinned between turns */
}

/** A slice with its private bytes; free() it. */
static inline struct transport_slice *pair_slice(const struct pair *pair, enum mc_op op,
                                                 void *local, uint64_t offset, uint64_t length,
                                                 uint32_t flags)
{
    struct transport_slice *slice = calloc(1, sizeof(*slice) + pair->ops->slice_bytes);

    assert_non_null(slice);
    slice->op = op;
    slice->flags = flags;
    slice->local = local;
    slice->length = length;
    slice->remote = (struct transport_access){ .op = op,
                                               .region = PAIR_REGION,
                                               .generation = PAIR_GENERATION,
                                               .offset = offset,
                                               .length = length,
                                               .region_offset = offset,
                                               .peer = PAIR_CLIENT };
    return slice;
}

/** Turn both ends until `count` completions are there, in the order they come. */
static inline void pair_finish(struct pair *pair, struct transport_completion *completions,
                               uint32_t count)
{
    const uint64_t begin_ns = os_now_ns();
    uint32_t have = 0;

    while (have < count) {
        uint32_t got = 0;
        pair_serve(pair);
        const mc_status status =
            pair->ops->poll(pair->queue, pair_now(pair), completions + have, count - have, &got);
        have += got;
        if (have < count && status != MC_OK)
            fail_msg("the queue failed with %s and %u of %u completions", mc_status_name(status),
                     have, count);
        if (os_now_ns() - begin_ns > pair->patience_ns)
            fail_msg("%u of %u completions came", have, count);
    }
}

/** Post one slice and see it through. */
static inline mc_status pair_move(struct pair *pair, struct transport_slice *slice)
{
    struct transport_completion completion = { 0 };
    uint32_t posted = 0;
    const mc_status status = pair->ops->post(pair->queue, &slice, 1, &posted);

    if (status != MC_OK)
        return status;
    assert_int_equal(posted, 1);
    pair_finish(pair, &completion, 1);
    assert_ptr_equal(completion.slice, slice);
    assert_true(completion.bytes == (completion.status == MC_OK ? slice->length : 0));
    return completion.status;
}

#endif /* TRANSPORT_PAIR_H */
