/* request.c - a request's way to the store's thread and back. */
#include "store/client/request.h"

#include <assert.h>
#include <stddef.h>

#include "base/alloc.h"
#include "base/error.h"
#include "os/clock.h"
#include "transfer/registry.h"

/* ------------------------------------------------------------------------------------ in the loop */

/** Where the items of a call say what became of them. */
static mc_status *item_status(const struct store_call *call, size_t i)
{
    switch (call->op) {
    case STORE_GET:
        return &((struct mc_get *)call->items)[i].status;
    case STORE_PUT:
        return &((struct mc_put *)call->items)[i].status;
    case STORE_EXIST:
        return &((struct mc_exist *)call->items)[i].status;
    case STORE_REMOVE:
        return &((struct mc_remove *)call->items)[i].status;
    case STORE_LOOKUP:
        return &((struct mc_lookup *)call->items)[i].status;
    case STORE_ALLOT:
        return &((struct mc_allot *)call->items)[i].status;
    case STORE_COMMIT:
    case STORE_REVOKE:
        return &((struct mc_commit *)call->items)[i].status;
    case STORE_LEASE_RENEW:
    case STORE_ALLOT_RENEW:
        break;
    }
    return NULL;
}

/** After this the request may be gone, if its owner is quick: but only through this thread. */
static void publish(mc_store_request *r, mc_status status)
{
    mc_store *store = r->store;

    r->status = status;
    if (status == MC_E_TIMEOUT && !link_is_up(&store->link))
        error_set(&r->error, status, "deadline passed without a connection to the master at %s: %s",
                  store->masters, *store->link.why ? store->link.why : "it has not answered yet");
    else if (status != MC_OK)
        error_set(&r->error, status, "store: %s", mc_status_text(status));
    os_lock(&store->lock);
    store->under_way--;
    atomic_store_explicit(&r->word, 1,
                          memory_order_release); /* before anybody is woken to read it */
    if (r->fd >= 0)
        os_event_raise(r->fd);
    os_unlock(&store->lock);
    os_wake_all(&r->word);
}

void request_done(void *user, store_request *core)
{
    mc_store *store = user;
    mc_store_request *r = store_request_user(core);

    r->next = NULL;
    *store->done_end = r;
    store->done_end = &r->next;
}

bool request_publish(mc_store *store)
{
    bool any = false;

    while (store->done) {
        mc_store_request *r = store->done;
        const mc_status status = store_request_status(r->core);
        store->done = r->next;
        if (!store->done)
            store->done_end = &store->done;
        store_client_free(store->core, r->core);
        r->core = NULL;
        publish(r, status);
        any = true;
    }
    return any;
}

static void begin_posted(void *user)
{
    mc_store_request *r = user;
    mc_store *store = r->store;
    const struct store_client_event tick = { .kind = STORE_CLIENT_TICK };

    const mc_status status =
        store_client_begin(store->core, &r->call, r, os_now_ns(), &store->out, &r->core);
    if (status == MC_OK) {
        store_step(store, &tick);
        return;
    }
    r->core = NULL;
    for (size_t i = 0; i < r->call.count && item_status(&r->call, i); i++)
        *item_status(&r->call, i) = status;
    publish(r, status);
}

static void cancel_posted(void *user)
{
    mc_store_request *r = user;
    mc_store *store = r->store;

    if (!r->core)
        return;
    store_client_cancel(store->core, r->core, os_now_ns(), &store->out);
    store_settle(store);
}

static void free_posted(void *user)
{
    mc_store_request *r = user;

    os_event_close(r->fd);
    alloc_free(r->store->alloc, r);
}

/* -------------------------------------------------------------------------------- in any thread */

static bool ranges_are_registered(mc_store *store, const struct mc_range *ranges, uint64_t count,
                                  bool write)
{
    for (uint64_t i = 0; i < count; i++)
        if (ranges[i].size > 0 &&
            !use_allowed(store->transfer, ranges[i].address, ranges[i].size, write))
            return false;
    return true;
}

