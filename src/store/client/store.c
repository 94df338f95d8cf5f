/* store.c - a client's life: its thread, its loop, its connection, and the core between them. */
#include "store/client/store.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/log.h"
#include "os/clock.h"
#include "os/random.h"
#include "os/sysalloc.h"
#include "transfer/engine.h"

enum { ITEMS_MAX = 65536, REQUESTS_MAX = 65534 };
#define SILENCE_NS UINT64_C(2000000000) /* a master that is stopped is found within twice that */
#define FLUSH_NS UINT64_C(200000000)

/* ------------------------------------------------------------------------ what the core wants done */

static mc_status out_ask(void *user, uint64_t tag, enum wire_kind kind, const void *message)
{
    mc_store *store = user;

    return link_ask(&store->link, tag, kind, message, 0);
}

static void out_forget(void *user, uint64_t tag)
{
    mc_store *store = user;

    link_forget(&store->link, tag);
}

static uint32_t out_segment(void *user, uint64_t node, struct wire_slice name, uint64_t incarnation)
{
    mc_store *store = user;

    (void)incarnation; /* regions and windows of another life are refused where they lie */
    return peers_segment(&store->peers, node, name);
}

static void *out_scratch(void *user, size_t size)
{
    mc_store *store = user;

    return scratch_take(&store->scratch, size);
}

static void out_scratch_free(void *user, void *scratch, size_t size)
{
    mc_store *store = user;

    scratch_give(&store->scratch, scratch, size);
}

static mc_status out_move(void *user, uint64_t tag, enum mc_op op, const struct mc_replica *replica,
                          const struct mc_range *parts, size_t count, uint64_t deadline_ns)
{
    mc_store *store = user;

    (void)deadline_ns; /* the core stops what is late */
    return moves_order(&store->moves, tag, op, replica, parts, count);
}

static void out_stop(void *user, uint64_t tag)
{
    mc_store *store = user;

    moves_stop(&store->moves, tag);
}

static void out_draw(void *user, uint64_t token[2])
{
    (void)user;
    os_random(token, 2 * sizeof(token[0]));
    token[0] |= 1; /* not all 0 */
}

/* ----------------------------------------------------------------------------------------- steps */

static void core_step(mc_store *store, const struct store_client_event *event)
{
    store_client_step(store->core, event, os_now_ns(), &store->out);
}

void store_settle(mc_store *store)
{
    struct store_client_event moved = { .kind = STORE_CLIENT_MOVED };
    bool more = true;

    while (more) {
        more = false;
        while (moves_take(&store->moves, &moved.id, &moved.status)) {
            core_step(store, &moved);
            more = true;
        }
        more = request_publish(store) || more;
    }
    const mc_status status =
        os_loop_timer(store->loop, &store->timer, store_client_next_ns(store->core));
    assert(status == MC_OK); /* it has its place in the heap since open */
    (void)status;
}

void store_step(mc_store *store, const struct store_client_event *event)
{
    core_step(store, event);
    store_settle(store);
}

static void tick(mc_store *store)
{
    const struct store_client_event event = { .kind = STORE_CLIENT_TICK };

    store_step(store, &event);
}

static void timer_due(void *user, uint64_t now_ns)
{
    mc_store *store = user;

    (void)now_ns;
    (void)os_loop_timer(store->loop, &store->timer, UINT64_MAX); /* keeps its place in the heap */
    tick(store);
}

static void moves_ended(void *user)
{
    store_settle(user);
}

static void on_up(void *user)
{
    mc_store *store = user;
    const struct store_client_event event = { .kind = STORE_CLIENT_UP };

    store_step(store, &event);
    stats_up(store);
}

static void on_down(void *user)
{
    mc_store *store = user;
    const struct store_client_event event = { .kind = STORE_CLIENT_DOWN };

    stats_down(store);
    store_step(store, &event);
}

static void on_answer(void *user, uint64_t tag, mc_status status, uint32_t wire,
                      const void *message)
{
    mc_store *store = user;
    const struct store_client_event event = {
        .kind = STORE_CLIENT_ANSWER, .id = tag, .status = status, .wire = wire, .message = message
    };

    if (!stats_answer(store, tag, status, wire, message))
        store_step(store, &event);
}

static void on_message(void *user, uint64_t id, uint32_t wire, const void *message)
{
    mc_store *store = user;
    const struct wire_outcome outcome = { .status = MC_E_UNSUPPORTED };

    (void)wire;
    (void)message;
    (void)link_answer(&store->link, id, WIRE_OUTCOME, &outcome);
}

