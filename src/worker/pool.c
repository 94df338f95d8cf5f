/* pool.c - requests to the store by their descriptors in the loop, and a bounded queue of puts. */
#include "worker/pool.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "os/clock.h"

struct pull {
    struct pull *next;
    struct pool *of;
    mc_store_request *request;
    struct os_watch watch;
    pull_done *done;
    void *owner;
    uint32_t count, expected;
    struct mc_get *gets;     /* owned; [count] */
    struct mc_range *ranges; /* owned; [count] */
};

struct put {
    struct put *next;
    struct pool *of;
    mc_store_request *request; /* NULL: it waits */
    struct os_watch watch;
    put_final *final;
    void *owner;
    uint32_t count;
    struct mc_placement placement;
    struct mc_put puts[PUT_BLOCKS_MAX];
    struct mc_range ranges[PUT_BLOCKS_MAX];
};

void pool_init(struct pool *pool, const struct pool_options *options)
{
    *pool = (struct pool){ .options = *options };
    pool->waiting_end = &pool->waiting;
}

/* ----------------------------------------------------------------------------------------- pulls */

static void free_pull(struct pull *pull)
{
    const struct mc_alloc *alloc = pull->of->options.alloc;

    os_loop_unwatch(pull->of->options.loop, &pull->watch);
    mc_store_request_close(pull->request);
    alloc_free(alloc, pull->ranges);
    alloc_free(alloc, pull->gets);
    alloc_free(alloc, pull);
}

/* How many of the first blocks came whole. Items have no outcome unless the request is final, but those
 * that did come before a deadline count. */
static uint32_t count_good(const struct pull *pull)
{
    uint32_t good = 0;

    while (good < pull->count && pull->gets[good].status == MC_OK &&
           pull->gets[good].length == pull->of->options.page_bytes)
        good++;
    return good;
}

static void finish_pull(struct pull *pull)
{
    struct pool *pool = pull->of;
    struct pull **list = &pool->pulls;
    pull_done *done = pull->done;
    void *owner = pull->owner;
    const uint32_t good = count_good(pull);

    while (*list != pull)
        list = &(*list)->next;
    *list = pull->next;
    pool->pull_bytes -= pull->count * pool->options.page_bytes;
    pool->counts.pulled_bytes += good * pool->options.page_bytes;
    pool->counts.pull_failed += pull->expected > good ? pull->expected - good : 0;
    free_pull(pull);
    done(owner, good);
}

static void look_at_pull(void *user, uint32_t events)
{
    struct pull *pull = user;

    (void)events;
    if (mc_store_request_poll(pull->request) != MC_PENDING)
        finish_pull(pull);
}

static struct pull *open_pull(struct pool *pool, const struct mc_identity *identities,
                              void *const *pages, uint32_t count)
{
    const struct mc_alloc *alloc = pool->options.alloc;
    struct pull *pull = alloc_zeroed(alloc, 1, sizeof(*pull));

    if (!pull)
        return NULL;
    *pull = (struct pull){ .of = pool,
                           .watch = { .fd = -1, .ready = look_at_pull, .user = pull },
                           .count = count,
                           .gets = alloc_zeroed(alloc, count, sizeof(*pull->gets)),
                           .ranges = alloc_zeroed(alloc, count, sizeof(*pull->ranges)) };
    if (!pull->gets || !pull->ranges) {
        free_pull(pull);
        return NULL;
    }
    for (uint32_t i = 0; i < count; i++) {
        pull->ranges[i] = (struct mc_range){ pages[i], pool->options.page_bytes };
        pull->gets[i] = (struct mc_get){
            .identity = identities[i], .ranges = &pull->ranges[i], .count = 1, .status = MC_PENDING
        };
    }
    return pull;
}

static mc_status ask_pull(struct pull *pull, uint64_t deadline_ns)
{
    struct pool *pool = pull->of;
    mc_status status = mc_store_get_begin(pool->options.store, pull->gets, pull->count, deadline_ns,
                                          &pull->request);

    if (status != MC_OK)
        return status;
    status = mc_store_request_fd(pull->request, &pull->watch.fd);
    if (status == MC_OK)
        status = os_loop_watch(pool->options.loop, &pull->watch, OS_READABLE);
    return status;
}

void pull_begin(struct pool *pool, const struct mc_identity *identities, void *const *pages,
                uint32_t count, uint32_t expected, uint64_t deadline_ns, pull_done *done,
                void *owner)
{
    struct pull *pull = pool->options.store ? open_pull(pool, identities, pages, count) : NULL;

    if (!pull) {
        pool->counts.pull_failed += expected;
        done(owner, 0);
        return;
    }
    pull->expected = expected;
    if (ask_pull(pull, deadline_ns) != MC_OK) {
        pool->counts.pull_failed += expected;
        free_pull(pull); /* waits until quiet */
        done(owner, 0);
        return;
    }
    pull->done = done;
    pull->owner = owner;
    pull->next = pool->pulls;
    pool->pulls = pull;
    pool->pull_bytes += count * pool->options.page_bytes;
    look_at_pull(pull, 0);
}

void pull_stop(struct pool *pool, const void *owner)
{
    for (struct pull *pull = pool->pulls; pull; pull = pull->next)
        if (pull->owner == owner)
            mc_store_request_cancel(pull->request);
}

/* ------------------------------------------------------------------------------------------ puts */

static void start_puts(struct pool *pool);

static void count_put(struct pool *pool, const struct mc_put *put, bool copy)
{
    switch (put->status) {
    case MC_OK:
        pool->counts.put_stored++;
        pool->counts.copied += copy;
        pool->counts.put_bytes += pool->options.page_bytes;
        break;
    case MC_E_EXISTS:
        pool->counts.put_existed++;
        break;
    default:
        pool->counts.put_failed++;
        break;
    }
}

