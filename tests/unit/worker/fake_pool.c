/* fake_pool.c - objects in a table, found by their whole identity; one thread: that of the test. */
#include "fake_moves.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "os/clock.h"
#include "os/thread.h"

enum { OBJECTS = 512 };

struct object {
    struct mc_identity identity;
    uint64_t size;
    char *bytes;
    bool copied;
};

struct mc_store_request {
    struct mc_store_request *next;
    struct mc_get *gets;
    struct mc_put *puts;
    struct mc_placement placement;
    size_t count;
    uint64_t deadline_ns;
    mc_status status;
    bool cancelled;
    int fd;
};

struct mc_store {
    mc_transfer *transfer;
};

struct fake_moves fake_moves;
static struct object objects[OBJECTS];
static struct mc_store_request *requests;
static uint32_t stores;

void fake_moves_reset(void)
{
    assert(fake_stores() == 0);
    for (uint32_t i = 0; i < fake_moves.objects; i++)
        free(objects[i].bytes);
    fake_moves = (struct fake_moves){ 0 };
}

uint32_t fake_stores(void)
{
    uint32_t count = stores;

    for (const struct mc_store_request *r = requests; r; r = r->next)
        count++;
    return count;
}

mc_status mc_store_open(const struct mc_store_options *options, mc_store **store_p,
                        struct mc_error *error)
{
    (void)error;
    mc_store *store = calloc(1, sizeof(*store));
    assert(store);
    store->transfer = options->transfer;
    stores++;
    *store_p = store;
    return MC_OK;
}

void mc_store_close(mc_store *store)
{
    stores -= store != NULL;
    free(store);
}

static struct mc_store_request *ask(size_t count, uint64_t deadline_ns)
{
    struct mc_store_request *request = calloc(1, sizeof(*request));

    assert(request);
    request->count = count;
    request->deadline_ns = deadline_ns;
    request->status = MC_PENDING;
    if (os_event_open(&request->fd) != MC_OK)
        abort();
    request->next = requests;
    requests = request;
    return request;
}

mc_status mc_store_get_begin(mc_store *store, struct mc_get *gets, size_t count,
                             uint64_t deadline_ns, mc_store_request **request_p)
{
    (void)store;
    *request_p = ask(count, deadline_ns);
    (*request_p)->gets = gets;
    fake_moves.pulls++;
    fake_moves.pull_ns = deadline_ns - os_now_ns();
    return MC_OK;
}

mc_status mc_store_put_begin(mc_store *store, struct mc_put *puts, size_t count,
                             const struct mc_placement *placement, uint64_t deadline_ns,
                             mc_store_request **request_p)
{
    (void)store;
    *request_p = ask(count, deadline_ns);
    (*request_p)->puts = puts;
    (*request_p)->placement = placement ? *placement : (struct mc_placement){ 0 };
    return MC_OK;
}

static struct object *find_object(const struct mc_identity *identity)
{
    for (uint32_t i = 0; i < fake_moves.objects; i++)
        if (!memcmp(&objects[i].identity, identity, sizeof(*identity)))
            return &objects[i];
    return NULL;
}

static void get(struct mc_get *item, size_t number)
{
    const struct object *object = find_object(&item->identity);

    item->status = object && !(fake_moves.lose_pulls && number % 2) ? MC_OK : MC_E_NOT_FOUND;
    if (item->status != MC_OK)
        return;
    assert(item->count == 1 && item->ranges->size == object->size);
    memcpy(item->ranges->address, object->bytes, object->size);
    item->length = object->size;
}

/* An object that is there has the same bytes: that is what its name says. */
static void put(struct mc_put *item, const struct mc_placement *placement)
{
    struct object *object = find_object(&item->identity);

    if (object) {
        assert(!memcmp(object->bytes, item->ranges->address, object->size));
        item->status = MC_E_EXISTS;
        if ((placement->flags & MC_PLACE_ANOTHER) && !object->copied) {
            object->copied = true;
            fake_moves.copies++;
            fake_moves.copy_node = placement->node;
            item->status = MC_OK;
        }
        return;
    }
    assert(fake_moves.objects < OBJECTS);
    object = &objects[fake_moves.objects++];
    *object =
        (struct object){ item->identity, item->ranges->size, malloc(item->ranges->size), false };
    assert(object->bytes);
    memcpy(object->bytes, item->ranges->address, object->size);
    item->status = MC_OK;
}

static void try_request(struct mc_store_request *r)
{
    if (r->status != MC_PENDING)
        return;
    if (r->cancelled)
        r->status = MC_E_CANCELLED;
    else if (os_now_ns() > r->deadline_ns)
        r->status = MC_E_TIMEOUT;
    else if (!(r->gets ? fake_moves.hold_pulls : fake_moves.hold_puts))
        r->status = MC_OK;
    if (r->status == MC_PENDING)
        return;
    for (size_t i = 0; i < r->count && r->status == MC_OK; i++)
        if (r->gets)
            get(&r->gets[i], i);
        else
            put(&r->puts[i], &r->placement);
    os_event_raise(r->fd);
}

mc_status mc_store_request_poll(mc_store_request *request)
{
    return request->status;
}

mc_status mc_store_request_wait(mc_store_request *request, uint64_t deadline_ns)
{
    (void)deadline_ns;
    try_request(request);
    return request->status;
}

mc_status mc_store_request_fd(mc_store_request *request, int *fd_p)
{
    *fd_p = request->fd;
    return MC_OK;
}

mc_status mc_store_request_cancel(mc_store_request *request)
{
    request->cancelled = true;
    return MC_OK;
}

void mc_store_request_close(mc_store_request *request)
{
    struct mc_store_request **list = &requests;

    if (!request)
        return;
    while (*list != request)
        list = &(*list)->next;
    *list = request->next;
    os_event_close(request->fd);
    free(request);
}

void fake_move_requests(void)
{
    for (struct mc_store_request *r = requests; r; r = r->next)
        try_request(r);
}