/* Found here, so that no node is blamed for it. */
static bool memory_is_registered(mc_store *store, const struct store_call *call)
{
    for (size_t i = 0; i < call->count; i++) {
        const struct mc_get *get = (const struct mc_get *)call->items + i;
        const struct mc_put *put = (const struct mc_put *)call->items + i;
        if (call->op == STORE_GET && !ranges_are_registered(store, get->ranges, get->count, true))
            return false;
        if (call->op == STORE_PUT && !ranges_are_registered(store, put->ranges, put->count, false))
            return false;
    }
    return true;
}

static mc_status reserve(mc_store *store)
{
    os_lock(&store->lock);
    const bool room = store->under_way < store->requests_max;
    store->under_way += room;
    os_unlock(&store->lock);
    return room ? MC_OK : MC_E_FULL;
}

static void unreserve(mc_store *store)
{
    os_lock(&store->lock);
    store->under_way--;
    os_unlock(&store->lock);
}

mc_status request_begin(mc_store *store, const struct store_call *call,
                        mc_store_request **request_p)
{
    if (call->count > store->items_max || call->placement.replicas > MC_REPLICAS_MAX)
        return MC_E_RANGE;
    if ((call->op == STORE_GET || call->op == STORE_PUT) && !memory_is_registered(store, call))
        return MC_E_DENIED;
    mc_status status = reserve(store);
    if (status != MC_OK)
        return status;
    mc_store_request *r = alloc_zeroed(store->alloc, 1, sizeof(*r));
    if (!r) {
        unreserve(store);
        return MC_E_NOMEM;
    }
    r->store = store;
    r->call = *call;
    r->begin = (struct os_post){ .run = begin_posted, .user = r };
    r->cancel = (struct os_post){ .run = cancel_posted, .user = r };
    r->free = (struct os_post){ .run = free_posted, .user = r };
    r->status = MC_PENDING;
    r->fd = -1;
    atomic_init(&r->word, 0);
    *request_p = r; /* before another thread may end it */
    os_loop_post(store->loop, &r->begin);
    return MC_OK;
}

mc_status mc_store_request_poll(mc_store_request *r)
{
    return atomic_load_explicit(&r->word, memory_order_acquire) ? r->status : MC_PENDING;
}

mc_status mc_store_request_wait(mc_store_request *r, uint64_t deadline_ns)
{
    const uint64_t until_ns = store_deadline(deadline_ns);

    while (!atomic_load_explicit(&r->word, memory_order_acquire)) {
        if (until_ns != UINT64_MAX && os_now_ns() >= until_ns)
            return MC_PENDING;
        os_wait_change(&r->word, 0, until_ns);
    }
    return r->status;
}

mc_status mc_store_request_fd(mc_store_request *r, int *fd_p)
{
    os_lock(&r->store->lock);
    const mc_status status = r->fd >= 0 ? MC_OK : os_event_open(&r->fd);
    if (status == MC_OK && atomic_load_explicit(&r->word, memory_order_relaxed))
        os_event_raise(r->fd);
    if (status == MC_OK)
        *fd_p = r->fd;
    else
        r->fd = -1;
    os_unlock(&r->store->lock);
    return status;
}

mc_status mc_store_request_cancel(mc_store_request *r)
{
    os_lock(&r->store->lock);
    const bool first = !r->cancelled;
    r->cancelled = true;
    os_unlock(&r->store->lock);
    if (first)
        os_loop_post(r->store->loop, &r->cancel);
    return MC_OK;
}

mc_status mc_store_request_error(const mc_store_request *r, struct mc_error *error)
{
    const mc_status status =
        atomic_load_explicit(&r->word, memory_order_acquire) ? r->status : MC_PENDING;

    if (error && status == MC_PENDING)
        *error = (struct mc_error){ .status = MC_PENDING };
    else if (error)
        *error = r->error;
    return status;
}

void mc_store_request_close(mc_store_request *r)
{
    if (!r)
        return;
    if (mc_store_request_poll(r) == MC_PENDING) {
        (void)mc_store_request_cancel(r);
        const mc_status status = mc_store_request_wait(r, MC_FOREVER);
        assert(status != MC_PENDING);
        (void)status;
    }
    os_loop_post(r->store->loop, &r->free); /* behind a cancel that has not run yet */
}