static const struct link_events link_events = { on_up, on_down, on_answer, on_message };

/* ---------------------------------------------------------------------------------- other threads */

struct run {
    struct os_post post;
    mc_store *store;
    void (*run)(void *argument);
    void *argument;
    bool done; /* store->lock */
};

static void run_posted(void *user)
{
    struct run *run = user;
    mc_store *store = run->store;

    run->run(run->argument);
    os_lock(&store->lock);
    run->done = true; /* `run` is its poster's again when the lock is let go */
    os_condition_wake_all(&store->changed);
    os_unlock(&store->lock);
}

void store_run(mc_store *store, void (*run)(void *argument), void *argument)
{
    struct run it = { .store = store, .run = run, .argument = argument };

    it.post = (struct os_post){ .run = run_posted, .user = &it };
    os_loop_post(store->loop, &it.post);
    os_lock(&store->lock);
    while (!it.done)
        os_condition_wait(&store->changed, &store->lock);
    os_unlock(&store->lock);
}

static void turn(void *user)
{
    mc_store *store = user;

    os_loop_run(store->loop);
}

/* ------------------------------------------------------------------------------------------ open */

static mc_status check_options(const struct mc_store_options *o, struct mc_error *error)
{
    for (size_t i = 0; i < sizeof(o->reserved) / sizeof(o->reserved[0]); i++)
        if (o->reserved[i] != 0)
            return error_set(error, MC_E_UNSUPPORTED,
                             "store: options of a later release; this is %s", mc_version());
    if (!o->transfer)
        return error_set(error, MC_E_ARG, "store: options.transfer: a Transfer Engine is required");
    if (!o->master || !*o->master)
        return error_set(error, MC_E_ARG, "store: options.master: host:port is required");
    if (o->requests_max > REQUESTS_MAX)
        return error_set(error, MC_E_RANGE, "store: options.requests_max: %u; at most %d",
                         o->requests_max, REQUESTS_MAX);
    if (o->items_max > ITEMS_MAX)
        return error_set(error, MC_E_RANGE, "store: options.items_max: %u; at most %d",
                         o->items_max, ITEMS_MAX);
    if (o->tenant && strlen(o->tenant) > MC_NAME_MAX)
        return error_set(error, MC_E_RANGE, "store: options.tenant: more than %d bytes",
                         MC_NAME_MAX);
    return MC_OK;
}

/* A secret of the options', or else the engine's. */
static mc_status copy_secret(mc_store *store, const struct mc_store_options *o)
{
    const void *secret = o->secret ? o->secret : o->transfer->secret;
    const size_t size = o->secret ? o->secret_size : o->transfer->secret_size;

    if (!secret)
        return MC_OK;
    store->secret = alloc_bytes(store->alloc, size);
    if (!store->secret)
        return MC_E_NOMEM;
    memcpy(store->secret, secret, size);
    store->secret_size = size;
    return MC_OK;
}

/* Of at most MC_NAME_MAX bytes: the tenant was checked, an engine's name is no longer. */
static void copy_name(char name[MC_NAME_MAX + 1], const char *text)
{
    memcpy(name, text, strlen(text) + 1);
}

static mc_status copy_options(mc_store *store, const struct mc_store_options *o)
{
    struct mc_transfer_info info;

    store->transfer = o->transfer;
    store->log = o->log;
    store->timeout_ns = o->timeout_ns ? o->timeout_ns : UINT64_C(5000000000);
    store->requests_max = o->requests_max ? o->requests_max : 1024;
    store->items_max = o->items_max ? o->items_max : 4096;
    (void)mc_transfer_info(o->transfer, &info);
    copy_name(store->tenant, o->tenant && *o->tenant ? o->tenant : "default");
    copy_name(store->name, info.name);
    store->masters = alloc_text(store->alloc, o->master, strlen(o->master));
    return store->masters ? copy_secret(store, o) : MC_E_NOMEM;
}

mc_status store_net_open(mc_store *store, enum net_role role, const char *segment, net **net_p,
                         struct mc_error *error)
{
    const struct net_options options = {
        .alloc = store->alloc,
        .loop = store->loop,
        .role = role,
        .name = store->name,
        .segment = segment,
        .tenant = store->tenant,
        .secret = store->secret,
        .secret_size = store->secret_size,
        .silence_ns = SILENCE_NS,
    };