/* Quiet, or never begun: its pages are dropped and its owner is told. */
static void end_put(struct put *put)
{
    struct pool *pool = put->of;
    void *pages[PUT_BLOCKS_MAX];
    put_final *final = put->final;
    void *owner = put->owner;

    for (uint32_t i = 0; i < put->count; i++) {
        pages[i] = put->ranges[i].address;
        if (put->request)
            count_put(pool, &put->puts[i], put->placement.flags & MC_PLACE_ANOTHER);
        else
            pool->counts.put_dropped++;
    }
    os_loop_unwatch(pool->options.loop, &put->watch);
    mc_store_request_close(put->request);
    pages_drop(pool->options.pages, pages, put->count);
    pool->put_blocks -= put->count;
    alloc_free(pool->options.alloc, put);
    pool->options.freed(pool->options.user);
    final(owner);
}

static void unlink_busy(struct pool *pool, struct put *put)
{
    struct put **list = &pool->busy;

    while (*list != put)
        list = &(*list)->next;
    *list = put->next;
    pool->busy_count--;
}

static void look_at_put(void *user, uint32_t events)
{
    struct put *put = user;
    struct pool *pool = put->of;

    (void)events;
    if (mc_store_request_poll(put->request) == MC_PENDING)
        return;
    unlink_busy(pool, put);
    end_put(put);
    start_puts(pool);
}

static mc_status ask_put(struct pool *pool, struct put *put)
{
    mc_status status =
        mc_store_put_begin(pool->options.store, put->puts, put->count, &put->placement,
                           os_now_ns() + pool->options.put_timeout_ns, &put->request);

    if (status != MC_OK)
        return status;
    status = mc_store_request_fd(put->request, &put->watch.fd);
    if (status == MC_OK)
        status = os_loop_watch(pool->options.loop, &put->watch, OS_READABLE);
    return status;
}

static void start_puts(struct pool *pool)
{
    while (pool->waiting && pool->busy_count < pool->options.puts_in_flight) {
        struct put *put = pool->waiting;
        pool->waiting = put->next;
        if (!pool->waiting)
            pool->waiting_end = &pool->waiting;
        put->next = pool->busy;
        pool->busy = put;
        pool->busy_count++;
        if (ask_put(pool, put) != MC_OK) {
            unlink_busy(pool, put);
            end_put(put);
        }
    }
}

static bool queue(struct pool *pool, const struct mc_identity *identities, void *const *pages,
                  uint32_t count, const struct mc_placement *placement, put_final *final,
                  void *owner)
{
    struct put *put = NULL;

    assert(count > 0 && count <= PUT_BLOCKS_MAX);
    if (pool->options.store && pool->put_blocks + count <= pool->options.puts_max)
        put = alloc_zeroed(pool->options.alloc, 1, sizeof(*put));
    if (!put) {
        pool->counts.put_dropped += pool->options.store ? count : 0;
        pages_drop(pool->options.pages, pages, count);
        pool->options.freed(pool->options.user);
        return false;
    }
    put->of = pool;
    put->watch = (struct os_watch){ .fd = -1, .ready = look_at_put, .user = put };
    put->final = final;
    put->owner = owner;
    put->count = count;
    put->placement = *placement;
    for (uint32_t i = 0; i < count; i++) {
        put->ranges[i] = (struct mc_range){ pages[i], pool->options.page_bytes };
        put->puts[i] = (struct mc_put){
            .identity = identities[i], .ranges = &put->ranges[i], .count = 1, .status = MC_PENDING
        };
    }
    pool->put_blocks += count;
    *pool->waiting_end = put;
    pool->waiting_end = &put->next;
    return true;
}

bool pool_put(struct pool *pool, const struct mc_identity *identities, void *const *pages,
              uint32_t count, put_final *final, void *owner)
{
    return queue(pool, identities, pages, count, &(struct mc_placement){ 0 }, final, owner);
}

bool pool_copy(struct pool *pool, const struct mc_identity *identities, void *const *pages,
               uint32_t count, uint64_t node, put_final *final, void *owner)
{
    const struct mc_placement another = { .node = node, .flags = MC_PLACE_ANOTHER };

    return queue(pool, identities, pages, count, &another, final, owner);
}

void pool_go_on(struct pool *pool)
{
    start_puts(pool);
}

void pool_stop_puts(struct pool *pool, const void *owner)
{
    struct put **at = &pool->waiting, *ended = NULL;

    while (*at) {
        struct put *put = *at;
        if (put->owner != owner) {
            at = &put->next;
            continue;
        }
        *at = put->next;
        put->next = ended;
        ended = put;
    }
    pool->waiting_end = at;
    for (struct put *put = pool->busy; put; put = put->next)
        if (put->owner == owner)
            mc_store_request_cancel(put->request);
    while (ended) { /* telling may queue others */
        struct put *put = ended;
        ended = put->next;
        end_put(put);
    }
}

void pool_fini(struct pool *pool)
{
    if (!pool->waiting_end)
        return;
    while (pool->waiting) {
        struct put *put = pool->waiting;
        pool->waiting = put->next;
        end_put(put);
    }
    pool->waiting_end = &pool->waiting;
    while (pool->busy) {
        struct put *put = pool->busy;
        unlink_busy(pool, put);
        mc_store_request_cancel(put->request);
        while (mc_store_request_wait(put->request, MC_FOREVER) == MC_PENDING)
            ; /* a wait without a deadline returns when it is quiet */
        end_put(put);
    }
    while (pool->pulls) {
        struct pull *pull = pool->pulls;
        mc_store_request_cancel(pull->request);
        while (mc_store_request_wait(pull->request, MC_FOREVER) == MC_PENDING)
            ;
        finish_pull(pull);
    }
}