    return net_open(&options, net_p, error);
}

static mc_status open_core(mc_store *store)
{
    const struct store_client_options options = {
        .alloc = store->alloc,
        .host = *net_host(store->net),
        .timeout_ns = store->timeout_ns,
        .requests_max = store->requests_max,
        .items_max = store->items_max,
    };

    store->out = (struct store_client_out){
        .ask = out_ask,
        .forget = out_forget,
        .segment = out_segment,
        .scratch = out_scratch,
        .scratch_free = out_scratch_free,
        .move = out_move,
        .stop = out_stop,
        .draw = out_draw,
        .done = request_done,
        .user = store,
    };
    return store_client_open(&options, &store->core);
}

static mc_status open_rest(mc_store *store, struct mc_error *error)
{
    mc_status status = os_loop_open(store->alloc, &store->loop, error);
    if (status != MC_OK)
        return status;
    store->timer = (struct os_timer){ .due = timer_due, .user = store };
    status = os_loop_timer(store->loop, &store->timer, UINT64_MAX);
    if (status == MC_OK)
        status = moves_open(&store->moves, store->loop, store->transfer, store->alloc, moves_ended,
                            store);
    if (status == MC_OK)
        status = peers_open(&store->peers, store->transfer, store->alloc);
    if (status == MC_OK)
        status = scratch_open(&store->scratch, store->transfer, store->alloc, error);
    if (status == MC_OK)
        status = store_net_open(store, NET_CLIENT, NULL, &store->net, error);
    if (status == MC_OK)
        status = open_core(store);
    if (status == MC_OK)
        status = link_open(&store->link, store->net, store->masters, store->alloc, &store->log,
                           &link_events, store, error);
    if (status == MC_OK)
        status = os_thread_start(&store->thread, turn, store, error);
    store->threaded = status == MC_OK;
    return status;
}

mc_status mc_store_open(const struct mc_store_options *options, mc_store **store_p,
                        struct mc_error *error)
{
    static const struct mc_store_options nothing;
    const struct mc_store_options *o = options ? options : &nothing;
    const struct mc_alloc *alloc = o->alloc ? o->alloc : os_alloc();
    struct mc_error why = { 0 };

    mc_status status = check_options(o, error);
    if (status != MC_OK)
        return status;
    mc_store *store = alloc_zeroed(alloc, 1, sizeof(*store));
    if (!store)
        return error_set(error, MC_E_NOMEM, "out of memory for a store client");
    store->alloc = alloc;
    store->done_end = &store->done;
    os_lock_init(&store->lock);
    os_condition_init(&store->changed);
    status = copy_options(store, o);
    if (status == MC_OK)
        status = open_rest(store, &why);
    if (status != MC_OK) {
        mc_store_close(store);
        if (error && why.status != MC_OK)
            *error = why;
        else
            error_set(error, status, "store client: %s", mc_status_text(status));
        return status;
    }
    *store_p = store;
    return MC_OK;
}

/* ----------------------------------------------------------------------------------------- close */

static void quit(void *argument)
{
    mc_store *store = argument;

    os_loop_stop(store->loop);
}

/* Leases given back and puts revoked lately are still said, if the master listens. */
static void flush(mc_store *store)
{
    const uint64_t until_ns = os_now_ns() + FLUSH_NS;

    link_close(&store->link);
    while (net_flushing(store->net) > 0 && os_now_ns() < until_ns)
        if (os_loop_turn(store->loop, until_ns) != MC_OK)
            return;
}

void mc_store_close(mc_store *store)
{
    if (!store)
        return;
    const struct mc_alloc *alloc = store->alloc;
    if (store->threaded) {
        store_run(store, quit, store);
        os_thread_join(&store->thread);
        assert(store->under_way == 0 && "requests are closed before their store");
        flush(store);
    }
    link_close(&store->link);
    store_client_close(store->core);
    net_close(store->net);
    scratch_close(&store->scratch);
    peers_close(&store->peers);
    moves_close(&store->moves);
    os_loop_close(store->loop);
    if (store->secret)
        memset(store->secret, 0, store->secret_size);
    alloc_free(alloc, store->secret);
    alloc_free(alloc, store->masters);
    os_condition_fini(&store->changed);
    os_lock_fini(&store->lock);
    alloc_free(alloc, store);
}
